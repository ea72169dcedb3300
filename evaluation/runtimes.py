"""Towers in several runtimes: milliseconds in turn, and what each keeps of their search results.

Beside `evaluation.latency`, which compares models; here each is computed by different programs and
in different types (`pruning_mechanism.runtimes`). One tower is measured after the other, so that
memory holds one of them; its runtimes take turns.

    python -m evaluation.runtimes --models results/joint-mac-0.07 --full demo/clip-scenes
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from commands.flags import (
    Checkpoint,
    ConfigOption,
    Count,
    ReadPath,
    Unread,
    WrittenPath,
    by_default,
)
from commands.inputs import inputs_of
from commands.published import published_command, published_corpus, published_name
from commands.run import main_of
from commands.screen import console, printable
from commands.writing.outputs import finished_directory
from compress.choices import DEMO_MODEL
from compress.command import run_command
from compress.errors import UserError

USUAL = (
    "torch", "torch:bfloat16", "onnxruntime", "openvino", "openvino:bfloat16",
)  # fmt: skip
ON_GPU = ("torch", "torch:float16", "torch:bfloat16", "compile:bfloat16", "compile:float8")


@dataclass(frozen=True)
class RuntimesOptions(ConfigOption):
    """Time towers in several runtimes, and measure what each keeps of their search results.

    Example: python -m evaluation.runtimes --models A B --runtimes torch openvino openvino:int8
    """

    models: tuple[Checkpoint, ...] = (DEMO_MODEL,)
    """each the directory, hub name or open_clip:NAME of a CLIP, or of its vision tower alone"""
    full: Checkpoint | None = None
    """whole CLIP whose texts search, and whose results are compared with too (default: each of
    --models by its own texts)"""
    runtimes: Annotated[tuple[str, ...], by_default("the usual ones of the device")] = ()
    """each a runtime of Stage.load, with a type after a colon if it isn't float32; int8 on a CPU
    needs an export (compress.export)"""
    device: str = "cpu"
    """where the towers run: cpu, cuda"""
    batch: Count = 16
    """images embedded at once"""
    threads: tuple[Count, ...] = ()
    """threads of the CPU, one or several numbers of them (default: as many as cores)"""
    kernels: bool = False
    """also report what the encoder's time goes to, and how much it computes a second"""
    corpus: str = "scenes"
    """to search: scenes, coco, flickr30k, flickr8k, folder, or hub:OWNER/NAME"""
    corpus_dir: ReadPath | None = None
    """where the corpus lies"""
    split: str = "validation"
    """the split to search"""
    images: Count = 500
    """search the first N images, at least 10"""
    repetitions: Count = 10
    """times that each runtime is timed, in turn with the others of the same tower"""
    output: WrittenPath = Path("results/runtimes")
    """directory to write report and table into"""
    overwrite: bool = False
    """replace an earlier result"""

    unread: ClassVar[tuple[Unread, ...]] = ()

    def check(self) -> None:
        """Raise `UserError` if anything is named twice, or there are too few images."""
        super().check()
        for flag, named in (
            ("models", tuple(map(published_name, self.models))),
            ("runtimes", self.asked),
            ("threads", self.threads),
        ):
            twice = [name for name in named if named.count(name) > 1]
            if twice:
                raise UserError(f"--{flag} names {twice[0]} twice: name each once")
        if not self.models:
            raise UserError("--models names no model")
        if self.images < TOP:
            raise UserError(f"--images {self.images}: agreement@{TOP} takes {TOP} at least")

    @property
    def asked(self) -> tuple[str, ...]:
        """Runtimes with their types: "torch" is "torch:float32"."""
        named = self.runtimes or (USUAL if self.device == "cpu" else ON_GPU)
        parts = [name.partition(":") for name in named]
        return tuple(f"{runtime}:{dtype or 'float32'}" for runtime, _, dtype in parts)


TOP = 10
"""Results that are compared."""
if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.runtimes"), RuntimesOptions, "evaluation.runtimes")

import datetime

import torch

from compress.calibrating.device import check_device
from corpora import load_corpus
from evaluation.in_runtimes.contending import Contenders, timed
from evaluation.in_runtimes.searching import Searched, kept
from evaluation.measuring.machine import this_machine, versions
from evaluation.reports import runtimes as reports
from evaluation.reports.record import write_text
from evaluation.reports.runtimes import FILE, Kept, Refusal, RuntimeRow, Runtimes


def main(options: RuntimesOptions) -> None:
    """Time and compare, and write report.json and report.md."""
    check_device(options.device)
    before = torch.get_num_threads()
    try:
        with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
            report = _measured(options)
            report.save(directory / FILE)
            write_text(directory / "report.md", reports.markdown(report))
    finally:
        torch.set_num_threads(before)
    console().print(reports.terminal(report))
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _measured(options: RuntimesOptions) -> Runtimes:
    """Everything that the report holds."""
    corpus = load_corpus(options.corpus, options.corpus_dir, options.split)
    searched = Searched.of(corpus, options.images, TOP, options.full, options.device, options.batch)
    rows: list[RuntimeRow] = []
    refused: list[Refusal] = []
    threads = options.threads or (torch.get_num_threads(),)
    for model in options.models:
        found: dict[str, Kept] = {}
        for count in threads:  # runtimes have as many threads as torch had when they were loaded
            torch.set_num_threads(count)
            contenders = Contenders.of(
                model,
                published_name(model),
                options.asked,
                options.device,
                options.batch,
                searched.full,
            )
            if count == threads[0]:
                found = kept(contenders.stages, searched, TOP)
            refused += [each for each in contenders.refused if each not in refused]
            rows += timed(contenders, found, searched.corpus, options.repetitions, options.kernels)
            del contenders  # before others are loaded
    return Runtimes(
        command=published_command("evaluation.runtimes", options),
        models=tuple(map(published_name, options.models)),
        full=published_name(options.full) if options.full else None,
        searched=f"{published_corpus(options.corpus)} {options.split}",
        images=len(searched.corpus),
        queries=len(searched.queries.texts),
        batch=options.batch,
        rows=tuple(rows),
        refused=tuple(refused),
        machine=this_machine(options.device, torch.float32),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
