"""The flags that rules share: which tower, calibrated on what, under which budget, written where.

A rule's own options are a frozen dataclass over these; `evaluation.cascade` takes the same ones.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from commands.flags import (
    Checkpoint,
    ConfigOption,
    Count,
    NumberFromZero,
    ReadPath,
    Seed,
    Share,
    Unread,
    WrittenPath,
    by_default,
)
from compress.budgets.prices import Constraint
from compress.budgets.structures import USUAL, Structure
from compress.errors import UserError
from compress.making.checkpoints import DEMO_MODEL
from compress.solving.repair import Repair
from pruning_mechanism import TowerKind

__all__ = ["DEMO_MODEL"]

Towers = Literal["vision", "text", "both"]
Allocation = Literal["curves", "scores", "uniform"]
Align = Literal["none", "ridge"]
USUAL_MACS = (0.5,)
"""The MAC constraint of a pruning rule that none is asked of."""


@dataclass(frozen=True)
class SourceOptions(ConfigOption):
    """Which checkpoint to make smaller, and what to calibrate it on."""

    model: Checkpoint = DEMO_MODEL
    """directory or hub name of a CLIP, or of its vision tower alone"""
    corpus: str = "scenes"
    """scenes, coco, flickr30k, flickr8k, folder, or hub:OWNER/NAME"""
    corpus_dir: ReadPath | None = None
    """where the corpus lies"""
    calibration_split: str = "train"
    """split that the calibration images are drawn from"""
    samples: Count = 2048
    """calibration images"""
    batch_size: Count = 32
    """images computed at once; of what is made only measured seconds depend on it"""
    seed: Seed = 0
    """of the draw of calibration images and captions"""
    device: str = "cpu"
    """where to compute: cpu, cuda, mps"""


@dataclass(frozen=True)
class BaseOptions(SourceOptions):
    """Which tower to prune, how to repair it, and what to calibrate it on."""

    text_model: Checkpoint | None = None
    """a whole CLIP, if --model is a vision tower alone"""
    tower: Towers = "vision"
    """which to make smaller; both: each under the same constraint"""
    repair: Repair = "reconstruct"
    """what is done to the weights that stay"""
    repair_samples: Count = 1024
    """calibration images for the repair, the first of the samples"""

    unread: ClassVar = (
        Unread(("repair_samples",), lambda options: not options.repairs, "--repair none"),
    )

    @property
    def repairs(self) -> bool:
        """Whether anything is repaired, or solved on the same images."""
        return self.repair != "none"

    @property
    def towers(self) -> tuple[TowerKind, ...]:
        """The towers to make smaller."""
        return ("vision", "text") if self.tower == "both" else (self.tower,)


@dataclass(frozen=True)
class BudgetOptions(BaseOptions):
    """How much of the tower may be kept, and how that is spread over its layers."""

    mac_constraint: Annotated[tuple[Share, ...], by_default("0.5")] = ()
    """kept MACs / dense MACs of the encoder layers, in (0, 1]; several share one scoring"""
    latency_constraint: tuple[Share, ...] = ()
    """instead of MACs: measured seconds of the whole tower / the dense one's, in (0, 1]"""
    heads: tuple[NumberFromZero, ...] = ()
    """instead of MACs: how many heads of the tower go; every neuron stays"""
    allocate: Allocation | None = None
    """by measured curves, global ranking, the same share everywhere (default: the rule's own)"""
    structures: tuple[Structure, ...] = USUAL
    """what may go: heads, neurons, head_dims (sizes of queries and keys, of values), sublayers"""
    curve_samples: Count = 256
    """calibration images for the curves"""
    rounds: NumberFromZero = 0
    """times that curves are measured again around what was chosen, on the repaired tower"""
    steps: Count = 1
    """geometric steps in which curves reach the budget"""
    round_to: Count | None = None
    """keep a multiple of so many neurons (default: 1, or what the latency table prefers)"""

    exclusive: ClassVar = (("mac_constraint", "latency_constraint", "heads"),)
    unread: ClassVar = (
        *BaseOptions.unread,
        Unread(
            ("curve_samples", "rounds", "steps", "round_to"),
            lambda options: options.allocation != "curves",
            "an allocation that measures no curves (see --allocate)",
        ),
    )
    usual_allocation: ClassVar[Allocation] = "curves"
    """The rule's own."""

    @property
    def allocation(self) -> Allocation:
        """How the budget is spread: as asked for, or the rule's own where it can."""
        return self.allocate or (self.usual_allocation if self.usual_structures else "curves")

    @property
    def repairs(self) -> bool:
        """Whether anything is repaired, or solved on the same images."""
        again = self.rounds > 0 or self.steps > 1 or "head_dims" in self.structures
        return super().repairs or (self.allocation == "curves" and again)

    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints asked for, all of one kind.

        Raises:
            UserError: they don't go with the other options.
        """
        asked = {
            "latency": self.latency_constraint,
            "heads": self.heads,
            "MAC": self.mac_constraint or USUAL_MACS,
        }
        kind = next(each for each, values in asked.items() if values)
        if kind == "latency" and "text" in self.towers:
            raise UserError(
                "--latency-constraint is measured on vision towers only: --tower vision"
            )
        if kind == "latency" and self.allocation == "scores":
            raise UserError("--latency-constraint takes --allocate curves or uniform, not scores")
        self._check_structures(kind)
        return tuple(Constraint(kind, each) for each in dict.fromkeys(asked[kind]))

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

    target: Checkpoint | None = None
    """whose embeddings to come close to (default: what --model was made from, or itself)"""
    samples: Count = 4096
    """calibration images; alignment takes 8 at least"""
    align: Align = "ridge"
    """read the embedding off class token and patches by ridge regression, or as before"""
    align_features: NumberFromZero | None = None
    """random features of the alignment (default: four times the hidden size)"""

    unread: ClassVar = (
        Unread(("align_features",), lambda options: options.align == "none", "--align none"),
        Unread(
            ("target",),
            lambda options: options.align == "none" and not options.measures_target,
            "--align none",
        ),
    )
    measures_target: ClassVar[bool] = False
    """Whether the last stage is read for more than the alignment."""


@dataclass(frozen=True)
class OutputOptions:
    """Where a rule's command writes."""

    output: WrittenPath | None = None
    """directory to write (default: results/RULE-CONSTRAINT); several constraints go inside it"""
    overwrite: bool = False
    """replace an earlier result"""
