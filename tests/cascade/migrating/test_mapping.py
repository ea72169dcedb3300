"""Maps are what least squares says, and the best of them is known by images left out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from cascade.migrating.mapping import KINDS, LEAST, centred, kept_by_kinds, orthogonal
from cascade.stages.mapped import Map, load_maps, save_maps
from tests.lanes import examples

SEEDS = st.integers(0, 10**6)


def directions(seed, count=120, dimension=6):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, dimension, generator=generator), dim=1)


def rotation(seed, inputs=6, outputs=6):
    drawn = torch.randn(max(inputs, outputs), max(inputs, outputs), dtype=torch.float64,
                        generator=torch.Generator().manual_seed(seed))  # fmt: skip
    return torch.linalg.qr(drawn).Q[:inputs, :outputs].float()


@settings(max_examples=examples(5, 50), deadline=None)
@given(SEEDS, st.integers(6, 9))
def test_a_rotated_space_is_mapped_exactly_by_every_kind(seed, outputs):
    old, turned = directions(seed), rotation(seed + 1, 6, outputs)
    for name, solve in KINDS.items():
        torch.testing.assert_close(
            solve(old, old @ turned)(old), old @ turned, atol=1e-3, rtol=0, msg=name
        )


@settings(max_examples=examples(5, 50), deadline=None)
@given(SEEDS, st.integers(3, 9))
def test_no_other_rotation_or_scale_is_nearer(seed, outputs):
    old, new = directions(seed), directions(seed + 1, dimension=outputs)

    def overlap(turned):
        return (new * (old @ turned)).sum().item()

    best = orthogonal(old, new)
    gram = best.weight @ best.weight.T if outputs >= 6 else best.weight.T @ best.weight
    torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)
    for other in range(20):
        assert overlap(rotation(other, 6, outputs)) <= overlap(best.weight) + 1e-4
    scaled = centred(old, new)
    error = ((old @ scaled.weight + scaled.offset) - new).square().sum()
    for factor in (0.9, 1.1):
        weight = scaled.weight * factor
        offset = new.mean(0) - old.mean(0) @ weight
        assert error <= ((old @ weight + offset) - new).square().sum() + 1e-4


def test_the_kind_that_keeps_most_is_seen_on_images_left_out():
    old = directions(0, 400)
    stretch = torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0, 0.5, 0.25]))
    kept = kept_by_kinds(old, normalize(old @ stretch, dim=1), 5)
    assert max(kept, key=kept.get) == "ridge"
    assert kept["ridge"] > kept["orthogonal"] + 0.1
    unrelated = kept_by_kinds(old, directions(1, 400), 5)
    assert max(unrelated.values()) < 0.2  # 5 of 99 by chance


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match=f"takes {LEAST}"):
        kept_by_kinds(directions(0, LEAST - 1), directions(0, LEAST - 1), 3)


def test_maps_are_the_same_from_disk(tmp_path):
    maps = [Map(torch.randn(3, 4), torch.randn(4)), Map(torch.randn(4, 2), torch.randn(2))]
    save_maps(maps, tmp_path / "maps")
    for one, other in zip(maps, load_maps(tmp_path / "maps"), strict=True):
        assert torch.equal(one.weight, other.weight)
        assert torch.equal(one.offset, other.offset)
    (tmp_path / "maps").write_bytes(b"no maps")
    for name in ("maps", "nothing"):
        with pytest.raises(ValueError, match="holds no maps"):
            load_maps(tmp_path / name)
