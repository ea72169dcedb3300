"""Publishers' layouts, made small: tiny pictures, captions files as text, and no network."""

import hashlib
import json
import warnings
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest
from PIL import Image

from corpora import CorpusWarning, load_corpus


@pytest.fixture(autouse=True, scope="session")
def _no_network_and_no_traces(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()


def _paint(path: Path, colour=None, size=(6, 4)) -> Path:
    """A picture of one colour, by default of one that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = colour or tuple(hashlib.sha256(str(path).encode()).digest()[:3])
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def paint():
    """paint(path): write a small picture."""
    return _paint


@pytest.fixture
def write():
    """write(path, text or JSON value or bytes): write a file, with its folders."""

    def _write(path: Path, content) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content)).encode()
        path.write_bytes(content)
        return path

    return _write


@pytest.fixture
def quiet_load():
    """load(…) -> (corpus, texts of its warnings)."""

    def _load(*args, **kwargs):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            corpus = load_corpus(*args, **kwargs)
        return corpus, [str(w.message) for w in caught if w.category is CorpusWarning]

    return _load
