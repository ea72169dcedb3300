"""What a collection on disk costs: bytes, pieces and seconds of promotions, opening, searching.

python -m pytest tests/benchmarks/test_collection.py --benchmark-only -s

SIZES chooses how many images are opened and searched, ROUNDS how often each contender has its turn.
faiss-cpu and usearch are measured beside where they are installed.
"""

import importlib
import os
import time
from functools import partial

import lancedb
import numpy as np
import pytest
import torch

from cascade import Collection
from cascade.collecting.record import FILE
from cascade.storing.lance import LanceStore
from cascade.storing.rows import ImageRow

DIMENSION = 512


def directions(number, seed=0, dimension=DIMENSION):
    """Unit vectors in clusters, as embeddings of photographs are: float32 [n, d]."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(200, dimension, generator=generator)
    chosen = torch.randint(0, 200, (number,), generator=generator)
    noise = torch.randn(number, dimension, generator=generator)
    return torch.nn.functional.normalize(centres[chosen] + noise, dim=1)


def rows(number):
    return [
        ImageRow(f"/photos/2019/album {at // 500}/{at:07}.jpg", f"{at}", at, at, f"{at:032x}")
        for at in range(number)
    ]


def filled(path, number, stages=2):
    """A store with so many images."""
    store = LanceStore(path, stages)
    vectors = directions(min(number, 50_000)).numpy()
    every = rows(number)
    with store.writing():
        for start in range(0, number, len(vectors)):
            store.add(every[start : start + len(vectors)], vectors, replaces=False)
    return store


def pieces(path, name):
    return len(list((path / f"{name}.lance" / "data").iterdir()))


@pytest.mark.parametrize("batch", [64, 512])
def test_100_000_promotions_in_batches(benchmark, tmp_path, batch):
    number = 100_000
    store = filled(tmp_path, number)
    ids, vectors = store.images(0).ids, directions(number, 1).numpy()
    order = np.random.default_rng(0).permutation(number)

    def promote():
        for start in range(0, number, batch):
            some = order[start : start + batch]
            with store.writing():
                store.promote(1, ids[some], vectors[some])

    benchmark.pedantic(promote, rounds=1)
    size = sum(file.stat().st_size for file in (tmp_path / "stage-1.lance").rglob("*"))
    table = store._stages[1]
    said = {
        "pieces": int(table._table.stats()["fragment_stats"]["num_fragments"]),
        "data files": pieces(tmp_path, "stage-1"),
        "versions": pieces_of_versions(tmp_path),
        "bytes": size,
    }
    begun = time.perf_counter()
    assert len(store.later(1, 0).ids) == number
    said["read seconds"] = round(time.perf_counter() - begun, 2)
    begun = time.perf_counter()
    store.compact(0)
    said["compact seconds"] = round(time.perf_counter() - begun, 2)
    said["bytes after"] = sum(f.stat().st_size for f in (tmp_path / "stage-1.lance").rglob("*"))
    said["data files after"] = pieces(tmp_path, "stage-1")
    benchmark.extra_info.update(said)
    print(batch, said)


def pieces_of_versions(path):
    return len(list((path / "stage-1.lance" / "_versions").glob("*.manifest")))


class Asked:
    """An encoder that gives queries."""

    def __init__(self):
        self.name = self.text_name = "asked"

    def encode_images(self, images):
        raise NotImplementedError

    def encode_texts(self, texts):
        return directions(len(texts), 7)


SIZES = [int(size) for size in os.environ.get("SIZES", "10000,100000,1000000").split(",")]
ROUNDS = int(os.environ.get("ROUNDS", "9"))


@pytest.mark.parametrize("number", SIZES)
def test_opening_and_searching(benchmark, tmp_path, number):
    """One line of the table: what it takes to open, and a query beside what others take for it."""
    path = tmp_path / "collection"
    with Collection.create(path, [Asked()]):
        assert (path / FILE).exists()
    filled(path, number, 1)
    before = resident()
    begun = time.perf_counter()
    collection = Collection.open(path, [Asked()])
    opened = time.perf_counter() - begun
    assert len(collection) == number
    query = [directions(1, 7)]
    begun = time.perf_counter()
    collection.search_embeddings(query, 10)
    first = time.perf_counter() - begun
    memory = (resident() - before) / number
    halves = collection.cascade.catalogue.contents.rows.embeddings
    said = {
        "images": number,
        "open s": round(opened, 2),
        "bytes of memory per image": round(memory),
        "bytes on disk per image": round(collection.status().nbytes / number),
        "first query ms": round(1000 * first, 1),
    }
    for queries in (1, 32):
        asked = directions(queries, 7)
        work = {"search": partial(collection.search_embeddings, [asked], 10)}
        work |= others(halves, asked, path if number <= 100_000 and queries == 1 else None)
        if queries == 1:
            benchmark(work["search"])
        for name, milliseconds in in_turn(work, ROUNDS if queries == 1 else 3).items():
            said[f"{name}, {queries}"] = round(milliseconds, 2)
    benchmark.extra_info.update(said)
    print("", *(f"{name}: {value}" for name, value in said.items()), sep="\n  ")


def others(halves, asked, path):
    """What else finds the ten best: plain products, and libraries where they are installed."""
    matrix, rounded = halves.float(), asked.half()
    found = {
        "product of float32": lambda: (asked @ matrix.T).topk(10),
        "product of halves": lambda: (rounded @ halves.T).topk(10),
    }
    threads = torch.get_num_threads()
    if faiss := installed("faiss"):
        faiss.omp_set_num_threads(threads)
        flat = faiss.IndexFlatIP(DIMENSION)
        flat.add(matrix.numpy())
        small = faiss.IndexScalarQuantizer(
            DIMENSION, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        small.train(matrix[:100].numpy())
        small.add(matrix.numpy())
        found["faiss flat"] = lambda: flat.search(asked.numpy(), 10)
        found["faiss of halves"] = lambda: small.search(asked.numpy(), 10)
    if usearch := installed("usearch.index"):
        how = {"exact": True, "threads": threads}
        inner = usearch.MetricKind.IP
        found["usearch of halves"] = lambda: usearch.search(
            halves.numpy(), rounded.numpy(), 10, inner, **how
        )
    if path is not None:
        table = lancedb.connect(str(path)).open_table("stage-0")
        vector = asked[0].numpy()
        scan = table.search(vector).distance_type("dot").select(["id", "_distance"]).limit(10)
        found["Lance's scan"] = scan.to_arrow
    return found


def installed(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def in_turn(work, rounds):
    """Milliseconds that each takes, the least of so many rounds, all of them in each round."""
    taken = {name: [] for name in work}
    for _ in range(rounds):
        for name, do in work.items():
            begun = time.perf_counter()
            do()
            taken[name].append(1000 * (time.perf_counter() - begun))
    return {name: min(each) for name, each in taken.items()}


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
