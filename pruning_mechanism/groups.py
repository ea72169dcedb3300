"""Which patches of an image a vision tower's tokens stand for, where it leaves out or joins some.

A tower is watched while it runs: whatever a rule does to its tokens is done to rows of an identity
matrix as well, which shows where each token went. For pictures and tests; no part of a checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pruning_mechanism.families import TowerError
from pruning_mechanism.modeling.reduced_tower import KeptPatches, ReducedTower
from pruning_mechanism.modeling.token_rule import Change
from pruning_mechanism.modeling.token_rules import has_several_sizes
from pruning_mechanism.tower import Tower, vision_config

DROPPED = -1


@torch.no_grad()
def patch_groups(model: PreTrainedModel, pixels: Tensor) -> Tensor:
    """The token that each patch is part of after the last layer, int64 [b, patches] on the CPU.

    Tokens are counted from 0, the class token apart; a patch that was left out has -1. Patches go
    row by row.

    Args:
        model: a CLIP or its vision tower, with a class token.
        pixels: images as it takes them, [b, c, height, width].

    Raises:
        TowerError: the tower has no class token, or reduces images to several sizes, whose patches
            differ.
    """
    tower = Tower.of(model)
    root, config = tower.root, vision_config(model.config)
    if tower.parts.pooling != "first" or has_several_sizes(config):
        raise TowerError("only images of one size, of a tower with a class token, have groups")
    rows, columns = (side // config.patch_size for side in pixels.shape[-2:])
    if isinstance(root.embeddings, KeptPatches):
        cast = pixels.to(model.device, root.embeddings.patch_embedding.weight.dtype)
        kept = root.embeddings.kept(cast)
    else:
        kept = torch.arange(rows * columns)
    kept = kept.cpu().expand(len(pixels), -1)
    places = torch.arange(1, kept.shape[1] + 1).expand(kept.shape)
    if isinstance(root, ReducedTower):
        with _followed(root, places) as followed:
            tower.embeddings(pixels.to(model.device, model.dtype))
        places = followed[-1]
    groups = kept.new_full((len(pixels), rows * columns), DROPPED)
    return groups.scatter(1, kept, places - 1)


@contextmanager
def _followed(root: ReducedTower, places: Tensor) -> Iterator[list[Tensor]]:
    """The places of tokens, [b, k], at first as given and then after every change to the tokens."""
    found = [places]

    def changed(change: Change, hidden: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.eye(hidden.shape[1], device=hidden.device)
        shares = change(one.repeat(len(hidden), 1, 1), sizes)[0]
        largest = shares.max(dim=1)
        # a share too small to be told from 0 is one of the fused token, the last
        now = largest.indices.where(largest.values > 0, shares.shape[1] - 1)
        found.append(now.cpu().gather(1, found[-1]))
        return change(hidden, sizes)

    root.changed = changed  # type: ignore[method-assign]  # as its docstring says
    try:
        yield found
    finally:
        del root.changed
