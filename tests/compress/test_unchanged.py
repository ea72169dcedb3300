"""The commands make of the demo checkpoint what they made before the code was changed.

`unchanged.json` was written by this file with the code as it was then:

    UNCHANGED=write python -m pytest tests/compress/test_unchanged.py

A machine with other kernels rounds otherwise, so that units on the edge may go for others; where
the file was written nothing differs: `UNCHANGED=exact` tells (with `THOROUGH=1` of all commands).
"""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

from compress.calibrating.calibration import Calibration
from corpora import load_corpus
from pruning_mechanism import Tower, load, load_processor, read_record
from tests.lanes import sweep

HERE = Path(__file__).with_name("unchanged.json")
MODE = os.environ.get("UNCHANGED", "close")
DEMO = Path(__file__).parents[2] / "demo" / "clip-scenes"
SEARCHED = ("--exits", "4", "--search-samples", "24", "--score-samples", "32", "--tries", "1")
COMMANDS = {
    "recover": ("--mac-constraint", "0.4", "--samples", "32", "--curve-samples", "2"),
    "fisher": ("--mac-constraint", "0.65", "--samples", "32"),
    "sensitivity": ("--heads", "77", "--samples", "32"),
    "flip": ("--mask", "0.5", "--samples", "64"),
    "merge": ("--r", "4", "--samples", "64"),
    "joint": ("--mac-constraint", "0.2", "--samples", "64", "--curve-samples", "4", *SEARCHED),
}
IMAGES = 24


def compressed(command: str, directory: Path, monkeypatch, *flags: str) -> dict:
    """What one command made: the masks kept, the costs, what each of a few images lost."""
    arguments = [command, *COMMANDS[command], "--output", str(directory), *flags]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.delitem(sys.modules, f"compress.{command}", raising=False)
    runpy.run_module(f"compress.{command}", run_name="__main__")
    record = read_record(directory)
    mask = directory / "mask.safetensors"
    return {
        "macs": record.macs,
        "parameters": record.parameters,
        "chain": list(record.steps),
        "kept": {
            name: [[int(bit) for bit in row] for row in bits]
            for name, bits in sorted(load_file(mask).items() if mask.exists() else ())
            if name == "heads"
        },
        "neurons": {
            name: bits.sum(1).tolist()
            for name, bits in sorted(load_file(mask).items() if mask.exists() else ())
            if name != "heads"
        },
        "lost": _lost(directory),
    }


@torch.no_grad()
def _lost(directory: Path) -> list[float]:
    """1 - cos to the full tower's embedding of each image."""
    corpus = load_corpus("scenes", None, "validation", captions=False)
    images = Calibration.draw(corpus, IMAGES, 0, load_processor(str(DEMO)))
    found = []
    for batch in images.batches():
        full, small = (
            Tower.of(load(str(each))).embeddings(batch.pixels) for each in (DEMO, directory)
        )
        found += (1 - cosine_similarity(full.double(), small.double())).tolist()
    return found


@pytest.mark.parametrize("command", sweep(COMMANDS, ("joint",)))
def test_a_command_makes_what_it_made_before(command, tmp_path, monkeypatch):
    found = compressed(command, tmp_path / "made", monkeypatch)
    written = json.loads(HERE.read_text()) if HERE.exists() else {}
    if MODE == "write":
        HERE.write_text(json.dumps(written | {command: found}, indent=1) + "\n")
    expected = json.loads(HERE.read_text())[command]
    if MODE == "exact":
        assert found == expected
    assert found["chain"] == expected["chain"]
    assert found["macs"] == pytest.approx(expected["macs"], rel=0.01)
    assert found["parameters"] == pytest.approx(expected["parameters"], rel=0.02)
    assert sum(found["lost"]) == pytest.approx(sum(expected["lost"]), rel=0.03)
    for kind in ("kept", "neurons"):
        assert found[kind].keys() == expected[kind].keys()
    for name, rows in found["kept"].items():
        same = torch.tensor(rows) == torch.tensor(expected["kept"][name])
        assert same.float().mean() >= 0.97
