"""What lists on disk cost and find beside the exact search in memory.

SIZES=100000 python -m pytest tests/benchmarks/test_inverted.py --benchmark-only -s

SIZES chooses how many embeddings, QUERIES how many images recall is measured on, EMBEDDINGS a .npy
file [n, d] of real ones, which are repeated with noise in place of the random clusters.
"""

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cascade import Collection
from cascade.storing.lance import LanceStore
from tests.benchmarks.test_collection import Asked, in_turn, rows

SIZES = [int(size) for size in os.environ.get("SIZES", "100000").split(",")]
QUERIES = int(os.environ.get("QUERIES", "200"))
TARGET = float(os.environ.get("TARGET", "0.99"))
ROUNDS = int(os.environ.get("ROUNDS", "30"))
NOISE = 0.3
"""Of real embeddings that are repeated: its length beside theirs."""
CLUSTER = 500
"""Embeddings around each random centre, about."""
AT_ONCE = 50_000

OPENED = """
import json, sys, time
from cascade import Collection
from tests.benchmarks.test_collection import Asked, directions, resident
begun, before = time.perf_counter(), resident()
collection = Collection.open(sys.argv[1], [Asked()], index=sys.argv[2])
opened = time.perf_counter() - begun
query = [directions(1, 7, int(sys.argv[3]))]
begun = time.perf_counter()
collection.search_embeddings(query, 10)
first = time.perf_counter() - begun
for _ in range(20):
    collection.search_embeddings(query, 10)
print(json.dumps([resident() - before, opened, first]))
"""


def embeddings(number):
    """Unit vectors, some at a time, around random centres or real embeddings."""
    generator = np.random.default_rng(0)
    if "EMBEDDINGS" in os.environ:
        centres, noise = np.load(os.environ["EMBEDDINGS"]).astype(np.float32), NOISE
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    else:
        clusters = max(20, number // CLUSTER)
        centres, noise = generator.standard_normal((clusters, 512), np.float32), 1.0
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    dimension = centres.shape[1]
    for start in range(0, number, AT_ONCE):
        some = min(AT_ONCE, number - start)
        chosen = generator.integers(0, len(centres), some)
        disturbed = generator.standard_normal((some, dimension), np.float32)
        found = centres[chosen] + disturbed * np.float32(noise / np.sqrt(dimension))
        yield found / np.linalg.norm(found, axis=1, keepdims=True)


def filled(path, number):
    every = rows(number)
    start = 0
    store = LanceStore(path, 1)
    with store.writing():
        for vectors in embeddings(number):
            store.add(every[start : start + len(vectors)], vectors, replaces=False)
            start += len(vectors)
        store.compact(0)
    store.close()
    return vectors.shape[1]


def nbytes(path):
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


@pytest.mark.parametrize("number", SIZES)
def test_lists_beside_the_exact_search(benchmark, tmp_path, number):
    """One block of the table: to make the lists, what they take, and a query at each depth."""
    path = tmp_path / "collection"
    Collection.create(path, [Asked()]).close()
    dimension = filled(path, number)
    before = nbytes(path)
    listed = Collection.open(path, [Asked()], index="ivf")
    begun = time.perf_counter()
    measured = listed.build_index(TARGET, print, QUERIES)
    said = {
        "embeddings": number,
        "lists": measured.lists,
        "s to make lists": round(measured.seconds, 1),
        "s with measuring": round(time.perf_counter() - begun, 1),
        "bytes an embedding": round(before / number),
        "more for lists": round((nbytes(path) - before) / number),
    }
    for kind in ("exact", "ivf"):
        memory, opened, first = opened_alone(path, kind, dimension)
        said[f"{kind}: bytes of memory an image"] = round(memory / number)
        said[f"{kind}: open s, first query ms"] = round(opened, 2), round(1000 * first, 1)
    exact = Collection.open(path, [Asked()], index="exact")
    queries = sample(exact, 64)
    asked = iter(queries.repeat(1000, 1).split(1))
    for depth in measured.depths[:2]:
        k = depth.results
        work = {
            "exact": lambda k=k: exact.search_embeddings([next(asked)], k),
            "ivf": lambda k=k: listed.search_embeddings([next(asked)], k),
        }
        for name, milliseconds in in_turn(work, ROUNDS).items():
            said[f"{name}, k = {k}: least ms"] = round(milliseconds, 2)
    for depth in measured.depths:
        said[f"recall@{depth.results}"] = depth.recall, f"{depth.probes} lists", depth.milliseconds
    benchmark(partial(listed.search_embeddings, [queries[:1]], 10))
    benchmark.extra_info.update(said)
    print("", *(f"{name}: {value}" for name, value in said.items()), sep="\n  ")


def sample(collection, number):
    contents = collection.cascade.catalogue.contents
    chosen = torch.from_numpy(np.random.default_rng(1).permutation(contents.rows.count)[:number])
    return contents.rows.at(chosen).float()


def opened_alone(path, kind, dimension):
    """In a process of its own: bytes of memory, seconds to open, seconds of the first query."""
    line = [sys.executable, "-c", OPENED, str(path), kind, str(dimension)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
