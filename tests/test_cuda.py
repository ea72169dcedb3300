"""On an NVIDIA GPU commands make what they make on the CPU, and search finds what it finds there.

Everything is compared with the same thing on the CPU. Skipped where there is no such GPU.
"""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity

from cascade import Cascade, Stage
from compress import recover
from compress.command import run_command
from corpora import load_corpus
from corpora.column import undecoded
from evaluation import cascade
from pruning_mechanism import load, macs
from pruning_mechanism.costs.latency_measurement import measure
from tests.compress.test_unchanged import COMMANDS, compressed

DEMO = Path(__file__).parents[1] / "demo"
CUDA = ("--device", "cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    """No TF32, which convolutions use by default, and whose rounding would hide a fault."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_rule_makes_what_it_makes_on_the_cpu(command, tmp_path, monkeypatch):
    here = compressed(command, tmp_path / "cpu", monkeypatch)
    there = compressed(command, tmp_path / "cuda", monkeypatch, *CUDA)
    assert there["chain"] == here["chain"]
    assert there["macs"] == pytest.approx(here["macs"], rel=0.01)
    assert sum(there["lost"]) == pytest.approx(sum(here["lost"]), rel=0.03)
    for name, rows in there["kept"].items():
        same = torch.tensor(rows) == torch.tensor(here["kept"][name])
        assert same.float().mean() >= 0.97


def test_the_clock_of_the_gpu_is_measured_and_its_constraint_kept(tmp_path):
    """A budget in seconds of this GPU; seconds of the finished tower are within a fifth of it."""
    flags = ("--latency-constraint", "0.6", "--samples", "64", "--curve-samples", "8")
    run_command(
        recover.main, recover.RecoverOptions, "recover",
        [*flags, *CUDA, "--batch-size", "64", "--output", str(tmp_path / "out")],
    )  # fmt: skip
    record = json.loads((tmp_path / "out" / "compression.json").read_text())
    table = json.loads((tmp_path / "out" / "latency.json").read_text())
    assert torch.cuda.get_device_name() in json.dumps(table)
    assert record["mac_fraction"] < 1
    dense, smaller = (
        load(path, device="cuda") for path in (DEMO / "clip-scenes", tmp_path / "out")
    )
    assert macs(smaller).encoder < macs(dense).encoder


def test_latency_tables_are_made_on_the_gpu():
    table = measure(load(DEMO / "clip-scenes", device="cuda"), 32, repetitions=5)
    assert 0 < table.least < 1
    assert table.dense > 0


@pytest.fixture(scope="module")
def scenes() -> list:
    corpus = load_corpus("scenes", None, "validation").select(range(96))
    return undecoded(corpus)["image"][:]


def found(device: str, images: list, queries: list[str]) -> list:
    full = Stage.load(DEMO / "clip-scenes", device=device)
    first = Stage.load(DEMO / "clip-scenes-first", texts=full, device=device)
    for stage in (full, first):  # stored in half precision, which a GPU computes in
        stage.model.float()
    search = Cascade([first, full], m=[20])
    search.index(images)
    return [search.search(query, k=5) for query in queries]


def test_a_cascade_finds_what_it_finds_on_the_cpu(scenes):
    queries = ["a red disc", "a big blue star on the left", "a green square above a yellow ring"]
    here, there = (found(device, scenes, queries) for device in ("cpu", "cuda"))
    for own, other in zip(here, there, strict=True):
        assert [hit.key for hit in other] == [hit.key for hit in own]
        scores = [hit.score for hit in own]
        assert [hit.score for hit in other] == pytest.approx(scores, abs=1e-4)


def test_embeddings_in_half_precision_stay_close(scenes):
    half, exact = (Stage.load(DEMO / "clip-scenes", device=each) for each in ("cuda", "cpu"))
    assert (half.dtype, exact.dtype) == (torch.float16, torch.float32)
    found = half.encode_images(scenes), exact.encode_images(scenes)
    assert cosine_similarity(*found).min() > 0.999


def test_images_are_finished_on_the_gpu_as_they_are_on_the_cpu(scenes):
    there, here = (Stage.load(DEMO / "clip-scenes", device=each) for each in ("cuda", "cpu"))
    pixels = torch.cat([batch.cpu() for batch in there.batches(scenes)])
    torch.testing.assert_close(pixels, here.pixels(scenes), atol=1e-6, rtol=0)


def test_an_experiment_runs_on_the_gpu(tmp_path):
    arguments = ["--stage", str(DEMO / "clip-scenes-first"), "--images", "64", *CUDA]
    run_command(
        cascade.main,
        cascade.CascadeOptions,
        "cascade",
        [*arguments, "--output", str(tmp_path / "o")],
    )
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["machine"]["device"] == f"cuda ({torch.cuda.get_device_name()})"
    (row,) = report["rows"]
    assert row["encoder_seconds"]["median"] > 0
    assert row["cascade"]["agreement"]["value"] > 90
