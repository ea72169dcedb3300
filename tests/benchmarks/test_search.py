"""Searching embeddings that are known: `search_many` beside a plain product with topk.

QUERIES and IMAGES set the size; 10,000 and 100,000 is the one that figures are quoted of.
"""

import os

import pytest
import torch
from torch.nn.functional import normalize

from cascade import Cascade

QUERIES, IMAGES = (int(os.environ.get(name, "1000")) for name in ("QUERIES", "IMAGES"))
DIMENSION, K = 512, 10


class Known:
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.name = self.text_name = "known"
        self.images = normalize(torch.randn(IMAGES, DIMENSION, generator=generator), dim=1)
        self.texts = normalize(torch.randn(QUERIES, DIMENSION, generator=generator), dim=1)

    def encode_images(self, images):
        return self.images[list(images)]

    def encode_texts(self, texts):
        return self.texts[[int(text) for text in texts]]


@pytest.mark.parametrize("how", ["product", "one stage", "two stages"])
@pytest.mark.benchmark(group="search")
def test_search(benchmark, how):
    known = Known()
    if how == "product":
        rows = max(1, (1 << 24) // IMAGES)

        def work():
            for start in range(0, QUERIES, rows):
                (known.texts[start : start + rows] @ known.images.T).topk(K, dim=1)
    else:
        stages = [known] if how == "one stage" else [known, known]
        cascade = Cascade(stages, batch_size=1000)
        cascade.index(range(IMAGES))
        queries = [str(query) for query in range(QUERIES)]
        cascade.search_many(queries, K)  # what a later stage encodes once

        def work():
            cascade.search_many(queries, K)

    benchmark.pedantic(work, rounds=3)
