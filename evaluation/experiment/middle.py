"""Cascades with further stages between a first stage and the full tower: a row of their own.

Stands beside `evaluation.experiment.resumption`: what a middle stage makes of the collection is
computed once, and put behind every first stage of the experiment.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from evaluation.experiment.search import Search, SearchedStage
from evaluation.experiment.together import Ending, together
from evaluation.measuring.clock import StageTiming
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
            runtime=self.searched.stage.runs_in.runtime,
            dtype=self.searched.stage.runs_in.dtype,
        )


def middle_row(
    row: Row,
    first: tuple[SearchedStage, StageTiming],
    middle: Sequence[MiddleStage],
    search: Search,
    ending: Ending,
    options: SearchOptions,
) -> Row:
    """The row of a first stage with middle stages behind it.

    Args:
        row: of the first stage right in front of the last.
        first: the first stage and its seconds.
        middle: cheap to expensive.
        search: what is searched.
        ending: the last stage.
        options: how.
    """
    behind = [(stage.searched, stage.clock) for stage in middle]
    found = together([first, *behind], ending, search, options)
    *between, before_full = found.reached
    return replace(
        row,
        method=ARROW.join([row.method, *(stage.searched.made.name for stage in middle)]),
        cascade=found.found,
        lifetime_speedup=found.lifetime_speedup,
        query_speedup=found.query_speedup,
        f_measured=before_full,
        encoder_speedup=found.encoder_speedup,
        middle=tuple(
            stage.reached_by(f, search.tower.model)
            for stage, f in zip(middle, between, strict=True)
        ),
        last=found.last,
    )
