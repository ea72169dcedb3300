"""What indexing takes beside its two parts alone, reading and decoding, and encoding.

    OMP_WAIT_POLICY=passive PHOTOS='photos/*.jpg' FIRST=DIR LAST=DIR \
        pytest tests/benchmarks/test_indexing.py --benchmark-only -s

Without these, 256 drawn scenes and the demo checkpoints. In turn, `TURNS` times, all in this
process: wall-clock seconds and the processor's time for one photo. On cores that both parts share,
indexing can't take less of the processor's time than they do together; `parts / indexing` says how
near to that it is, whatever else runs on the machine. What a user waits for is measured by
`evaluation.indexing`.
"""

import os
import time
from pathlib import Path

import pytest

from cascade.collection import Collection
from cascade.photos.finding import Photos
from cascade.stages.stage import Stage
from cascade.upkeep import bring_up_to_date
from corpora.scenes import SEEDS, render, scene
from evaluation.growing.alone import decoded, sampled_rows

DEMO = Path(__file__).resolve().parents[2] / "demo"
FIRST = os.environ.get("FIRST", DEMO / "clip-scenes-first")
LAST = os.environ.get("LAST", DEMO / "clip-scenes")
TURNS = int(os.environ.get("TURNS", "3"))
THREADS = int(os.environ.get("THREADS", os.cpu_count() or 1))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Photos:
    if "PHOTOS" in os.environ:
        return Photos.at([os.environ["PHOTOS"]])
    directory = tmp_path_factory.mktemp("scenes")
    for number in range(256):
        picture = render(scene(SEEDS["validation"], number)).resize((160, 160))
        picture.save(directory / f"{number}.jpg", quality=90)
    return Photos.at([str(directory)])


def taken(work):
    """What a work gives, and its milliseconds: on the wall's clock, and of the processor."""
    begun, spent = time.perf_counter(), time.process_time()
    given = work()
    return given, (time.perf_counter() - begun) * 1e3, (time.process_time() - spent) * 1e3


def test_indexing(benchmark, photos, tmp_path):
    last = Stage.load(LAST)
    first = Stage.load(FIRST, texts=last)
    rows = sampled_rows(photos, 1 << 30, 0)
    shares = []

    def turn(number):
        images, *decoding = taken(lambda: decoded(first, rows, THREADS))
        size = first.batch_size
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        _, *encoding = taken(lambda: [first.encode_images(part) for part in parts])
        with Collection.create(tmp_path / f"{number}.cascade", [first, last], [50]) as collection:
            _, *indexing = taken(lambda: bring_up_to_date(collection, photos, threads=THREADS))
        shares.append((decoding[1] + encoding[1]) / indexing[1])
        each = ((decoding, "decoding"), (encoding, "encoding"), (indexing, "indexing"))
        said = ", ".join(
            f"{name} {wall / len(rows):.2f} ({processor / len(rows):.2f})"
            for (wall, processor), name in each
        )
        print(f"\nms for a photo, of the processor in brackets: {said}; parts / indexing", end=" ")
        print(f"{shares[-1]:.2f}")

    for number in range(TURNS):
        turn(number)
    benchmark.extra_info["parts / indexing"] = shares
    benchmark.pedantic(lambda: first.encode_images([]), rounds=1)
