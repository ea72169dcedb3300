"""Where the time from the bytes of photographs to their embeddings goes: to which of four steps.

    python -m evaluation.breakdown --files ~/Pictures --last NAME --first DIR

Reading, decoding, preparing, encoding: of plain transformers, the full tower and first stages in
turn, on your own files. What a cascade saves is counted end to end, with encoder-only seconds
beside it; `figures.breakdown` draws the report.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from commands.flags import (
    Bounds,
    Checkpoint,
    ConfigOption,
    Count,
    NotSplit,
    Place,
    ReadPath,
    Seed,
    Unread,
    WrittenPath,
    by_default,
)
from commands.run import main_of
from compress.choices import DEMO_FIRST_STAGE, DEMO_MODEL
from compress.command import run_command
from compress.errors import UserError


@dataclass(frozen=True)
class BreakdownOptions(ConfigOption):
    """Split the time from a photograph's bytes to its embedding into reading, ..., encoding.

    Example: python -m evaluation.breakdown --files ~/Pictures --last NAME --first DIR
    """

    files: NotSplit[tuple[Place, ...]] = ()
    """photographs: directories, files or patterns, as cascade.index takes them"""
    corpus: str = "scenes"
    """instead of files: scenes, coco, flickr30k, flickr8k, folder, or hub:OWNER/NAME"""
    corpus_dir: ReadPath | None = None
    """where the corpus lies"""
    split: str = "validation"
    """of the corpus"""
    images: Count = 32
    """photographs to time, drawn by the seed"""
    last: tuple[Checkpoint, ...] = (DEMO_MODEL,)
    """full towers"""
    last_as: NotSplit[tuple[str, ...]] = ("stored",)
    """each of them as stored, or with settings: reads=scaled,runtime=openvino,dtype=int8"""
    first: Annotated[tuple[Checkpoint, ...], by_default("none; the demo's before the demo")] = ()
    """first stages"""
    first_as: NotSplit[tuple[str, ...]] = ("stored",)
    """each of them so; several settings compare with one another"""
    plain: Checkpoint | None = None
    """what plain transformers load: AutoModel, AutoProcessor (default: the first of --last)"""
    no_plain: bool = False
    """leave plain transformers out"""
    threads: tuple[Count, ...] = (1,)
    """cores that each may use; several are measured one after the other"""
    batch_size: Count = 16
    """images that pass through a tower at once"""
    f: Annotated[float, Bounds(0, 1)] = 0.1
    """lifetime return fraction that lifetime speedups assume"""
    repetitions: Count = 5
    """times that each is timed, in turn with the others"""
    device: str = "cpu"
    """where to compute: cpu, cuda, mps"""
    seed: Seed = 0
    """seed for drawing the photographs"""
    output: WrittenPath = Path("results/breakdown")
    """directory to write report and table into"""
    overwrite: bool = False
    """replace an earlier result"""

    exclusive: ClassVar = (("plain", "no_plain"),)
    unread: ClassVar = (
        Unread(("corpus", "corpus_dir", "split"), lambda options: bool(options.files), "--files"),
        Unread(("first_as",), lambda options: not options.first_stages, "no --first"),
    )

    def check(self) -> None:
        """Raise `UserError` if something is named twice, or nothing is to be timed."""
        super().check()
        for name in ("last", "last_as", "first", "first_as", "threads"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} {' '.join(map(str, values))}: name each once")
        for name in ("last", "last_as", "first_as", "threads"):
            if not getattr(self, name):
                raise UserError(f"--{name.replace('_', '-')} needs at least one value")

    @property
    def first_stages(self) -> tuple[str, ...]:
        """Those named, or the demo's before the demo checkpoint."""
        demo = self.last == (DEMO_MODEL,) and not self.first
        return (DEMO_FIRST_STAGE,) if demo else self.first


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.breakdown"), BreakdownOptions, "evaluation.breakdown")

import datetime
import tempfile
from contextlib import ExitStack
from dataclasses import replace

import torch

from commands.inputs import inputs_of
from commands.published import published_command
from commands.screen import console, printable
from commands.writing.outputs import finished_directory
from compress.calibrating.device import check_device
from evaluation.breaking_down.contending import Contender, Timed, named, rows_of
from evaluation.breaking_down.files import Chosen, Wanted, chosen
from evaluation.breaking_down.timing import measured, on_cores
from evaluation.measuring.machine import this_machine, versions
from evaluation.measuring.settings import Settings, SettingsError
from evaluation.reports.breakdown import table
from evaluation.reports.breakdown.report import FILE, Breakdown, Role, Way
from evaluation.reports.record import write_text


def main(options: BreakdownOptions) -> None:
    """Time the ways, and write report.json and report.md."""
    check_device(options.device)
    asked = _asked(options)
    with (
        finished_directory(options.output, options.overwrite, inputs_of(options)) as directory,
        tempfile.TemporaryDirectory() as beside,
    ):
        photographs = chosen(_wanted(options), Path(beside))
        ways: list[Way] = []
        for threads in options.threads:
            ways += _on(threads, asked, photographs.paths, options)
        report = _reported(options, photographs, ways)
        report.save(directory / FILE)
        write_text(directory / "report.md", table.markdown(report))
    for shown in table.terminal(report):
        console().print(shown)
    for name in report.skipped:
        console().print(f"skipped, because it can't be read: {printable(name)}")
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _asked(options: BreakdownOptions) -> dict[str, Contender]:
    """Who is to be timed, by name; plain transformers first, first stages last."""
    asked = []
    if not options.no_plain:
        asked.append(Contender("plain", options.plain or options.last[0], Settings()))
    roles: tuple[tuple[Role, tuple[str, ...], tuple[str, ...]], ...] = (
        ("full tower", options.last, options.last_as),
        ("first stage", options.first_stages, options.first_as),
    )
    try:
        for role, paths, several in roles:
            for path in paths:
                for settings in map(Settings.of, several):
                    settings.check(options.device)
                    asked.append(Contender(role, path, settings))
    except SettingsError as error:
        raise UserError(str(error)) from error
    return named(asked)


def _wanted(options: BreakdownOptions) -> Wanted:
    return Wanted(
        places=options.files,
        corpus=options.corpus,
        corpus_dir=options.corpus_dir,
        split=options.split,
        images=options.images,
        seed=options.seed,
    )


def _on(
    threads: int, asked: dict[str, Contender], files: Sequence[Path], options: BreakdownOptions
) -> list[Way]:
    """The rows of all contenders on so many cores."""
    with ExitStack() as held:
        try:
            held.enter_context(on_cores(threads))
        except ValueError as error:
            raise UserError(f"--threads {threads}: {error}") from error
        opened = {
            name: contender.open(options.device, options.batch_size)
            for name, contender in asked.items()
        }
        found = measured(opened, files, options.repetitions, options.device)
    timed = {name: Timed(asked[name], opened[name], found[name]) for name in asked}
    return rows_of(timed, options.f, threads)


def _reported(options: BreakdownOptions, photographs: Chosen, ways: Sequence[Way]) -> Breakdown:
    dtypes = ", ".join(dict.fromkeys(way.dtype for way in ways))
    machine = this_machine(options.device, torch.float32)
    return Breakdown(
        command=published_command("evaluation.breakdown", options),
        files=photographs.facts,
        batch=options.batch_size,
        f=options.f,
        ways=tuple(ways),
        skipped=photographs.skipped,
        seed=options.seed,
        machine=replace(machine, threads=max(options.threads), dtype=dtypes),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
