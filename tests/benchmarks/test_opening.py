"""What opening JPEG files costs: Pillow against a decoder that is called alone.

    PHOTOS='results/web/*/*.jpg' pytest tests/benchmarks/test_opening.py --benchmark-only -s

By default drawn pictures of 500 pixels, saved as the web has them; read as for towers of 32, 128
and 224 pixels. In turn. Milliseconds of the processor's time for one file, the median of several
turns, are printed and put into `extra_info`, with the decoder's own, to which nothing is added. The
pictures are the same bit for bit (tests/corpora/decoding/test_small_jpeg.py).
"""

import glob
import os
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpora import open_image
from corpora.decoding.jpeg import small
from corpora.decoding.jpeg.decoders import decoder
from corpora.decoding.reads import wanted
from corpora.decoding.sizes import divisor_of

TURNS = int(os.environ.get("TURNS", "15"))
MOST = 64


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    if "PHOTOS" in os.environ:
        return sorted(glob.glob(os.environ["PHOTOS"]))[:MOST]
    made = []
    for seed in range(16):
        dice = np.random.default_rng(seed)
        few = dice.integers(0, 256, (50, 67, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(few).resize((500, 375))) + dice.normal(
            0, 8, (375, 500, 3)
        )
        made.append(str(tmp_path_factory.mktemp("web") / f"{seed}.jpg"))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(made[-1], quality=85)
    return made


@contextmanager
def by_pillow():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "decoder", lambda: None)
        yield


@pytest.mark.parametrize("reads", ["full", "thumbnail"])
@pytest.mark.parametrize("edge", [32, 128, 224])
def test_opening(benchmark, files, edge, reads):
    if decoder() is None:
        pytest.skip("no decoder but Pillow is installed")
    name, alone = decoder()
    at_least = wanted(edge, reads)
    held = [Path(file).read_bytes() for file in files]
    asked = [(content, Image.open(file).size) for content, file in zip(held, files, strict=True)]

    def opened():
        return [open_image(file, at_least, reads) for file in files]

    def pillow():
        with by_pillow():
            return opened()

    def bare():
        for content, size in asked:
            alone(content, size, min(8, divisor_of(size, at_least)))

    for own, other in zip(opened(), pillow(), strict=True):
        assert (own.size, own.tobytes()) == (other.size, other.tobytes())
    took = {"Pillow": [], name: [], f"{name} itself": []}
    for _ in range(TURNS):
        for who, work in zip(took, (pillow, opened, bare), strict=True):
            begun = time.process_time()
            work()
            took[who].append((time.process_time() - begun) / len(files) * 1e3)
    medians = {who: float(np.median(each)) for who, each in took.items()}
    faster = medians["Pillow"] / medians[name]
    said = ", ".join(f"{who} {each:.3f} ms" for who, each in medians.items())
    print(f"\n{reads}, {edge} px, {len(files)} files: {said}, {faster:.2f} x")
    benchmark.extra_info.update(medians)
    benchmark.pedantic(opened, rounds=1, iterations=1)
