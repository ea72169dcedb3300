"""What a token rule is: one object that says all about one way to make a tower cheaper.

A token rule leaves out tokens, or layers, or pixels, or changes what the embedding is read off. It
is a frozen dataclass whose fields are the entries that it has in a tower's configuration, None
where nothing is asked of it. Its methods say what these may be, how many tokens are left where, and
what is done to them. `token_rules` lists the rules; everything else goes through that list and
names none of them.

Part of every checkpoint, beside `modeling_pruned_clip`. For vision towers with a class token (CLIP,
MetaCLIP 2, AltCLIP, Chinese-CLIP), whose parts have the same names; token 0 is the class token. And
for text towers that read the embedding off the end of a text (CLIP, MetaCLIP 2).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from .pruned_layers import Attended, FamilyModule

Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From tokens [b, n, d] and their sizes [b, n] to fewer tokens and theirs; linear in the tokens."""


class TowerSizes(Protocol):
    """A tower's configuration, or anything with the entries that rules read; of images the last."""

    hidden_size: int
    num_hidden_layers: int
    image_size: int
    patch_size: int


class Tokens(NamedTuple):
    """The tokens between a layer's attention and its MLP.

    `hidden` [b, n, d] is the residual stream, `sizes` [b, n] how many patches, or tokens of a text,
    each token stands for; None: one each, 0: padding. `normed` is what the attention was given and
    `attended` what it gave; both are None once another rule has changed the tokens of this layer.
    """

    layer: FamilyModule
    hidden: Tensor
    sizes: Tensor | None
    normed: Tensor | None = None
    attended: Attended | None = None


@dataclass(frozen=True)
class TokenRule:
    """One way to make a tower cheaper; a subclass overrides what it has to say.

    A subclass is a frozen dataclass, too. Its fields are the entries of the configuration that
    belong to it; they have the default None and must be what JSON can hold.
    """

    per_layer: ClassVar[tuple[str, ...]] = ()
    """Fields that have one number for each layer; an early exit cuts them off."""
    tower: ClassVar[Literal["vision", "text"]] = "vision"
    """Which towers it is for. Of a text only the tokens of its layers can change."""

    # --- what is asked ---

    @classmethod
    def of(cls, config: object) -> "TokenRule":
        """The rule as a tower's configuration asks for it."""
        return cls(**{field.name: getattr(config, field.name, None) for field in fields(cls)})

    @property
    def is_asked(self) -> bool:
        """Whether the configuration says anything to this rule."""
        return any(getattr(self, field.name) is not None for field in fields(self))

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """The keyword arguments of `Reduction` that ask for this rule: usually its fields."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def entries(cls, config: TowerSizes, **asked: Any) -> dict[str, Any]:
        """The entries that a tower's configuration has once these settings are asked for.

        Args:
            config: the tower's configuration as it is.
            asked: those of the `settings` that aren't None.

        Raises:
            ValueError: the tower can't do that.
        """
        return asked

    def check(self, config: TowerSizes, beside: Sequence["TokenRule"]) -> None:
        """Raise `ValueError`, in one line, unless a tower can do what is asked.

        Args:
            config: the sizes of the tower, as they are to be.
            beside: all rules that are asked for, this one included.
        """

    def dense_sizes(self) -> dict[str, int]:
        """The entries of the tower's sizes that were others before this rule: as they were."""
        return {}

    # --- what is left ---

    def sides(self) -> tuple[tuple[int, float], ...]:
        """Sides of images in pixels, each with its share of the images; (): all have the tower's.

        A rule that has any implements `at_own_sizes` as well.
        """
        return ()

    def patches(self, patches: int) -> int:
        """How many of an image's patches are embedded."""
        return patches

    def left(self, layer: int, tokens: int) -> int:
        """How many of the tokens that leave a layer's attention enter its MLP.

        Args:
            layer: counted from 0.
            tokens: how many there are before this rule, class token included, or start and end.
        """
        return tokens

    def compared(self, layer: int, tokens: int) -> int:
        """How many pairs of a layer's tokens are compared by their keys; these cost MACs."""
        return 0

    def final_macs(self, hidden: int, outputs: int) -> int | None:
        """MACs of the projection [hidden → outputs] in place of a linear one; None: that stays."""
        return None

    # --- what is done ---

    def fit(self, root: FamilyModule, config: TowerSizes) -> None:
        """Change the layers and tensors of a vision tower, in place, to fit its new configuration.

        Runs once when a model is reduced, on a copy of the model before; doing it again changes
        nothing. `config` holds the new entries, `root.config` those before.
        """

    def build(self, model: FamilyModule) -> None:
        """Add modules to a model that is being made from its configuration, in place.

        Args:
            model: a whole model or a vision tower with its projection.
        """

    def chooser(self, config: TowerSizes) -> Callable[[Tensor], Tensor] | None:
        """What says which patches of pixels [b, c, height, width] are embedded; None: all.

        It returns their places, ascending, int64 [kept], or [b, kept] where each image has its own.
        Called once when the tower is made, perhaps on the meta device, so that what is drawn at
        random is the same in every pass and in exported graphs.
        """
        return None

    def at_own_sizes(self, pixels: Tensor, pooled: Callable[[Tensor], Tensor]) -> Tensor:
        """What is read off images [b, d], each computed at one of the `sides`.

        Args:
            pixels: at the size that the tower takes, [b, c, s, s].
            pooled: what is read off images of one size, [n, c, side, side] → [n, d].
        """
        raise NotImplementedError(f"{type(self).__name__} has sides, but no at_own_sizes")

    def change(self, layer: int, tokens: Tokens) -> Change:
        """How the tokens of a layer change; asked only where `left` says that fewer are left."""
        raise NotImplementedError(f"{type(self).__name__} leaves fewer tokens, but has no change")

    def pool(self, root: FamilyModule, hidden: Tensor, sizes: Tensor | None) -> Tensor | None:
        """What the projection gets of the last stream [b, n, d]; None: the class token, normed.

        Where `reads_patches` says no, the stream may be the class token's alone, [b, 1, d].
        """
        return None

    def reads_patches(self) -> bool:
        """Whether `pool` reads more of the last stream than the class token.

        Where no rule does, the last layer is computed for the class token alone (`class_token`).
        """
        return type(self).pool is not TokenRule.pool


def known_sizes(sizes: Tensor | None, hidden: Tensor) -> Tensor:
    """The tokens' sizes [b, n], float32: half precision doesn't count beyond 256 or 2048."""
    return hidden.new_ones(hidden.shape[:2], dtype=torch.float32) if sizes is None else sizes


def size_bias(hidden: Tensor, sizes: Tensor | None) -> Tensor | None:
    """What is added to logits [b, heads, n, n] so that a token counts as often as its size says.

    ToMe's proportional attention (arXiv 2210.09461, equation 1).
    """
    return None if sizes is None else sizes.log()[:, None, None].to(hidden.dtype)
