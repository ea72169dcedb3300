"""The full tower's embeddings of all views: right, computed once, never taken for other images'."""

import os
from pathlib import Path

import pytest
import torch

from compress.choices import Checkpoints, Sampling
from compress.making.source import Needs, Source, open_source
from compress.training import views
from compress.training.teacher import digest, full_embeddings
from compress.training.views import Views, views_of
from pruning_mechanism import Tower

ONE, BOTH = views_of(40, 1, True), views_of(40, 2, True)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "clip-cascade" / "embeddings"


@pytest.fixture
def opened(damaged, clip_directory, hundred):
    def source(samples: int = 40, seed: int = 0) -> Source:
        checkpoints = Checkpoints(str(damaged), full=str(clip_directory))
        sampling = Sampling("folder", hundred, samples=samples, seed=seed)
        return open_source(checkpoints, sampling, Needs(full=True))

    return source


@torch.no_grad()
def test_they_are_the_full_towers_of_images_as_they_are_and_mirrored(opened, cache, monkeypatch):
    source = opened()
    found = full_embeddings(source, BOTH, digest(source.calibration))
    pixels = source.calibration.pixels(range(40))  # both towers take the same
    for view, seen in enumerate((pixels, pixels.flip(-1))):
        torch.testing.assert_close(found[:, view], source.full.tower.embeddings(seen))
    kept = sorted(cache.iterdir())
    monkeypatch.setattr(Tower, "embeddings", None)  # whoever calls it now fails
    again = opened()
    assert torch.equal(full_embeddings(again, BOTH, digest(again.calibration)), found)
    assert sorted(cache.iterdir()) == kept


def test_other_images_and_further_views_are_computed_anew(opened, cache):
    for seed, seen, kept in [(0, 2, 2), (1, 2, 4), (0, 1, 4), (0, 3, 5)]:
        source = opened(seed=seed)
        found = full_embeddings(source, views_of(40, seen, True), digest(source.calibration))
        assert found.shape[:2] == (40, seen)
        assert len(list(cache.iterdir())) == kept


@pytest.mark.parametrize("content", [b"", b"broken"])
def test_a_file_that_is_broken_is_made_again(opened, cache, content):
    source = opened()
    images = digest(source.calibration)
    found = full_embeddings(source, ONE, images)
    (kept,) = cache.iterdir()
    kept.write_bytes(content)
    assert torch.equal(full_embeddings(source, ONE, images), found)
    assert kept.stat().st_size > len(content)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written_is_done_without(opened, cache):
    cache.mkdir(parents=True)
    cache.chmod(0o500)
    source = opened()
    assert full_embeddings(source, ONE, digest(source.calibration)).shape[:2] == (
        40,
        1,
    )


def test_views_are_the_same_kept_in_memory_or_prepared_anew(opened, cache, monkeypatch):
    source = opened()
    embeddings = full_embeddings(source, BOTH, digest(source.calibration))
    places = [0, 5, 4, 19, 5, 18]
    batches = []
    for kept in (views.KEPT, 0):
        monkeypatch.setattr(views, "KEPT", kept)
        images = Views(source.calibration, embeddings, range(10, 20))
        assert len(images) == 20
        images.__getitems__([4, 7])  # some are prepared already
        batches.append(images.__getitems__(places))
    for one, other in zip(*(batch.values() for batch in batches), strict=True):
        torch.testing.assert_close(one.float(), other.float(), atol=2e-3, rtol=0)
    pixels = source.calibration.pixels([10 + place // 2 for place in places])
    mirrored = [place % 2 for place in places]
    seen = [image.flip(-1) if flip else image for image, flip in zip(pixels, mirrored, strict=True)]
    torch.testing.assert_close(batches[1]["pixels"].float(), torch.stack(seen), atol=2e-3, rtol=0)
    rows = [10 + place // 2 for place in places]
    assert torch.equal(batches[0]["embeddings"], embeddings[rows, mirrored])
