"""Queries of words and pictures: what is looked for, and what is not, as one embedding a stage.

In each stage's space: the sum of the embeddings of all texts and example images, minus those of
the texts that are not wanted, at length 1. Every embedding in the sum has length 1 too.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cascade.answers import Answer, Found, Terms, Wanted
from cascade.collection import Collection
from cascade.searching.steps import Step
from cascade.stages.images import ImageSource

EncodeTexts: TypeAlias = Callable[[Sequence[str]], list[Tensor]]
"""Texts → their embeddings float32 [Q, d] for each stage."""


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        texts: what is in the image.
        images: images that it is like.
        without: what is not in it.
    """

    texts: Sequence[str] = ()
    images: Sequence[ImageSource] = ()
    without: Sequence[str] = ()

    @property
    def is_one_text(self) -> bool:
        """Whether it is a text alone, whose embedding needs no arithmetic."""
        return len(self.texts) == 1 and not self.images and not self.without


def embedded(
    collection: Collection, query: Query, encode_texts: EncodeTexts | None = None
) -> list[Tensor]:
    """The query float32 [1, d] for each stage.

    Args:
        collection: what is searched.
        query: what is looked for.
        encode_texts: what encodes texts for each stage, by default the collection.

    Raises:
        UnreadableImage: an example can't be opened.
        ValueError: nothing is looked for, or what is and what isn't are the same.
    """
    if not query.texts and not query.images:
        raise ValueError("a query needs a text or an example of what is looked for")
    words = [*query.texts, *query.without]
    encode_texts = encode_texts or collection.encode_texts
    texts = encode_texts(words) if words else [None] * len(collection.stages)
    if query.is_one_text:
        return [tensor for tensor in texts if tensor is not None]
    examples = collection.encode_examples(query.images) if query.images else [None] * len(texts)
    queries = []
    for of_images, of_words in zip(examples, texts, strict=True):
        wanted = [] if of_words is None else [of_words[: len(query.texts)]]
        if of_images is not None:
            wanted.append(of_images)
        total = torch.cat(wanted).sum(dim=0)
        if of_words is not None:
            total = total - of_words[len(query.texts) :].sum(dim=0)
        if total.norm() < _NOTHING:
            raise ValueError("what is looked for and what is not are the same: nothing is left")
        queries.append(normalize(total, dim=0)[None])
    return queries


_NOTHING = 1e-4
"""Length below which rounding decides where a sum of embeddings points."""


def answered(
    collection: Collection,
    wanted: Wanted,
    terms: Terms,
    encode_texts: EncodeTexts | None = None,
) -> Answer:
    """The best images for a query, with all that a program may want to show of them.

    Raises:
        ValueError: as of `embedded` and `Cascade.search_embeddings`.
    """
    begun = time.perf_counter()
    query = Query(wanted.texts, list(wanted.like), wanted.without)
    vectors = embedded(collection, query, encode_texts)
    embedding = time.perf_counter() - begun
    steps: list[Step] = []
    (hits,) = collection.search_embeddings(vectors, terms.k, terms.refined, steps.append, terms.m)
    found = [
        Found(str(hit.key), hit.score, hit.stage, collection.row(str(hit.key)), hit.probability)
        for hit in hits
    ]
    matches = hits.matches if query.is_one_text else None
    return Answer(wanted.name, found, steps, 0.0, embedding, len(collection), matches)
