"""The options of commands that train.

Nothing costly is imported, so that a command shows its help at once.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

from commands.flags import Bounds, Count, WrittenPath
from compress.errors import check_installed
from compress.options import TokenOptions
from compress.training.recipe import Precision, Recipe


@dataclass(frozen=True)
class TrainingOptions(TokenOptions):
    """How a first stage is trained towards the full tower."""

    samples: Count = 8192
    """images to train on, and to hold out"""
    steps: Count = 400
    """steps of training, at most"""
    batch_size: Count = 64
    """images in a step, on all processes together, and computed at once elsewhere"""
    learning_rate: Annotated[float, Bounds(0, low_open=True)] = 0.05
    """peak learning rate, relative to the size of each weight matrix"""
    affinity: Annotated[float, Bounds(0)] = 0.0
    """weight of affinity mimicking (TinyCLIP): similarities within a batch, beside each cosine"""
    no_flips: bool = False
    """see no image mirrored; for images with writing in them"""
    held_out: Annotated[int, Bounds(22)] = 512
    """images that are left out, to tell when to stop; a quarter of the samples at most"""
    patience: Count = 10
    """stop after so many looks at them without a gain; there are ten in all"""
    precision: Precision = "float32"
    """of matrix products; weights are float32 either way"""
    state: WrittenPath = Path("results/training")
    """where unfinished training is kept; the same command goes on with it"""

    reads_target: ClassVar = True

    def check(self) -> None:
        """Raise `UserError` if transformers' Trainer lacks accelerate."""
        super().check()
        check_installed("accelerate", "train")

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        same = {field.name for field in fields(Recipe)} & {field.name for field in fields(self)}
        given = {name: getattr(self, name) for name in same}
        flips = not self.no_flips
        asked = {"views": 1 + flips, **given}  # a student is asked for its own number
        return Recipe(flips=flips, **asked)
