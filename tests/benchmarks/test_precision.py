"""What halves and int8 change in rankings of images by captions: agreement@10 with float32.

MODEL=DIR CORPUS=folder CORPUS_DIR=DIR python -m pytest tests/benchmarks/test_precision.py \\
    --benchmark-only -s

By default the demo checkpoint and scenes. IMAGES says how many are encoded at most.
"""

import os
from pathlib import Path

import torch

from cascade import Stage
from cascade.searching.ranking import rank_all
from corpora import load_corpus
from evaluation.retrieval import agreement

MODEL = os.environ.get("MODEL", "demo/clip-scenes")
CORPUS = os.environ.get("CORPUS", "scenes")
DIRECTORY = os.environ.get("CORPUS_DIR")
IMAGES = int(os.environ.get("IMAGES", "1000"))
K = 10


def in_steps(embeddings):
    """To the nearest of 255 steps of each vector's largest number, as int8 and a factor hold."""
    step = embeddings.abs().amax(dim=1, keepdim=True) / 127
    return (embeddings / step).round() * step


ROUNDED = {"float16": torch.Tensor.half, "int8": in_steps}


def test_agreement_with_float32(benchmark):
    stage = Stage.load(MODEL)
    directory = None if DIRECTORY is None else Path(DIRECTORY)
    corpus = load_corpus(CORPUS, directory, "test")
    corpus = corpus.select(range(min(IMAGES, len(corpus))))
    images = torch.cat(
        [stage.encode_images(batch["image"]) for batch in corpus.iter(batch_size=32)]
    )
    texts = stage.encode_texts([text for captions in corpus["captions"] for text in captions])
    exact = benchmark.pedantic(rank_all, args=(images, texts, K), rounds=1)
    for name, made in ROUNDED.items():
        found = rank_all(made(images), texts, K)
        same = (found.positions == exact.positions).all(dim=1)
        said = {
            f"agreement@{K} of {name}": agreement(exact.positions, found.positions),
            f"queries with the same order by {name}, percent": 100 * float(same.float().mean()),
        }
        benchmark.extra_info.update(said)
        print(f"{len(images)} images, {len(texts)} captions:", said)
