"""What stages find and cost together: a first stage, those in the middle, and the last.

Stands between the embeddings of an experiment's stages and the rows of its report. The last stage
is the full tower that all is measured against, or the same tower as it will run: reading less, in
another runtime or type. Agreement and recall are then still of the former, the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.nn.functional import cosine_similarity

from cascade import Cascade, Stage, query_speedup
from cascade.cost import return_fractions
from evaluation.experiment.giving import Giving
from evaluation.experiment.quality import (
    Answers,
    Remembered,
    answers_alone,
    answers_of,
    result,
)
from evaluation.experiment.search import Search, SearchedStage, embeddings_of
from evaluation.measuring.clock import StageTiming, speedup_interval
from evaluation.measuring.values import Interval
from evaluation.options import SearchOptions
from evaluation.reports.row import Last, Result, Row, last_as
from evaluation.retrieval import overlap
from pruning_mechanism import mac_share, macs, parameters


@dataclass(frozen=True)
class LastStage:
    """A stage that cascades end with: the full tower, as the reference or as it will run.

    Attributes:
        stage: it.
        known: its embeddings of images and queries.
        answers: what it finds by itself.
        clock: its seconds.
        label: what its user asked for; "" for the reference.
        given: the thumbnails that files had to be given for it.
    """

    stage: Stage
    known: Remembered
    answers: Answers
    clock: StageTiming
    label: str = ""
    given: Giving = field(default_factory=Giving)

    @classmethod
    def reference(cls, search: Search, clock: StageTiming) -> "LastStage":
        """The full tower that all is measured against."""
        return cls(search.tower, search.remembered, search.answers, clock)

    @classmethod
    def of(cls, stage: Stage, label: str, search: Search, clock: StageTiming) -> "LastStage":
        """Let the full tower encode every image as it will run."""
        given = Giving.to(stage, search.corpus, search.tower)
        images = embeddings_of(stage, search.corpus, f"last as {label}", given)
        known = replace(search.remembered, name=stage.name, images=images)
        queries = known.encode_texts(search.queries.texts)
        answers = answers_alone(queries, images, search.queries.target)
        return cls(stage, known, answers, clock, label, given)


@dataclass(frozen=True)
class Ending:
    """A last stage, and the seconds of the reference beside it."""

    last: LastStage
    full: StageTiming

    @property
    def is_reference(self) -> bool:
        """Whether the last stage is the full tower that all is measured against."""
        return not self.last.label


@dataclass(frozen=True)
class Together:
    """What stages find and cost together.

    Attributes:
        found: against the reference.
        reached: share of the collection that reaches each later stage.
        lifetime_speedup: as a row's.
        encoder_speedup: as a row's.
        query_speedup: as a row's.
        last: as a row's.
    """

    found: Result
    reached: tuple[float, ...]
    lifetime_speedup: Interval
    encoder_speedup: Interval
    query_speedup: float
    last: Last | None


def together(
    stages: Sequence[tuple[SearchedStage, StageTiming]],
    ending: Ending,
    search: Search,
    options: SearchOptions,
) -> Together:
    """What stages find and cost before a last one.

    Args:
        stages: those before the last and their seconds, cheap to expensive.
        ending: the last one.
        search: what is searched.
        options: how.
    """
    last, m = ending.last, options.m[: len(stages)]
    known = [replace(last.known, images=stage.images) for stage, _ in stages]
    answers, reached = in_front([*known, last.known], m, search)
    clocks = [*(clock for _, clock in stages), last.clock]
    timings = [clock.basis(options.seconds) for clock in clocks]
    encoders = [clock.encoder for clock in clocks]
    full = None if ending.is_reference else ending.full.basis(options.seconds)
    full_encoder = None if ending.is_reference else ending.full.encoder
    alone = speedup_interval(timings, options.f), speedup_interval(encoders, options.f)
    return Together(
        found=result(answers, search.answers, search.bootstrap),
        reached=reached,
        lifetime_speedup=speedup_interval(timings, options.f, full),
        encoder_speedup=speedup_interval(encoders, options.f, full_encoder),
        query_speedup=query_speedup(
            [timing.median for timing in timings], m, None if full is None else full.median
        ),
        last=None if ending.is_reference else _told(last, answers, alone, search),
    )


def _told(
    last: LastStage, answers: Answers, speedups: tuple[Interval, Interval], search: Search
) -> Last:
    """What a row says of its last stage.

    Args:
        last: it, which isn't the reference.
        answers: of the cascade that it ends.
        speedups: that cascade's, end to end or as asked for and of encoders, against the last
            stage by itself.
        search: what is searched.
    """
    return Last(
        label=last.label,
        reads=last.stage.reads,
        runtime=last.stage.runs_in.runtime,
        dtype=last.stage.runs_in.dtype,
        encoder_seconds=last.clock.encoder,
        end_to_end_seconds=last.clock.end_to_end,
        alone=result(last.answers, search.answers, search.bootstrap),
        one_minus_cosine=_apart(last.known.images, search),
        agreement=search.bootstrap.interval(overlap(last.answers.top, answers.top)),
        lifetime_speedup=speedups[0],
        encoder_speedup=speedups[1],
        thumbnails_given=last.given.long_side,
    )


def in_front(
    stages: Sequence[Remembered], m: Sequence[int], search: Search
) -> tuple[Answers, tuple[float, ...]]:
    """What a cascade answers, and the share of the collection that reaches each later stage: f."""
    positions: Sequence[Any] = range(len(stages[0].images))  # stand for images: see `Remembered`
    cascade = Cascade(stages, m=m)
    cascade.index(positions, keys=positions)
    return answers_of(cascade, search.queries), return_fractions(cascade.encoded)


def first_stage_row(
    searched: SearchedStage,
    search: Search,
    clock: StageTiming,
    ending: Ending,
    options: SearchOptions,
) -> Row:
    """One first stage, alone and in front of a last one."""
    first, stage, images = searched.made, searched.stage, searched.images
    embedded = search.remembered.encode_texts(search.queries.texts)
    alone = answers_alone(embedded, images, search.queries.target)
    found = together([(searched, clock)], ending, search, options)
    rule, _, variant = first.method.partition("+")
    cost = macs(stage.model)
    return Row(
        method=first.called,
        rule=rule,
        variant=variant,
        constraint=first.constraint,
        constraint_kind=first.constraint_kind,
        constraint_value=first.constraint_value,
        directory=first.directory.resolve().name if first.directory else None,
        encoder_macs=cost.encoder,
        mac_fraction=mac_share(stage.model, search.tower.model),
        tower_macs=cost.tower,
        parameters=parameters(stage.model),
        alone=result(alone, search.answers, search.bootstrap),
        cascade=found.found,
        one_minus_cosine=_apart(images, search),
        encoder_seconds=clock.encoder,
        end_to_end_seconds=clock.end_to_end,
        lifetime_speedup=found.lifetime_speedup,
        query_speedup=found.query_speedup,
        f_assumed=options.f,
        f_measured=found.reached[-1],
        compression_seconds=first.seconds,
        attention=stage.attention.name,
        reads=stage.reads,
        thumbnails_given=searched.given.long_side,
        encoder_speedup=found.encoder_speedup,
        runtime=stage.runs_in.runtime,
        dtype=stage.runs_in.dtype,
        last=found.last,
    )


def _apart(images: Tensor, search: Search) -> float:
    """Mean of 1 - cos of embeddings [N, d] and the reference's."""
    return 1 - cosine_similarity(images, search.remembered.images).mean().item()


def named(row: Row) -> Row:
    """The row under a method that says how its last stage runs, where that isn't the reference."""
    if row.last is None:
        return row
    return replace(row, method=f"{row.method}{last_as(row.last)}")
