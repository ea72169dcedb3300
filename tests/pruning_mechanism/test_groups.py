"""Where patches go: what a tower's own sizes say, seen from the patches."""

import pytest
import torch

from pruning_mechanism import Reduction, Tower, TowerError, reduce
from pruning_mechanism.groups import patch_groups
from pruning_mechanism.modeling.tokens import grid_patches, salient_patches
from tests.conftest import tiny_clip

PIXELS = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))
MERGING = {"merged_per_layer": (3, 3, 2)}
RANKING = {"ranked_per_layer": (0, 6, 0), "ranker": "attention"}


def last_sizes(model, pixels):
    """How many patches each token but the class token stands for at the end, [b, n]."""
    tower = Tower.of(model)
    hidden, sizes = tower.embed(pixels), None
    for layer in range(len(tower.layers)):
        hidden, sizes = tower.root.through(layer, hidden, sizes)
    return hidden.new_ones(hidden.shape[:2])[:, 1:] if sizes is None else sizes[:, 1:]


@pytest.mark.parametrize(
    "given",
    [
        MERGING,
        RANKING,
        RANKING | MERGING,
        {"ranked_per_layer": (9, 5, 2), "ranker": "attention"},
        {"kept_patches": 7, "patch_rule": "saliency"} | MERGING,
        {"kept_patches": 5, "patch_rule": "random", "patch_seed": 2},
        {"merged_per_layer": (100, 100, 100)},
    ],
    ids=str,
)
@torch.no_grad()
def test_groups_are_as_large_as_the_tower_says_its_tokens_are(given):
    model = reduce(tiny_clip(), Reduction(**given))
    sizes, groups = last_sizes(model, PIXELS), patch_groups(model, PIXELS)
    for own, group in zip(sizes, groups, strict=True):
        assert torch.bincount(group[group >= 0], minlength=len(own)).tolist() == own.tolist()
        assert (group >= 0).sum() == given.get("kept_patches", 16)


def test_watching_changes_neither_the_tower_nor_what_it_gives():
    model = reduce(tiny_clip(), Reduction(**RANKING, **MERGING))
    tower = Tower.of(model)
    with torch.no_grad():
        before, names = tower.embeddings(PIXELS), set(vars(tower.root))
        patch_groups(model, PIXELS)
        assert torch.equal(tower.embeddings(PIXELS), before)
    assert set(vars(tower.root)) == names


def test_patches_that_are_left_out_are_in_no_group():
    grid = reduce(tiny_clip(), Reduction(kept_patches=6, patch_rule="grid"))
    salient = reduce(tiny_clip(), Reduction(kept_patches=6, patch_rule="saliency"))
    for group in patch_groups(grid, PIXELS):
        assert (group >= 0).nonzero().flatten().tolist() == grid_patches(4, 4, 6).tolist()
    kept = (patch_groups(salient, PIXELS) >= 0).nonzero()[:, 1].reshape(5, 6)
    assert torch.equal(kept, salient_patches(PIXELS, (4, 4), 6))


def test_a_dense_tower_has_a_token_for_each_patch():
    assert torch.equal(patch_groups(tiny_clip(), PIXELS), torch.arange(16).expand(5, -1))


def test_ranking_keeps_some_patches_and_fuses_the_others_into_the_last_token():
    groups = patch_groups(reduce(tiny_clip(), Reduction(**RANKING)), PIXELS)
    for group in groups:
        assert torch.bincount(group).tolist() == [1] * 6 + [10]


def test_merging_joins_patches_that_are_alike():
    """Two colours, no positions, keys that show colours: no token has patches of both at first."""
    model = tiny_clip()
    with torch.no_grad():
        model.vision_model.embeddings.position_embedding.weight.zero_()
    colours = torch.zeros(1, 3, 4, 4)
    colours[..., :2] = 2.0
    pixels = colours.repeat_interleave(4, 2).repeat_interleave(4, 3)
    reduced = reduce(model, Reduction(merged_per_layer=(7, 0, 0)))
    (group,) = patch_groups(reduced, pixels)
    left = (torch.arange(16) % 4 < 2).tolist()
    for number in group.unique():
        members = (group == number).nonzero().flatten().tolist()
        assert len({left[patch] for patch in members}) == 1


def test_images_of_several_sizes_have_no_groups():
    given = {"resolutions": (8, 16), "resolution_bounds": (0.1,), "resolution_shares": (0.5, 0.5)}
    with pytest.raises(TowerError, match="one size"):
        patch_groups(reduce(tiny_clip(), Reduction(**given)), PIXELS)
