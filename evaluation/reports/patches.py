"""Which patches first stages keep and which tokens they merge, image by image: the record.

`evaluation.patches` writes it, the images as the towers see them lie beside it, and
`figures.patches` draws both.
"""

from dataclasses import dataclass
from pathlib import Path

from evaluation.reports import record
from evaluation.reports.record import RecordError

SCHEMA = 1
FILE = "patches.json"
LEFT_OUT = -1
"""The token of a patch that is left out, as `pruning_mechanism.groups` numbers it."""


@dataclass(frozen=True)
class StagePatches:
    """What one first stage makes of each image's patches.

    Attributes:
        name: of its directory.
        made_by: the rules and what they were asked for, in their order ("flip mask 0.5 (grid)").
        rows: of patches in an image.
        columns: of patches in an image.
        images: names of the image files as this stage sees them, beside the record.
        groups: of each image the token that each patch is part of at the end, from 0, row by row;
            `LEFT_OUT` for a patch that is left out.
    """

    name: str
    made_by: str
    rows: int
    columns: int
    images: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Refuse groups that aren't of these images and patches."""
        patches = self.rows * self.columns
        if not patches or len(self.images) != len(self.groups):
            raise RecordError(
                f"{self.name} has {len(self.images)} images of {patches} patches, but "
                f"{len(self.groups)} lists of groups"
            )
        for image, groups in zip(self.images, self.groups, strict=True):
            if len(groups) != patches or min(groups) < LEFT_OUT:
                raise RecordError(f"{self.name}: the groups of {image} aren't of {patches} patches")


@dataclass(frozen=True)
class Patches:
    """What several first stages make of the same images.

    Attributes:
        command: the command line that made the record.
        corpus: that the images are of.
        split: of the corpus.
        seed: of the draw.
        keys: of the images.
        stages: in the order given.
        schema: version of this form.
    """

    command: str
    corpus: str
    split: str
    seed: int
    keys: tuple[str, ...]
    stages: tuple[StagePatches, ...]
    schema: int = SCHEMA

    def save(self, directory: Path) -> None:
        """Write the record into a directory.

        Raises:
            OSError: it can't be written.
        """
        record.save(self, directory / FILE, "record of patches")

    @classmethod
    def load(cls, directory: Path) -> "Patches":
        """Read the record in a directory.

        Raises:
            RecordError: it isn't one, or one with another schema.
            OSError: it can't be read.
        """
        return record.read(cls, directory / FILE, SCHEMA, "record of patches")


def open_patches(directory: Path) -> Patches:
    """Read the record in a directory that a user named.

    Raises:
        RecordError: it isn't one, or can't be read.
    """
    return record.opened(Patches.load, directory, "evaluation.patches")
