"""The flags that rules share: which tower, calibrated on what, under which budget, written where.

A rule's own options are a frozen dataclass over these; `evaluation.cascade` takes the same ones.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compress.budget import Constraint
from compress.command import ConfigOption, UserError
from compress.repair import Repair
from compress.structures import USUAL, Structure
from pruning_mechanism import TowerKind

DEMO_MODEL = str(Path(__file__).resolve().parent.parent / "demo" / "clip-scenes")
Towers = Literal["vision", "text", "both"]
Allocation = Literal["curves", "scores", "uniform"]
Align = Literal["none", "ridge"]


@dataclass(frozen=True)
class SourceOptions(ConfigOption):
    """Which checkpoint to make smaller, and what to calibrate it on."""

    model: str = DEMO_MODEL
    """directory or hub name of a CLIP, or of its vision tower alone"""
    corpus: str = "scenes"
    """scenes, coco, flickr30k, flickr8k, folder, or hub:OWNER/NAME"""
    corpus_dir: Path | None = None
    """where the corpus lies"""
    calibration_split: str = "train"
    """split that the calibration images are drawn from"""
    samples: int = 2048
    """calibration images"""
    batch_size: int = 32
    """images computed at once; of what is made only measured seconds depend on it"""
    seed: int = 0
    """of the draw of calibration images and captions"""
    device: str = "cpu"
    """where to compute: cpu, cuda, mps"""


@dataclass(frozen=True)
class BaseOptions(SourceOptions):
    """Which tower to prune, how to repair it, and what to calibrate it on."""

    text_model: str | None = None
    """a whole CLIP, if --model is a vision tower alone"""
    tower: Towers = "vision"
    """which to make smaller; both: each under the same constraint"""
    repair: Repair = "reconstruct"
    """what is done to the weights that stay"""
    repair_samples: int = 1024
    """calibration images for the repair, the first of the samples"""

    @property
    def towers(self) -> tuple[TowerKind, ...]:
        """The towers to make smaller."""
        return ("vision", "text") if self.tower == "both" else (self.tower,)


@dataclass(frozen=True)
class BudgetOptions(BaseOptions):
    """How much of the tower may be kept, and how that is spread over its layers."""

    mac_constraint: tuple[float, ...] = (0.5,)
    """kept MACs / dense MACs of the encoder layers, in (0, 1]; several share one scoring"""
    latency_constraint: tuple[float, ...] = ()
    """instead of MACs: measured seconds of the whole tower / the dense one's, in (0, 1]"""
    heads: tuple[int, ...] = ()
    """instead of MACs: how many heads of the tower go; every neuron stays"""
    allocate: Allocation | None = None
    """by measured curves, global ranking, the same share everywhere (default: the rule's own)"""
    structures: tuple[Structure, ...] = USUAL
    """what may go: heads, neurons, head_dims (sizes of queries and keys, of values), sublayers"""
    curve_samples: int = 256
    """calibration images for the curves"""
    rounds: int = 0
    """times that curves are measured again around what was chosen, on the repaired tower"""
    steps: int = 1
    """geometric steps in which curves reach the budget"""
    round_to: int | None = None
    """keep a multiple of so many neurons (default: 1, or what the latency table prefers)"""

    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints asked for, all of one kind.

        Raises:
            UserError: there is none, one is out of range, or a count isn't positive.
        """
        for name, least in (("curve_samples", 1), ("rounds", 0), ("steps", 1), ("round_to", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name.replace('_', '-')} must be at least {least}")
        asked = {
            "latency": self.latency_constraint,
            "heads": self.heads,
            "MAC": self.mac_constraint,
        }
        if self.latency_constraint and self.heads:
            raise UserError("--latency-constraint and --heads exclude each other")
        if self.latency_constraint and "text" in self.towers:
            raise UserError(
                "--latency-constraint is measured on vision towers only: --tower vision"
            )
        kind = next((each for each, values in asked.items() if values), None)
        if kind is None:
            raise UserError("name a --mac-constraint, a --latency-constraint or --heads")
        found = tuple(Constraint(kind, each) for each in dict.fromkeys(asked[kind]))
        for each in found:
            each.check()
        self._check_structures(kind)
        return found

    def _check_structures(self, kind: str) -> None:
        """Raise `UserError` if the structures don't go with the other options."""
        if not self.structures:
            raise UserError("name at least one of --structures heads,neurons,head_dims,sublayers")
        if self.allocate not in (None, "curves") and not self.usual_structures:
            raise UserError(
                f"--structures {','.join(self.structures)} takes --allocate curves, "
                f"not {self.allocate}"
            )
        if kind == "heads" and "head_dims" in self.structures:
            raise UserError(
                "--structures head_dims takes a --mac-constraint or a --latency-constraint: "
                "a number of heads says nothing of their sizes"
            )

    @property
    def usual_structures(self) -> bool:
        """Whether heads, neurons and sublayers may go, as every allocation supposes."""
        return set(self.structures) == set(USUAL)


@dataclass(frozen=True)
class AlignOptions(SourceOptions):
    """Which first stage to make cheaper, and how to align it to the last stage."""

    target: str | None = None
    """whose embeddings to come close to (default: what --model was made from, or itself)"""
    samples: int = 4096
    """calibration images"""
    align: Align = "ridge"
    """read the embedding off class token and patches by ridge regression, or as before"""
    align_features: int | None = None
    """random features of the alignment (default: four times the hidden size)"""


@dataclass(frozen=True)
class OutputOptions:
    """Where a rule's command writes."""

    output: Path | None = None
    """directory to write (default: results/RULE-CONSTRAINT); several constraints go inside it"""
    overwrite: bool = False
    """replace an earlier result"""
