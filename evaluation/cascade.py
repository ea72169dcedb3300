"""The experiment: first stages, alone and in front of the full tower, measured and reported.

    python -m evaluation.cascade

Stands at the end of corpus → importance → mask → repair → smaller tower → stage → cascade; what it
writes, the report, is all that tables and figures are made of.
"""

import functools
import sys
from collections.abc import Hashable, Sequence
from contextlib import suppress
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
from evaluation.options import SearchOptions
from evaluation.reports.report import FULL_TOWER, Report, Row


@dataclass(frozen=True)
class CascadeOptions(SpendingOptions, SearchOptions):
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
    other_base: bool = False
    """measure a --stage even if it was made from another checkpoint than --model"""
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

    exclusive: ClassVar = (("mac_constraint", "latency_constraint"), ("methods", "stage"))
    unread: ClassVar = ()  # methods differ in what they read: see `_say_unread`

    def check(self) -> None:
        """Raise `UserError` unless a vision tower is to be made smaller."""
        super().check()
        if self.tower != "vision":
            raise UserError(
                f"--tower {self.tower}: first stages are searched with the full text tower, so "
                "only vision towers are measured"
            )


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.cascade"), CascadeOptions, "evaluation.cascade")

from datasets import Dataset

from cascade import Stage
from compress.making.source import Needs, Source, check_text_model, open_source
from evaluation.experiment.first_stages import (
    KeptStage,
    Method,
    belongs_to,
    made_before,
    make_all,
    possible,
    refuse_overlap,
    seen,
)
from evaluation.experiment.methods import parse_method, unread_settings
from evaluation.experiment.reporting import reported, show_report, write_report
from evaluation.experiment.resumption import ResumedTiming, resumed_row, resumption
from evaluation.experiment.search import (
    Search,
    first_stage_row,
    reference_row,
    searched_corpus,
    timed,
)
from evaluation.measuring.clock import Contender, keeping_states, resuming
from pruning_mechanism import TowerError, is_pruned
from pruning_mechanism.checkpoints.checkpoint import fingerprint


def main(options: CascadeOptions) -> None:
    """Run the experiment and write report.json, report.md and the first stages."""
    names = () if options.stage else dict.fromkeys(options.methods)
    methods = [parse_method(name, options) for name in names]
    _say_unread(options, methods)
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        collection, skipped = searched_corpus(options)
        keys = set(collection["key"])
        if options.stage:
            stages = [made_before(path) for path in options.stage]
            refuse_overlap(set().union(*map(seen, stages)), keys)
            calibration = "as the compression.json of each first stage says"
        else:
            source = _source(options, methods)
            methods = possible(methods, source)
            refuse_overlap({*source.seen, *source.calibration.corpus["key"]}, keys)
            stages = make_all(methods, source, directory / "stages")
            calibration = _calibration(options, methods, len(source.calibration))
        report = _measure(options, collection, skipped, stages, calibration)
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
    needs = functools.reduce(or_, (method.needs for method in methods), Needs())
    return open_source(checkpoints, options.sampling, needs)


def _measure(
    options: CascadeOptions,
    corpus: Dataset,
    skipped: tuple[str, ...],
    stages: list[KeptStage],
    calibration: str,
) -> Report:
    """Everything that the report holds, given first stages on disk."""
    texts = Stage.load(options.text_model, options.device) if options.text_model else None
    tower = Stage.load(options.model, options.device, options.batch_size, texts, options.attends_by)
    check_text_model(options.text_model, tower.model, options.model)
    loaded = [_load(stage, tower, options) for stage in stages]
    search = Search.of(options, corpus, tower)
    reference, *rows = _rows(search, stages, loaded, options)
    return reported(
        "evaluation.cascade", options.model, calibration, skipped, search, options, reference, rows
    )


def _rows(
    search: Search, stages: list[KeptStage], loaded: list[Stage], options: CascadeOptions
) -> list[Row]:
    """The full tower, then each first stage, once more where the full tower resumes."""
    pairs = list(zip(stages, loaded, strict=True))
    resumptions = [resumption(*pair, search) if options.resume else None for pair in pairs]
    if options.resume and not any(resumptions):
        console().print("--resume: there is no first stage to resume from")
    contenders: dict[Hashable, Stage | Contender] = {FULL_TOWER: search.tower}
    for place, (stage, going_on) in enumerate(zip(loaded, resumptions, strict=True)):
        contenders[place] = stage
        if going_on:
            contenders[place, "first"] = keeping_states(going_on.stage)
            contenders[place, "then"] = resuming(going_on.stage)
    clock = timed(contenders, search.corpus, options)
    full = clock[FULL_TOWER]
    rows = [reference_row(search, full)]
    for place, (pair, going_on) in enumerate(zip(pairs, resumptions, strict=True)):
        rows.append(first_stage_row(*pair, search, clock[place], full, options))
        if going_on:
            timings = ResumedTiming(clock[place, "first"], clock[place, "then"], full)
            rows.append(resumed_row(rows[-1], going_on, search, timings, options))
    return rows


def _calibration(options: CascadeOptions, methods: Sequence[Method], images: int) -> str:
    """What the first stages were calibrated on; a small corpus has fewer images than asked for."""
    words = f"{images:,} images of {published_corpus(options.corpus)} ({options.calibration_split})"
    if any(method.repairs for method in methods):
        repair = min(images, options.repair_samples)
        words += f", {repair:,} of them for the repair ({options.repair})"
    if any(method.aligns for method in methods):
        words += ", all of them for the alignment"
    return words


def _load(stage: KeptStage, tower: Stage, options: CascadeOptions) -> Stage:
    """A first stage; one without a text tower borrows the full tower's.

    Raises:
        UserError: it can't be searched with the full tower's texts.
    """
    loaded = Stage.load(
        stage.directory, options.device, options.batch_size, tower, options.attends_by
    )
    if hasattr(loaded.model, "text_model") and is_pruned(loaded.model, "text"):
        raise UserError(
            f"--stage {stage.directory}: its text tower is smaller too, but first stages are "
            "searched with the full text tower"
        )
    if loaded.dimension != tower.dimension:
        raise UserError(
            f"--stage {stage.directory} embeds into {loaded.dimension} dimensions, the full tower "
            f"into {tower.dimension}"
        )
    if options.stage and not options.other_base and not _fits(stage, tower, options):
        raise UserError(
            f"--stage {stage.directory} was made from another checkpoint than --model "
            f"{options.model}, so their embeddings may not compare: name the checkpoint that it "
            "was made from, or pass --other-base"
        )
    return loaded


def _fits(stage: KeptStage, tower: Stage, options: CascadeOptions) -> bool:
    """Whether a first stage is in the full tower's space, as far as that can be known.

    It is if its record says so, or if its own texts are embedded as the full tower's are.
    """
    recorded = belongs_to(stage.directory, fingerprint(options.model, tower.model))
    if recorded:
        return True
    with suppress(TowerError):  # a vision tower alone, or nothing to tokenise texts with
        return Stage.load(stage.directory, options.device).text_name == tower.text_name
    return recorded is None
