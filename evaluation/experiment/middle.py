"""Cascades with further stages between a first stage and the full tower: a row of their own.

Stands beside `evaluation.experiment.resumption`: what a middle stage makes of the collection is
computed once, and put behind every first stage of the experiment.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from cascade import query_speedup
from evaluation.experiment.search import Search, SearchedStage, in_front
from evaluation.measuring.clock import StageTiming, speedup_interval
from evaluation.options import SearchOptions
from evaluation.reports.row import ARROW, Middle, Row
from pruning_mechanism import mac_share, macs, parameters


@dataclass(frozen=True)
class MiddleStage:
    """A stage between first stages and the full tower, and its seconds."""

    searched: SearchedStage
    clock: StageTiming

    def reached_by(self, f: float, full: PreTrainedModel) -> Middle:
        """What the report says of it, where the queries brought a share of the images before it.

        `full` is the model of the full tower.
        """
        made, model = self.searched.made, self.searched.stage.model
        cost = macs(model)
        return Middle(
            method=made.method,
            constraint=made.constraint,
            directory=made.directory.resolve().name if made.directory else None,
            encoder_macs=cost.encoder,
            mac_fraction=mac_share(model, full),
            tower_macs=cost.tower,
            parameters=parameters(model),
            encoder_seconds=self.clock.encoder,
            end_to_end_seconds=self.clock.end_to_end,
            f_measured=f,
            reads=self.searched.stage.reads,
        )


def middle_row(
    row: Row,
    first: SearchedStage,
    middle: Sequence[MiddleStage],
    search: Search,
    clocks: tuple[StageTiming, StageTiming],
    options: SearchOptions,
) -> Row:
    """The row of a first stage with middle stages behind it.

    Args:
        row: of the first stage right in front of the full tower.
        first: the first stage.
        middle: cheap to expensive.
        search: what is searched.
        clocks: of the first stage and of the full tower.
        options: how.
    """
    known, searched = search.remembered, [first, *(stage.searched for stage in middle)]
    found, reached = in_front(
        [*(replace(known, images=stage.images) for stage in searched), known], options.m, search
    )
    *between, before_full = reached
    stages = (clocks[0], *(stage.clock for stage in middle), clocks[1])
    timings = [clock.basis(options.seconds) for clock in stages]
    return replace(
        row,
        method=ARROW.join([row.method, *(stage.searched.made.name for stage in middle)]),
        cascade=found,
        lifetime_speedup=speedup_interval(timings, options.f),
        query_speedup=query_speedup([timing.median for timing in timings], options.m),
        f_measured=before_full,
        encoder_speedup=speedup_interval([clock.encoder for clock in stages], options.f),
        middle=tuple(
            stage.reached_by(f, search.tower.model)
            for stage, f in zip(middle, between, strict=True)
        ),
    )
