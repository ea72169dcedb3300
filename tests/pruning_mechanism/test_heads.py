"""A head in other coordinates is the same head."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_mechanism import Mask, Tower, masked, prune
from pruning_mechanism.heads import rotate, shift_keys
from tests.pruning_mechanism.conftest import (
    TOWERS,
    embeddings,
    random_slim_mask,
    tiny_inputs,
    tiny_model,
)


def bases(seed: int, heads: int, size: int) -> torch.Tensor:
    """Well-conditioned random matrices [heads, size, size] that are not orthogonal."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(heads, size, size, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(noise).Q
    return turn * torch.linspace(0.5, 2, size, dtype=torch.float64)


@pytest.mark.parametrize(("family", "tower"), TOWERS)
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), slim=st.booleans())
def test_turning_queries_against_keys_changes_nothing(family, tower, seed, slim):
    model = tiny_model(family, seed)
    if slim:
        model = prune(model, random_slim_mask(seed), tower)
    before = embeddings(model, tower)
    for sublayer in Tower.of(model, tower).sublayers[::2]:
        if sublayer.units:
            size = sublayer.body.q_proj.out_features // sublayer.units
            query = bases(seed, sublayer.units, size)
            value = bases(seed + 1, sublayer.units, sublayer.unit_width)
            old = sublayer.body.q_proj.weight.clone()
            rotate(sublayer, query, torch.linalg.inv(query).mT, value)
            assert not torch.allclose(sublayer.body.q_proj.weight, old, atol=1e-3)
    torch.testing.assert_close(embeddings(model, tower), before, atol=1e-5, rtol=1e-5)


def test_queries_keys_and_values_are_those_of_before_in_the_new_bases():
    tower, pixels = Tower.of(tiny_model("clip").double()), tiny_inputs("vision").double()
    sublayer, chosen = tower.sublayers[2], [bases(seed, 4, 4) for seed in range(3)]
    projections = [getattr(sublayer.body, f"{name}_proj") for name in "qkv"]
    with torch.no_grad():
        hidden = sublayer.norm(tower.embed(pixels))
        before = [projection(hidden).unflatten(-1, (4, 4)) for projection in projections]
        rotate(sublayer, *chosen)
        for projection, old, basis in zip(projections, before, chosen, strict=True):
            found = projection(hidden).unflatten(-1, (4, 4))
            torch.testing.assert_close(found, torch.einsum("bnhi,hij->bnhj", old, basis))


def test_what_is_cut_after_turning_is_what_the_bases_put_last():
    """Dimensions that no query has are dropped without a loss once they are turned to the end."""
    model, generator = tiny_model("clip"), torch.Generator().manual_seed(5)
    turns = [torch.linalg.qr(torch.randn(4, 4, 4, generator=generator)).Q for _ in range(3)]
    with torch.no_grad():
        for sublayer, turn in zip(Tower.of(model).sublayers[::2], turns, strict=True):
            projection = sublayer.body.q_proj
            for values in (projection.weight, projection.bias):
                per_head = values.view(4, 4, -1)
                per_head[:, 2:] = 0  # two dimensions of four are empty,
                values.copy_((turn.mT @ per_head).view_as(values))  # and hidden from sight
    before = embeddings(model)
    turned = copy.deepcopy(model)
    for sublayer, turn in zip(Tower.of(turned).sublayers[::2], turns, strict=True):
        rotate(sublayer, turn.mT, turn.mT, torch.eye(4).expand(4, 4, 4))
    dense = Mask.dense(model.config)
    first_two = torch.tensor([True, True, False, False]).expand(3, 4)
    mask = Mask(dense.heads, dense.neurons, qk_dims=first_two)
    torch.testing.assert_close(embeddings(prune(turned, mask)), before, atol=1e-5, rtol=1e-5)
    with masked(model, mask):
        assert not torch.allclose(embeddings(model), before, atol=1e-3)


@pytest.mark.parametrize(("family", "tower"), TOWERS)
def test_a_constant_in_all_keys_is_not_seen(family, tower):
    model = tiny_model(family)
    before = embeddings(model, tower)
    for sublayer in Tower.of(model, tower).sublayers[::2]:
        old = sublayer.body.k_proj.bias.clone()
        mean = torch.randn(4, 4)
        shift_keys(sublayer, mean)
        torch.testing.assert_close(sublayer.body.k_proj.bias, old - mean.flatten())
    torch.testing.assert_close(embeddings(model, tower), before, atol=1e-5, rtol=1e-5)


def test_bases_of_another_shape_are_refused():
    attention, mlp = Tower.of(tiny_model("clip")).sublayers[:2]
    right, wrong = bases(0, 4, 4), bases(0, 4, 3)
    with pytest.raises(ValueError, match=r"key must be \[4, 4, 4\], found \[4, 3, 3\]"):
        rotate(attention, right, wrong, right)
    with pytest.raises(ValueError, match="neurons sublayer has no heads"):
        rotate(mlp, right, right, right)
    with pytest.raises(ValueError, match="neurons sublayer is no attention"):
        _ = mlp.attention
    with pytest.raises(ValueError, match=r"mean must be \[4, 4\]"):
        shift_keys(attention, torch.zeros(4))


def test_a_singular_value_basis_leaves_the_head_as_it_is():
    model = tiny_model("clip")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    right = bases(0, 4, 4)
    with pytest.raises(torch.linalg.LinAlgError):
        rotate(Tower.of(model).sublayers[0], right, right, torch.zeros(4, 4, 4))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
