"""A stage is held against the full tower whatever types the two are computed in."""

from pathlib import Path

import pytest
import torch

from cascade import Stage
from compress.errors import UserError
from evaluation.cascade import CascadeOptions
from evaluation.experiment.first_stages import KeptStage
from evaluation.experiment.opening import full_tower, opened_first
from pruning_mechanism import load, load_processor
from pruning_mechanism.checkpoints import checkpoint
from tests.conftest import tiny_clip, tiny_processor


@pytest.fixture
def half(clip_directory, tmp_path, monkeypatch) -> Path:
    """A checkpoint in half precision, which is computed in it, as on a GPU."""
    directory = tmp_path / "half"
    load(clip_directory).half().save_pretrained(directory)
    load_processor(clip_directory).save_pretrained(directory)
    monkeypatch.setattr(checkpoint, "computed_dtype", lambda stored, device: stored)
    assert Stage.load(directory).dtype == torch.float16
    return directory


def kept(directory: Path) -> KeptStage:
    return KeptStage(directory.name, "", None, None, directory, None)


@pytest.mark.parametrize("last_as", [("stored",), ("dtype=float32",)])
def test_a_stage_of_the_same_checkpoint_fits_in_any_type(half, last_as):
    options = CascadeOptions(model=str(half), stage=(str(half),), last_as=last_as)
    tower = full_tower(options, None)
    ((_, stage),) = opened_first([kept(half)], tower, options, any_base=False)
    assert stage.text_name == tower.text_name


def test_a_stage_of_another_checkpoint_is_refused_in_any_type(half, tmp_path):
    other = tmp_path / "other"
    tiny_clip(seed=1).half().save_pretrained(other)
    tiny_processor().save_pretrained(other)
    options = CascadeOptions(model=str(half), stage=(str(other),), last_as=("dtype=float32",))
    tower = full_tower(options, None)
    with pytest.raises(UserError, match="made from another checkpoint"):
        opened_first([kept(other)], tower, options, any_base=False)
