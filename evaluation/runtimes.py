"""Towers in several runtimes: milliseconds in turn, and what each keeps of their search results.

Beside `evaluation.latency`, which compares models; here each is computed by different programs and
in different types (`pruning_mechanism.runtimes`). One tower is measured after the other, so that
memory holds one of them; its runtimes take turns.

    python -m evaluation.runtimes --models results/joint-mac-0.07 --full demo/clip-scenes
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
    """Time towers in several runtimes, and measure what each keeps of their search results.

    Example: python -m evaluation.runtimes --models A B --runtimes torch openvino openvino:int8
    """

    models: tuple[Checkpoint, ...] = (DEMO_MODEL,)
    """each the directory, hub name or open_clip:NAME of a CLIP, or of its vision tower alone"""
    full: Checkpoint | None = None
    """whole CLIP whose texts search, and whose results are compared with too (default: each of
    --models by its own texts)"""
    runtimes: tuple[str, ...] = USUAL
    """each a runtime of Stage.load, with a type after a colon if it isn't float32; int8 needs an
    export (compress.export)"""
    batch: Count = 16
    """images embedded at once"""
    threads: tuple[Count, ...] = ()
    """threads of the CPU, one or several numbers of them (default: as many as cores)"""
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
            ("runtimes", tuple(map(_full_name, self.runtimes))),
            ("threads", self.threads),
        ):
            twice = [name for name in named if named.count(name) > 1]
            if twice:
                raise UserError(f"--{flag} names {twice[0]} twice: name each once")
        if not self.models:
            raise UserError("--models names no model")
        if self.images < TOP:
            raise UserError(f"--images {self.images}: agreement@{TOP} takes {TOP} at least")


def _full_name(asked: str) -> str:
    """A runtime with its type: "torch" is "torch:float32"."""
    runtime, _, dtype = asked.partition(":")
    return f"{runtime}:{dtype or 'float32'}"


TOP = 10
"""Results that are compared."""
CANDIDATES = 50
"""Candidates that a first stage hands to the full tower, where the cascade is counted."""

if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.runtimes"), RuntimesOptions, "evaluation.runtimes")

import datetime
from collections.abc import Mapping

import torch
from datasets import Dataset
from torch import Tensor

from cascade import Stage
from cascade.reading import reads_of
from cascade.running import check_running
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
from evaluation.reports.runtimes import FILE, REFERENCE, Kept, Refusal, RuntimeRow, Runtimes
from evaluation.retrieval import agreement
from pruning_mechanism import TowerError, load, load_processor
from pruning_mechanism.costs.conditions import noise_pixels
from pruning_mechanism.runtimes.parity import compared

TORCH = ":".join(REFERENCE)


def main(options: RuntimesOptions) -> None:
    """Time and compare, and write report.json and report.md."""
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


@dataclass(frozen=True)
class _Searched:
    """What is searched: images, the queries, and the full tower if there is one.

    `texts` [q, d] are the queries by the full tower, `wanted` [N, d] its embeddings of the images.
    """

    corpus: Dataset
    queries: Queries
    full: Stage | None
    texts: Tensor | None
    wanted: Tensor | None

    @classmethod
    def of(cls, options: RuntimesOptions) -> "_Searched":
        """What options name."""
        corpus, _ = readable(
            load_corpus(options.corpus, options.corpus_dir, options.split), options.images
        )
        if len(corpus) < TOP:
            raise UserError(f"{len(corpus)} readable images: agreement@{TOP} takes {TOP} at least")
        queries = Queries.of(corpus)
        if options.full is None:
            return cls(corpus, queries, None, None, None)
        full = Stage.load(options.full, batch_size=options.batch)
        texts = text_embeddings_of(full, queries.texts)
        return cls(corpus, queries, full, texts, embeddings_of(full, corpus, "full tower"))


def _measured(options: RuntimesOptions) -> Runtimes:
    """Everything that the report holds."""
    searched = _Searched.of(options)
    threads = options.threads or (torch.get_num_threads(),)
    rows: list[RuntimeRow] = []
    refused: list[Refusal] = []
    for model in options.models:
        kept: dict[str, Kept] = {}
        for count in threads:  # runtimes have as many threads as torch had when they were loaded
            torch.set_num_threads(count)
            stages, refusals = _stages(options, model, searched.full)
            if count == threads[0]:
                kept = _kept(stages, searched)
                refused += refusals
            rows += _timed(options, published_name(model), stages, kept, searched.corpus)
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
        machine=this_machine("cpu", torch.float32),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def _stages(
    options: RuntimesOptions, path: str, full: Stage | None
) -> tuple[dict[str, Stage], list[Refusal]]:
    """A tower in each runtime, by "runtime:dtype", and what can't be had; torch is first.

    All share one model. Each has embedded a batch of noise: what compiles at the first batch has.
    """
    model, processor = load(path, exact=True), load_processor(path)
    reads, noise = reads_of(path), noise_pixels(model, options.batch)
    stages: dict[str, Stage] = {}
    refused = []
    for asked in dict.fromkeys((TORCH, *map(_full_name, options.runtimes))):
        runtime, _, dtype = asked.partition(":")
        try:
            found = check_running(runtime, dtype, "cpu", None).find(model, path, options.batch)
            stage = Stage(model, processor, options.batch, full, reads=reads, in_runtime=found)
            stage.encode_pixels(noise)
        except TowerError as error:
            if asked == TORCH:
                raise
            refused.append(Refusal(published_name(path), runtime, dtype, str(error)))
        else:
            stages[asked] = stage
    return stages, refused


def _kept(stages: Mapping[str, Stage], searched: _Searched) -> dict[str, Kept]:
    """What each runtime keeps of a tower's embeddings and results."""
    found = _embedded(stages, searched.corpus)
    texts = searched.texts
    if texts is None:
        texts = text_embeddings_of(stages[TORCH], searched.queries.texts)
    own = _top(texts, found[TORCH])
    wanted = None if searched.wanted is None else _top(texts, searched.wanted)
    kept = {}
    for name, embeddings in found.items():
        parity, among = compared(embeddings, found[TORCH]), None
        top = _top(texts, embeddings)
        if wanted is not None:
            many = _top(texts, embeddings, min(CANDIDATES, len(embeddings)))
            among = 100 * _share(wanted, many)
        kept[name] = Kept(
            cosine=parity.cosine,
            least=parity.least,
            agreement=agreement(own, top),
            with_full=None if wanted is None else agreement(wanted, top),
            in_cascade=among,
        )
    return kept


def _timed(
    options: RuntimesOptions,
    tower: str,
    stages: Mapping[str, Stage],
    kept: Mapping[str, Kept],
    corpus: Dataset,
) -> list[RuntimeRow]:
    """Rows of a tower, its runtimes timed in turn on as many threads as torch has."""
    timings: dict[str, StageTiming] = stage_timings(
        {name: encoding(stage) for name, stage in stages.items()},
        file_contents(corpus, options.batch),
        options.repetitions,
        "cpu",
    )
    return [
        RuntimeRow(
            tower=tower,
            runtime=stage.runs_in.runtime,
            dtype=stage.runs_in.dtype,
            threads=torch.get_num_threads(),
            encoder=timings[name].encoder,
            end_to_end=timings[name].end_to_end,
            kept=kept[name],
        )
        for name, stage in stages.items()
    ]


def _embedded(stages: Mapping[str, Stage], corpus: Dataset) -> dict[str, Tensor]:
    """What each runtime makes of all images [N, d], each image being prepared once."""
    found: dict[str, list[Tensor]] = {name: [] for name in stages}
    first = next(iter(stages.values()))
    for images in image_batches(corpus, first.batch_size, "in each runtime"):
        pixels = first.pixels(images)
        for name, stage in stages.items():
            found[name].append(stage.encode_pixels(pixels))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _top(texts: Tensor, images: Tensor, count: int = TOP) -> Tensor:
    """The places of the images nearest to each text, [q, count]."""
    return (texts @ images.T).topk(count).indices


def _share(wanted: Tensor, found: Tensor) -> float:
    """The share of wanted places [q, k] that are among those found [q, m]."""
    return (wanted[:, :, None] == found[:, None]).any(-1).double().mean().item()
