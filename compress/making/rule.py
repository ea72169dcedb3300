"""A rule: one way to make a tower smaller or cheaper, at one of several settings.

Stands between a source and what is made of it. All rules are of this type; what is done before and
after, opening, repair, alignment, record and writing, is the same for all (`compress.making.make`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from compress.allocation.plan import Plan
from compress.budgets.settings import Setting
from compress.calibrating.subject import Subject
from compress.making.source import Needs, Source
from pruning_mechanism import Tower
from pruning_mechanism.protocols import Processor


@dataclass(frozen=True)
class Cut:
    """A tower of which a step took units away: from what, and by which plan."""

    subject: Subject
    plan: Plan


@dataclass(frozen=True)
class Step:
    """What a rule makes of a source: the model, and how its images are prepared from now on.

    `cuts` are the towers that lost units, which repair goes over. `pooled` is what the model reads
    off the calibration images, float32 [n, 2d], and `embeddings` the full tower's of these, float32
    [n, e], where the rule came to know them on its way. `source` is what it was made of, where that
    isn't what the rule was given: one that reads less of each file. `settled` says that the
    projection is better left as it is, whatever is asked for afterwards; `timed` that a budget of
    seconds has been corrected by what the model takes. `notes` are for the reader
    of the record; `files` writes what else belongs beside the model. `obsolete` are directories
    that nothing needs any more once the result is written.
    """

    model: PreTrainedModel
    processor: Processor
    cuts: tuple[Cut, ...] = ()
    pooled: Tensor | None = None
    embeddings: Tensor | None = None
    source: Source | None = None
    settled: bool = False
    timed: bool = False
    notes: tuple[str, ...] = ()
    files: Callable[[Path], None] | None = None
    obsolete: tuple[Path, ...] = ()


def continued(source: Source, step: Step, done: str) -> Source:
    """What a step made of a source, as the source of another; what is known of it is kept apart.

    Args:
        source: what the step started from.
        step: what it made; whatever was to be repaired in it is.
        done: how records name the step.
    """
    cache = source.cache.apart(done)
    calibration = replace(source.calibration, processor=step.processor)
    return replace(
        source,
        model=step.model,
        processor=step.processor,
        subjects=tuple(
            replace(
                subject,
                tower=Tower.of(step.model, subject.kind),
                calibration=calibration,
                cache=cache,
            )
            for subject in source.subjects
        ),
        calibration=calibration,
        cache=cache,
        chain=(*source.chain, done),
        notes=(*source.notes, *step.notes),
    )


def unchecked(_source: Source, _asked: Any) -> None:
    """The check of a rule that knows what a tower can be made to only by making it."""


@dataclass(frozen=True)
class Rule:
    """A way to make a source smaller or cheaper.

    Attributes:
        name: as in records and directories.
        asked: by its settings, what the rule is asked for: a budget, or a value of its own.
        step: makes a model of a source and one of these.
        check: raises `UserError` or `TowerError` if a source can't be made to meet one of them, as
            far as that is known before the work.
        needs: what it asks of a source.
    """

    name: str
    asked: Mapping[Setting, Any]
    step: Callable[[Source, Any], Step]
    check: Callable[[Source, Any], None] = unchecked
    needs: Needs = field(default_factory=Needs)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What it makes one result for each."""
        return tuple(self.asked)

    def named(self, name: str) -> "Rule":
        """The same rule under another name."""
        return replace(self, name=name)
