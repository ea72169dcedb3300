"""The queries that a plan is measured on: a file of them, captions, or images in place of texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cascade.collection import Collection
from evaluation.planning.sample import Sample


@dataclass(frozen=True)
class Asked:
    """Queries that are embedded.

    Attributes:
        embeddings: of each stage float32 [n, d].
        of: what they are, in words.
        own: positions [n] of the images that are queries; None: the queries are texts.
        texts: the texts that are queries; None: images are.
    """

    embeddings: Sequence[Tensor]
    of: str
    own: Tensor | None = None
    texts: Sequence[str] | None = None

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.embeddings[0])

    def halves(self, seed: int, largest: int = 1000) -> tuple["Asked", "Asked"]:
        """Two random halves: one to learn from, and one to certify on what was learnt.

        Of the first, no more than `largest` are taken: more teach little.
        """
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self)))
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        return self._some(first[:largest]), self._some(second)

    def _some(self, places: Tensor) -> "Asked":
        own = None if self.own is None else self.own[places]
        texts = None if self.texts is None else [self.texts[at] for at in places.tolist()]
        return Asked([embedded[places] for embedded in self.embeddings], self.of, own, texts)


def asked_texts(collection: Collection, texts: Sequence[str], of: str) -> Asked:
    """Texts as queries."""
    return Asked(collection.encode_texts(texts), of, texts=texts)


def asked_images(collection: Collection, sample: Sample, number: int, seed: int) -> Asked:
    """Sampled images as queries, drawn with replacement, each left out of its own results.

    The full tower's embedding of an image lies where its texts' do. Stages that share a text tower
    are asked by this one, as they would be by one text; others by their own of the same image.
    """
    chosen = np.random.default_rng(seed).integers(0, len(sample.positions), number)
    full = sample.embeddings[chosen]
    own = sample.positions[chosen]
    first, last = collection.stages
    shared = first.text_name == last.text_name
    asked = full if shared else sample.contents.rows.at(own).float()
    which = "images of the collection" if sample.complete else "sampled images"
    return Asked([asked, full], f"{which} in place of texts", own)
