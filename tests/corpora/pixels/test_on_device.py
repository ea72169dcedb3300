"""A device that decodes JPEG files gives what the CPU gives; here the CPU is the device.

`tests/test_cuda_decoding.py` has the same on a GPU.
"""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from corpora import CorpusError, open_image
from corpora.decoding.jpeg.whole import read_jpeg
from corpora.decoding.watching import watched
from corpora.pixels import LONG, Preparer, on_device, waiting
from corpora.pixels.on_device import DeviceDecoder, upright
from corpora.pixels.waiting import Held, OnDevice
from tests.corpora.jpegs import TAKEN, jpeg, picture, turned

CPU = torch.device("cpu")
SMALL = {"size": {"shortest_edge": 24}, "crop_size": 24}

# torchvision's decoders will go to torchcodec one day
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")


@pytest.fixture(scope="module")
def decoder():
    found = DeviceDecoder.on("cpu")
    assert found is not None
    return found


@pytest.fixture
def small(decoder):
    preparer = Preparer.of(CLIPImageProcessor(**SMALL))
    return OnDevice(CPU, preparer, decoder, preparer.levels)


def held(content: bytes) -> Held:
    return Held(read_jpeg(content), content)


@pytest.mark.parametrize("kind", [kind for kind in TAKEN if kind != "RGB"])
def test_files_are_decoded_as_pillow_decodes_them(kind, decoder):
    file = read_jpeg(TAKEN[kind])
    assert decoder.takes(file.frame)
    [[pixels]] = map(list, decoder.decoded([file]))
    expected = np.asarray(open_image(TAKEN[kind])).transpose(2, 0, 1)
    assert np.array_equal(upright(pixels, file.orientation).numpy(), expected)


@pytest.mark.parametrize("orientation", range(10))
def test_pictures_are_turned_as_on_the_cpu(orientation, small):
    content = jpeg(picture(), exif=turned(orientation))
    assert torch.equal(small.levels([held(content)]), small.preparer.levels([content]))


def test_a_batch_of_files_and_levels_of_any_sizes_keeps_its_order(small, monkeypatch):
    monkeypatch.setattr(waiting, "_TOGETHER", 3 * 90 * 61 * 2)  # two of a size at once
    monkeypatch.setattr(on_device, "_DECODED_PIXELS", 90 * 61 * 4)
    shapes = [(90, 61), (61, 90), (90, 61), (40, 40), (90, 61), (90, 61), (33, 70)]
    contents = [jpeg(picture(*shape, seed)) for seed, shape in enumerate(shapes)]
    expected = small.preparer.levels(contents)
    begun = [
        held(content) if place % 3 else levels
        for place, (content, levels) in enumerate(zip(contents, expected, strict=True))
    ]
    assert torch.equal(small.levels(begun), expected)
    assert torch.equal(small.levels(begun[::-1]), expected.flip(0))
    assert small.levels([]).shape == (0, 3, 0, 0)


def test_what_the_decoder_fails_on_is_opened_and_what_opening_says_is_said(decoder, monkeypatch):
    own = on_device._nvjpeg

    def failing(contents, device):
        if TAKEN["coarse"] in contents:
            raise RuntimeError("the device can't")
        return own(contents, device)

    monkeypatch.setattr(on_device, "_nvjpeg", failing)
    monkeypatch.setattr(on_device, "_DECODED_PIXELS", 1)
    opened: list[bytes] = []
    preparer = Preparer.of(CLIPImageProcessor(**SMALL))

    def opening(images):
        opened.extend(images)
        return preparer.levels(images)

    small = OnDevice(CPU, preparer, decoder, opening)
    contents = [TAKEN["larger"], TAKEN["coarse"], TAKEN["restarts"]]
    assert torch.equal(small.levels([held(each) for each in contents]), preparer.levels(contents))
    assert opened == [TAKEN["coarse"]]
    broken = Held(read_jpeg(TAKEN["coarse"]), b"no picture")
    with pytest.raises(CorpusError, match="can't be decoded"):
        small.levels([held(TAKEN["larger"]), broken])


def test_what_the_device_cannot_resize_is_prepared_on_the_cpu_and_counted_once(small, monkeypatch):
    contents = [TAKEN["larger"], TAKEN["coarse"]]
    expected, own = small.preparer.levels(contents), small.preparer.of_pixels

    def failing(pixels):
        if pixels.shape[3] == 500:
            raise CorpusError("too much shared memory required")
        return own(pixels)

    monkeypatch.setattr(small.preparer, "of_pixels", failing)
    with watched() as seen:
        assert torch.equal(small.levels([held(each) for each in contents]), expected)
    assert seen.images == 2


def test_only_what_a_device_prepares_as_the_cpu_does_goes_there(small, decoder):
    usual = read_jpeg(TAKEN["larger"]).frame
    assert small.takes(usual)
    long = read_jpeg(jpeg(picture(20 * (LONG + 1), 20))).frame
    assert not small.takes(long)  # its middle alone is prepared
    by_pillow = Preparer.of(CLIPImageProcessorPil(**SMALL))
    assert not OnDevice(CPU, by_pillow, decoder, by_pillow.levels).takes(
        read_jpeg(TAKEN["larger"]).frame
    )
    assert not OnDevice(CPU, small.preparer, None, small.opened).takes(
        read_jpeg(TAKEN["larger"]).frame
    )


def test_kinds_on_which_a_decoder_disagrees_are_not_its_own(monkeypatch):
    own = on_device._nvjpeg

    def other(contents, device):
        made = own(contents, device)
        grey = len(read_jpeg(contents[0]).frame.layers) == 1
        return [255 - pixels for pixels in made] if grey else made

    monkeypatch.setattr(on_device, "_nvjpeg", other)
    found = on_device._decoder.__wrapped__("cpu")
    assert not found.takes(read_jpeg(TAKEN["grey"]).frame)
    assert found.takes(read_jpeg(TAKEN["4:2:0, progressive"]).frame)

    def nothing(contents, device):
        raise RuntimeError("built without it")

    monkeypatch.setattr(on_device, "_nvjpeg", nothing)
    assert on_device._decoder.__wrapped__("cpu") is None


def test_kinds_that_were_not_tried_are_opened_on_the_cpu(decoder):
    content = bytearray(TAKEN["4:2:2, baseline"])
    assert decoder.takes(read_jpeg(bytes(content)).frame)
    content[content.index(b"\x01\x21\x00") + 1] = 0x12  # 4:4:0, as a camera held upright writes it
    assert not decoder.takes(read_jpeg(bytes(content)).frame)


def test_images_of_other_sizes_are_refused_as_on_the_cpu(decoder):
    preparer = Preparer.of(CLIPImageProcessor(do_resize=False, do_center_crop=False))
    with pytest.raises(ValueError, match="different sizes"):
        OnDevice(CPU, preparer, decoder, preparer.levels).levels(
            [held(TAKEN["larger"]), held(TAKEN["long"])]
        )


def test_decoding_is_counted_by_who_watches(small):
    with watched() as seen:
        small.levels([held(TAKEN["larger"]), held(TAKEN["long"])])
    assert seen.images == 2
    assert seen.seconds > 0


def test_several_threads_may_decode_at_once(small):
    contents = [jpeg(picture(70 + seed, 50, seed)) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda content: small.levels([held(content)]), contents * 3))
    assert torch.equal(torch.cat(found), small.preparer.levels(contents * 3))


def test_files_of_no_colour_come_as_three_layers(small):
    content = io.BytesIO()
    Image.new("L", (50, 40), 77).save(content, "JPEG")
    levels = small.levels([held(content.getvalue())])
    assert levels.shape == (1, 3, 24, 24)
    assert (levels == 77).all()
