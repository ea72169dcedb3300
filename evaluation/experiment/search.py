"""The collection that an experiment searches, and what the full tower makes of it.

Shared by the experiments, `evaluation.cascade` and `evaluation.masking`: the full tower's
embeddings and answers are made once; `evaluation.experiment.together` puts stages before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm

from cascade import Stage
from corpora import drop_unreadable, load_corpus
from corpora.column import undecoded
from evaluation.experiment.first_stages import FirstStage
from evaluation.experiment.giving import Giving
from evaluation.experiment.quality import (
    Answers,
    Queries,
    Remembered,
    answers_alone,
    result,
)
from evaluation.measuring.bootstrap import Bootstrap
from evaluation.measuring.clock import (
    Contender,
    StageTiming,
    encoding,
    stage_timings,
)
from evaluation.measuring.values import Interval
from evaluation.options import SearchOptions
from evaluation.reports.row import FULL_TOWER, Row
from pruning_mechanism import macs, parameters
from pruning_mechanism.costs.clock import Name


@dataclass(frozen=True)
class Search:
    """The collection searched, its queries, and what the full tower makes of them.

    `remembered` holds the full tower's embeddings, `answers` what it finds by itself.
    """

    corpus: Dataset
    queries: Queries
    bootstrap: Bootstrap
    tower: Stage
    remembered: Remembered
    answers: Answers

    @classmethod
    def of(cls, options: SearchOptions, corpus: Dataset, tower: Stage) -> "Search":
        """Search the corpus with the full tower, which encodes every image and query once."""
        queries = Queries.of(corpus, options.captions)
        tower.encode_texts(queries.texts[:1])  # a tokenizer that can't be used fails at once
        images = embeddings_of(tower, corpus, FULL_TOWER)
        different = list(dict.fromkeys(queries.texts))
        texts = dict(zip(different, text_embeddings_of(tower, different), strict=True))
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
    return readable(corpus, options.images)


def readable(corpus: Dataset, images: int | None) -> tuple[Dataset, tuple[str, ...]]:
    """The readable ones of a corpus's first images, and the keys of the others."""
    if images is not None:
        corpus = corpus.select(range(min(images, len(corpus))))
    corpus, unreadable = drop_unreadable(corpus)
    return corpus, tuple(unreadable)


def timed(
    stages: Mapping[Name, Stage | Contender], corpus: Dataset, options: SearchOptions
) -> dict[Name, StageTiming]:
    """Time all stages, or parts of stages, in turn on one batch of the collection's files."""
    sources = file_contents(corpus, options.batch_size)
    full = next((stage for stage in stages.values() if isinstance(stage, Stage)), None)
    contenders = {
        name: _encoding(stage, corpus, full) if isinstance(stage, Stage) else stage
        for name, stage in stages.items()
    }
    return stage_timings(contenders, sources, options.repetitions, options.device)


def _encoding(stage: Stage, corpus: Dataset, full: Stage | None) -> Contender:
    """A stage that embeds images, whose files have what it reads before the clock starts."""
    given = Giving.to(stage, corpus, full)
    return lambda sources: encoding(stage)(given(sources))


def file_contents(corpus: Dataset, number: int) -> list[bytes]:
    """The bytes of the first image files of a corpus, at most so many, to time stages on."""
    stored = undecoded(corpus.select(range(min(number, len(corpus)))))["image"]
    return [image["bytes"] or Path(image["path"]).read_bytes() for image in stored]


def reference_row(search: Search, clock: StageTiming) -> Row:
    """The full tower as a row of the report."""
    model = search.tower.model
    cost = macs(model)
    alone = result(search.answers, search.answers, search.bootstrap)
    return Row(
        method=FULL_TOWER, rule=FULL_TOWER, variant="", constraint="", constraint_kind=None,
        constraint_value=None, directory=None,
        encoder_macs=cost.encoder, mac_fraction=cost.fraction, tower_macs=cost.tower,
        parameters=parameters(model), alone=alone, cascade=None, one_minus_cosine=None,
        encoder_seconds=clock.encoder, end_to_end_seconds=clock.end_to_end,
        lifetime_speedup=Interval(1.0, 1.0, 1.0), query_speedup=None, f_assumed=None,
        f_measured=None, compression_seconds=None, attention=search.tower.attention.name,
        reads=search.tower.reads, runtime=search.tower.runs_in.runtime,
        dtype=search.tower.runs_in.dtype, encoder_speedup=Interval(1.0, 1.0, 1.0),
    )  # fmt: skip


@dataclass(frozen=True)
class SearchedStage:
    """A stage, what it was asked for, and the embeddings [N, d] that it makes of the collection.

    `given` are the thumbnails that the files had to be given for it.
    """

    made: FirstStage
    stage: Stage
    images: Tensor
    given: Giving

    @classmethod
    def of(cls, made: FirstStage, stage: Stage, search: Search) -> "SearchedStage":
        """Let the stage encode every image."""
        given = Giving.to(stage, search.corpus, search.tower)
        images = embeddings_of(stage, search.corpus, made.name, given)
        return cls(made, stage, images, given)


def text_embeddings_of(tower: Stage, texts: Sequence[str]) -> Tensor:
    """The embeddings [n, d] of texts, with a progress bar."""
    size, parts = tower.batch_size, []
    with tqdm(total=len(texts), desc="embed: captions", unit="caption", leave=None) as bar:
        for start in range(0, len(texts), size):
            parts.append(tower.encode_texts(texts[start : start + size]))
            bar.update(len(parts[-1]))
    return torch.cat(parts)


def embeddings_of(stage: Stage, corpus: Dataset, name: str, given: Giving | None = None) -> Tensor:
    """Embeddings [N, d] of all images of a corpus.

    Args:
        stage: what embeds them.
        corpus: the images.
        name: of the progress bar.
        given: the thumbnails that files are given; by default those that the stage by itself needs.
    """
    given = Giving.to(stage, corpus) if given is None else given
    batches = image_batches(corpus, stage.batch_size, name)
    with closing(stage.encode_batches(map(given, batches))) as encoded:
        return torch.cat(list(encoded))


def image_batches(corpus: Dataset, size: int, name: str) -> Iterator[list[dict[str, Any]]]:
    """The images of a corpus, undecoded, in batches of a size, with a progress bar of that name."""
    bar = tqdm(total=len(corpus), desc=f"embed: {name}", unit="image", leave=None)
    with bar:
        for start in range(0, len(corpus), size):
            rows = corpus.select(range(start, min(start + size, len(corpus))))
            yield undecoded(rows)["image"][:]
            bar.update(len(rows))
