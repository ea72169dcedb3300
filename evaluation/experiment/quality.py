"""How well a search answers the caption queries of a corpus, alone and as a cascade.

Stands between the cascade and the report: embeddings and result lists in, `Result`s out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from cascade import Cascade
from cascade.searching.ranking import rank_all
from evaluation.measuring.bootstrap import Bootstrap
from evaluation.reports.row import Result
from evaluation.retrieval import hits, overlap, ranks_from_embeddings, ranks_from_results

KS = (1, 5, 10)
AGREEMENT_AT = 10


@dataclass(frozen=True)
class Queries:
    """Caption queries [Q] and the position of the image that each belongs to, int [Q]."""

    texts: tuple[str, ...]
    target: Tensor

    @classmethod
    def of(cls, corpus: Dataset, captions: str = "all") -> "Queries":
        """Every caption of every image, or, with "first", the first of each."""
        texts, target = [], []
        for position, several in enumerate(corpus["captions"]):
            chosen = several if captions == "all" else several[:1]
            texts += chosen
            target += [position] * len(chosen)
        return cls(tuple(texts), torch.tensor(target))


@dataclass(frozen=True)
class Answers:
    """What a search returned: ranks of the queries' own images [Q], its top results [Q, 10]."""

    ranks: Tensor
    top: Tensor


def answers_alone(queries: Tensor, images: Tensor, target: Tensor) -> Answers:
    """An ordinary search with query embeddings [Q, d] over image embeddings [N, d].

    Both what comes first and what comes before a query's own image are found block by block: all
    scores [Q, N] are never held.
    """
    top = rank_all(images, queries, AGREEMENT_AT).positions
    return Answers(ranks_from_embeddings(queries, images, target), top)


def answers_of(cascade: Cascade, queries: Queries) -> Answers:
    """The answers of a cascade whose images are indexed under their positions as keys."""
    depth = max(*KS, AGREEMENT_AT)
    found = cascade.search_many(queries.texts, depth)
    results = torch.full((len(found), depth), -1)
    for row, several in zip(results, found, strict=True):
        row[: len(several)] = torch.tensor([hit.key for hit in several])
    return Answers(ranks_from_results(results, queries.target), results[:, :AGREEMENT_AT])


def result(answers: Answers, full: Answers, bootstrap: Bootstrap) -> Result:
    """Recall and agreement of `answers`, each with its interval, against the full tower's."""
    found, reference = hits(answers.ranks, KS), hits(full.ranks, KS)
    shared = overlap(full.top, answers.top)
    columns = list(zip(KS, found.T, reference.T, strict=True))
    return Result(
        recall={k: bootstrap.interval(hit) for k, hit, _ in columns},
        difference={k: bootstrap.difference(hit, own) for k, hit, own in columns},
        agreement=bootstrap.interval(shared),
    )


@dataclass(frozen=True)
class Remembered:
    """An encoder for `Cascade` that looks up embeddings that a stage has computed before.

    Many cascades share one full tower; what it makes of an image is computed once. Images are
    given as their position.
    """

    name: str
    text_name: str
    images: Tensor
    texts: dict[str, Tensor]

    def encode_images(self, images: Sequence[Any]) -> Tensor:
        """Embeddings [n, d] of the images at these positions, which stand for images."""
        return self.images[list(images)]

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [n, d] of queries known before."""
        return torch.stack([self.texts[text] for text in texts])
