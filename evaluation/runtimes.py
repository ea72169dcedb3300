"""A tower in several runtimes: milliseconds in turn, and what each keeps of its search results.

Beside `evaluation.latency`, which compares models; here it is one model, computed by different
programs and in different types (`pruning_mechanism.runtimes`).

    python -m evaluation.runtimes --model results/joint-mac-0.07 --full demo/clip-scenes
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from commands.flags import Checkpoint, ConfigOption, Count, ReadPath, Unread, WrittenPath
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


@dataclass(frozen=True)
class RuntimesOptions(ConfigOption):
    """Time a tower in several runtimes, and measure what each keeps of its search results.

    Example: python -m evaluation.runtimes --model DIR --runtimes torch openvino openvino:int8
    """

    model: Checkpoint = DEMO_MODEL
    """directory, hub name or open_clip:NAME of a CLIP, or of its vision tower alone"""
    full: Checkpoint | None = None
    """whole CLIP whose texts search, and whose results are compared with too (default: --model)"""
    runtimes: tuple[str, ...] = USUAL
    """each a runtime of Stage.load, with a type after a colon if it isn't float32; int8 needs an
    export (compress.export)"""
    batch: Count = 16
    """images embedded at once"""
    threads: Count | None = None
    """threads of the CPU (default: as many as cores)"""
    corpus: str = "scenes"
    """to search: scenes, coco, flickr30k, flickr8k, folder, or hub:OWNER/NAME"""
    corpus_dir: ReadPath | None = None
    """where the corpus lies"""
    split: str = "validation"
    """the split to search"""
    images: Count = 500
    """search the first N images, at least 10"""
    repetitions: Count = 10
    """times that each runtime is timed, in turn with the others"""
    output: WrittenPath = Path("results/runtimes")
    """directory to write report and table into"""
    overwrite: bool = False
    """replace an earlier result"""

    unread: ClassVar[tuple[Unread, ...]] = ()

    def check(self) -> None:
        """Raise `UserError` if a runtime is named twice, or there are too few images."""
        super().check()
        if len(set(self.runtimes)) < len(self.runtimes):
            raise UserError(f"--runtimes {' '.join(self.runtimes)}: name each once")
        if self.images < TOP:
            raise UserError(f"--images {self.images}: agreement@{TOP} takes {TOP} at least")


TOP = 10
"""Results that are compared."""

if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.runtimes"), RuntimesOptions, "evaluation.runtimes")

import datetime
from collections.abc import Mapping

import torch
from datasets import Dataset
from torch import Tensor

from cascade import Stage
from corpora import load_corpus
from evaluation.experiment.quality import Queries
from evaluation.experiment.search import (
    embeddings_of,
    file_contents,
    image_batches,
    readable,
    text_embeddings_of,
)
from evaluation.measuring.clock import StageTiming, encoding, stage_timings
from evaluation.measuring.machine import this_machine, versions
from evaluation.reports import runtimes as reports
from evaluation.reports.record import write_text
from evaluation.reports.runtimes import FILE, REFERENCE, RuntimeRow, Runtimes
from evaluation.retrieval import agreement
from pruning_mechanism import TowerError
from pruning_mechanism.runtimes.parity import compared


def main(options: RuntimesOptions) -> None:
    """Time and compare, and write report.json and report.md."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        report = _measured(options)
        report.save(directory / FILE)
        write_text(directory / "report.md", reports.markdown(report))
    console().print(reports.terminal(report))
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _measured(options: RuntimesOptions) -> Runtimes:
    """Everything that the report holds."""
    corpus, _ = readable(
        load_corpus(options.corpus, options.corpus_dir, options.split), options.images
    )
    if len(corpus) < TOP:
        raise UserError(f"{len(corpus)} readable images: agreement@{TOP} takes {TOP} at least")
    full = Stage.load(options.full or options.model, batch_size=options.batch)
    stages, left_out = _stages(options, full)
    queries = Queries.of(corpus)
    texts = text_embeddings_of(full, queries.texts)
    sources = file_contents(corpus, options.batch)
    timings = stage_timings(
        {name: encoding(stage) for name, stage in stages.items()},
        sources,
        options.repetitions,
        "cpu",
    )
    found = _embedded(stages, corpus)
    wanted = embeddings_of(full, corpus, "full tower") if options.full else None
    reference = found[":".join(REFERENCE)]
    rows = tuple(
        _row(stages[name], timings[name], found[name], reference, texts, wanted) for name in stages
    )
    return Runtimes(
        command=published_command("evaluation.runtimes", options),
        model=published_name(options.model),
        full=published_name(options.full) if options.full else None,
        searched=f"{published_corpus(options.corpus)} {options.split}",
        images=len(corpus),
        queries=len(queries.texts),
        batch=options.batch,
        threads=torch.get_num_threads(),
        rows=rows,
        left_out=left_out,
        machine=this_machine("cpu", torch.float32),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def _stages(options: RuntimesOptions, full: Stage) -> tuple[dict[str, Stage], dict[str, str]]:
    """The tower in each runtime, by "runtime:dtype", and why some can't be had."""
    stages: dict[str, Stage] = {}
    left_out: dict[str, str] = {}
    for asked in dict.fromkeys((REFERENCE[0], *options.runtimes)):
        runtime, _, dtype = asked.partition(":")
        name = f"{runtime}:{dtype or 'float32'}"
        try:
            stages[name] = Stage.load(
                options.model,
                batch_size=options.batch,
                texts=full if options.full else None,
                runtime=runtime,
                dtype=dtype or "float32",
            )
        except TowerError as error:
            if asked == REFERENCE[0]:
                raise
            left_out[asked] = str(error)
    return stages, left_out


def _embedded(stages: Mapping[str, Stage], corpus: Dataset) -> dict[str, Tensor]:
    """What each runtime makes of all images [N, d], each image being prepared once."""
    found: dict[str, list[Tensor]] = {name: [] for name in stages}
    first = next(iter(stages.values()))
    for images in image_batches(corpus, first.batch_size, "in each runtime"):
        pixels = first.pixels(images)
        for name, stage in stages.items():
            found[name].append(stage.encode_pixels(pixels))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _row(
    stage: Stage,
    timing: StageTiming,
    found: Tensor,
    reference: Tensor,
    texts: Tensor,
    wanted: Tensor | None,
) -> RuntimeRow:
    """A runtime's row, from the embeddings that it and others make of the images."""
    parity = compared(found, reference)
    own = _top(texts, found)
    return RuntimeRow(
        runtime=stage.runs_in.runtime,
        dtype=stage.runs_in.dtype,
        encoder=timing.encoder,
        end_to_end=timing.end_to_end,
        cosine=parity.cosine,
        least=parity.least,
        agreement=agreement(_top(texts, reference), own),
        with_full=None if wanted is None else agreement(_top(texts, wanted), own),
    )


def _top(texts: Tensor, images: Tensor) -> Tensor:
    """The places of the ten images nearest to each text, [Q, 10]."""
    return (texts @ images.T).topk(TOP).indices
