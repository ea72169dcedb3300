"""Batches are filled up to few sizes, and rarely by much."""

import torch

from pruning_mechanism.runtimes.on_gpu.exact import exact_convolutions
from pruning_mechanism.runtimes.on_gpu.replaying import LARGEST, recorded_size


def test_a_batch_is_filled_up_to_less_than_twice_its_size():
    sizes = {images: recorded_size(images) for images in range(1, LARGEST + 1)}
    assert all(images <= size <= max(2, 2 * images - 1) for images, size in sizes.items())
    assert len(set(sizes.values())) <= 20
    assert all(size - images < 16 for images, size in sizes.items() if images > 32)
    assert [recorded_size(usual) for usual in (2, 16, 32, 64, 128, 256)] == [
        2, 16, 32, 64, 128, 256,
    ]  # fmt: skip


def test_none_and_very_many_are_computed_as_they_are():
    assert recorded_size(0) is None
    assert recorded_size(LARGEST + 1) is None


def test_convolutions_round_again_as_they_did_once_all_are_through(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with exact_convolutions():
        with exact_convolutions():
            assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32
