"""A sublayer of a tower: attention or MLP, with the output projection that units are cut from."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from pruning_mechanism.protocols import Attention


@dataclass(frozen=True)
class Sublayer:
    """An attention or MLP sublayer: hidden += output(units of body(norm(hidden))).

    `output` (out_proj or fc2) takes `units` groups of `unit_width` inputs each: the heads' context
    vectors (the layer's value size), or the neurons' activations (1). With `causal` a token attends
    to itself and those before it. Where no unit is left, `norm` is an `nn.Identity`.
    """

    layer: int
    kind: Literal["heads", "neurons"]
    norm: nn.Module
    body: nn.Module
    output: nn.Linear
    unit_width: int
    causal: bool = False

    @property
    def units(self) -> int:
        """How many heads or neurons there are."""
        return self.output.in_features // self.unit_width

    @property
    def attention(self) -> Attention:
        """The body of a sublayer of heads, with its projections.

        Raises:
            ValueError: the sublayer is an MLP.
        """
        if self.kind != "heads":
            raise ValueError(f"layer {self.layer}'s {self.kind} sublayer is no attention")
        return cast("Attention", self.body)

    def __call__(self, hidden: Tensor) -> Tensor:
        """The residual stream [b, n, d] after this sublayer."""
        if not self.units:
            return hidden + self.output.bias
        return hidden + self._added(hidden)

    def features(self, hidden: Tensor) -> Tensor:
        """What the output projection gets, [b, n, units * unit_width], for a stream [b, n, d]."""
        if not self.units:
            return hidden[..., :0]
        seen: list[Tensor] = []
        with self.watch(seen.append):
            self._added(hidden)
        return seen[0]

    def _added(self, hidden: Tensor) -> Tensor:
        normed = self.norm(hidden)
        if self.causal:
            result = self.body(normed, attention_mask=causal_mask(normed), is_causal=False)
        else:
            result = self.body(normed)
        # attention gives its weights too
        added: Tensor = result[0] if isinstance(result, tuple) else result
        return added

    @contextmanager
    def watch(self, hook: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """Within the context `hook` sees the output projection's input, and may replace it."""

        def pre_hook(_module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
            changed = hook(args[0])
            return None if changed is None else (changed,)

        handle = self.output.register_forward_pre_hook(pre_hook)
        try:
            yield
        finally:
            handle.remove()


def causal_mask(hidden: Tensor) -> Tensor:
    """What is added to the logits [b, heads, n, n] so that no token of [b, n, d] looks ahead."""
    tokens = hidden.shape[1]
    lowest = torch.finfo(hidden.dtype).min
    return hidden.new_full((1, 1, tokens, tokens), lowest).triu(1)
