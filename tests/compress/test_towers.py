"""Scores, moments, repair and curves on every tower that fits, text towers among them."""

import copy

import pytest
import torch
from torch.nn.functional import normalize

from compress.allocation.curves import measure_curves
from compress.calibrating.calibration import Batch
from compress.calibrating.importance import mask_gradients
from compress.calibrating.moments import Moments, dense_moments
from compress.calibrating.objective import Contrastive, Embedding, contrastive_loss
from compress.calibrating.token_weights import TokenPlaces, TokenWeights, token_weights
from compress.errors import UserError
from compress.solving.eliminate import importance_of
from compress.solving.repair import repair_tower
from pruning_mechanism import Tower, image_embeddings, prune, text_embeddings
from tests.compress.conftest import Pairs
from tests.compress.losses import embedding_loss
from tests.pruning_mechanism.conftest import END, TOWERS, random_mask, tiny_inputs, tiny_model

each_tower = pytest.mark.parametrize(("family", "kind"), TOWERS)
WITH_ONE_POOLED_TOKEN = [each for each in TOWERS if each != ("siglip", "vision")]
CAUSAL = ("clip", "metaclip_2")


def padded(tokens: torch.Tensor, more: int) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.nn.functional.pad(tokens, (0, more), value=END)}


class Texts(Pairs):
    """Texts alone, padded by `more` ends after the longest."""

    def __init__(self, count: int, seed: int, more: int):
        super().__init__(count, seed)
        tokens = self.tokens["input_ids"][:, :10].clone()
        tokens[:, -1] = END
        self.tokens = padded(tokens, more)


@each_tower
def test_mask_gradients_are_those_of_a_mask_variable_on_every_tower(family, kind):
    model, given = tiny_model(family).double(), Pairs(4, 0)
    (batch,) = given.batches()
    batch = Batch(batch.pixels.double(), batch.tokens)
    tower, other = Tower.of(model, kind), {"vision": "text", "text": "vision"}[kind]
    variables, hooks = [], []
    for part in tower.sublayers:
        variable = torch.ones(4, part.units, requires_grad=True, dtype=torch.float64)
        variables.append(variable)

        def scaled(features, variable=variable, width=part.unit_width):
            return features * variable.repeat_interleave(width, dim=1)[:, None]

        hooks.append(part.watch(scaled))
    for hook in hooks:
        hook.__enter__()
    of = {"vision": image_embeddings, "text": text_embeddings}
    with torch.no_grad():
        fixed = of[other](model, batch.inputs(other))
    embeddings = tower.embeddings(batch.inputs(kind))
    loss = contrastive_loss(embeddings, fixed, model.logit_scale.exp().float())
    expected = torch.autograd.grad(loss, variables)
    for hook in hooks:
        hook.__exit__(None, None, None)
    (found,) = mask_gradients(tower, [batch], Contrastive(model, kind))
    for part, gradient in zip(tower.sublayers, expected, strict=True):
        own = getattr(found, part.kind)[:, part.layer]
        torch.testing.assert_close(own, gradient, rtol=1e-4, atol=1e-6)
        assert gradient.abs().max() > 1e-5


@pytest.mark.parametrize("family", CAUSAL)
def test_what_comes_after_the_end_of_a_text_counts_for_nothing(family):
    dense = tiny_model(family)
    tower, mask = Tower.of(dense, "text"), random_mask(5)
    short, long = Texts(24, 1, 0), Texts(24, 1, 6)
    weights = [token_weights(tower, each) for each in (short, long)]
    for ours, theirs in zip(*weights, strict=True):
        assert ours.pooled == pytest.approx(theirs.pooled, rel=1e-4)
        assert ours.others == pytest.approx(theirs.others, rel=1e-4)
    moments = [dense_moments(tower, each.batches(), weights[0]) for each in (short, long)]
    for ours, theirs in zip(*moments, strict=True):
        torch.testing.assert_close(ours.xx, theirs.xx, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.xt, theirs.xt, rtol=1e-4, atol=1e-4)
    importance = importance_of(tower, moments[0])
    curves, errors = [], []
    for texts in (short, long):
        curves.append(measure_curves(tower, importance, moments[0], texts))
        smaller = Tower.of(prune(dense, mask, "text"), "text")
        repairs = repair_tower(tower, smaller, texts, "reconstruct", weights=weights[0])
        errors.append([each.error_after for each in repairs])
    for ours, theirs in zip(*curves, strict=True):
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-2, abs=1e-4)
    assert errors[0] == pytest.approx(errors[1], rel=1e-2, abs=1e-5)


def test_moments_weigh_each_token_of_a_batch():
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(3, 5, 4, generator=generator), torch.randn(3, 5, 2, generator=generator)
    weights = torch.rand(3, 5, generator=generator)
    weights[1, 3:] = 0
    moments = Moments(4, 2)
    moments.add_batch(x, t, weights)
    rows = torch.cat([x, torch.ones(3, 5, 1)], dim=2).double().flatten(0, 1)
    scaled = rows * weights.double().flatten()[:, None]
    torch.testing.assert_close(moments.xx, rows.T @ scaled, rtol=1e-5, atol=1e-6)
    expected = scaled.T @ t.double().flatten(0, 1)
    torch.testing.assert_close(moments.xt, expected, rtol=1e-5, atol=1e-6)


def gradients_by_definition(tower: Tower, inputs, direction) -> list[torch.Tensor]:
    """The gradient at the stream after each sublayer, [b, n, d], by autograd through all above."""
    parts, found = tower.sublayers, []
    for index in range(1, len(parts) + 1):
        with torch.no_grad():
            stream = tower.embed(inputs)
            for part in parts[:index]:
                stream = part(stream)
        top = stream.requires_grad_()
        for part in parts[index:]:
            top = part(top)
        product = (normalize(tower.project(top, inputs), dim=-1) * direction).sum()
        found.append(torch.autograd.grad(product, stream)[0])
    return found


@pytest.mark.parametrize(("family", "kind"), WITH_ONE_POOLED_TOKEN)
def test_token_weights_are_root_mean_square_gradients_of_mean_1(family, kind):
    tower, given = Tower.of(tiny_model(family), kind), Pairs(6, 2)
    inputs = next(given.batches()).inputs(kind)
    places = TokenPlaces.of(tower, inputs, tower.embed(inputs))
    generator = torch.Generator().manual_seed(3)  # which draws for one image after the other
    directions = [torch.randn(tower.dimension, generator=generator) for _ in range(6)]
    direction = torch.stack(directions)
    others = places.valid & ~places.pooled
    found = token_weights(tower, given, seed=3)
    for weights, gradient in zip(
        found, gradients_by_definition(tower, inputs, direction), strict=True
    ):
        squares = gradient.square().sum(2)
        roots = squares[places.pooled].mean().sqrt(), squares[others].mean().sqrt()
        assert weights.pooled * roots[1].item() == pytest.approx(
            weights.others * roots[0].item(), rel=1e-3, abs=1e-5
        )
        spread = weights.spread(places)
        assert spread[places.valid].mean().item() == pytest.approx(1, rel=1e-4)
        assert not spread[~places.valid].any()


def test_where_a_head_attends_to_all_tokens_they_weigh_the_same():
    tower = Tower.of(tiny_model("siglip"))
    inputs = tiny_inputs("vision")
    places = TokenPlaces.of(tower, inputs, tower.embed(inputs))
    weights = token_weights(tower, Pairs(4, 0))
    assert weights == [TokenWeights(1.0, 1.0)] * 6
    assert weights[0].spread(places).tolist() == [[1.0] * 16] * 3


@each_tower
def test_repair_brings_every_tower_back_towards_the_dense_one(family, kind):
    dense, given, unseen = tiny_model(family), Pairs(96, 3, 32), Pairs(32, 4)
    tower, cut = Tower.of(dense, kind), prune(dense, random_mask(6), kind)

    def distance(repair: str) -> float:
        smaller = Tower.of(copy.deepcopy(cut), kind)
        repair_tower(tower, smaller, given, repair)
        return embedding_loss(tower, smaller, unseen)

    assert distance("reconstruct") < distance("rescale") < distance("none")


def test_a_batch_makes_only_what_is_asked_for():
    def fail():
        raise AssertionError("nobody asked for this")

    assert Batch(fail, {"input_ids": torch.ones(1, 2)}).inputs("text")["input_ids"].sum() == 2
    assert Batch(torch.ones(2), fail).inputs("vision").sum() == 2
    tower = Tower.of(tiny_model("clip"), "text")
    batches = [Batch(fail, tiny_inputs("text"))]
    list(mask_gradients(tower, batches, Embedding(2)))
    dense_moments(tower, batches)


def test_a_text_tower_without_captions_says_so():
    with pytest.raises(UserError, match="needs a caption for each image and a tokenizer"):
        dense_moments(Tower.of(tiny_model("clip"), "text"), [Batch(tiny_inputs("vision"), {})])
