"""Steps give what their processor gives, bit for bit, or aren't used and it is said why."""

import copy
import os
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ChineseCLIPImageProcessor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    SiglipImageProcessor,
)
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import (
    ChineseCLIPImageProcessorPil,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from corpora import CorpusError
from corpora.pixels import LONG, Preparer, pixel_values
from corpora.pixels import ahead as ahead_module
from corpora.pixels import memory as memory_module
from corpora.pixels import torch_steps as steps_module
from tests.lanes import THOROUGH

SMALL = {"size": {"shortest_edge": 24}, "crop_size": 24}
BOX = {"size": {"height": 24, "width": 20}}
FAMILIES = {
    "CLIP": (CLIPImageProcessor, CLIPImageProcessorPil, SMALL),
    "CLIP at 224": (CLIPImageProcessor, CLIPImageProcessorPil, {}),
    "Chinese-CLIP": (ChineseCLIPImageProcessor, ChineseCLIPImageProcessorPil, SMALL),
    "SigLIP": (SiglipImageProcessor, SiglipImageProcessorPil, BOX),
    "squashed, as open_clip": (
        CLIPImageProcessor,
        CLIPImageProcessorPil,
        {"size": {"height": 24, "width": 24}, "do_center_crop": False, "resample": 2},
    ),
    "margin": (
        CLIPImageProcessor,
        CLIPImageProcessorPil,
        {"size": {"shortest_edge": 29}, "crop_size": 24},
    ),
    "crop larger than the picture": (
        CLIPImageProcessor,
        CLIPImageProcessorPil,
        {"size": {"shortest_edge": 17}, "crop_size": {"height": 24, "width": 31}},
    ),
    "only cropped": (CLIPImageProcessor, CLIPImageProcessorPil, {**SMALL, "do_resize": False}),
    "within two edges": (
        CLIPImageProcessor,
        CLIPImageProcessorPil,
        {"size": {"shortest_edge": 24, "longest_edge": 40}, "crop_size": 24},
    ),
    "bilinear": (CLIPImageProcessor, CLIPImageProcessorPil, {**SMALL, "resample": 2}),
    "nearest": (SiglipImageProcessor, SiglipImageProcessorPil, {**BOX, "resample": 0}),
    "lanczos": (SiglipImageProcessor, SiglipImageProcessorPil, {**BOX, "resample": 1}),
    "other scale": (
        CLIPImageProcessor,
        CLIPImageProcessorPil,
        {**SMALL, "rescale_factor": 1 / 127.5, "image_mean": [0.5] * 3, "image_std": [0.3, 1, 2]},
    ),
    "not normalised": (CLIPImageProcessor, CLIPImageProcessorPil, {**SMALL, "do_normalize": False}),
    "not rescaled": (CLIPImageProcessor, CLIPImageProcessorPil, {**SMALL, "do_rescale": False}),
    "levels": (
        CLIPImageProcessor,
        CLIPImageProcessorPil,
        {**SMALL, "do_rescale": False, "do_normalize": False},
    ),
}
"""Every family's processors by both backends, and every setting that a checkpoint may change."""
EDGES = [
    *((1, 1), (1, 2), (1, LONG), (LONG, 1), (2, 31), (24, 24), (24, 20), (23, 25), (25, 23)),
    *((24, 300), (300, 24), (12, 190), (224, 224), (223, 224), (224, 225), (17, 31)),
]
"""One pixel, the longest that are prepared as a whole, the target's own size and beside it."""


def shapes(number):
    """Heights and widths: the edges, then small and large ones drawn at random."""
    dice = random.Random(0)
    drawn = list(EDGES)
    while len(drawn) < number:
        height = round(2 ** dice.uniform(0, 9.5))
        width = round(height * 2 ** dice.uniform(-3, 3))
        if 1 <= width <= 900 and max(height, width) <= LONG * min(height, width):
            drawn.append((height, width))
    return drawn


def picture(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if seed % 5 == 1:
        pixels[:] = pixels[..., :1]  # grey
    if seed % 5 == 2:
        pixels[:] = (pixels // 128) * 255  # where a bicubic overshoots
    return Image.fromarray(pixels)


def alone(processor, images):
    return processor(images=images, return_tensors="pt")["pixel_values"]


def as_given(image, at_least):
    return image


@pytest.mark.parametrize("backend", ["torchvision", "Pillow"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_the_processor_s_bit_for_bit(family, backend):
    by_torchvision, by_pillow, settings = FAMILIES[family]
    processor = (by_torchvision if backend == "torchvision" else by_pillow)(**settings)
    preparer = Preparer.of(processor)
    assert preparer.fallback is None
    number = 500 if THOROUGH else 40 if processor.size != CLIPImageProcessor().size else 12
    images = [picture(*shape, seed) for seed, shape in enumerate(shapes(number))]
    for start in range(0, number, 20):
        some = images[start : start + 20]
        expected, found = alone(processor, some), pixel_values(processor, some, as_given)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
        if settings.get("do_rescale", True) or settings.get("do_normalize", True):
            assert preparer.levels(some, as_given).dtype == torch.uint8


@pytest.mark.parametrize("backend", [CLIPImageProcessor, CLIPImageProcessorPil])
def test_pictures_of_one_size_are_prepared_together_and_keep_their_places(backend):
    sizes = [(30, 40), (63, 63), (30, 40), (700, 300), (63, 63), (30, 40), (24, 24), (30, 40)] * 3
    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    images[2].info["transparency"] = (1, 2, 3)
    processor = backend(**SMALL)
    expected = alone(processor, images)
    assert torch.equal(pixel_values(processor, images, as_given), expected)


def test_pictures_are_opened_before_they_are_prepared_while_they_are_few_and_small(monkeypatch):
    done = []
    preparer = Preparer(CLIPImageProcessor(**SMALL))
    by_steps = preparer._steps.levels
    monkeypatch.setattr(
        preparer._steps, "levels", lambda some: done.append(len(some)) or by_steps(some)
    )
    sizes = [(400, 400)] * 3 + [(600, 500), (40, 40), (40, 40), (40, 50)]
    preparer.levels(sizes, lambda size, at_least: done.append("open") or picture(*size))
    assert done == ["open", "open", 1, "open", 1, "open", 1, "open", 1, "open", "open", 2, 1]


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="torch resamples uint8 otherwise here",
)
def test_one_call_of_torch_is_all_that_a_step_is_or_the_step_is_called(monkeypatch):
    images = [picture(40, 30), picture(40, 30, 1)]
    expected = alone(CLIPImageProcessor(**SMALL), images)
    direct = Preparer(CLIPImageProcessor(**SMALL))
    assert isinstance(direct._steps, steps_module.DirectSteps)
    once = steps_module.DirectSteps._interpolated
    monkeypatch.setattr(
        steps_module.DirectSteps, "_interpolated", lambda *given: once(*given).flip(-1)
    )
    preparer = Preparer(CLIPImageProcessor(**SMALL))  # as if torchvision did something else now
    assert type(preparer._steps) is steps_module.TorchvisionSteps
    assert preparer.fallback is None
    assert torch.equal(preparer.finished(preparer.levels(images, as_given)), expected)


def test_a_picture_whose_memory_is_in_several_pieces_is_resampled_in_parts(monkeypatch):
    large = picture(2600, 1700, 2)
    assert memory_module.view(large) is None
    processor = CLIPImageProcessor(**SMALL)
    expected = alone(processor, [large])
    assert torch.equal(pixel_values(processor, [large], as_given), expected)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    other = copy.deepcopy(processor)  # which is where parts would not be exact
    assert torch.equal(pixel_values(other, [large], as_given), expected)


def test_a_view_of_a_picture_outlives_it():
    image = picture(400, 300)
    expected = torch.from_numpy(np.array(image)).movedim(-1, 0)
    view = memory_module.view(image)
    del image
    assert torch.equal(view[:3], expected)


def test_a_large_picture_whose_last_strip_is_small_is_prepared_as_others_are():
    """It is resampled in strips of a megabyte; the last one has a single line."""
    image = picture(5000, 20 * 52 + 1)
    processor = CLIPImageProcessor(**SMALL)
    assert torch.equal(pixel_values(processor, [image], as_given), alone(processor, [image]))


def test_a_transparent_colour_is_white_as_the_processor_makes_it():
    image = Image.new("RGB", (30, 30), (10, 20, 30))
    image.info["transparency"] = (10, 20, 30)
    for processor in (CLIPImageProcessor(**SMALL), CLIPImageProcessorPil(**SMALL)):
        expected = alone(processor, [image])
        assert torch.equal(pixel_values(processor, [image], as_given), expected)
        assert expected.min() > 1  # it is white


class WithOwnStep(CLIPImageProcessor):
    def resize(self, image, **options):
        return super().resize(image, **options).flip(-1)


class WithOwnExtras(CLIPImageProcessor):
    """Does more in a place that no list of methods names."""

    def _prepare_images_structure(self, images, expected_ndims=3):
        return [image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) for image in images]


def with_another_step():
    processor = CLIPImageProcessor(**SMALL)
    processor.center_crop = lambda image, size: image[..., : size.height, : size.width]
    return processor


class Unknown:
    def __call__(self, images, return_tensors):
        pixels = [np.array(image.resize((24, 24))).transpose(2, 0, 1) for image in images]
        return {"pixel_values": torch.from_numpy(np.stack(pixels)).float()}


FALLING_BACK = {
    "has a _preprocess of its own": ConvNextImageProcessor(size={"shortest_edge": 384}),
    "has a resize of its own": WithOwnStep(**SMALL),
    "does more than its steps": WithOwnExtras(**SMALL),
    "was given another center_crop": with_another_step(),
    "pads": CLIPImageProcessor(**SMALL, do_pad=True, pad_size={"height": 30, "width": 30}),
    "of no kind whose steps are known": Unknown(),
}


@pytest.mark.parametrize("reason", FALLING_BACK)
def test_a_processor_that_does_more_is_called_as_a_whole_and_says_so(reason):
    processor = FALLING_BACK[reason]
    assert reason in Preparer.of(processor).fallback
    images = [picture(40, 30), picture(30, 50, 1)]
    expected = alone(processor, images)
    assert torch.equal(pixel_values(processor, images, as_given), expected)


def test_settings_that_fit_no_picture_are_said_where_a_picture_is_prepared():
    processor = CLIPImageProcessor(**SMALL, image_mean=[0.1, 0.2], image_std=[1.0, 1.0])
    assert "can't be called alone" in Preparer.of(processor).fallback
    with pytest.raises((CorpusError, ValueError)):
        pixel_values(processor, [picture(40, 30)], as_given)


def threads_started(work):
    """How many new threads some work leaves beside the one that it was done in."""

    def counted():
        torch.set_num_threads(2)
        before = set(os.listdir("/proc/self/task"))
        work()
        return len(set(os.listdir("/proc/self/task")) - before)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(counted).result()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads can't be counted here")
def test_preparing_wakes_no_threads_of_torch():
    """They would wait for more to do on cores where others decode."""
    before = torch.get_num_threads()
    images = [picture(200, 210, seed) for seed in range(8)]
    parts = [torch.zeros(8, 3, 224, 224, dtype=torch.uint8)] * 2
    preparer = Preparer.of(CLIPImageProcessor())
    try:
        if threads_started(lambda: torch.ones(1 << 20).sqrt()) != 1:
            pytest.skip("this torch starts no threads of its own")
        assert threads_started(lambda: preparer.finished(preparer.levels(images, as_given))) == 0
        assert threads_started(lambda: ahead_module.joined(parts)) == 0
    finally:
        torch.set_num_threads(before)


def test_changed_settings_are_followed():
    processor, image = CLIPImageProcessor(**SMALL), picture(40, 30)
    before = pixel_values(processor, [image], as_given)
    assert Preparer.of(processor) is Preparer.of(processor)
    processor.image_mean = (0.1, 0.2, 0.3)
    after = pixel_values(processor, [image], as_given)
    assert torch.equal(after, alone(processor, [image]))
    assert not torch.equal(after, before)
    processor.do_pad, processor.pad_size = True, type(processor.size)(height=30, width=30)
    assert "pads" in Preparer.of(processor).fallback
    assert torch.equal(pixel_values(processor, [image], as_given), alone(processor, [image]))
