"""Pixels are those of the processor alone, and no input decides what preparing it costs."""

import functools
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, SiglipImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from cascade.stages.images import UnreadableImage
from cascade.stages.images import open_image as open_source
from corpora import CorpusError, open_image
from corpora.pixels import LONG, Preparer, pixel_values
from corpora.pixels.backends import NoStepsError
from tests.fresh import python
from tests.lanes import sweep

ROOT = Path(__file__).resolve().parents[2]
PROCESSORS = {
    "clip": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
    "clip with a margin": CLIPImageProcessor(size={"shortest_edge": 40}, crop_size=32),
    "clip by Pillow": CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32),
    "siglip": SiglipImageProcessor(size={"height": 32, "width": 24}),
    "siglip by Pillow": SiglipImageProcessorPil(size={"height": 32, "width": 32}),
}


def noise(height, width, seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def smooth(height, width, seed=0) -> Image.Image:
    """What varies over some pixels, as photographs do."""
    small = noise(max(2, height // 6), max(2, width // 6), seed)
    return small.resize((width, height), Image.Resampling.BICUBIC)


def no_steps(processor):
    """Instead of `steps_of`: the processor is to be called as a whole."""
    raise NoStepsError("not here")


def encoded(image, form="PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def alone(processor, images) -> torch.Tensor:
    return processor(images=images, return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("kind", PROCESSORS)
def test_ordinary_images_are_bit_for_bit_as_the_processor_makes_them(kind, monkeypatch):
    shapes = [(30, 40), (30, 40), (64, 20), (1, 1), (3, 3), (3, 40), (1, 16), (1100, 1430), (9, 7)]
    images = [noise(*shape, seed) for seed, shape in enumerate(shapes)]
    files = [encoded(image) for image in images]
    expected = alone(PROCESSORS[kind], images)
    assert torch.equal(pixel_values(PROCESSORS[kind], files), expected)
    assert torch.equal(pixel_values(PROCESSORS[kind], images), expected)
    monkeypatch.setattr("corpora.pixels.preparer.steps_of", no_steps)
    monkeypatch.setattr("corpora.pixels.preparer._HELD_PIXELS", 1)  # one at a time
    assert Preparer(PROCESSORS[kind]).fallback == "not here"
    assert torch.equal(pixel_values(PROCESSORS[kind], files), expected)


@pytest.mark.parametrize("kind", ["clip", "clip with a margin", "clip by Pillow"])
@pytest.mark.parametrize("shape", [(20, 900), (901, 20), (40, 1000), (64, 1500), (10, 411)])
def test_of_a_long_picture_the_middle_is_what_the_whole_gives(kind, shape):
    """Equal to the whole route up to a part of a pixel, by which its rounded length differs."""
    assert max(shape) > LONG * min(shape)
    image = smooth(*shape)
    found, expected = pixel_values(PROCESSORS[kind], [image]), alone(PROCESSORS[kind], [image])
    scale = expected.std()
    assert (found - expected).abs().mean() < 0.03 * scale
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
    assert cosine > 0.995


@pytest.mark.parametrize("kind", ["siglip", "siglip by Pillow"])
def test_a_long_picture_that_is_squeezed_is_averaged_first(kind):
    image = smooth(20, 6000)
    found, expected = pixel_values(PROCESSORS[kind], [image]), alone(PROCESSORS[kind], [image])
    assert (found - expected).abs().mean() < 0.03 * expected.std()


@functools.cache
def large(form: str) -> bytes:
    return encoded(smooth(1500, 2000), form)


@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_large_files_are_decoded_at_a_part_of_their_size(kind, form):
    content = large(form)
    opened = open_image(content, 720)
    assert opened.size == (1000, 750)
    found = pixel_values(PROCESSORS[kind], [content])
    expected = alone(PROCESSORS[kind], [open_image(content)])
    assert (found - expected).abs().mean() < 0.02
    assert not torch.equal(found, expected)


@pytest.mark.parametrize("at_least", [None, 65, 64, 33, 32, 17, 16, 9, 8])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_a_picture_stays_as_large_as_was_asked_for(at_least, form):
    opened = open_image(encoded(noise(64, 128), form), at_least)
    expected = 64 if at_least is None or at_least > 32 else 1 << (at_least - 1).bit_length()
    assert opened.size == (2 * expected, expected)


def test_no_images_are_no_pixels_and_other_sizes_are_an_error():
    assert len(pixel_values(PROCESSORS["clip"], [])) == 0
    uneven = CLIPImageProcessor(size={"shortest_edge": 32}, do_center_crop=False)
    with pytest.raises(ValueError, match="different sizes"):
        pixel_values(uneven, [noise(3000, 2000), noise(2000, 3500)])


def test_what_cannot_be_opened_is_said_with_its_reason():
    with pytest.raises(CorpusError, match="8 bytes: can't be decoded"):
        pixel_values(PROCESSORS["clip"], [noise(3, 3), b"no image"])
    with pytest.raises(UnreadableImage, match="8 bytes: can't be decoded"):
        pixel_values(PROCESSORS["clip"], [b"no image"], open_source)


MEASURE = """
import io, sys
import torch
from PIL import Image
from transformers import CLIPImageProcessor, SiglipImageProcessor
from corpora.pixels import pixel_values

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024

def png(size, mode="RGB"):
    stream = io.BytesIO()
    Image.new(mode, size, 7).save(stream, "PNG")
    return stream.getvalue()

def jpeg(size, **options):
    stream = io.BytesIO()
    Image.new("RGB", size, (9, 80, 200)).save(stream, "JPEG", **options)
    return stream.getvalue()

sources = eval(sys.argv[1])
for processor in (CLIPImageProcessor(), SiglipImageProcessor()):
    pixel_values(processor, [png((30, 20))])
before = peak()
for processor in (CLIPImageProcessor(), SiglipImageProcessor()):
    for source in sources:
        try:
            assert pixel_values(processor, [source] * 2).shape == (2, 3, 224, 224)
        except ValueError as error:
            assert type(error).__name__ == "CorpusError", error
print(peak() - before)
"""


MEGABYTES = {
    "[png((1, 20_000)), png((20_000, 1)), png((3, 50_000)), png((1, 2_000_000)), "
    "png((2_000_000, 1)), jpeg((6000, 4000))]": 300,
    "[png((9000, 8000)), png((9000, 8000), 'I;16')]": 1000,
}


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="there is no /proc to ask")
@pytest.mark.parametrize("sources", sweep(MEGABYTES, list(MEGABYTES)[:1]))
def test_the_input_does_not_decide_the_cost(sources):
    """Megabytes over what preparing small pictures takes."""
    asked = python("-c", MEASURE, sources, cwd=ROOT)
    assert int(asked.stdout) < MEGABYTES[sources]
