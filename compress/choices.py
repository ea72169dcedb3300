"""What can be chosen: the names of all choices, and the settings that the library takes.

Options (`compress.options`) are turned into these. Nothing costly is imported, so that a command
shows its help, or says what is wrong with its command line, at once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from pruning_mechanism import TowerKind
    from pruning_mechanism.runtimes import Dtype

DEMO_MODEL = str(Path(__file__).resolve().parents[1] / "demo" / "clip-scenes")
DEMO_FIRST_STAGE = f"{DEMO_MODEL}-first"

Align = Literal["none", "ridge"]
AlignTokens = Literal["all", "class"]
Allocation = Literal["curves", "scores", "uniform"]
ObjectiveName = Literal["contrastive", "embedding"]
PatchRule = Literal["grid", "random", "saliency"]
Repair = Literal["none", "rescale", "reconstruct"]
Schedule = Literal["constant", "decreasing"]
Structure = Literal["heads", "neurons", "head_dims", "sublayers"]
USUAL_STRUCTURES: tuple[Structure, ...] = ("heads", "neurons", "sublayers")

LEAST_IMAGES = 8
"""Images that an alignment takes at least: of 4, the standard error of a gain says too little, and
what was surely better wasn't so on other images."""


@dataclass(frozen=True)
class Sampling:
    """Which images to calibrate on, and how to compute them.

    `called` is what records call the corpus, if that isn't its name here. `reads` is how much of a
    file is read; None: as much as the checkpoint was made to read.
    """

    corpus: str = "scenes"
    directory: Path | None = None
    split: str = "train"
    samples: int = 2048
    seed: int = 0
    batch_size: int = 32
    device: str = "cpu"
    called: str | None = None
    reads: Literal["full", "scaled", "thumbnail"] | None = None

    @property
    def recorded(self) -> str:
        """Corpus and split, as records have them."""
        return f"{self.called or self.corpus} {self.split}"


@dataclass(frozen=True)
class Deployment:
    """What a result is to run in, and so what its seconds are measured in.

    Attributes:
        runtime: as `Stage.load` names it.
        dtype: what it computes in; None: what the runtime would by itself.
    """

    runtime: str = "torch"
    dtype: "Dtype | None" = None

    @property
    def plain(self) -> bool:
        """Whether a result runs as it is loaded."""
        return self.runtime == "torch" and self.dtype is None

    @property
    def says(self) -> str:
        """In words."""
        return self.runtime if self.dtype is None else f"{self.runtime} {self.dtype}"


@dataclass(frozen=True)
class Checkpoints:
    """Which checkpoints to open: directories or hub names.

    `text_model` is a whole CLIP, if `model` is a vision tower alone; `full` holds the full tower,
    by default what `model` was made from, or itself. `towers` are to be made smaller. `called` says
    what records call a checkpoint, if that isn't its path here.
    """

    model: str
    text_model: str | None = None
    full: str | None = None
    towers: tuple["TowerKind", ...] = ("vision",)
    called: Mapping[str, str] = field(default_factory=dict)

    def recorded(self, path: str) -> str:
        """What records call the checkpoint at a path."""
        return self.called.get(path, path)


def towers_called(kinds: Sequence["TowerKind"]) -> str:
    """How options and records name towers: vision, text or both."""
    return "both" if len(kinds) == 2 else kinds[0]


@dataclass(frozen=True)
class Finish:
    """What is done to what a rule makes, and with which calibration images.

    `repair` goes over towers that lost units, on the first `repair_samples` images; `align` over
    the projection, with `align_features` random features (None: four times the hidden size), read
    off `align_tokens` (None: as before, of all tokens where there was no alignment).
    `settings` are the command's options, for the record.
    """

    repair: Repair = "none"
    repair_samples: int = 1024
    align: Align = "none"
    align_features: int | None = None
    align_tokens: AlignTokens | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Spending:
    """How a budget is spread over the layers.

    `structures` may go; curves are measured on `curve_samples` images, heads are turned by
    `turn_samples`. An MLP keeps a multiple of `round_to` neurons, None being what the hardware
    prefers under a budget in seconds, which are those of `batch_size` images. With `aligned` the
    embedding is read off all tokens at last, as an alignment does, not off the class token alone.
    """

    allocate: Allocation = "curves"
    structures: Collection[Structure] = USUAL_STRUCTURES
    curve_samples: int = 256
    turn_samples: int = 1024
    round_to: int | None = None
    batch_size: int = 32
    aligned: bool = False


@dataclass(frozen=True)
class Thoroughness:
    """What may go, and how thoroughly to look.

    `structures` may be pruned; `exits` are the layers to end after that are tried, none for all of
    the tower and every sixth of it. Exits and finished towers are compared on `search_samples`
    calibration images, units scored and repaired on `score_samples`, curves measured on
    `curve_samples`. For each budget `tries` combinations are made, and the best one that merges
    nothing.
    """

    structures: tuple[Structure, ...] = get_args(Structure)
    exits: tuple[int, ...] = ()
    search_samples: int = 2048
    score_samples: int = 1024
    curve_samples: int = 128
    tries: int = 4

    @property
    def spending(self) -> Spending:
        """How curves are measured, and what they are of."""
        return Spending("curves", self.structures, self.curve_samples, self.score_samples)
