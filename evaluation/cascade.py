"""The experiment: first stages, alone and in front of the full tower, measured and reported.

    python -m evaluation.cascade

Stands at the end of corpus → importance → mask → repair → smaller tower → stage → cascade; what it
writes, the report, is all that tables and figures are made of.
"""

import functools
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from operator import or_
from pathlib import Path
from typing import ClassVar

from commands.flags import Count, NumberFromZero, Share, StagePath, WrittenPath, flag_of
from commands.inputs import inputs_of
from commands.parsing import said_of
from commands.published import published_corpus, published_name
from commands.run import main_of
from commands.screen import console
from commands.writing.outputs import finished_directory
from compress.choices import Checkpoints
from compress.command import run_command
from compress.errors import UserError
from compress.options import SpendingOptions
from evaluation.options import RunningOptions
from evaluation.reports.report import Report
from evaluation.reports.row import FULL_TOWER, Row


@dataclass(frozen=True)
class CascadeOptions(SpendingOptions, RunningOptions):
    """Compress first stages, put each in front of the full tower, measure recall and seconds.

    Example: python -m evaluation.cascade --methods fisher --mac-constraint 0.5 --m 50
    """

    methods: tuple[str, ...] = ("recover", "fisher", "sensitivity")
    """rules that make first stages, with words that change their options: fisher+rescale"""
    mac_constraint: tuple[Share, ...] = (0.2, 0.3, 0.5)
    """kept MACs / dense MACs of the encoder layers, in (0, 1]"""
    heads: tuple[NumberFromZero, ...] = (22, 77, 132)
    """numbers of heads to remove, for sensitivity"""
    stage: tuple[StagePath, ...] = ()
    """existing first stages to measure instead of making new ones"""
    middle: tuple[StagePath, ...] = ()
    """existing stages to put between each first stage and the full tower, cheap to expensive"""
    other_base: bool = False
    """measure stages even if they were made from another checkpoint than --model"""
    samples: Count = 1024
    """calibration images for the scores and the alignment"""
    curve_samples: Count = 128
    """calibration images for the curves"""
    resume: bool = False
    """also measure early exits with the full tower going on from their states"""
    output: WrittenPath = Path("results/cascade")
    """directory to write report, table and first stages into"""
    overwrite: bool = False
    """replace an earlier result"""

    exclusive: ClassVar = (
        ("mac_constraint", "latency_constraint"),
        ("methods", "stage"),
        ("dtype", "first_as"),
    )
    unread: ClassVar = ()  # methods differ in what they read: see `_say_unread`

    @property
    def later_stages(self) -> int:
        """How many stages come after the first: those in the middle and the full tower."""
        return len(self.middle) + 1

    def check(self) -> None:
        """Raise `UserError` unless a vision tower is to be made smaller."""
        super().check()
        if self.tower != "vision":
            raise UserError(
                f"--tower {self.tower}: first stages are searched with the full text tower, so "
                "only vision towers are measured"
            )
        if not self.stage and "int8" in ",".join((self.dtype, *self.first_as)):
            raise UserError(
                "int8 needs an export, which first stages that are made here don't have: make "
                "them, export them with python -m compress.export DIR --to openvino --dtype int8, "
                "and name them by --stage"
            )
        if self.resume and self.tells_last:
            raise UserError(
                "--resume has no effect with --last-as: a tower that goes on from states opens no "
                "file and runs in torch"
            )


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.cascade"), CascadeOptions, "evaluation.cascade")

from datasets import Dataset

from cascade import Stage
from compress.making.source import Needs, Source, open_source
from evaluation.experiment.first_stages import (
    KeptStage,
    Method,
    made_before,
    make_all,
    possible,
    refuse_overlap,
    seen,
)
from evaluation.experiment.methods import parse_method, unread_settings
from evaluation.experiment.middle import MiddleStage, middle_row
from evaluation.experiment.opening import (
    Cascades,
    as_run,
    check_ways,
    full_tower,
    opened_first,
    opened_last,
    opened_middle,
)
from evaluation.experiment.reporting import reported, show_report, write_report
from evaluation.experiment.resumption import (
    ResumedTiming,
    Resumption,
    resumed_row,
    resumption,
)
from evaluation.experiment.search import (
    Search,
    SearchedStage,
    reference_row,
    searched_corpus,
    timed,
)
from evaluation.experiment.together import Ending, LastStage, first_stage_row, named
from evaluation.measuring.clock import Contender, StageTiming, keeping_states, resuming


def main(options: CascadeOptions) -> None:
    """Run the experiment and write report.json, report.md and the first stages."""
    check_ways(options)  # what can't be asked for is refused before anything is made
    names = () if options.stage else dict.fromkeys(options.methods)
    methods = [parse_method(name, options) for name in names]
    _say_unread(options, methods)
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        collection, skipped = searched_corpus(options)
        keys = set(collection["key"])
        middle = [made_before(path, "--middle") for path in options.middle]
        refuse_overlap(set().union(*map(seen, middle)), keys)
        if options.stage:
            stages = [made_before(path) for path in options.stage]
            refuse_overlap(set().union(*map(seen, stages)), keys)
            calibration = "as the compression.json of each first stage says"
        else:
            source = _source(options, methods)
            methods = possible(methods, source)
            if middle or options.tells_last:  # what can't be opened is refused before that
                tower = full_tower(options, options.text_model)
                opened_middle(middle, tower, options, options.other_base)
                opened_last(tower, options)
            refuse_overlap({*source.seen, *source.calibration.corpus["key"]}, keys)
            stages = make_all(methods, source, directory / "stages")
            calibration = _calibration(options, methods, len(source.calibration))
        report = _measure(options, collection, skipped, stages, middle, calibration)
        write_report(report, directory)
    show_report(report, options.output)


def _say_unread(options: CascadeOptions, methods: Sequence[Method]) -> None:
    """Warn of settings that were given but make no difference to this experiment."""
    beside = "--stage" if options.stage else "these --methods"
    for name in unread_settings(methods, options, said_of(options).given):
        print(f"note: {flag_of(name)} is not read beside {beside}", file=sys.stderr)


def _source(options: CascadeOptions, methods: Sequence[Method]) -> Source:
    """What all first stages are made from: the full tower itself."""
    called = {options.model: published_name(options.model)}
    checkpoints = Checkpoints(options.model, options.text_model, options.model, called=called)
    needs = functools.reduce(or_, (method.needs for method in methods), Needs(layers=False))
    return open_source(checkpoints, options.sampling, needs)


def _measure(
    options: CascadeOptions,
    corpus: Dataset,
    skipped: tuple[str, ...],
    stages: list[KeptStage],
    middle: list[KeptStage],
    calibration: str,
) -> Report:
    """Everything that the report holds, given the stages on disk."""
    tower = full_tower(options, options.text_model)
    any_base = options.other_base or not options.stage  # made here, from the full tower
    cascades = Cascades(
        tuple(opened_first(stages, tower, options, any_base)),
        tuple(opened_middle(middle, tower, options, options.other_base)),
        tuple(opened_last(tower, options)),
    )
    search = Search.of(options, corpus, tower)
    reference, *rows = _rows(search, cascades, options)
    return reported(
        "evaluation.cascade", options.model, calibration, skipped, search, options, reference, rows
    )


def _rows(search: Search, cascades: Cascades, options: CascadeOptions) -> list[Row]:
    """The full tower, then each first stage, once more for each cascade that it begins besides."""
    opened, between = cascades.first, cascades.between
    resumptions = [resumption(*pair, search) if options.resume else None for pair in opened]
    if options.resume and not any(resumptions):
        console().print("--resume: there is no first stage to resume from")
    clock = _timed(search, cascades, resumptions, options)
    full = clock[FULL_TOWER]
    middle = [
        MiddleStage(SearchedStage.of(*pair, search), clock[as_run(pair[1])]) for pair in between
    ]
    endings = [
        Ending(
            LastStage.of(last.stage, last.label, search, clock["last", as_run(last.stage)])
            if last.label
            else LastStage.reference(search, full),
            full,
        )
        for last in cascades.last
    ]
    rows = [reference_row(search, full)]
    for place, (pair, going_on) in enumerate(zip(opened, resumptions, strict=True)):
        searched = SearchedStage.of(*pair, search)
        own = clock[as_run(pair[1])]
        for ending in endings:
            row = first_stage_row(searched, search, own, ending, options)
            rows.append(row)
            if going_on:
                timings = ResumedTiming(clock[place, "first"], clock[place, "then"], full)
                rows.append(resumed_row(row, going_on, search, timings, options))
            if middle and pair[1].name not in {stage.name for _, stage in between}:
                first = searched, own
                rows.append(middle_row(row, first, middle, search, ending, options))
    return list(map(named, rows))


def _timed(
    search: Search,
    cascades: Cascades,
    resumptions: Sequence[Resumption | None],
    options: CascadeOptions,
) -> dict[Hashable, StageTiming]:
    """Seconds of all stages, measured in turn: a stage that is named twice is measured once."""
    contenders: dict[Hashable, Stage | Contender] = {FULL_TOWER: search.tower}
    contenders |= {as_run(stage): stage for _, stage in cascades.between}
    contenders |= {("last", as_run(each.stage)): each.stage for each in cascades.last if each.label}
    for place, ((_, stage), going_on) in enumerate(zip(cascades.first, resumptions, strict=True)):
        contenders.setdefault(as_run(stage), stage)
        if going_on:
            contenders[place, "first"] = keeping_states(going_on.stage)
            contenders[place, "then"] = resuming(going_on.stage)
    return timed(contenders, search.corpus, options)


def _calibration(options: CascadeOptions, methods: Sequence[Method], images: int) -> str:
    """What the first stages were calibrated on; a small corpus has fewer images than asked for."""
    words = f"{images:,} images of {published_corpus(options.corpus)} ({options.calibration_split})"
    if any(method.repairs for method in methods):
        repair = min(images, options.repair_samples)
        words += f", {repair:,} of them for the repair ({options.repair})"
    if any(method.aligns for method in methods):
        words += ", all of them for the alignment"
    return words
