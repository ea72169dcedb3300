"""What a report says of one first stage: its row, and how methods and constraints are written.

The smallest part of the report; `evaluation.reports.report` puts rows together.
"""

import re
from dataclasses import dataclass

from evaluation.measuring.values import Interval, Timing

FULL_TOWER = "full tower"
"""The method of the full tower's own row."""
ARROW = " → "
"""Stands between stages, and between the numbers of candidates that they hand on."""
_VALUE = r"(?P<value>\d+(\.\d+)?(e[+-]?\d+)?)"
_LABELS = tuple(
    map(re.compile, (rf"(?P<kind>[^\s\d]\S*) {_VALUE}", rf"{_VALUE} (?P<kind>[^\s\d]\S*)"))
)


@dataclass(frozen=True)
class Result:
    """How well one search answers the queries.

    `recall` is Recall@k by k, `difference` Recall@k minus the full tower's in percentage points
    (paired), `agreement` agreement@10 with the full tower. Intervals are 95 % bootstrap intervals
    over images.
    """

    recall: dict[int, Interval]
    difference: dict[int, Interval]
    agreement: Interval


@dataclass(frozen=True)
class Middle:
    """A stage between a first stage and the full tower: what it is, what it costs.

    Attributes:
        method: as a row's.
        constraint: as a row's.
        directory: as a row's.
        encoder_macs: as a row's.
        mac_fraction: as a row's.
        tower_macs: as a row's.
        parameters: as a row's.
        encoder_seconds: as a row's.
        end_to_end_seconds: as a row's.
        f_measured: share of the collection that the queries brought before this stage.
        reads: as a row's.
        runtime: as a row's.
        dtype: as a row's.
    """

    method: str
    constraint: str
    directory: str | None
    encoder_macs: int
    mac_fraction: float
    tower_macs: int
    parameters: int
    encoder_seconds: Timing
    end_to_end_seconds: Timing
    f_measured: float
    reads: str = "full"
    runtime: str | None = None
    dtype: str | None = None

    @property
    def name(self) -> str:
        """What it is called, as in "fisher MAC 0.65"."""
        return f"{self.method} {self.constraint}".strip()


@dataclass(frozen=True)
class Last:
    """A last stage that runs otherwise than the full tower that a report measures against.

    Attributes:
        label: what its user asked for, as in "scaled openvino bfloat16".
        reads: as a row's.
        runtime: as a row's.
        dtype: as a row's.
        encoder_seconds: as a row's.
        end_to_end_seconds: as a row's.
        alone: what it finds by itself among all images, against the reference.
        one_minus_cosine: mean of 1 - cos(embedding, the reference's) over the images.
        agreement: agreement@10 of the cascade with this stage by itself, not with the reference.
        lifetime_speedup: against this stage by itself: of one runtime, as it were.
        encoder_speedup: the same of encoder-only seconds.
        thumbnails_given: as a row's.
    """

    label: str
    reads: str
    runtime: str
    dtype: str
    encoder_seconds: Timing
    end_to_end_seconds: Timing
    alone: Result
    one_minus_cosine: float
    agreement: Interval
    lifetime_speedup: Interval
    encoder_speedup: Interval
    thumbnails_given: int | None = None


@dataclass(frozen=True)
class Row:
    """One first stage: what it costs, how well it searches alone and in front of the full tower.

    Attributes:
        method: the rule and the words that change its options, as in "fisher+rescale"; `FULL_TOWER`
            for the full tower; with " resumed" where the full tower goes on from its states; with
            " → " and their names where further stages stand before the full tower; with " as " and
            settings, and ", last as " and settings, where stages were told how to run.
        rule: the rule alone, "fisher", which its variants share.
        variant: the words that change its options, "rescale"; "" where there are none.
        constraint: what the rule was asked for, to be shown ("MAC 0.65", "77 heads").
        constraint_kind: what the constraint counts ("MAC", "heads", "mask"); None where there is
            no constraint.
        constraint_value: how much of it, to sort by (0.65, 77); None where there is no number.
        directory: name of the checkpoint's directory, None if it wasn't kept.
        encoder_macs: MACs of the encoder layers for one image.
        mac_fraction: kept / dense encoder MACs, in (0, 1].
        tower_macs: MACs of the whole tower for one image, patch embedding and projection included.
        parameters: of the vision tower.
        alone: the first stage as an ordinary search.
        cascade: the first stage in front of the full tower, or of it as `last` says, against the
            reference, the full tower of the report by itself; None for the full tower.
        one_minus_cosine: mean of 1 − cos(embedding, the full tower's embedding) over the images.
        encoder_seconds: seconds per image, pixels → embedding.
        end_to_end_seconds: seconds per image, bytes → embedding.
        lifetime_speedup: at `f_assumed`, against the reference; bounds from the quartiles of the
            clock.
        query_speedup: per-query speedup; None where no candidates are handed on.
        f_assumed: the f of `lifetime_speedup`.
        f_measured: share of the collection that the queries brought before the full tower.
        compression_seconds: what making the first stage took; None if it was made earlier.
        state_bytes: what is kept of an image for the full tower to go on from; None if nothing is.
        resumed_seconds: seconds per image, states → the full tower's embedding, measured beside
            those that the speedups are made of; None where it starts from the image.
        attention: the implementation by which the tower attends.
        reads: how much of a file it reads: "full", "scaled" or "thumbnail".
        thumbnails_given: pixels of the longer edge of the thumbnails that the files were given, as
            they have none of their own; None where none were.
        middle: the stages between the first and the full tower, cheap to expensive; `cascade` and
            the speedups are of all of them.
        encoder_speedup: lifetime speedup of encoder-only seconds, whatever `lifetime_speedup` is
            made of; None in reports from before it was counted.
        runtime: what computes the tower: "torch", "openvino", …; None in reports from before this
            was said.
        dtype: what it computes in; None likewise.
        last: the last stage of `cascade`, where it runs otherwise than the reference.
    """

    method: str
    rule: str
    variant: str
    constraint: str
    constraint_kind: str | None
    constraint_value: float | None
    directory: str | None
    encoder_macs: int
    mac_fraction: float
    tower_macs: int
    parameters: int
    alone: Result
    cascade: Result | None
    one_minus_cosine: float | None
    encoder_seconds: Timing
    end_to_end_seconds: Timing
    lifetime_speedup: Interval
    query_speedup: float | None
    f_assumed: float | None
    f_measured: float | None
    compression_seconds: float | None
    state_bytes: int | None = None
    resumed_seconds: Timing | None = None
    attention: str | None = None
    reads: str = "full"
    thumbnails_given: int | None = None
    middle: tuple[Middle, ...] = ()
    encoder_speedup: Interval | None = None
    runtime: str | None = None
    dtype: str | None = None
    last: Last | None = None

    @property
    def behind(self) -> tuple["Middle | Last", ...]:
        """The stages behind the first, but for the reference."""
        return self.middle if self.last is None else (*self.middle, self.last)

    @property
    def is_told(self) -> bool:
        """Whether its method says how a stage runs, as `FirstStage.called` and `last_as` do."""
        return self.last is not None or " as " in self.method

    @property
    def stages(self) -> tuple[str, ...]:
        """What the stages before the full tower are called: the first, then those in between."""
        names = [stage.name for stage in self.middle]
        first = self.method if self.last is None else self.method.removesuffix(last_as(self.last))
        first = first.removesuffix(ARROW.join(["", *names]) if names else "")
        return (f"{first} {self.constraint}".strip(), *names)


def last_as(last: Last) -> str:
    """What a row's method ends with whose last stage runs so."""
    return f", last as {last.label}"


def constraint_of(label: str) -> tuple[str | None, float | None]:
    """Kind and value of a constraint, from what shows it: "MAC 0.65", "77 heads", "ridge" or "".

    Reports under schema 1 and the records of checkpoints hold the label alone.
    """
    for pattern in _LABELS:
        if found := pattern.fullmatch(label):
            return found["kind"], float(found["value"])
    return label or None, None
