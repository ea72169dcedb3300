"""A way's steps are those that it takes, and as a whole it embeds as what it stands for."""

import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from transformers import AutoModel, AutoProcessor

from cascade import Stage
from corpora import CorpusError
from corpora.decoding import images
from evaluation.breaking_down.ways import OfStage, Plain
from pruning_mechanism import TowerError


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five files of three sizes, one of them turned by its EXIF."""
    directory = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths = []
    for number, size in enumerate([(40, 30), (30, 40), (64, 64), (40, 30), (40, 30)]):
        picture = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), "uint8"))
        exif = picture.getexif()
        exif[0x0112] = 6 if number == 1 else 1
        paths.append(directory / f"{number}.jpg")
        picture.save(paths[-1], quality=95, exif=exif)
    return paths


def test_plain_is_what_a_model_card_does(clip_directory, photos):
    model = AutoModel.from_pretrained(clip_directory)
    processor = AutoProcessor.from_pretrained(clip_directory)
    pictures = [Image.open(path).convert("RGB") for path in photos]
    with torch.inference_mode():
        found = model.get_image_features(**processor(images=pictures, return_tensors="pt"))
    expected = torch.nn.functional.normalize(found.pooler_output, dim=-1)
    assert torch.allclose(Plain(str(clip_directory), "cpu", 2).whole(photos), expected, atol=1e-6)


def test_a_stage_embeds_as_it_does(clip_directory, photos):
    stage = Stage.load(clip_directory, batch_size=2)
    assert torch.equal(OfStage(stage).whole(photos), stage.encode_images(photos))


@pytest.mark.parametrize("kind", ["plain", "stage"])
def test_steps_add_up_to_what_they_take_together(clip_directory, photos, kind):
    way = opened(clip_directory, kind)
    begun = time.perf_counter()
    steps = way.steps(photos)
    whole = time.perf_counter() - begun
    parts = (steps.read, steps.decode, steps.prepare, steps.encode)
    assert all(part > 0 for part in parts)
    assert 0.5 * whole < sum(parts) <= whole
    sizes = sum(path.stat().st_size for path in photos)
    assert sizes - 4 * len(photos) <= steps.nbytes <= 2 * sizes  # Pillow reads a head twice


def opened(directory, kind):
    if kind == "plain":
        return Plain(str(directory), "cpu", 2)
    return OfStage(Stage.load(directory, batch_size=2))


DELAY = 0.03


def late(function):
    def waiting(*args, **kwargs):
        time.sleep(DELAY)
        return function(*args, **kwargs)

    return waiting


@pytest.mark.parametrize(
    ("kind", "slowed"),
    [("plain", "read"), *product(("plain", "stage"), ("decode", "prepare", "encode"))],
)
def test_what_takes_longer_shows_in_its_own_step(clip_directory, photos, kind, slowed, monkeypatch):
    """One step waits in each of its calls; it is then the longest by far."""
    way = opened(clip_directory, kind)
    of = way if kind == "plain" else way.stage
    place, name = {
        ("plain", "read"): (Path, "read_bytes"),
        ("plain", "decode"): (ImageFile.ImageFile, "load_prepare"),
        ("stage", "decode"): (images, "_decoded"),
        ("plain", "prepare"): (of, "processor"),
        ("stage", "prepare"): (of, "pixels"),
        ("plain", "encode"): (getattr(of, "model", None), "get_image_features"),
        ("stage", "encode"): (of, "encode_pixels"),
    }[kind, slowed]
    monkeypatch.setattr(place, name, late(getattr(place, name)))
    steps = way.steps(photos)
    parts = {name: getattr(steps, name) for name in ("read", "decode", "prepare", "encode")}
    assert max(parts, key=parts.get) == slowed
    batches = slowed == "encode" or (kind, slowed) == ("stage", "prepare")
    calls = 3 if batches else 5  # batches of 2, or one image each
    assert parts[slowed] >= calls * DELAY


def test_a_stage_that_opens_images_by_another_way_is_refused(clip_directory, photos, monkeypatch):
    """Else its opening would count as preparing, without a word."""
    way = opened(clip_directory, "stage")
    pixels = way.stage.pixels(photos)
    monkeypatch.setattr(way.stage, "pixels", lambda images: pixels[: len(images)])
    with pytest.raises(RuntimeError, match="0 openings of 5 images"):
        way.steps(photos)


def test_what_transformers_cannot_load_is_said(tmp_path):
    with pytest.raises(TowerError, match="transformers alone can't load this"):
        Plain(str(tmp_path), "cpu", 2)


def test_what_pillow_cannot_open_is_said(clip_directory, tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"nothing")
    with pytest.raises(CorpusError, match=r"photo\.heic: plain transformers can't open this"):
        Plain(str(clip_directory), "cpu", 2).steps([tmp_path / "photo.heic"])
