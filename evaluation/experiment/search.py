"""The collection that an experiment searches, and what is measured of a first stage on it.

Shared by the experiments, `evaluation.cascade` and `evaluation.masking`: the uncascaded tower's
embeddings and answers are made once, and each first stage becomes a row of the report.
"""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from cascade import Cascade, Stage, query_speedup
from cascade.cost import return_fractions
from commands.flags import Bounds, Count, published_command, published_corpus, published_name
from compress.options import SourceOptions
from corpora import drop_unreadable, load_corpus
from corpora.column import undecoded
from evaluation.experiment.first_stages import FirstStage
from evaluation.experiment.quality import (
    Answers,
    Queries,
    Remembered,
    answers_alone,
    answers_of,
    result,
)
from evaluation.measuring.bootstrap import Bootstrap, Interval
from evaluation.measuring.clock import (
    Contender,
    Name,
    StageTiming,
    encoding,
    speedup_interval,
    stage_timings,
)
from evaluation.measuring.machine import this_machine, versions
from evaluation.reports.report import Report, Result, Row
from pruning_mechanism import macs, parameters


@dataclass(frozen=True)
class SearchOptions(SourceOptions):
    """What every experiment searches and measures."""

    split: str = "validation"
    """split that is searched"""
    images: Count | None = None
    """search the first so many images only"""
    captions: Literal["all", "first"] = "all"
    """captions of an image that are queries"""
    m: Annotated[int, Bounds(10)] = 50
    """candidates handed from the first stage to the full tower, at least the 10 of agreement@10"""
    f: Annotated[float, Bounds(0, 1)] = 0.1
    """lifetime return fraction assumed for the speedup"""
    seconds: Literal["encoder", "end to end"] = "encoder"
    """seconds that speedups are made of"""
    repetitions: Count = 5
    """timed turns of all stages"""
    attention: Literal["stored", "sdpa", "eager", "fastest"] = "stored"
    """by which implementation towers attend; fastest: measured for each"""

    @property
    def attends_by(self) -> str | None:
        """The same as a `Stage` takes it."""
        return None if self.attention == "stored" else self.attention


@dataclass(frozen=True)
class Search:
    """The collection searched, its queries, and what the uncascaded tower makes of them."""

    corpus: Dataset
    queries: Queries
    bootstrap: Bootstrap
    tower: Stage
    remembered: Remembered
    uncascaded: Answers

    @classmethod
    def of(cls, options: SearchOptions, corpus: Dataset, tower: Stage) -> "Search":
        """Search the corpus with the full tower, all its images and queries encoded once."""
        queries = Queries.of(corpus, options.captions)
        tower.encode_texts(queries.texts[:1])  # a tokenizer that can't be used is said at once
        images = _embeddings(tower, corpus, "uncascaded")
        different = list(dict.fromkeys(queries.texts))
        texts = dict(zip(different, tower.encode_texts(different), strict=True))
        remembered = Remembered(tower.name, tower.text_name, images, texts)
        embedded = remembered.encode_texts(queries.texts)
        return cls(
            corpus,
            queries,
            Bootstrap(queries.target, seed=options.seed),
            tower,
            remembered,
            answers_alone(embedded, images, queries.target),
        )


def searched_corpus(options: SearchOptions) -> tuple[Dataset, tuple[str, ...]]:
    """The readable images that are searched, and the keys of the others."""
    corpus = load_corpus(options.corpus, options.corpus_dir, options.split)
    if options.images is not None:
        corpus = corpus.select(range(min(options.images, len(corpus))))
    corpus, unreadable = drop_unreadable(corpus)
    return corpus, tuple(unreadable)


def timed(
    stages: Mapping[Name, Stage | Contender], corpus: Dataset, options: SearchOptions
) -> dict[Name, StageTiming]:
    """Time all stages, or parts of stages, in turn on one batch of the collection's files."""
    rows = corpus.select(range(min(options.batch_size, len(corpus))))
    stored = undecoded(rows)["image"]
    sources = [each["bytes"] or Path(each["path"]).read_bytes() for each in stored]
    contenders = {
        name: encoding(each) if isinstance(each, Stage) else each for name, each in stages.items()
    }
    return stage_timings(contenders, sources, options.repetitions, options.device)


def reference_row(search: Search, clock: StageTiming) -> Row:
    """The uncascaded tower as a row of the report."""
    model = search.tower.model
    cost = macs(model)
    alone = result(search.uncascaded, search.uncascaded, search.bootstrap)
    return Row(
        method="uncascaded", constraint="", constraint_value=None, directory=None,
        encoder_macs=cost.encoder, mac_fraction=cost.fraction, tower_macs=cost.tower,
        parameters=parameters(model), alone=alone, cascade=None, one_minus_cosine=None,
        encoder_seconds=clock.encoder, end_to_end_seconds=clock.end_to_end,
        lifetime_speedup=Interval(1.0, 1.0, 1.0), query_speedup=None, f_assumed=None,
        f_measured=None, compression_seconds=None, attention=search.tower.attention.name,
    )  # fmt: skip


def first_stage_row(
    first: FirstStage,
    stage: Stage,
    search: Search,
    clock: StageTiming,
    last: StageTiming,
    options: SearchOptions,
) -> Row:
    """One first stage, alone and in front of the full tower."""
    images = _embeddings(stage, search.corpus, f"{first.method} {first.constraint}".strip())
    known = search.remembered
    embedded = known.encode_texts(search.queries.texts)
    alone = answers_alone(embedded, images, search.queries.target)
    together, reached = in_front(replace(known, images=images), known, search, options.m)
    cost = macs(stage.model)
    timings = [each.basis(options.seconds) for each in (clock, last)]
    return Row(
        method=first.method,
        constraint=first.constraint,
        constraint_value=first.constraint_value,
        directory=first.directory and first.directory.resolve().name,
        encoder_macs=cost.encoder,
        mac_fraction=cost.fraction,
        tower_macs=cost.tower,
        parameters=parameters(stage.model),
        alone=result(alone, search.uncascaded, search.bootstrap),
        cascade=together,
        one_minus_cosine=1 - cosine_similarity(images, known.images).mean().item(),
        encoder_seconds=clock.encoder,
        end_to_end_seconds=clock.end_to_end,
        lifetime_speedup=speedup_interval(timings, options.f),
        query_speedup=query_speedup([each.median for each in timings], [options.m]),
        f_assumed=options.f,
        f_measured=reached,
        compression_seconds=first.seconds,
        attention=stage.attention.name,
    )


def in_front(first: Remembered, last: Remembered, search: Search, m: int) -> tuple[Result, float]:
    """What a first stage in front of a last one finds, and the share that it hands on: f."""
    positions = range(len(first.images))
    cascade = Cascade([first, last], m=[m])
    cascade.index(positions, keys=positions)
    found = result(answers_of(cascade, search.queries), search.uncascaded, search.bootstrap)
    return found, return_fractions(cascade.encoded)[0]


def reported(
    command: str,
    tower: str,
    calibration: str,
    skipped: Sequence[str],
    search: Search,
    options: SearchOptions,
    reference: Row,
    rows: Sequence[Row],
) -> Report:
    """The report of an experiment.

    Args:
        command: the module that the user named, as in `python -m COMMAND`.
        tower: path or hub name of the full tower.
        calibration: what the first stages were calibrated on, in words.
        skipped: keys of the images that couldn't be read.
        search: what was searched.
        options: how.
        reference: the uncascaded tower.
        rows: one a first stage.
    """
    return Report(
        command=published_command(command, options),
        model=published_name(tower),
        corpus=published_corpus(options.corpus),
        split=options.split,
        images=len(search.corpus),
        queries=len(search.queries.texts),
        calibration=calibration,
        captions=options.captions,
        m=(options.m,),
        seconds_basis=options.seconds,
        seed=options.seed,
        skipped=tuple(skipped),
        reference=reference,
        rows=tuple(rows),
        machine=this_machine(options.device, search.tower.dtype),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def _embeddings(stage: Stage, corpus: Dataset, name: str) -> Tensor:
    """Embeddings [N, d] of all images of a corpus."""
    batches = image_batches(corpus, stage.batch_size, name)
    return torch.cat([stage.encode_images(images) for images in batches])


def image_batches(corpus: Dataset, size: int, name: str) -> Iterator[list]:
    """The images of a corpus, undecoded, so many at once, with a progress bar of that name."""
    bar = tqdm(total=len(corpus), desc=f"embed: {name}", unit="image", leave=None)
    with bar:
        for start in range(0, len(corpus), size):
            rows = corpus.select(range(start, min(start + size, len(corpus))))
            yield undecoded(rows)["image"][:]
            bar.update(len(rows))
