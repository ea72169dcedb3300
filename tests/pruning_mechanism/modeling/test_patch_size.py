"""Coarser patches: weights resized as the paper says, tokens and positions as they were."""

import pytest
import torch
from torch.nn.functional import interpolate

from pruning_mechanism import Reduction, TowerError, image_embeddings, macs, reduce
from pruning_mechanism.modeling.patch_size import resized_weight
from tests.conftest import tiny_clip


def smaller(images, side):
    return interpolate(images, (side, side), mode="bicubic", antialias=True)


def seeded(*sizes):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*sizes, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_of_all_weights_those_have_the_least_error_on_independent_pixels(side):
    """FlexiViT, section 3.4: the mean of (⟨x, w⟩ - ⟨resized x, w'⟩)² over x ~ N(0, 1) per pixel."""
    weight, (pixels, channels) = seeded(4, 3, 6, 6), (36, 3)
    basis = torch.eye(pixels, dtype=torch.float64).reshape(pixels, 1, 6, 6)
    made = smaller(basis, side).flatten(1)
    expected = torch.linalg.lstsq(made, weight.reshape(4 * channels, pixels).T).solution.T
    found = resized_weight(weight, side)
    torch.testing.assert_close(found.reshape(4 * channels, -1), expected)


def test_what_a_small_patch_says_is_kept():
    """A patch with nothing that resizing loses answers as before."""
    weight, small = seeded(4, 3, 8, 8), seeded(5, 3, 2, 2)
    basis = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    made = smaller(basis, 2).flatten(1)
    large = (small.flatten(2) @ torch.linalg.pinv(made)).reshape(5, 3, 8, 8)
    torch.testing.assert_close(smaller(large, 2), small)
    torch.testing.assert_close(
        torch.einsum("bchw,dchw->bd", small, resized_weight(weight, 2)),
        torch.einsum("bchw,dchw->bd", large, weight),
    )


def test_layers_cost_what_they_cost_and_the_patch_embedding_less():
    dense, coarse = macs(tiny_clip()), macs(reduce(tiny_clip(), Reduction(patch_size=2)))
    assert coarse.encoder == dense.encoder
    assert coarse.fraction == 1
    assert dense.tower - coarse.tower == 16 * 3 * (16 - 4) * 16  # patches, channels, pixels, hidden


def entries(*reductions):
    model = tiny_clip()
    for reduction in reductions:
        model = reduce(model, reduction)
    own = model.config.vision_config
    side = own.image_size
    with torch.no_grad():
        assert image_embeddings(model, torch.zeros(1, 3, side, side)).isfinite().all()
    dense = (own.dense_patch_size, own.dense_image_size)
    return own.patch_size, own.image_size, *dense, macs(model).fraction


def test_it_goes_with_smaller_images_in_either_order():
    smaller_images = Reduction(image_size=8)
    before = entries(Reduction(patch_size=2), Reduction(image_size=4))
    after = entries(smaller_images, Reduction(patch_size=2))
    assert before == after
    assert before[:4] == (2, 4, 4, 8)  # images of 16 at first, at patches of 2 these are 8
    assert before[4] == entries(smaller_images)[4]


def test_coarser_twice_is_coarser_once():
    assert entries(Reduction(patch_size=3), Reduction(patch_size=1)) == entries(
        Reduction(patch_size=1)
    )


def test_several_sizes_come_after_it():
    sizes = {"resolution_bounds": (0.5,), "resolution_shares": (0.5, 0.5)}
    assert entries(Reduction(patch_size=2), Reduction(resolutions=(4, 8), **sizes))[0] == 2
    several = reduce(tiny_clip(), Reduction(resolutions=(8, 16), **sizes))
    with pytest.raises(TowerError, match="make its patches coarser before"):
        reduce(several, Reduction(patch_size=2))


def test_contrast_within_a_pixel_chooses_nothing():
    salient = reduce(tiny_clip(), Reduction(kept_patches=9, patch_rule="saliency"))
    assert reduce(salient, Reduction(patch_size=2)).config.vision_config.kept_patches == 9
    with pytest.raises(TowerError, match="no contrast to be chosen by"):
        reduce(salient, Reduction(patch_size=1))


def test_a_margin_that_no_patch_reads_is_refused():
    with pytest.raises(TowerError, match="18 pixels can't be cut into patches of 4"):
        reduce(tiny_clip(image_size=18), Reduction(patch_size=2))
