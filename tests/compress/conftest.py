"""Tiny checkpoints of every family, and calibration data that is at hand as tensors."""

import pytest

from compress.calibrating.calibration import Batch
from tests.conftest import tiny_clip, tiny_processor
from tests.pruning_mechanism.conftest import tiny_inputs, tiny_model


class Pairs:
    """Calibration data of images and texts, which are of different lengths."""

    def __init__(self, count: int, seed: int, batch_size: int = 8):
        self.pixels = tiny_inputs("vision", count, seed)
        self.tokens = tiny_inputs("text", count, seed)
        self.batch_size = batch_size

    def batches(self, progress=None):
        parts = zip(
            self.pixels.split(self.batch_size),
            self.tokens["input_ids"].split(self.batch_size),
            strict=True,
        )
        return (Batch(pixels, {"input_ids": tokens}) for pixels, tokens in parts)


@pytest.fixture(scope="session")
def family_directory(tmp_path_factory):
    """family_directory(name) -> a tiny checkpoint of that family in the Hugging Face layout."""
    made = {}

    def directory(family: str):
        if family not in made:
            made[family] = tmp_path_factory.mktemp("families") / family
            tiny_model(family).save_pretrained(made[family])
            tiny_processor().save_pretrained(made[family])
        return made[family]

    return directory


@pytest.fixture(scope="session")
def least_directory(tmp_path_factory):
    """A checkpoint whose layers have few sizes that one could measure."""
    directory = tmp_path_factory.mktemp("checkpoint") / "least"
    sizes = {"num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 4}
    tiny_clip(**sizes, hidden_size=8, patch_size=8).save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory
