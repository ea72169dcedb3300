"""The report of runtimes, run whole on a tiny CLIP; nothing is asserted of any seconds."""

from dataclasses import replace

import pytest
import torch

from cascade import Stage
from compress.command import run_command
from compress.errors import UserError
from corpora import load_corpus
from evaluation.reports import runtimes as reports
from evaluation.reports.record import RecordError
from evaluation.reports.runtimes import Runtimes
from evaluation.runtimes import RuntimesOptions, main
from pruning_mechanism.runtimes.needs import bfloat16_problem


@pytest.fixture(scope="module")
def report(clip_directory, folder, tmp_path_factory) -> Runtimes:
    output = tmp_path_factory.mktemp("runtimes") / "out"
    line = [
        *("--models", clip_directory, "--full", clip_directory, "--output", output),
        *("--corpus", "folder", "--corpus-dir", folder, "--repetitions", 1, "--batch", 4),
        *("--threads", 1, 2, "--kernels"),
        *("--runtimes", "torch:bfloat16", "torch:int8"),
    ]
    run_command(main, RuntimesOptions, "evaluation.runtimes", [str(each) for each in line])
    assert (output / "report.md").read_text().startswith("tiny in several runtimes")
    return Runtimes.load(output / "report.json")


def test_torch_in_float32_comes_first_and_is_compared_with_itself(report):
    first = report.rows[0]
    assert (first.tower, first.runtime, first.dtype) == ("tiny", "torch", "float32")
    assert (first.kept.agreement, first.kept.with_full, first.kept.in_cascade) == (100, 100, 100)
    assert first.kept.cosine == pytest.approx(1)


def test_each_number_of_threads_has_its_rows_and_all_keep_the_same(report):
    by_threads = {count: [r for r in report.rows if r.threads == count] for count in (1, 2)}
    names = [[(row.runtime, row.dtype) for row in rows] for rows in by_threads.values()]
    assert names[0] == names[1]
    assert [r.kept for r in by_threads[1]] == [r.kept for r in by_threads[2]]


def test_what_a_runtime_cannot_do_is_a_row_with_the_reason(report):
    (refusal,) = report.refused
    assert (refusal.tower, refusal.runtime, refusal.dtype) == ("tiny", "torch", "int8")
    assert "not in int8" in refusal.why
    (line,) = [line for line in reports.markdown(report).splitlines() if "not in int8" in line]
    assert line.startswith("| tiny | torch | int8 | – |")


@pytest.mark.skipif(bfloat16_problem("cpu") is not None, reason="no products in bfloat16 here")
def test_cosine_and_agreement_are_those_of_the_stages(report, clip_directory, folder):
    corpus = load_corpus("folder", folder, "validation")
    exact = Stage.load(clip_directory)
    half = Stage.load(clip_directory, dtype="bfloat16")
    ours, theirs = (stage.encode_images(corpus["image"]) for stage in (half, exact))
    row = report.rows[1]
    assert (row.runtime, row.dtype) == ("torch", "bfloat16")
    assert row.kept.cosine == pytest.approx((ours * theirs).sum(1).mean().item(), abs=1e-4)
    texts = exact.encode_texts([text for several in corpus["captions"] for text in several])
    tops = [(texts @ images.T).topk(10).indices.tolist() for images in (ours, theirs)]
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(*tops, strict=True)]
    assert row.kept.agreement == pytest.approx(100 * sum(shares) / len(shares), abs=2)


def test_seconds_are_shared_out_among_kernels_in_a_table_of_their_own(report):
    for row in report.rows:
        assert sum(vars(row.kernels).values()) == pytest.approx(1)
        assert row.teraflops > 0
    first, second = reports.markdown(report).split("| tower |")[1:]
    assert "TFLOP/s" not in first
    assert second.count("| tiny | torch | float32 |") == 2
    assert "idle %" in second
    assert "idle %" not in reports.markdown(unwatched(report))


def unwatched(report) -> Runtimes:
    rows = tuple(replace(row, kernels=None) for row in report.rows)
    return replace(report, rows=rows)


def test_on_a_gpu_cores_do_not_count_and_what_is_in_8_bits_is_said(report):
    assert "images/s/core" in reports.markdown(report)
    first, *others = report.rows
    rows = (first, *(replace(row, dtype="float8", rounded=66, left=6) for row in others[:1]))
    machine = replace(report.machine, device="cuda (a GPU)")
    said = reports.markdown(replace(unwatched(report), rows=rows, machine=machine))
    assert "images/s/core" not in said
    assert "on cuda (a GPU), files read by" in said
    assert "| 66 of 72 |" in said


def test_a_device_that_is_not_there_is_one_line(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="the device cuda is not available"):
        main(RuntimesOptions(device="cuda", output=tmp_path / "out"))


def test_each_device_has_its_usual_runtimes():
    assert "openvino:float32" in RuntimesOptions().asked
    assert "torch:float16" in RuntimesOptions(device="cuda").asked
    with pytest.raises(UserError, match="torch:float32 twice"):
        RuntimesOptions(runtimes=("torch", "torch:float32")).check()


def test_a_report_without_torch_is_refused(report):
    with pytest.raises(RecordError, match="has torch in float32"):
        Runtimes(**{**vars(report), "rows": report.rows[1:2]})
