"""What is decided and solved doesn't depend on how a tower is written.

A head's values, queries and keys may be in any basis, its values and keys may carry any constant,
and units come in any order: the tower computes the same, so masks must be the same and the smaller
towers equally good. All in float64, where what rounding leaves is far below what a dependence on
coordinates would.
"""

import copy
from dataclasses import replace
from itertools import cycle, product

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor

from compress import baseline, fisher, sensitivity
from compress.allocation.allocate import by_curves
from compress.allocation.curves import measure_curves
from compress.allocation.head_dim_curves import measure_dim_curves
from compress.budgets.budgets import MacBudget
from compress.budgets.prices import Prices
from compress.budgets.token_prices import MacPrices
from compress.calibrating.cache import Cache
from compress.calibrating.calibration import Calibration
from compress.calibrating.importance import Importance
from compress.calibrating.moments import dense_moments
from compress.calibrating.token_weights import token_weights
from compress.choices import Sampling, Thoroughness
from compress.making.source import Source
from compress.searching import combinations
from compress.searching.combinations import best_combinations
from compress.searching.search import Search
from compress.solving.eliminate import importance_of
from compress.solving.head_dims import rotate_tower, turn
from compress.solving.repair import repair_tower
from pruning_mechanism import Mask, Tower, prune
from pruning_mechanism.checkpoints.opened import Checkpoint
from pruning_mechanism.heads import constants_moved
from tests.compress.losses import embedding_loss
from tests.compress.same_function import CHANGES
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import CONTEXT, END, WORDS, tiny_model

KINDS = ("vision", "text")
every_kind = pytest.mark.parametrize("kind", KINDS)
some_of_each = pytest.mark.parametrize(
    ("change", "kind"),
    sweep(product(CHANGES, KINDS), [("recombined_heads", "vision"), ("scaled_values", "text")]),
)
each_once = pytest.mark.parametrize(
    ("change", "kind"),
    sweep(product(CHANGES, KINDS), list(zip(CHANGES, cycle(KINDS), strict=False))),
)


def sample(count: int, seed: int, batch_size: int = 8) -> Calibration:
    """Noise with captions of random words, the pixels in float64."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    words = [draw.integers(2, WORDS, draw.integers(1, CONTEXT)).tolist() for _ in range(count)]
    rows = {
        "image": [Image.fromarray(each) for each in pixels],
        "caption": [" ".join(map(str, each)) for each in words],
        "key": [str(each) for each in range(count)],
    }
    return Calibration(Dataset.from_dict(rows), (), doubles, tokens, batch_size)


def doubles(images, return_tensors) -> dict[str, Tensor]:
    """What a processor gives, in float64."""
    assert return_tensors == "pt"
    stacked = torch.tensor(np.stack([np.array(each) for each in images])).double()
    return {"pixel_values": stacked.movedim(-1, 1) / 64 - 2}


def tokens(captions) -> dict[str, Tensor]:
    """Captions of numbers as a text tower takes them, ended and padded by the end."""
    found = torch.full((len(captions), CONTEXT), END)
    for row, caption in zip(found, captions, strict=True):
        own = torch.tensor([int(word) for word in caption.split()])
        row[: len(own)] = own
    return {"input_ids": found}


IMAGES, UNSEEN = sample(48, 1), sample(32, 2)


def pair(change: str, kind: str) -> tuple[Tower, Tower]:
    """A tower and the same in other coordinates."""
    model = tiny_model("clip").double()
    changed = CHANGES[change](model, torch.Generator().manual_seed(3), kind)
    return Tower.of(model, kind), Tower.of(changed, kind)


def orders(change: str, tower: Tower) -> dict[str, Tensor]:
    """For each kind of units which old one each new one is, [L, u]."""
    generator, found = torch.Generator().manual_seed(3), {"heads": [], "neurons": []}
    for part in tower.sublayers:
        own = torch.arange(part.units)
        moved = change == "permuted_units"
        found[part.kind].append(torch.randperm(part.units, generator=generator) if moved else own)
    return {name: torch.stack(each) for name, each in found.items()}


def as_changed(values: Tensor, order: Tensor) -> Tensor:
    """What the old units of some layers, the first, have [l, u], in the order of the new ones."""
    return values.gather(1, order[: len(values)])


def changed_mask(mask: Mask, change: str, tower: Tower) -> Mask:
    order = orders(change, tower)
    return replace(
        mask,
        heads=as_changed(mask.heads, order["heads"]),
        neurons=as_changed(mask.neurons, order["neurons"]),
    )


def expect_same_scores(first: Importance, second: Importance, change: str, tower: Tower) -> None:
    order = orders(change, tower)
    for name in ("heads", "neurons"):
        expected = as_changed(getattr(first, name), order[name])
        torch.testing.assert_close(
            getattr(second, name), expected, rtol=1e-5, atol=1e-7 * expected.abs().max().item()
        )


def some(tower: Tower) -> Mask:
    """About half of the units of each sublayer."""
    dense = Mask.dense(tower.model.config, tower.kind)
    generator = torch.Generator().manual_seed(5)

    def half(units: Tensor) -> Tensor:
        order = torch.rand(units.shape, generator=generator).argsort(1)
        return order < units.shape[1] / 2

    return Mask(half(dense.heads), half(dense.neurons))


@each_once
def test_the_changed_tower_computes_the_same(change, kind):
    first, second = pair(change, kind)
    assert embedding_loss(first, second, UNSEEN) < 1e-12
    weights = zip(first.root.parameters(), second.root.parameters(), strict=True)
    assert any(not torch.allclose(one, other, rtol=1e-2) for one, other in weights)


@every_kind
def test_where_constants_are_moved_the_tower_is_the_same_and_afterwards_itself(kind):
    model = tiny_model("clip").double()
    tower, before = Tower.of(model, kind), copy.deepcopy(model.state_dict())
    own = copy.deepcopy(tower.model)
    with constants_moved(tower.sublayers):
        assert not any(part.body.v_proj.bias.any() for part in tower.sublayers[::2])
        assert embedding_loss(Tower.of(own, kind), tower, UNSEEN) < 1e-12
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())


@some_of_each
@pytest.mark.parametrize("repair", ["rescale", "reconstruct"])
def test_repair_is_the_same(change, kind, repair):
    losses, errors = [], []
    towers = pair(change, kind)
    mask = some(towers[0])
    weights = token_weights(towers[0], IMAGES)
    for tower, kept in zip(towers, (mask, changed_mask(mask, change, towers[0])), strict=True):
        smaller = Tower.of(prune(tower.model, kept, kind), kind)
        repairs = repair_tower(tower, smaller, IMAGES, repair, weights=weights)
        errors.append([each.error_after for each in repairs])
        losses.append(embedding_loss(tower, smaller, UNSEEN))
    assert losses[0] > 1e-3
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert errors[1] == pytest.approx(errors[0], rel=1e-5)


@each_once
def test_token_weights_are_the_same(change, kind):
    first, second = (token_weights(each, IMAGES) for each in pair(change, kind))
    for one, other in zip(first, second, strict=True):
        assert other.pooled == pytest.approx(one.pooled, rel=1e-5)
        assert other.others == pytest.approx(one.others, rel=1e-5)


@some_of_each
def test_recoverable_importance_and_its_curves_are_the_same(change, kind):
    towers, found = pair(change, kind), []
    weights = token_weights(towers[0], IMAGES)
    for tower in towers:
        moments = dense_moments(tower, IMAGES.batches(), weights)
        importance = importance_of(tower, moments)
        curves = measure_curves(tower, importance, moments, IMAGES.first(16))
        prices = Prices.in_macs(tower.model.config, 0.4, kind)
        mask = by_curves(importance, curves, prices)
        found.append((importance, curves, mask))
    (first, curves, mask), (second, *others) = found
    expect_same_scores(first, second, change, towers[0])
    assert others[1] == changed_mask(mask, change, towers[0])
    for one, another in zip(curves, others[0], strict=True):
        assert another.sizes == one.sizes
        assert another.losses == pytest.approx(one.losses, rel=1e-5, abs=1e-9)


@some_of_each
@pytest.mark.parametrize("objective", ["contrastive", "embedding"])
def test_fisher_information_is_the_same(change, kind, objective):
    towers = pair(change, kind)
    found = [fisher.scores(each.model, IMAGES, tower=kind, objective=objective) for each in towers]
    order = orders(change, towers[0])
    expect_same_scores(*found, change, towers[0])
    for name in ("heads", "neurons"):
        block = f"{name[:-1]}_block"
        rows = order[name][:, :, None], order[name][:, None, :]
        layers = torch.arange(len(rows[0]))[:, None, None]
        expected = getattr(found[0], block)[layers, rows[0], rows[1]]
        torch.testing.assert_close(
            getattr(found[1], block), expected, rtol=1e-4, atol=1e-6 * expected.abs().max().item()
        )
    masks = [fisher.select(each, 0.5, towers[0].model.config, kind) for each in found]
    assert masks[1] == changed_mask(masks[0], change, towers[0])


@some_of_each
def test_sensitivity_is_the_same(change, kind):
    towers = pair(change, kind)
    found = [sensitivity.scores(each.model, IMAGES, tower=kind) for each in towers]
    expect_same_scores(*found, change, towers[0])


@some_of_each
def test_head_dimensions_and_their_curves_are_the_same(change, kind):
    towers, found = pair(change, kind), []
    weights = token_weights(towers[0], IMAGES)
    for tower in towers:
        rotated = rotate_tower(tower, IMAGES.batches(), weights)
        moments = dense_moments(tower, IMAGES.batches(), weights)
        moments[::2] = map(turn, moments[::2], rotated.value_bases)
        curves = measure_dim_curves(rotated.tower, moments, IMAGES.first(16), weights)
        found.append((rotated, curves))
    (first, curves), (second, others) = found
    heads = orders(change, towers[0])["heads"]
    for name in ("query_key_values", "value_values"):
        own, other = getattr(first, name), getattr(second, name)
        expected = own.gather(1, heads[:, :, None].expand_as(own))
        torch.testing.assert_close(other, expected, rtol=1e-5, atol=1e-6 * own.max().item())
    for one, another in zip(curves, others, strict=True):
        assert another.losses == pytest.approx(one.losses, rel=1e-4, abs=1e-8)


KEYS = ("scaled_keys", "recombined_heads", "shifted_keys")
"""Changes of keys but for rotations. Merging compares keys as they are written, so that where it is
allowed joint's choice depends on these."""


@pytest.mark.parametrize("change", sweep(CHANGES, ("scaled_values", "recombined_heads")))
def test_joint_finds_the_same(change, monkeypatch):
    merged = {} if change in KEYS else {"constant": (0.25, 0.5), "decreasing": (0.3,)}
    monkeypatch.setattr(combinations, "MERGED", merged)
    samples = {"search_samples": 48, "score_samples": 48, "curve_samples": 16}
    options = Thoroughness(exits=tuple(sweep((2, 3), (2,))), tries=2, **samples)
    tried, towers = [], pair(change, "vision")
    for tower in towers:
        model = tower.model
        full = Checkpoint("", "", model, doubles)
        source = Source(
            "", model, doubles, full, ("vision",), (), IMAGES, Sampling(), Cache(), "", "",
        )  # fmt: skip
        prices = MacPrices.under(model.config, 0.3)
        tried.append(best_combinations(source, prices, Search(MacBudget(0.3), options)))
    assert any(any(each.candidate.merged) for each in tried[0]) == (change not in KEYS)
    for one, other in zip(*tried, strict=True):
        assert other.candidate.says == one.candidate.says
        mask = changed_mask(one.candidate.mask, change, towers[0])
        assert other.candidate.mask == mask
        assert other.candidate.promised == pytest.approx(one.candidate.promised, rel=1e-4)
        assert other.lost == pytest.approx(one.lost, rel=1e-4)


def test_the_published_baselines_depend_on_coordinates_and_say_so():
    first, second = pair("scaled_values", "vision")
    scored = [baseline.scores(each.model, None, kind="magnitude") for each in (first, second)]
    assert not torch.allclose(*(each.heads for each in scored), rtol=0.1)
    assert "depends on the basis" in baseline.__doc__
