"""What is solved in float64 is solved on the CPU: some devices have no float64."""

import pytest
import torch

from compress.calibrating.calibration import Batch
from compress.calibrating.moments import dense_moments
from compress.rank import learn_rankers
from compress.solving.head_dims import rotate_tower
from compress.solving.repair import repair_tower
from pruning_mechanism import Reduction, Tower, image_embeddings, prune, reduce
from pruning_mechanism.groups import patch_groups
from tests.compress.losses import align_tower
from tests.conftest import tiny_clip
from tests.pruning_mechanism.conftest import random_mask, tiny_inputs
from tests.simulated_device import no_float64

PIXELS = tiny_inputs("vision", 24)


class Images:
    """Calibration images on a device."""

    def __init__(self, device):
        self.device = device

    def __len__(self):
        return len(PIXELS)

    def batches(self, progress=None):
        return (Batch(pixels.to(self.device), None) for pixels in PIXELS.split(8))


def plain(model):
    """Attention as products of matrices; the fused kernels ask for the real device."""
    model.set_attn_implementation("eager")
    return model


def rotated(model, images):
    return rotate_tower(Tower.of(model), images.batches()).tower.model


def repaired(model, images):
    smaller = prune(model, random_mask(3))
    repair_tower(Tower.of(model), Tower.of(smaller), images)
    return smaller


def aligned_twice(model, images):
    target, cheap = Tower.of(model), reduce(model, Reduction(layers=2))
    cheap, _ = align_tower(target, cheap, images, features=4)
    return align_tower(target, cheap, images, features=4)[0]


def ranked(model, images):
    made = reduce(model, Reduction(ranked_per_layer=(8, 0, 0), ranker="learned"))
    learn_rankers(made, images)
    return made


@pytest.mark.parametrize("make", [rotated, repaired, aligned_twice, ranked])
def test_a_rule_gives_the_same_where_there_is_no_float64(make):
    with torch.no_grad():
        expected = image_embeddings(make(plain(tiny_clip()), Images("cpu")), PIXELS)
    with no_float64() as device:
        made = make(plain(tiny_clip()).to(device), Images(device))
        assert made.device == torch.device(device)
        found = image_embeddings(made, PIXELS.to(device)).cpu()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_moments_and_groups_are_the_same_where_there_is_no_float64():
    merging = Reduction(merged_per_layer=(3, 2, 1), ranked_per_layer=(12, 0, 0))
    model = plain(tiny_clip())
    expected = dense_moments(Tower.of(model), Images("cpu").batches())
    groups = patch_groups(reduce(model, merging), PIXELS)
    with no_float64() as device:
        there = model.to(device)
        found = dense_moments(Tower.of(there), Images(device).batches())
        assert torch.equal(patch_groups(reduce(there, merging), PIXELS), groups)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.xx, other.xx)
        assert one.tt == pytest.approx(other.tt)


def test_the_simulated_device_refuses_what_such_a_device_refuses():
    with no_float64() as device:
        there = torch.ones(3, device=device)
        with pytest.raises(TypeError, match="no float64"):
            there.double()
        with pytest.raises(TypeError, match="no float64"):
            torch.zeros(3, dtype=torch.float64, device=device)
        with pytest.raises(TypeError, match="no float64"):
            torch.zeros(3, dtype=torch.float64).to(device)
        with pytest.raises(RuntimeError, match="on the CPU and on"):
            there + torch.ones(3)
        assert (there + 1).cpu().tolist() == [2, 2, 2]
