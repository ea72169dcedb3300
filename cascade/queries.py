"""Queries of words and pictures: what is looked for, and what is not, as one embedding a stage.

In each stage's space: the sum of the embeddings of all texts and example images, minus those of
the texts that are not wanted, at length 1. Every embedding in the sum has length 1 too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cascade.collection import Collection
from cascade.images import ImageSource


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


def embedded(collection: Collection, query: Query) -> list[Tensor]:
    """The query float32 [1, d] for each stage.

    Raises:
        UnreadableImage: an example can't be opened.
        ValueError: nothing is looked for, or what is and what isn't are the same.
    """
    if not query.texts and not query.images:
        raise ValueError("a query needs a text or an example of what is looked for")
    words = [*query.texts, *query.without]
    texts = collection.encode_texts(words) if words else [None] * len(collection.stages)
    if query.is_one_text:
        return [tensor for tensor in texts if tensor is not None]
    queries = []
    for stage, of_words in zip(collection.stages, texts, strict=True):
        wanted = [] if of_words is None else [of_words[: len(query.texts)]]
        if query.images:
            wanted.append(stage.encode_images(query.images))
        total = torch.cat(wanted).sum(dim=0)
        if of_words is not None:
            total = total - of_words[len(query.texts) :].sum(dim=0)
        if total.norm() < _NOTHING:
            raise ValueError("what is looked for and what is not are the same: nothing is left")
        queries.append(normalize(total, dim=0)[None])
    return queries


_NOTHING = 1e-4
"""Length below which rounding decides where a sum of embeddings points."""
