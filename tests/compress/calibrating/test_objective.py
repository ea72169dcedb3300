import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.functional import hessian, jacobian
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import log_softmax, normalize

from compress.calibrating.calibration import Batch
from compress.calibrating.importance import mask_gradients
from compress.calibrating.objective import (
    Contrastive,
    Embedding,
    contrastive_loss,
    directions,
    objective_named,
)
from compress.errors import UserError
from compress.fisher import fisher_information
from pruning_mechanism import Tower, image_embeddings, sublayers
from tests.conftest import tiny_clip

EMBEDDING = 8  # dimensions of the tiny tower's


def images(number=4, seed=0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(number, 3, 16, 16, generator=generator), {})


def as_masked(model, sublayer, pixels):
    """The normalised embedding of one image as a function of a sublayer's mask, in float64."""

    def embed_with(mask):
        factors = mask.repeat_interleave(sublayer.unit_width)
        with sublayer.watch(lambda features: features * factors):
            return normalize(image_embeddings(model, pixels[None])[0], dim=0)

    return embed_with


def blocks_by_definition(batch, of_image):
    """The sum over images of a matrix [u, u] for each layer's heads and neurons, [3, u, u]."""
    model, found = tiny_clip().double(), {"heads": [], "neurons": []}
    for sublayer in sublayers(model):
        ones = torch.ones(sublayer.units, dtype=torch.float64)
        found[sublayer.kind].append(
            sum(of_image(as_masked(model, sublayer, each.double()), ones) for each in batch.pixels)
        )
    return [torch.stack(found[kind]).float() for kind in ("heads", "neurons")]


def gauss_newton(embed_with, ones):
    of_image = jacobian(embed_with, ones)
    return of_image.T @ of_image


def hessian_of_the_distance(embed_with, ones):
    dense = embed_with(ones).detach()
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        return hessian(lambda mask: 1 - embed_with(mask) @ dense, ones)


@pytest.mark.parametrize("definition", [gauss_newton, hessian_of_the_distance])
def test_with_a_projection_a_dimension_the_blocks_are_exact(definition):
    batch = images()
    objective = Embedding(EMBEDDING)
    found = fisher_information(mask_gradients(Tower.of(tiny_clip()), [batch], objective))
    heads, neurons = blocks_by_definition(batch, definition)
    for block, expected in ((found.head_block, heads), (found.neuron_block, neurons)):
        scale = expected.abs().max().item()
        assert scale > 1e-3
        torch.testing.assert_close(block, expected, rtol=1e-5, atol=1e-6 * scale)
    torch.testing.assert_close(found.heads, heads.diagonal(dim1=1, dim2=2))


def test_few_projections_come_near_the_exact_blocks_on_average():
    batch, model = images(), tiny_clip()
    exact = fisher_information(mask_gradients(Tower.of(model), [batch], Embedding(EMBEDDING)))
    drawn = [
        fisher_information(
            mask_gradients(Tower.of(model), [batch], Embedding(2, seed))
        ).neuron_block
        for seed in range(60)
    ]
    scale = exact.neuron_block.abs().max()
    mean = torch.stack(drawn).mean(0)
    assert (mean - exact.neuron_block).abs().max() < 0.15 * scale
    assert (drawn[0] - exact.neuron_block).abs().max() > (mean - exact.neuron_block).abs().max()


@given(dimensions=st.integers(1, 9), share=st.floats(0, 1), seed=st.integers(0, 2**63 - 1))
def test_an_images_directions_are_orthogonal_and_all_dimensions_have_their_turn(
    dimensions, share, seed
):
    projections = max(1, round(share * dimensions))
    turn = dimensions // projections
    drawn = torch.stack(list(itertools.islice(directions(dimensions, projections, seed), 2 * turn)))
    length = dimensions / projections
    gram = drawn[:turn].flatten(0, 1) @ drawn[:turn].flatten(0, 1).T
    torch.testing.assert_close(gram, length * torch.eye(turn * projections, dtype=torch.float64))
    assert not torch.allclose(drawn[:turn], drawn[turn:]) or dimensions == 1


def test_directions_have_the_identity_as_second_moment():
    drawn = torch.stack(list(itertools.islice(directions(5, 2, 0), 20_000)))
    moment = torch.einsum("nki,nkj->ij", drawn, drawn) / len(drawn)
    torch.testing.assert_close(moment, torch.eye(5, dtype=torch.float64), atol=0.03, rtol=0)


def test_projections_do_not_depend_on_how_images_are_batched_but_on_the_seed():
    model, batch = tiny_clip(), images()
    halves = [Batch(batch.pixels[:1], {}), Batch(batch.pixels[1:], {})]
    whole = fisher_information(mask_gradients(Tower.of(model), [batch], Embedding(2, 5)))
    parts = fisher_information(mask_gradients(Tower.of(model), halves, Embedding(2, 5)))
    other = fisher_information(mask_gradients(Tower.of(model), [batch], Embedding(2, 6)))
    torch.testing.assert_close(whole.neurons, parts.neurons)
    assert not torch.allclose(whole.neurons, other.neurons)


def test_the_contrastive_loss_is_clips_summed_over_the_batch():
    pictures, texts = torch.randn(6, 8), torch.randn(6, 8)
    normed = [x / x.norm(dim=-1, keepdim=True) for x in (pictures, texts)]
    logits = 7.0 * normed[0] @ normed[1].T
    expected = -(log_softmax(logits, 1) + log_softmax(logits, 0)).diagonal().sum() / 2
    torch.testing.assert_close(contrastive_loss(pictures, texts, torch.tensor(7.0)), expected)


def test_the_contrastive_objective_asks_for_captions():
    with pytest.raises(UserError, match=r"needs a caption .* the embedding objective"):
        Contrastive(tiny_clip())(torch.randn(4, 8), images())


def test_a_text_tower_that_is_not_finite_is_refused():
    model = tiny_clip()
    model.text_projection.weight.data[0, 0] = torch.nan
    batch = Batch(images().pixels, {"input_ids": torch.tensor([[0, 3, 1]] * 4)})
    with pytest.raises(UserError, match="text tower"):
        Contrastive(model)(torch.randn(4, 8), batch)


@pytest.mark.parametrize(
    ("projections", "reason"), [(0, "at least 1"), (EMBEDDING + 1, "8 are exact already")]
)
def test_a_number_of_projections_that_makes_no_sense_is_refused(projections, reason):
    with pytest.raises(UserError, match=reason):
        Embedding(projections)(torch.randn(4, EMBEDDING), images())


def test_an_unknown_objective_is_refused():
    with pytest.raises(UserError, match="contrastive or embedding, found 'labels'"):
        objective_named("labels", tiny_clip())
