"""Encoder layers that keep heads, head sizes and neurons of their own; part of every checkpoint.

Modifications to transformers' layers, the same for every family:
- projections are as wide as `PrunedWidths` asks for; the scale of the logits stays the dense one's;
- attention also returns its queries and keys, which token rules use;
- queries and keys of another size than the values are padded with zeros for fused attention, whose
  fast kernels need one size: 3 to 6 times faster on a CPU than without them;
- a sublayer with no unit left adds the bias of its output projection; its layer norm is gone;
- on the CPU, large batches compute an MLP of odd width a few zero neurons wider: a matrix product
  whose result is 1237 columns wide takes a third longer than one of 1248;
- in inference quick GELU makes one new tensor, not three (`activate_in_place`, for dense layers as
  well).
"""

import functools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.jit import is_tracing  # type: ignore[attr-defined]  # public, but not in its __all__
from torch.nn.functional import linear, pad
from transformers import PreTrainedConfig
from transformers.activations import QuickGELUActivation
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import eager_attention_forward

EVEN_WIDTH = 16  # float32 numbers in a cache line
LARGE_BATCH = 2048  # tokens from which on a copy of fc1's weight costs less than it saves

FamilyModule = Any
"""A model, tower or layer of a family's own class; what is in it has the same name in all families,
but they share no base class that says so."""


def vision_tower(model: FamilyModule) -> FamilyModule:
    """The vision tower of a whole model; the model itself if it is one."""
    return getattr(model, "vision_model", model)


@dataclass(init=False, repr=False, eq=False)
class PrunedWidths:
    """What each layer of a tower keeps; None: all that the dense tower has.

    The sizes are those of each of a layer's heads: of its queries and keys, and of its values.
    """

    heads_per_layer: list[int] | None = None
    neurons_per_layer: list[int] | None = None
    query_key_sizes: list[int] | None = None
    value_sizes: list[int] | None = None


class Attended(NamedTuple):
    """What attention gives: its output [b, n, d], and what it was made of.

    `weights` [b, heads, n, n] are there if the implementation gives them; `queries` and `keys` are
    [b, heads, n, size]. A layer without heads has none of these.
    """

    output: Tensor
    weights: Tensor | None = None
    queries: Tensor | None = None
    keys: Tensor | None = None


class PrunedAttention:
    """Attention of `num_heads` heads of any sizes; over a family's own attention."""

    config: PreTrainedConfig
    training: bool
    num_heads: int
    query_key_size: int
    value_size: int
    scale: float
    dropout: float
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    out_proj: nn.Linear

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """What attention adds to the residual stream [batch, tokens, hidden], and its weights."""
        return self.attend(hidden_states, attention_mask, **kwargs)[:2]

    def attend(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Attended:
        """The same with queries and keys; arguments as in `forward`."""
        if not self.num_heads:
            return Attended(self.out_proj.bias.expand_as(hidden_states))
        queries = self._heads(self.q_proj(hidden_states))
        keys = self._heads(self.k_proj(hidden_states))
        inputs: Iterable[Tensor] = (queries, keys, self._heads(self.v_proj(hidden_states)))
        kind = self.config._attn_implementation
        if kind != "eager" and self.query_key_size != self.value_size:
            even = max(self.query_key_size, self.value_size)
            inputs = (pad(tensor, (0, even - tensor.shape[-1])) for tensor in inputs)
        context, weights = ALL_ATTENTION_FUNCTIONS.get(kind, eager_attention_forward)(
            self,
            *inputs,
            attention_mask,
            scaling=self.scale,
            dropout=self.dropout if self.training else 0.0,
            **kwargs,
        )
        output = self.out_proj(context[..., : self.value_size].flatten(2))
        return Attended(output, weights, queries, keys)

    def _heads(self, projected: Tensor) -> Tensor:
        """[batch, heads, tokens, size] of [batch, tokens, heads * size]."""
        by_head: Tensor = projected.unflatten(-1, (self.num_heads, -1))
        return by_head.transpose(1, 2)


class PrunedMLP:
    """An MLP of any width; over a family's own MLP."""

    fc1: nn.Linear
    fc2: nn.Linear
    activation_fn: nn.Module

    def forward(self, hidden_states: Tensor) -> Tensor:
        """What the MLP adds to the residual stream, [batch, tokens, hidden] for as much."""
        width = self.fc1.out_features
        if not width:
            return self.fc2.bias.expand_as(hidden_states)
        extra = -width % EVEN_WIDTH
        if not extra or not self._worth_padding(hidden_states):
            return super().forward(hidden_states)  # type: ignore[misc, no-any-return]
        weight, bias = pad(self.fc1.weight, (0, 0, 0, extra)), pad(self.fc1.bias, (0, extra))
        added: Tensor = self.fc2(
            self.activation_fn(linear(hidden_states, weight, bias))[..., :width]
        )
        return added

    def _worth_padding(self, hidden_states: Tensor) -> bool:
        """Only in plain inference in large batches: adapters and hooks of fc1 must see it used."""
        return (
            hidden_states.device.type == "cpu"
            and not torch.is_grad_enabled()
            and not _is_traced()
            and type(self.fc1) is nn.Linear
            and hidden_states.shape[:-1].numel() >= LARGE_BATCH
            and not is_watched(self.fc1, self.activation_fn)
        )


_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def is_watched(*modules: nn.Module) -> bool:
    """Whether hooks, or a forward method put in its place, see what one of the modules gives.

    Or the gradient that comes back to it.
    """
    everywhere = nn.modules.module
    return any(getattr(everywhere, f"_global{kind}") for kind in _HOOKS) or any(
        "forward" in vars(module) or any(getattr(module, kind) for kind in _HOOKS)
        for module in modules
    )


class InPlaceQuickGELU(QuickGELUActivation):
    """x · sigmoid(1.702 x), bit for bit; in inference without two of the three new tensors.

    Getting memory for them from the system took 8 % of a ViT-B/16's time on a CPU. What is
    overwritten is the one tensor made here; hooks of fc1 may hold `input`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same shape, a new tensor."""
        if torch.is_grad_enabled() or _is_traced():
            return super().forward(input)
        return (1.702 * input).sigmoid_().mul_(input)


def _is_traced() -> bool:
    """Whether a graph is being made of what runs, for other batches than this one."""
    return torch.compiler.is_compiling() or is_tracing()


def activate_in_place(tower: FamilyModule) -> None:
    """Let the MLPs of a tower, dense or pruned, compute quick GELU in one new tensor."""
    for layer in tower.encoder.layers:
        if type(layer.mlp.activation_fn) is QuickGELUActivation:
            layer.mlp.activation_fn = InPlaceQuickGELU()


def narrow_tower(tower: FamilyModule, always: bool = False) -> None:
    """Make the layers of a dense tower as wide as its configuration says.

    If it says nothing they stay as transformers has them, unless `always`.
    """
    config = tower.config
    asked = {field.name: getattr(config, field.name, None) for field in fields(PrunedWidths)}
    if all(widths is None for widths in asked.values()) and not always:
        return
    layers, head_dim = tower.encoder.layers, config.hidden_size // config.num_attention_heads
    dense = (config.num_attention_heads, config.intermediate_size, head_dim, head_dim)
    kept = []
    for (name, widths), most in zip(asked.items(), dense, strict=True):
        if widths is not None and len(widths) != len(layers):
            raise ValueError(
                f"the tower has {len(layers)} layers, but {name} has {len(widths)} entries"
            )
        kept.append([most] * len(layers) if widths is None else widths)
    for layer, *of_layer in zip(layers, *kept, strict=True):
        _narrow_layer(layer, *of_layer)
    activate_in_place(tower)


def _narrow_layer(
    layer: FamilyModule, heads: int, neurons: int, query_key_size: int, value_size: int
) -> None:
    """Give a dense layer these many heads, of these sizes, and neurons; either may be 0."""
    if heads and not (query_key_size and value_size):
        raise ValueError("a layer that keeps heads must keep a query-key and a value dimension")
    attention, mlp, hidden = layer.self_attn, layer.mlp, layer.embed_dim
    attention.__class__ = mixed(PrunedAttention, attention.__class__)
    attention.num_heads = heads
    attention.query_key_size, attention.value_size = query_key_size, value_size
    attention.q_proj = _linear(hidden, heads * query_key_size)
    attention.k_proj = _linear(hidden, heads * query_key_size)
    attention.v_proj = _linear(hidden, heads * value_size)
    attention.out_proj = _linear(heads * value_size, hidden)
    mlp.__class__ = mixed(PrunedMLP, mlp.__class__)
    mlp.fc1, mlp.fc2 = _linear(hidden, neurons), _linear(neurons, hidden)
    if not heads:
        layer.layer_norm1 = nn.Identity()
    if not neurons:
        layer.layer_norm2 = nn.Identity()


def _linear(inputs: int, outputs: int) -> nn.Linear:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        made = nn.Linear(inputs, outputs)
    if not made.weight.numel():  # some families' initial values divide by a width
        made._is_hf_initialized = True  # type: ignore[assignment]  # no submodule
    return made


@functools.cache
def mixed(mixin: type, own: type) -> type:
    """A family's own class with `mixin` over it: still an instance of what transformers knows.

    No module holds it under a name, so its instances are pickled and copied as what it is made of.
    """
    name = f"Pruned{own.__name__}"
    told = {"__module__": __name__, "__reduce_ex__": _reduce_mixed, "made_of": (mixin, own)}
    return type(name, (mixin, own), told)


def _reduce_mixed(module: nn.Module, protocol: int) -> str | tuple[Any, ...]:
    """How pickle makes an instance of a mixed class again; a subclass of one is as any other."""
    reduced = object.__reduce_ex__(module, max(protocol, 2))
    parts = vars(type(module)).get("made_of")
    return reduced if parts is None else (_empty_mixed, parts, *reduced[2:])


def _empty_mixed(mixin: type, own: type) -> nn.Module:
    made: nn.Module = object.__new__(mixed(mixin, own))
    return made
