"""What is searched by towers in several runtimes, and how much of the results each keeps."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor

from cascade import Stage
from compress.errors import UserError
from evaluation.experiment.quality import Queries
from evaluation.experiment.search import (
    embeddings_of,
    image_batches,
    readable,
    text_embeddings_of,
)
from evaluation.reports.runtimes import REFERENCE, Kept
from evaluation.retrieval import agreement
from pruning_mechanism.runtimes.parity import compared

TORCH = ":".join(REFERENCE)
CANDIDATES = 50
"""Candidates that a first stage hands to the full tower, where the cascade is counted."""


@dataclass(frozen=True)
class Searched:
    """What is searched: images, the queries, and the full tower if there is one.

    `texts` [q, d] are the queries by the full tower, `wanted` [N, d] its embeddings of the images.
    """

    corpus: Dataset
    queries: Queries
    full: Stage | None
    texts: Tensor | None
    wanted: Tensor | None

    @classmethod
    def of(
        cls, corpus: Dataset, images: int, least: int, full: str | None, device: str, batch: int
    ) -> "Searched":
        """The first images of a corpus.

        Args:
            corpus: of which unreadable images are left out.
            images: that are searched.
            least: of them, or nothing is compared.
            full: the full tower's checkpoint.
            device: where it runs.
            batch: images that it embeds at once.

        Raises:
            UserError: fewer images can be read.
        """
        corpus, _ = readable(corpus, images)
        if len(corpus) < least:
            raise UserError(
                f"{len(corpus)} readable images: agreement@{least} takes {least} at least"
            )
        queries = Queries.of(corpus)
        if full is None:
            return cls(corpus, queries, None, None, None)
        # whatever its record names, and whatever a GPU would compute it in
        runtime, dtype = REFERENCE
        stage = Stage.load(full, device, batch, runtime=runtime, dtype=dtype)
        texts = text_embeddings_of(stage, queries.texts)
        return cls(corpus, queries, stage, texts, embeddings_of(stage, corpus, "full tower"))


def kept(stages: Mapping[str, Stage], searched: Searched, top: int) -> dict[str, Kept]:
    """What each runtime keeps of a tower's embeddings and results.

    Args:
        stages: the tower by "runtime:dtype", torch's float32 among them.
        searched: what is searched.
        top: results that are compared.
    """
    found = _embedded(stages, searched.corpus)
    texts = searched.texts
    if texts is None:
        texts = text_embeddings_of(stages[TORCH], searched.queries.texts)
    own = _top(texts, found[TORCH], top)
    wanted = None if searched.wanted is None else _top(texts, searched.wanted, top)
    by_name = {}
    for name, embeddings in found.items():
        parity, among = compared(embeddings, found[TORCH]), None
        first = _top(texts, embeddings, top)
        if wanted is not None:
            many = _top(texts, embeddings, min(CANDIDATES, len(embeddings)))
            among = 100 * _share(wanted, many)
        by_name[name] = Kept(
            cosine=parity.cosine,
            least=parity.least,
            agreement=agreement(own, first),
            with_full=None if wanted is None else agreement(wanted, first),
            in_cascade=among,
        )
    return by_name


def _embedded(stages: Mapping[str, Stage], corpus: Dataset) -> dict[str, Tensor]:
    """What each runtime makes of all images [N, d], each image being prepared once."""
    found: dict[str, list[Tensor]] = {name: [] for name in stages}
    first = next(iter(stages.values()))
    for images in image_batches(corpus, first.batch_size, "in each runtime"):
        pixels = first.pixels(images)
        for name, stage in stages.items():
            found[name].append(stage.encode_pixels(pixels))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _top(texts: Tensor, images: Tensor, count: int) -> Tensor:
    """The places of the images nearest to each text, [q, count]."""
    return (texts @ images.T).topk(count).indices


def _share(wanted: Tensor, found: Tensor) -> float:
    """The share of wanted places [q, k] that are among those found [q, m]."""
    return (wanted[:, :, None] == found[:, None]).any(-1).double().mean().item()
