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
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from cascade.serving.limits import Limits
from cascade.serving.running import Allowed, guarded

HOME = "http://localhost"


def paint_photos(directory: Path) -> Path:
    for number in range(8):
        painted(directory / "photos" / f"{number}.png")
    return directory / "photos"


def make_collection(directory: Path, photos: Path, stages: list[Stage]) -> Path:
    with Collection.create(directory / "c.cascade", stages, m=[3]) as collection:
        bring_up_to_date(collection, Photos.at([str(photos)]))
    return directory / "c.cascade"


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


@pytest.fixture(scope="session")
def stages(checkpoints) -> list[Stage]:
    return [Stage.load(checkpoint) for checkpoint in checkpoints]


@pytest.fixture
def photos(tmp_path) -> Path:
    return paint_photos(tmp_path)


@pytest.fixture
def place(tmp_path, photos, stages) -> Path:
    """The directory of a collection of these photos; 3 candidates are handed on."""
    return make_collection(tmp_path, photos, stages)


@pytest.fixture
def collection(place, stages):
    with Collection.open(place, stages) as opened:
        yield opened


@pytest.fixture(scope="session")
def reading(tmp_path_factory, stages):
    """A client of a collection that no test changes."""
    directory = tmp_path_factory.mktemp("reading")
    place = make_collection(directory, paint_photos(directory), stages)
    with Collection.open(place, stages) as opened:
        yield TestClient(guarded(opened, Allowed()), HOME)


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
