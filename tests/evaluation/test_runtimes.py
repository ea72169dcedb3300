"""The report of runtimes, run whole on a tiny CLIP; nothing is asserted of any seconds."""

import pytest

from cascade import Stage
from compress.command import run_command
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
        *("--threads", 1, 2),
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


def test_a_report_without_torch_is_refused(report):
    with pytest.raises(RecordError, match="has torch in float32"):
        Runtimes(**{**vars(report), "rows": report.rows[1:2]})
