"""A pruned tower with its dense widths again computes what it did."""

import pytest
import torch

from pruning_mechanism import Mask, Reduction, Tower, is_pruned, macs, prune, reduce
from pruning_mechanism.widening import widened
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import (
    TOWERS,
    random_mask,
    random_slim_mask,
    tiny_inputs,
    tiny_model,
)


@pytest.mark.parametrize(("family", "kind"), TOWERS)
@pytest.mark.parametrize("make_mask", [random_mask, random_slim_mask])
@pytest.mark.parametrize("seed", sweep(range(2), (0,)))
@torch.no_grad()
def test_embeddings_stay_and_what_is_alive_is_told(family, kind, seed, make_mask):
    model, mask = tiny_model(family), make_mask(seed)
    smaller = prune(model, mask, kind)
    wide, inputs = widened(smaller, kind), tiny_inputs(kind)
    assert not is_pruned(wide.model, kind)
    assert is_pruned(smaller, kind)  # left as it was
    torch.testing.assert_close(
        Tower.of(wide.model, kind).embeddings(inputs),
        Tower.of(smaller, kind).embeddings(inputs),
        rtol=1e-5,
        atol=1e-5,
    )
    assert wide.alive.tensors.keys() <= mask.tensors.keys()
    with_heads = mask.heads.any(1)
    for name, own in mask.tensors.items():
        told = wide.alive.tensors.get(name, torch.ones_like(own))
        layers = with_heads if name.endswith("dims") else slice(None)
        assert told[layers].sum(1).tolist() == own[layers].sum(1).tolist()
        assert told.shape == own.shape


@pytest.mark.parametrize("make_mask", [random_mask, random_slim_mask])
@torch.no_grad()
def test_pruned_to_what_is_alive_it_is_as_small_as_before(make_mask):
    smaller = prune(tiny_model("clip"), make_mask(1))
    wide = widened(smaller)
    again, inputs = prune(wide.model, wide.alive), tiny_inputs("vision")
    assert macs(again) == macs(smaller)
    torch.testing.assert_close(
        Tower.of(again).embeddings(inputs), Tower.of(smaller).embeddings(inputs)
    )


@torch.no_grad()
def test_a_tower_that_exits_early_is_widened_as_it_is():
    ended = reduce(tiny_model("clip"), Reduction(layers=2))
    mask = random_mask(0)
    smaller = prune(ended, Mask(mask.heads[:2], mask.neurons[:2]))
    wide, inputs = widened(smaller), tiny_inputs("vision")
    assert wide.model.config.vision_config.num_hidden_layers == 2
    torch.testing.assert_close(
        Tower.of(wide.model).embeddings(inputs),
        Tower.of(smaller).embeddings(inputs),
        rtol=1e-5,
        atol=1e-5,
    )
