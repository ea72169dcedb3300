import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from compress.calibrating.token_weights import TokenPlaces, TokenWeights, token_weights
from compress.errors import UserError
from pruning_mechanism import Tower, embed, project, sublayers
from tests.compress.solving.test_repair import Images
from tests.conftest import tiny_clip

TOKENS = 17
PLACES = TokenPlaces(
    torch.ones(2, TOKENS, dtype=torch.bool), torch.arange(TOKENS) == torch.zeros(2, 1)
)
"""Of two images: all tokens count, and the embedding is read off the first."""


def gradients_by_definition(model, pixels, directions) -> list[torch.Tensor]:
    """Of ⟨direction, normalised embedding⟩ by the stream [b, n, d] after each sublayer, float64."""
    streams = [embed(model, pixels.double())]
    for part in sublayers(model):
        streams.append(part(streams[-1]))
    embeddings = normalize(project(model, streams[-1]), dim=-1)
    return list(torch.autograd.grad((embeddings * directions).sum(), streams[1:]))


def drawn_directions(images: Images, seed: int) -> torch.Tensor:
    """One for each image, however they are batched."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(8, generator=generator) for _ in images.pixels]).double()


@pytest.mark.parametrize("seed", [0, 3])
def test_weights_are_root_mean_square_gradients_of_a_projection_of_the_embedding(seed):
    model, images = tiny_clip(seed), Images(20, seed)  # in batches of 8, 8 and 4
    found = token_weights(Tower.of(model), images, seed)
    gradients = gradients_by_definition(
        tiny_clip(seed).double(), images.pixels, drawn_directions(images, seed)
    )
    assert len(found) == len(gradients) == 6
    for weights, gradient in zip(found, gradients, strict=True):
        pooled = gradient[:, 0].square().sum().sqrt()
        others = (gradient[:, 1:].square().sum() / (TOKENS - 1)).sqrt()
        mean = (pooled + (TOKENS - 1) * others) / TOKENS
        assert weights.pooled == pytest.approx((pooled / mean).item(), rel=1e-4)
        assert weights.others == pytest.approx((others / mean).item(), rel=1e-4, abs=1e-9)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_the_tokens_of_a_stream_weigh_1_on_average(seed):
    for weights in token_weights(Tower.of(tiny_clip(seed)), Images(4, seed), seed):
        spread = weights.spread(PLACES)
        assert spread.shape == (2, TOKENS)
        assert spread.mean().item() == pytest.approx(1, abs=1e-5)
        assert (spread >= 0).all()


def test_after_the_last_attention_only_the_pooled_token_reaches_the_embedding():
    found = token_weights(Tower.of(tiny_clip()), Images(8, 0))
    for last in found[-2:]:  # no token looks at another any more
        assert last == TokenWeights(pytest.approx(TOKENS), 0.0)
    for earlier in found[:-2]:
        assert earlier.others > 0


def test_where_nothing_reaches_the_embedding_all_tokens_count_alike():
    model = tiny_clip()
    with torch.no_grad():
        model.visual_projection.weight.zero_()
    assert token_weights(Tower.of(model), Images(8, 0)) == [TokenWeights(1.0, 1.0)] * 6


def test_a_spread_gives_the_first_token_the_pooled_weight():
    expected = [3.0] + [0.5] * (TOKENS - 1)
    assert TokenWeights(3.0, 0.5).spread(PLACES).tolist() == [expected, expected]


def test_the_towers_weights_get_no_gradients():
    model = tiny_clip()
    token_weights(Tower.of(model), Images(4, 0))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_activations_that_are_not_finite_are_refused_by_name():
    model = tiny_clip()
    with torch.no_grad():
        model.vision_model.encoder.layers[1].mlp.fc2.weight[3] = float("nan")
    with pytest.raises(UserError, match="not finite from the neurons of layer 1 on"):
        token_weights(Tower.of(model), Images(4, 0))
