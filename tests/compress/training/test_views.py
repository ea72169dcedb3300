"""Views are what they say: the image, its mirror, parts of it enlarged; captions take turns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import UserError
from compress.training.teacher import by_captions, caption_embeddings, distinct
from compress.training.views import LEAST_AREA, Captions, View, views_of


def ramp(side: int = 16) -> torch.Tensor:
    """An image whose channels are how far right and how far down a pixel's middle lies, in 0..1."""
    places = (torch.arange(side) + 0.5) / side
    across, down = places.expand(side, side), places[:, None].expand(side, side)
    return torch.stack([across, down, torch.zeros(side, side)])[None]


@given(st.integers(2, 50), st.integers(0, 9), st.booleans())
def test_a_crop_is_a_square_of_the_image_enlarged(number, row, flips):
    seen = View(number, 10, flips).of(ramp(), [row])[0]
    inner = seen[:, 3:-3, 3:-3]
    step = inner.diff(dim=2)[0].abs()
    side = 16 * float(step.mean())
    assert LEAST_AREA - 1e-3 <= side**2 <= 1 + 1e-3
    assert step.max() - step.min() < 1e-4  # nothing but a shift and a scale
    assert 16 * float(inner.diff(dim=1)[1].mean()) == pytest.approx(side, abs=1e-3)
    if not flips:
        assert (inner.diff(dim=2)[0] > 0).all()
    assert seen[:2].min() >= 0
    assert seen[:2].max() <= 1


def test_views_of_an_image_do_not_depend_on_its_batch():
    pixels = torch.rand(5, 3, 8, 8)
    for view in views_of(5, 5, True):
        together = view.of(pixels, range(5))
        for row in range(5):
            torch.testing.assert_close(view.of(pixels[row : row + 1], [row])[0], together[row])


def test_the_first_views_are_the_image_and_its_mirror():
    pixels = torch.rand(2, 3, 8, 8)
    one, two, three = views_of(2, 3, True)
    assert torch.equal(one.of(pixels, [0, 1]), pixels)
    assert torch.equal(two.of(pixels, [0, 1]), pixels.flip(-1))
    _, unmirrored = views_of(2, 2, False)
    assert not torch.equal(unmirrored.of(pixels, [0, 1]), pixels.flip(-1))
    names = {view.called for view in (one, two, three, unmirrored)}
    assert len(names) == 4  # each is kept under a name of its own


def test_captions_of_an_image_take_turns():
    captions = Captions(torch.arange(5.0)[:, None], torch.tensor([0, 2]), torch.tensor([2, 3]))
    found = captions.of([0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 0, 1, 2, 3]).flatten().tolist()
    assert found == [0, 1, 0, 2, 3, 4, 2]


@given(st.integers(0, 1000), st.floats(0.1, 0.99))
def test_distinct_captions_are_those_that_a_loop_keeps(seed, most_alike):
    made = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    kept: list[int] = []
    for number in range(8):
        cosines = [
            float(torch.nn.functional.cosine_similarity(made[number], made[other], dim=0))
            for other in kept
        ]
        if all(cosine < most_alike - 1e-6 for cosine in cosines):
            kept.append(number)
    assert distinct(made, most_alike).nonzero().flatten().tolist() == kept


TEXTS = {"a": [1.0, 0.0], "b": [0.0, 2.0], "a again": [3.0, 0.01], "c": [-1.0, 0.0]}


def encode(texts: list[str]) -> torch.Tensor:
    return torch.tensor([TEXTS[text] for text in texts])


def test_captions_that_say_the_same_are_dropped():
    found = caption_embeddings(encode, [["a", "a again", "b"], ["c"]], {"weights": "w"}, 0.95)
    assert found.embeddings.tolist() == [TEXTS["a"], TEXTS["b"], TEXTS["c"]]
    assert found.first.tolist() == [0, 2]
    assert found.several.tolist() == [2, 1]


def test_images_are_to_lie_where_the_mean_of_their_captions_does():
    captions = caption_embeddings(encode, [["a", "b"], ["c"]], {"weights": "w"})
    taught = by_captions("images", captions, 3, {"weights": "w"})
    wanted = torch.tensor([[0.5**0.5, 0.5**0.5], [-1.0, 0.0]])
    for view in range(3):
        torch.testing.assert_close(taught.embeddings[:, view], wanted)


def test_an_image_without_a_caption_is_an_error():
    with pytest.raises(UserError, match="have no caption"):
        caption_embeddings(encode, [["a"], []], {"weights": "w"})
