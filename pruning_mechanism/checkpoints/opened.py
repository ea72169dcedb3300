"""A checkpoint that was loaded, and what is known of it: what prepares its inputs, who it is.

Its name is looked up once, so that whatever is read of it is read from the same place.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedModel

from pruning_mechanism.checkpoints.checkpoint import fingerprint, load, stored_dtype
from pruning_mechanism.checkpoints.from_open_clip.converting import directory_of
from pruning_mechanism.checkpoints.preparation import load_processor
from pruning_mechanism.checkpoints.record import Compression, read_record
from pruning_mechanism.encoding import tower_of
from pruning_mechanism.protocols import AnyTower, Processor


@dataclass(frozen=True)
class Checkpoint:
    """A model, and what prepares its inputs; all else is read where it lies when it is asked for.

    `path` is how the user calls it, `place` where it lies: a directory, or a name on the hub.
    """

    path: str
    place: str
    model: PreTrainedModel
    processor: Processor

    @classmethod
    def open(cls, path: str, device: str = "cpu", exact: bool = False) -> "Checkpoint":
        """Load what a user names; the arguments are those of `load`.

        Raises:
            TowerError: it can't be loaded, or says nothing about how its images are prepared.
        """
        place = str(directory_of(path))
        model = load(place, device, exact)
        model.config._name_or_path = path
        return cls(path, place, model, load_processor(place))

    @cached_property
    def tower(self) -> AnyTower:
        """Its vision tower."""
        return tower_of(self.model)

    @cached_property
    def record(self) -> Compression | None:
        """How it was made, if it is a result.

        Raises:
            TowerError: its record is damaged.
        """
        return read_record(self.place)

    @property
    def stored_dtype(self) -> torch.dtype:
        """The type in which its weights are stored, as its files say."""
        return stored_dtype(self.place)

    @cached_property
    def fingerprint(self) -> str:
        """What identifies its weights: a local file's SHA-256, or the revision on the hub."""
        return fingerprint(self.place, self.model)

    @property
    def directory(self) -> Path | None:
        """Where its files lie; None on the hub."""
        place = Path(self.place)
        return place if place.is_dir() else None

    def lies_at(self, path: str) -> bool:
        """Whether that is where it lies."""
        if path in (self.path, self.place):
            return True
        return Path(path).is_dir() and Path(path).resolve() == Path(self.place).resolve()
