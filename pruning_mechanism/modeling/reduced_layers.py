"""The layers of a tower that works by token rules, of images or texts; part of every checkpoint.

Beside `reduced_tower` and `reduced_text`, which say what goes into the layers and what is read off
them. Between a layer's attention and its MLP tokens get fewer; from then on each stands for as many
as its size says, and attention counts it so often (ToMe's proportional attention, arXiv 2210.09461,
equation 1).
"""

from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig

from .pruned_layers import Attended, FamilyModule
from .token_rule import Change, TokenRule, Tokens, known_sizes, size_bias


class ReducedLayers:
    """What towers that work by `rules` have in common."""

    rules: tuple[TokenRule, ...]
    encoder: FamilyModule

    def bias(self, hidden: Tensor, sizes: Tensor | None) -> Tensor | None:
        """What is added to the logits of a layer that is given tokens [b, n, d] of these sizes."""
        return size_bias(hidden, sizes)

    def through(
        self,
        index: int,
        hidden: Tensor,
        sizes: Tensor | None,
        weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The stream [b, n, d] and its tokens' sizes [b, n] after a layer; sizes None: all 1.

        The layer's attention [b, heads, n, n] is added to `weights`, if the implementation gives
        it.
        """
        tokens = hidden.shape[1]
        if weights is None and all(rule.left(index, tokens) == tokens for rule in self.rules):
            return self.encoder.layers[index](hidden, self.bias(hidden, sizes)), sizes
        hidden, sizes = self.attend_and_reduce(index, hidden, sizes, weights)
        return self.feed(index, hidden), sizes

    def attend_and_reduce(
        self,
        index: int,
        hidden: Tensor,
        sizes: Tensor | None,
        weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The stream and its tokens' sizes after a layer's attention and what rules do then."""
        layer = self.encoder.layers[index]
        asked = {} if weights is None else {"output_attentions": True}
        hidden, normed, attended = self.attend(index, hidden, sizes, **asked)
        if weights is not None and attended.weights is not None:
            weights.append(attended.weights)
        tokens = Tokens(layer, hidden, sizes, normed, attended)
        for rule in self.rules:
            left = rule.left(index, tokens.hidden.shape[1])
            if left != tokens.hidden.shape[1]:
                known = known_sizes(tokens.sizes, tokens.hidden)
                changed = self.changed(rule.change(index, tokens), tokens.hidden, known)
                tokens = Tokens(layer, *changed)
                if tokens.hidden.shape[1] != left:
                    raise ValueError(
                        f"{type(rule).__name__} leaves {tokens.hidden.shape[1]} tokens in layer "
                        f"{index + 1}, but said that {left} would be left"
                    )
        return tokens.hidden, tokens.sizes

    @staticmethod
    def changed(change: Change, hidden: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and sizes after a change; replaced on a tower to follow where tokens go."""
        return change(hidden, sizes)

    def attend(
        self, index: int, hidden: Tensor, sizes: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor, Attended]:
        """The stream after a layer's attention, what that was given, and what it gave."""
        layer = self.encoder.layers[index]
        normed = layer.layer_norm1(hidden)
        attended = layer.self_attn.attend(normed, self.bias(hidden, sizes), **kwargs)
        return hidden + attended.output, normed, attended

    def feed(self, index: int, hidden: Tensor) -> Tensor:
        """The stream after a layer's MLP, given that before it."""
        layer = self.encoder.layers[index]
        added: Tensor = layer.mlp(layer.layer_norm2(hidden))
        return hidden + added


def as_asked(config: PreTrainedConfig, **asked: Any) -> list[Any]:
    """Arguments of a forward pass; those that are None are as the configuration says."""
    return [
        getattr(config, name, None) if given is None else given for name, given in asked.items()
    ]


def selected(states: list[Tensor], asked: bool | int | list[int]) -> tuple[Tensor | None, ...]:
    """All hidden states, or those that transformers' numbers ask for, the others None."""
    if asked is True:
        return tuple(states)
    numbers = [asked] if isinstance(asked, int) else asked
    wanted = {number % len(states) for number in numbers if -len(states) <= number < len(states)}
    return tuple(state if place in wanted else None for place, state in enumerate(states))
