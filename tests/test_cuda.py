"""On an NVIDIA GPU commands make what they make on the CPU, and search finds what it finds there.

Everything is compared with the same thing on the CPU. Skipped where there is no such GPU.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity

from cascade import Cascade, Stage
from compress import recover
from compress.command import run_command
from corpora import load_corpus
from corpora.column import undecoded
from evaluation import cascade, runtimes
from evaluation.reports.runtimes import Runtimes
from pruning_mechanism import Mask, load, macs, prune
from pruning_mechanism.costs.latency_measurement import measure
from pruning_mechanism.runtimes import RUNTIMES
from pruning_mechanism.runtimes.in_torch import TorchRuntime
from pruning_mechanism.runtimes.on_gpu.replaying import Replayed
from tests.compress.test_unchanged import COMMANDS, compressed
from tests.conftest import tiny_clip, tiny_processor

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


TYPES = ("float32", "float16", "bfloat16", "float8", "int8")
CLOSE = {"float32": 1 - 1e-6, "float16": 0.9999, "bfloat16": 0.999, "float8": 0.99, "int8": 0.98}


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """A tower of products that are wide enough for 8 bits, one layer of it pruned unevenly."""
    directory = tmp_path_factory.mktemp("cuda") / "wide"
    dense = tiny_clip(
        hidden_size=512, intermediate_size=1024, num_attention_heads=8, image_size=32,
        num_hidden_layers=3, initializer_factor=1.0,
    )  # fmt: skip
    mask = Mask.dense(dense.config)
    neurons = mask.neurons.clone()
    neurons[0, 19:40] = False
    prune(dense, Mask(heads=mask.heads, neurons=neurons)).save_pretrained(directory)
    tiny_processor(32).save_pretrained(directory)
    return directory


def noise(images: int) -> torch.Tensor:
    return torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(images))


@pytest.mark.parametrize("runtime", ["torch", "compile"])
@pytest.mark.parametrize("dtype", TYPES)
def test_each_type_keeps_embeddings_whatever_the_batch(runtime, dtype, wide):
    if dtype not in RUNTIMES[runtime].dtypes:
        pytest.skip(f"{runtime} doesn't compute in {dtype}")
    plain = Stage.load(wide, dtype="float32")
    stage = Stage.load(wide, "cuda", runtime=runtime, dtype=dtype)
    for images in (1, 2, 5, 31, 33, 2, 257):  # a recorded size, one that was, and none
        found, wanted = stage.encode_pixels(noise(images)), plain.encode_pixels(noise(images))
        assert found.shape == wanted.shape
        assert cosine_similarity(found, wanted).min() > CLOSE[dtype]
    assert (stage.name == plain.name) == (dtype == "float32")
    assert bool(stage.runs_in.rounded) == (dtype in ("float8", "int8"))
    if dtype in ("float8", "int8"):  # all but the last layer, which the class token has alone
        assert (len(stage.runs_in.rounded), len(stage.runs_in.left)) == (12, 6)


def test_a_compiled_tower_is_recorded_and_any_thread_may_embed(wide):
    stage = Stage.load(wide, "cuda", runtime="compile", dtype="bfloat16")
    batches = [noise(images) for images in (3, 16, 7, 40, 3, 16, 7, 40)] * 4
    plain = Stage.load(wide, dtype="float32")
    wanted = [plain.encode_pixels(batch) for batch in batches[:4]] * 8
    first = stage.encode_pixels(batches[0])
    kept = first.clone()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(stage.encode_pixels, batches))
    for own, other in zip(found, wanted, strict=True):
        assert cosine_similarity(own, other).min() > CLOSE["bfloat16"]
    assert torch.equal(first, kept)
    assert stage._runtime._replayed.problem is None


def test_recorded_results_are_the_callers_own(wide):
    runtime = TorchRuntime(load(wide, "cuda", exact=True), "float16", compiled=True)
    given = noise(4).cuda()
    first = runtime.embed(given)
    kept = first.clone()
    assert not torch.allclose(runtime.embed(given + 1), kept)
    assert torch.equal(first, kept)
    assert torch.equal(runtime.embed(given), kept)


def test_a_program_that_waits_for_the_gpu_says_so_and_runs_as_it_is():
    replayed = Replayed(lambda batch: batch[:, 0] * float(batch.max()), torch.device("cuda"))
    with pytest.warns(UserWarning, match="CUDA graph of this tower can't be recorded"):
        found = replayed(torch.full((3, 2, 4), 2.0), torch.float32)
    for again in (found, replayed(torch.full((3, 2, 4), 2.0), torch.float32)):
        assert torch.equal(again.cpu(), torch.full((3, 4), 4.0))


def test_a_patch_embedding_in_float32_is_not_rounded_to_tf32(wide, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    here = Stage.load(wide, dtype="float32").encode_pixels(noise(8))
    there = Stage.load(wide, "cuda", dtype="float32").encode_pixels(noise(8))
    torch.testing.assert_close(there, here, atol=1e-5, rtol=0)
    assert torch.backends.cudnn.allow_tf32


def test_auto_compares_float32_and_both_half_types(wide):
    choice = Stage.load(wide, "cuda", runtime="auto").runs_in
    named = {*choice.seconds, *choice.left_out}
    assert named >= {"torch float32", "torch float16", "torch bfloat16"}
    assert "torch float16" in choice.seconds
    for runtime in ("onnxruntime", "openvino"):
        assert "runs on the CPU here" in choice.left_out[f"{runtime} float32"]


def test_runtimes_are_compared_on_the_gpu(wide, tmp_path):
    line = [
        *("--models", str(wide), "--runtimes", "torch:float16", "compile:bfloat16", "openvino"),
        *("--images", "32", "--batch", "16", "--repetitions", "3", "--kernels", *CUDA),
    ]
    output = tmp_path / "runtimes"
    run_command(
        runtimes.main, runtimes.RuntimesOptions, "runtimes", [*line, "--output", str(output)]
    )
    report = Runtimes.load(output / "report.json")
    assert report.machine.device == f"cuda ({torch.cuda.get_device_name()})"
    assert [row.dtype for row in report.rows] == ["float32", "float16", "bfloat16"]
    for row in report.rows:
        assert sum(vars(row.kernels).values()) == pytest.approx(1)
        assert row.kernels.products > 0
    (refusal,) = report.refused
    assert "runs on the CPU here" in refusal.why
