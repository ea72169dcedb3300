"""A cold query after a restart: promoted images resumed from stored states, and from their files.

MODEL=DIR EXIT=DIR python -m pytest tests/benchmarks/test_stored_states.py --benchmark-only -s

By default the demo checkpoint with an exit after its fourth layer, over scenes drawn into files.
"""

import os
import shutil
from pathlib import Path
from statistics import median

import pytest
import torch

from cascade import Collection, ResumedStage, Stage
from corpora.scenes import SEEDS, render, scene
from pruning_mechanism import Reduction, reduce
from pruning_mechanism.costs.clock import seconds_of

MODEL = os.environ.get("MODEL", "demo/clip-scenes")
EXIT = os.environ.get("EXIT")
IMAGES = int(os.environ.get("IMAGES", "300"))
M = 50
TURNS = 5


@pytest.fixture
def stages():
    full = Stage.load(MODEL)
    if EXIT is not None:
        first = Stage.load(EXIT)
    else:
        model = reduce(full.model, Reduction(layers=4))
        first = Stage(model, full.preparation.processor, texts=full)
    return [first, ResumedStage(full, first)]


def test_a_cold_query_after_a_restart(benchmark, tmp_path, stages):
    files = []
    for number in range(IMAGES):
        files.append(tmp_path / f"{number:05}.png")
        render(scene(SEEDS["validation"], number)).save(files[-1])
    with Collection.create(tmp_path / "made", stages, [M]) as made:
        made.add(files)
    seconds = {"states": [], "files": []}

    def turns():
        for turn in range(TURNS):
            found = [asked(tmp_path, stages, kind, turn, seconds[kind]) for kind in seconds]
            assert found[0] == found[1]

    benchmark.pedantic(turns, rounds=1)
    said = {kind: round(median(each), 3) for kind, each in seconds.items()}
    said["states / files"] = round(said["states"] / said["files"], 2)
    benchmark.extra_info.update(said)
    print(said)


def asked(directory: Path, stages, kind: str, turn: int, seconds: list[float]) -> list[str]:
    """The hits of one query by a fresh copy of the collection; adds how long it took."""
    path = directory / "copy"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(directory / "made", path)
    with Collection.open(path, stages) as collection:
        if kind == "files":
            collection._store.release_states(collection._store.images(0).ids)
        query = collection.encode_texts([f"{turn} red discs"])
        found = []

        def ask():
            (hits,) = collection.search_embeddings(query, 10)
            found.extend(str(hit.key) for hit in hits)

        seconds.append(seconds_of(ask, torch.device("cpu")))
    return found
