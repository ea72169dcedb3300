"""Search in a user's program imports what search needs, and nothing of how towers are made."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fresh import python
from tests.lanes import sweep

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"datasets", "lancedb", "pandas", "pyarrow", "scipy", "torch_pruning", "matplotlib"}
"""What corpora, latency tables, surgery and figures need."""

IMPORT = "from cascade import Cascade, Stage"
SEARCH = """
from cascade import Cascade, Stage
from PIL import Image
stage = Stage.load("demo/clip-scenes", batch_size=2)
cascade = Cascade([stage, stage], m=[2])
cascade.index([Image.new("RGB", (40, 30), each) for each in ("red", "green", "blue")])
assert len(cascade.search("a red square", k=2)) == 2
"""
COLLECTION = """
from cascade import Collection, ImageRow, Stage
from PIL import Image
stage = Stage.load("demo/clip-scenes", batch_size=2)
with Collection.in_memory([stage, stage], [2]) as collection:
    collection.add([(ImageRow("a", "a"), Image.new("RGB", (40, 30), "red"))])
    assert len(collection) == 1
"""
CORPUS = """
from corpora import load_corpus, drop_unreadable, CORPORA, load_scenes
assert "scenes" in CORPORA
"""


WITHOUT = """
import sys, torch, transformers
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, CLIPModel, CLIPProcessor
before = set(sys.modules)
"""
"""What any program imports that runs a CLIP; transformers itself imports a part of scipy."""


def heavy_after(program: str) -> set[str]:
    """The heavy packages of which a program imports anything beyond what any CLIP needs."""
    said = "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    found = python("-c", f"{WITHOUT}\n{program}\n{said}", cwd=ROOT)
    return set(found.stdout.splitlines()[-1].split()) & HEAVY


def test_the_package_itself_imports_nothing():
    """What it offers is imported when it is asked for, torch and transformers with it."""
    program = "import sys, cascade; print(*{name.partition('.')[0] for name in sys.modules})"
    line = [sys.executable, "-c", program]
    found = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    assert not set(found.stdout.split()) & {*HEAVY, "torch", "transformers", "PIL"}


@pytest.mark.parametrize("program", sweep([IMPORT, SEARCH, COLLECTION], [SEARCH, COLLECTION]))
def test_search_imports_nothing_heavy(program):
    assert heavy_after(program) == set()


STATUS = """
import sys
from cascade.status import StatusOptions, main
from cascade.collecting.record import FILE, Record, StageRecord
from pathlib import Path
directory = Path(DIRECTORY)
Record([StageRecord("a", "a", "gone")], [], "float16").write(directory)
main(StatusOptions(collection=directory, json=True))
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_what_a_collection_holds_is_told_without_torch_or_checkpoints(tmp_path):
    line = [sys.executable, "-c", STATUS.replace("DIRECTORY", repr(str(tmp_path)))]
    found = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    said, modules = found.stdout.splitlines()[-2:]
    assert '"images": 0' in said
    assert '"checkpoints": ["gone"]' in said
    assert not set(modules.split()) & {"torch", "transformers", "PIL", "datasets"}


WITHOUT_LANCEDB = """
import sys
sys.modules["lancedb"] = None
from cascade import Collection, CollectionError, Stage
stage = Stage.load("demo/clip-scenes", batch_size=2)
try:
    Collection.create(DIRECTORY, [stage])
except CollectionError as error:
    print(error)
"""


def test_what_a_collection_on_disk_needs_is_said(tmp_path):
    program = WITHOUT_LANCEDB.replace("DIRECTORY", repr(str(tmp_path / "photos.cascade")))
    said = python("-c", program, cwd=ROOT).stdout
    assert said == "a collection on disk needs lancedb: pip install 'clip-cascade[search]'\n"
    assert list(tmp_path.iterdir()) == []


def test_corpora_are_loaded_on_demand():
    """What the test above looks for is found where it is."""
    assert {"datasets", "pandas"} <= heavy_after(CORPUS)
