"""The flags that rules share, and what the library takes in their place.

A rule's own options are a frozen dataclass over these; experiments take the same ones. No library
function takes options: `sampling`, `checkpoints`, `finish`, `spending` and `budgets` are what they
say to it.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

from commands.flags import (
    Bounds,
    Checkpoint,
    ConfigOption,
    Count,
    NumberFromZero,
    Place,
    ReadPath,
    Seed,
    Share,
    Unread,
    WrittenPath,
    by_default,
)
from commands.published import published, published_corpus, published_name
from compress.budgets.budgets import Budget, HeadBudget, MacBudget, SecondBudget
from compress.choices import (
    DEMO_MODEL,
    LEAST_IMAGES,
    USUAL_STRUCTURES,
    Align,
    AlignTokens,
    Allocation,
    Checkpoints,
    Deployment,
    Finish,
    Repair,
    Sampling,
    Spending,
    Structure,
    Thoroughness,
)
from compress.errors import UserError

if TYPE_CHECKING:
    from pruning_mechanism import TowerKind

MaskShare = Annotated[float, Bounds(0, 1, high_open=True)]
"""A share of the patches that is left out."""
Towers = Literal["vision", "text", "both"]
USUAL_MACS = (0.5,)
"""The MAC constraint of a rule that none is asked of."""


@dataclass(frozen=True)
class SourceOptions(ConfigOption):
    """Which checkpoint to make smaller, and what to calibrate it on."""

    model: Checkpoint = DEMO_MODEL
    """directory, hub name or open_clip:NAME of a CLIP, or of its vision tower alone"""
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
    """seed for drawing calibration images and captions"""
    device: str = "cpu"
    """where to compute: cpu, cuda, mps"""

    @property
    def sampling(self) -> Sampling:
        """Which images to calibrate on."""
        return Sampling(
            self.corpus,
            self.corpus_dir,
            self.calibration_split,
            self.samples,
            self.seed,
            self.batch_size,
            self.device,
            published_corpus(self.corpus),
        )


@dataclass(frozen=True)
class ReadingOptions(SourceOptions):
    """How much of a file the calibration reads, and so will a stage of what is made."""

    reads: Literal["full", "scaled", "thumbnail"] | None = None
    """how much of an image file is read, here and by the result (default: as --model does)"""

    @property
    def sampling(self) -> Sampling:
        """Which images to calibrate on, and how to read them."""
        return replace(super().sampling, reads=self.reads)


@dataclass(frozen=True)
class FullTowerOptions(ReadingOptions):
    """Which full tower a first stage stands in front of, and how it is aligned to it."""

    target: Checkpoint | None = None
    """full tower whose embeddings to come close to (default: what --model was made from)"""
    align: Align = "none"
    """leave the projection as it is, or read the embedding off all tokens by ridge regression"""
    align_features: NumberFromZero | None = None
    """random features of the alignment (default: four times the hidden size)"""

    unread: ClassVar[tuple[Unread, ...]] = (
        Unread(("align_features",), lambda options: options.align == "none", "--align none"),
        Unread(("target",), lambda options: not options.reads_target, "--align none"),
    )

    @property
    def reads_target(self) -> bool:
        """Whether the full tower is read."""
        return self.align != "none"

    @property
    def checkpoints(self) -> Checkpoints:
        """Which checkpoints to open."""
        paths = [self.model, *([self.target] if self.target else [])]
        called = {path: published_name(path) for path in paths}
        return Checkpoints(self.model, full=self.target, called=called)

    @property
    def finish(self) -> Finish:
        """What is done to what the rule makes."""
        return Finish(
            align=self.align, align_features=self.align_features, settings=published(self)
        )


@dataclass(frozen=True)
class TokenOptions(FullTowerOptions):
    """Which first stage to make cheaper, and how to align it to the full tower."""

    samples: Count = 4096
    """calibration images; alignment takes 8 at least"""
    align: Align = "ridge"
    """read the embedding off class token and patches by ridge regression, or as before"""


@dataclass(frozen=True)
class AlignedTokenOptions(TokenOptions):
    """Which first stage to make cheaper, and what its alignment reads."""

    align_tokens: AlignTokens | None = None
    """what the alignment reads: with the class token alone the last layer costs next to nothing
    (default: as --model does, all where it isn't aligned)"""

    unread: ClassVar = (
        *TokenOptions.unread,
        Unread(("align_tokens",), lambda options: options.align == "none", "--align none"),
    )

    @property
    def finish(self) -> Finish:
        """What is done to what the rule makes."""
        return replace(super().finish, align_tokens=self.align_tokens)


@dataclass(frozen=True)
class RepairOptions(ReadingOptions):
    """Which tower to prune, how to repair it, and what to calibrate it on."""

    text_model: Checkpoint | None = None
    """a whole CLIP, if --model is a vision tower alone"""
    tower: Towers = "vision"
    """which to make smaller; both: each under the same constraint"""
    repair: Repair = "reconstruct"
    """what is done to the weights that stay"""
    repair_samples: Count = 1024
    """calibration images for the repair, the first of the samples"""

    unread: ClassVar[tuple[Unread, ...]] = (
        Unread(("repair_samples",), lambda options: not options.repairs, "--repair none"),
    )

    @property
    def repairs(self) -> bool:
        """Whether anything is repaired, or solved on the same images."""
        return self.repair != "none"

    @property
    def towers(self) -> tuple["TowerKind", ...]:
        """The towers to make smaller."""
        return ("vision", "text") if self.tower == "both" else (self.tower,)


@dataclass(frozen=True)
class TowerOptions(RepairOptions, FullTowerOptions):
    """Which tower to prune, how to repair and to align it, and what to calibrate it on."""

    unread: ClassVar = (*FullTowerOptions.unread, *RepairOptions.unread)

    @property
    def checkpoints(self) -> Checkpoints:
        """Which checkpoints to open."""
        return replace(
            super().checkpoints,
            text_model=self.text_model,
            towers=self.towers,
        )

    @property
    def finish(self) -> Finish:
        """What is done to what the rule makes.

        Raises:
            UserError: a text tower is to be aligned.
        """
        if self.align != "none" and self.tower != "vision":
            raise UserError(f"--align {self.align} is for vision towers: --tower vision")
        return Finish(
            self.repair,
            self.repair_samples,
            self.align,
            self.align_features,
            settings=published(self),
        )

    def check(self) -> None:
        """Raise `UserError` if a text tower is to be aligned."""
        super().check()
        _ = self.finish


@dataclass(frozen=True)
class LatencyOptions(SourceOptions):
    """A budget of seconds."""

    latency_constraint: tuple[Share, ...] = ()
    """instead of MACs: measured seconds of the whole tower / the dense one's, in (0, 1]"""

    @property
    def deployment(self) -> Deployment:
        """What the result is to run in."""
        return Deployment()

    def seconds(self, kind: type[SecondBudget] = SecondBudget) -> tuple[SecondBudget, ...]:
        """The budgets of seconds that are asked for."""
        shares = dict.fromkeys(self.latency_constraint)
        return tuple(kind(share, self.deployment) for share in shares)


@dataclass(frozen=True)
class DeployedOptions(LatencyOptions):
    """What the seconds of a budget are measured in."""

    runtime: Literal["torch", "compile", "onnxruntime", "openvino"] = "torch"
    """what the result will run in: seconds, the dense tower's too, are measured in it"""
    dtype: Literal["float32", "bfloat16", "int8"] | None = None
    """what it will compute in there (default: what the runtime does by itself)"""

    unread: ClassVar[tuple[Unread, ...]] = (
        Unread(
            ("runtime", "dtype"),
            lambda options: not options.latency_constraint,
            "no latency constraint",
        ),
    )

    @property
    def deployment(self) -> Deployment:
        """What the result is to run in."""
        return Deployment(self.runtime, self.dtype)


@dataclass(frozen=True)
class SpendingOptions(LatencyOptions, RepairOptions):
    """How much of the tower may be kept, and how that is spread over its layers."""

    mac_constraint: Annotated[tuple[Share, ...], by_default("0.5")] = ()
    """kept MACs / dense MACs of the encoder layers, in (0, 1]; several share one scoring"""
    heads: tuple[NumberFromZero, ...] = ()
    """instead of MACs: how many heads of the tower go; every neuron stays"""
    allocate: Allocation | None = None
    """by measured curves, global ranking, the same share everywhere (default: the rule's own)"""
    structures: tuple[Structure, ...] = USUAL_STRUCTURES
    """what may go: heads, neurons, head_dims (sizes of queries and keys, of values), sublayers"""
    curve_samples: Count = 256
    """calibration images for the curves"""
    round_to: Count | None = None
    """keep a multiple of so many neurons (default: 1, or what the latency table prefers)"""

    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("mac_constraint", "latency_constraint", "heads"),
    )
    unread: ClassVar[tuple[Unread, ...]] = (
        *RepairOptions.unread,
        Unread(
            ("curve_samples", "round_to"),
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
    def usual_structures(self) -> bool:
        """Whether heads, neurons and sublayers may go, as every allocation supposes."""
        return set(self.structures) == set(USUAL_STRUCTURES)

    @property
    def repairs(self) -> bool:
        """Whether anything is repaired, or solved on the same images."""
        return super().repairs or "head_dims" in self.structures

    @property
    def spending(self) -> Spending:
        """How the budget is spread over the layers."""
        return Spending(
            self.allocation,
            self.structures,
            self.curve_samples,
            self.repair_samples,
            self.round_to,
            self.batch_size,
        )

    def budgets(self) -> tuple[Budget, ...]:
        """The budgets asked for, all of one kind.

        Raises:
            UserError: they don't go with the other options.
        """
        self._check_structures()
        if self.latency_constraint:
            if "text" in self.towers:
                raise UserError(
                    "--latency-constraint is measured on vision towers only: --tower vision"
                )
            if self.allocation == "scores":
                raise UserError(
                    "--latency-constraint takes --allocate curves or uniform, not scores"
                )
            return self.seconds()
        if self.heads:
            return tuple(map(HeadBudget, dict.fromkeys(self.heads)))
        return tuple(map(MacBudget, dict.fromkeys(self.mac_constraint or USUAL_MACS)))

    def _check_structures(self) -> None:
        """Raise `UserError` if the structures don't go with the other options."""
        if not self.structures:
            raise UserError("name at least one of --structures heads,neurons,head_dims,sublayers")
        if self.allocate not in (None, "curves") and not self.usual_structures:
            raise UserError(
                f"--structures {','.join(self.structures)} takes --allocate curves, "
                f"not {self.allocate}"
            )
        if self.heads and "head_dims" in self.structures:
            raise UserError(
                "--structures head_dims takes a --mac-constraint or a --latency-constraint: "
                "a number of heads says nothing of their sizes"
            )


@dataclass(frozen=True)
class BudgetOptions(DeployedOptions, SpendingOptions, TowerOptions):
    """What a rule takes that prunes heads and neurons under a budget."""

    unread: ClassVar = (
        *FullTowerOptions.unread,
        *SpendingOptions.unread,
        *DeployedOptions.unread,
    )

    @property
    def spending(self) -> Spending:
        """How the budget is spread over the layers."""
        return replace(super().spending, aligned=self.align != "none")

    def check(self) -> None:
        """Raise `UserError` if the budgets don't go with the other options."""
        super().check()
        self.budgets()


@dataclass(frozen=True)
class CombinationOptions(DeployedOptions, AlignedTokenOptions):
    """What the joint rule may take away, and how thoroughly it looks."""

    mac_constraint: Annotated[tuple[Share, ...], by_default("0.07")] = ()
    """kept MACs / dense MACs of the encoder layers, in (0, 1]; several share all measurements"""
    files: tuple[Place, ...] = ()
    """directories, files, patterns as 'DIR/*.jpg': photos on which seconds count from the file on,
    opening included; the full tower's are read in full"""
    files_sample: Count = 64
    """of these so many, drawn by --seed, are opened and measured"""
    resolutions: tuple[Count, ...] = ()
    """sides in pixels of smaller images that are tried as well with --files: fewer tokens"""
    patch_sizes: tuple[Count, ...] = ()
    """sides in pixels of coarser patches that are tried as well with --files: smaller images"""
    reads: Literal["full", "scaled", "thumbnail"] | None = None
    """how much of an image file is read, here and by the result (default: as --model does; with
    --files what loses least in the same seconds)"""
    structures: tuple[Structure, ...] = get_args(Structure)
    """what pruning may take"""
    exits: tuple[Count, ...] = ()
    """layers to exit after that are tried (default: all of the tower, and every sixth of it)"""
    search_samples: Annotated[int, Bounds(LEAST_IMAGES)] = 2048
    """calibration images that exits and finished towers are compared on"""
    score_samples: Count = 1024
    """calibration images for the scores and the repair"""
    curve_samples: Count = 128
    """calibration images for the curves"""
    tries: Count = 4
    """combinations that are made for each constraint, and the best one that merges nothing"""

    exclusive: ClassVar = (("mac_constraint", "latency_constraint"),)
    unread: ClassVar[tuple[Unread, ...]] = (
        *AlignedTokenOptions.unread,
        *DeployedOptions.unread,
        Unread(("files",), lambda options: not options.latency_constraint, "no latency constraint"),
        Unread(
            ("files_sample", "resolutions", "patch_sizes"),
            lambda options: not options.files,
            "no --files",
        ),
    )
    reads_target: ClassVar = True

    def check(self) -> None:
        """Raise `UserError` if what is made isn't to be aligned."""
        super().check()
        if self.align == "none":
            raise UserError("compress.joint judges by the aligned embedding: --align ridge")

    @property
    def thoroughness(self) -> Thoroughness:
        """What the joint rule may take away, and how thoroughly it looks."""
        return Thoroughness(
            self.structures,
            self.exits,
            self.search_samples,
            self.score_samples,
            self.curve_samples,
            self.tries,
        )


@dataclass(frozen=True)
class OutputOptions:
    """Where a rule's command writes."""

    output: WrittenPath | None = None
    """directory to write (default: results/RULE-CONSTRAINT); several constraints go inside it"""
    overwrite: bool = False
    """replace an earlier result"""
