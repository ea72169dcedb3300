"""A collection of small photos, and the API that serves it in this process."""

import tempfile
from pathlib import Path

import pytest

from cascade import Collection, Stage
from cascade.photos.finding import Photos
from cascade.upkeep import bring_up_to_date
from tests.cascade.photos.conftest import painted
from tests.conftest import tiny_clip, tiny_processor

pytest.importorskip("lancedb")
pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from cascade.serving.limits import Limits
from cascade.serving.running import Allowed, guarded

HOME = "http://localhost"


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    """Where sockets are: a directory of its own, whose path is short enough for one."""
    with tempfile.TemporaryDirectory(prefix="cc-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory, "clip-cascade")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> list[Path]:
    """A first stage and a last one."""
    places = [tmp_path_factory.mktemp(name) for name in ("first", "last")]
    for seed, place in enumerate(places):
        tiny_clip(seed).save_pretrained(place)
        tiny_processor().save_pretrained(place)
    return places


@pytest.fixture
def photos(tmp_path) -> Path:
    for number in range(8):
        painted(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def place(tmp_path, photos, checkpoints) -> Path:
    """The directory of a collection of these photos; 3 candidates are handed on."""
    stages = [Stage.load(checkpoint) for checkpoint in checkpoints]
    with Collection.create(tmp_path / "c.cascade", stages, m=[3]) as collection:
        found = Photos.at([str(photos)])
        bring_up_to_date(collection, found)
    return tmp_path / "c.cascade"


@pytest.fixture
def collection(place):
    with Collection.open(place) as opened:
        yield opened


@pytest.fixture
def served(collection):
    """served(limits: …, options of `Allowed`) -> a client of the collection's API."""

    def serve(base_url=HOME, limits=None, **options) -> TestClient:
        allowed = Allowed(limits=Limits(**(limits or {})), **options)
        return TestClient(guarded(collection, allowed), base_url, raise_server_exceptions=True)

    return serve


@pytest.fixture
def client(served):
    return served()
