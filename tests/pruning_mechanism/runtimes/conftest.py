"""Directories of tiny checkpoints, and pictures as their towers take them."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pruning_mechanism.runtimes.making import Images
from pruning_mechanism.tower import vision_config
from tests.conftest import tiny_clip, tiny_processor


def pixels(count: int, seed: int = 0, side: int = 16) -> Tensor:
    """Smooth pictures with some noise: [n, 3, side, side]."""
    generator = torch.Generator().manual_seed(seed)
    slopes = torch.randn(count, 3, 2, generator=generator)
    places = torch.linspace(-1, 1, side)
    smooth = slopes[..., :1, None] * places[:, None] + slopes[..., 1:, None] * places
    return smooth + 0.3 * torch.randn(count, 3, side, side, generator=generator)


def side_of(model: PreTrainedModel) -> int:
    """Pixels of a side of a model's images."""
    return vision_config(model.config).image_size


def images(count: int = 64, seed: int = 0, of: PreTrainedModel | None = None) -> Images:
    side = 16 if of is None else side_of(of)
    return Images(pixels(count, seed, side), f"{count} drawn")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("runtimes") / "tiny"
    tiny_clip().save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "own"))
