"""The record of a collection: its stages, how many candidates and what is certified of them.

One JSON file in its directory, which makes the directory a collection.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascade.calibrated.calibration import Calibration
from cascade.calibrated.cutoff import Cutoff
from cascade.storing.errors import CollectionError

FILE = "collection.json"
FORMAT = 3
"""Of what is written here; larger ones are refused, smaller ones lack what came later: 2 a cutoff,
1 a calibration too."""
_READING = {"full": "", "scaled": ", reading scaled", "thumbnail": ", reading thumbnails"}
"""The ways to read (`corpora.decoding.reads`), as messages add them: Pillow isn't imported here."""


@dataclass(frozen=True)
class StageRecord:
    """A stage by its fingerprints, and where its checkpoint was.

    Attributes:
        name: fingerprint of its image embeddings.
        text_name: fingerprint of its text embeddings.
        checkpoint: directory or name on the hub; None: unknown.
        texts: the checkpoint whose text tower is lent to it, if one is.
        resumes: the checkpoint that it goes on from, if it resumes.
        merged: how many tokens fewer are kept of that one's states.
        dtype: what these states are kept in.
        maps: the file in the collection's directory with what its embeddings are mapped by.
        reads: how much of a file it reads: "full", "scaled" or "thumbnail".
        computes: the runtime and the type, as in "openvino int8", of a vision tower that isn't
            computed in its own type: its embeddings are no other runtime's.
    """

    name: str
    text_name: str
    checkpoint: str | None = None
    texts: str | None = None
    resumes: str | None = None
    merged: int = 0
    dtype: str = "float16"
    maps: str | None = None
    reads: str = "full"
    computes: str | None = None

    def __str__(self) -> str:
        short = self.name[:12]
        mapped = "" if self.maps is None else ", mapped"
        mapped += _READING.get(self.reads, "")
        mapped += "" if self.computes is None else f", {self.computes}"
        return short if self.checkpoint is None else f"{self.checkpoint}{mapped} ({short})"


@dataclass(frozen=True)
class Plan:
    """What was certified when a collection's m was chosen.

    Attributes:
        k: results that are compared.
        agreement: the share of the full tower's results that the cascade returns at least.
        confidence: how sure that is, in (0, 1).
        queries: how many it was measured on.
        of: what these were.
        encoded: images that the full tower ranked then.
        images: that the collection held then.
    """

    k: int
    agreement: float
    confidence: float
    queries: int
    of: str
    encoded: int
    images: int


@dataclass(frozen=True)
class Record:
    """What a collection was made with, and what was found out about its m since.

    `generation` says which tables of embeddings are its own: another after each migration.
    """

    stages: Sequence[StageRecord]
    m: Sequence[int]
    precision: str
    plan: Plan | None = None
    generation: int = 0
    calibration: Calibration | None = None
    cutoff: Cutoff | None = None

    def write(self, directory: Path) -> None:
        """Write it into a directory; it is there as a whole or not at all."""
        entries = {"format": FORMAT, **asdict(self)}
        for stage in entries["stages"]:  # as earlier versions read it, where they know it all
            if stage["reads"] == "full":
                del stage["reads"]
        unfinished = directory / f".{FILE}.{os.getpid()}"
        unfinished.write_text(json.dumps(entries, indent=2) + "\n")
        unfinished.replace(directory / FILE)

    @classmethod
    def read(cls, directory: Path) -> "Record":
        """The record of a collection.

        Raises:
            CollectionError: there is no such directory, it isn't a collection, or it was written
                by a newer version.
        """
        try:
            text = (directory / FILE).read_text()
        except (FileNotFoundError, NotADirectoryError) as error:
            if not directory.exists():
                raise CollectionError(
                    f"{directory} isn't there: make it with Collection.create"
                ) from error
            raise CollectionError(
                f"{directory} is not a collection: there is no {FILE} in it"
            ) from error
        except OSError as error:
            raise CollectionError(
                f"{error.filename or directory} can't be read: {error.strerror}"
            ) from error
        try:
            return _parsed(json.loads(text))
        except _NewerError as newer:
            raise CollectionError(
                f"{directory} has format {newer}, this version reads up to {FORMAT}: update "
                "clip-cascade"
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CollectionError(
                f"{directory / FILE} is damaged ({error}): restore it, or make the collection anew"
            ) from error


class _NewerError(Exception):
    """A format that this version doesn't know."""


def _parsed(entries: dict[str, Any]) -> Record:
    written = entries.pop("format")
    if written > FORMAT:
        raise _NewerError(written)
    stages = [StageRecord(**stage) for stage in entries.pop("stages")]
    if strange := {stage.reads for stage in stages} - _READING.keys():
        raise ValueError(f"stages read {sorted(strange)}")
    plan, learnt, cutoff = (entries.pop(name, None) for name in ("plan", "calibration", "cutoff"))
    record = Record(
        stages=stages,
        m=tuple(map(int, entries.pop("m"))),
        plan=None if plan is None else Plan(**plan),
        calibration=None if learnt is None else Calibration.of_entries(learnt),
        cutoff=None if cutoff is None else Cutoff.of_entries(cutoff),
        **entries,
    )
    if not stages or not {"precision"} <= entries.keys() <= {"precision", "generation"}:
        raise ValueError("no stages" if not stages else f"entries {sorted(entries)}")
    return record
