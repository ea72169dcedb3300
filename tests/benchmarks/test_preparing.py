"""What preparing pictures costs: a checkpoint's image processor against its own steps alone.

    OMP_NUM_THREADS=1 pytest tests/benchmarks/test_preparing.py --benchmark-only -s

Decoded pictures of the development photographs' size, of the web's, of a camera file that was
decoded at half its size, and of a whole one; a processor of each backend. In turn, alone and in a
batch of 32 where that is possible; `SIDE` is what the tower takes. Milliseconds of the processor's
time for one picture, the least of several, are printed as a table and in `extra_info`: so another
program on the machine changes little. The outcome is the same bit for bit (tests/corpora/pixels).
"""

import os
import time

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from corpora.pixels import Preparer, pixel_values

SIDE = int(os.environ.get("SIDE", "224"))
SIZES = {
    "160 x 160": (160, 160),
    "500 x 375": (375, 500),
    "2000 x 1500": (1500, 2000),
    "4000 x 3000": (3000, 4000),
}
KINDS = {"torchvision": CLIPImageProcessor, "Pillow": CLIPImageProcessorPil}
TURNS = 5


def picture(height, width):
    """What varies over some pixels, as photographs do."""
    small = np.random.default_rng(0).integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def as_given(image, at_least):
    return image


def least(works, images):
    """The least milliseconds of this process for one image, by each work in turn."""
    found = [float("inf")] * len(works)
    for _ in range(TURNS):
        for place, work in enumerate(works):
            begun = time.process_time()
            work()
            taken = (time.process_time() - begun) / images * 1e3
            found[place] = min(found[place], taken)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_preparing(benchmark, size, kind):
    image = picture(*SIZES[size])
    processor = KINDS[kind](size={"shortest_edge": SIDE}, crop_size=SIDE)
    assert Preparer.of(processor).fallback is None
    large = image.width * image.height > 1_000_000
    for number in (1,) if large else (1, 32):
        images = [image] * number
        repeated = 1 if large else 32 // number

        def plain(images=images, repeated=repeated):
            for _ in range(repeated):
                processor(images=images, return_tensors="pt")

        def own(images=images, repeated=repeated):
            for _ in range(repeated):
                pixel_values(processor, images, as_given)

        plain_ms, own_ms = least([plain, own], number * repeated)
        print(
            f"\n{kind}, {size}, {number} at once: processor {plain_ms:.2f} ms, "
            f"steps {own_ms:.2f} ms, {plain_ms / own_ms:.1f} x"
        )
        benchmark.extra_info[f"{number} at once"] = {"processor": plain_ms, "steps": own_ms}
    assert torch.equal(
        processor(images=[image], return_tensors="pt")["pixel_values"],
        pixel_values(processor, [image], as_given),
    )
    benchmark.pedantic(pixel_values, (processor, [image], as_given), rounds=3, iterations=1)
