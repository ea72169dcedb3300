"""First and last stages as they will run, against the plain full tower: worked out by hand."""

import dataclasses
import io

import pytest
from rich.console import Console
from torch.nn.functional import cosine_similarity

from cascade import Stage, lifetime_speedup
from compress.command import run_command
from corpora import load_corpus
from evaluation.cascade import CascadeOptions, main
from evaluation.experiment.opening import as_run
from evaluation.reports import table
from evaluation.reports.report import Report
from pruning_mechanism import Mask, prune, save
from pruning_mechanism.runtimes import RuntimeChoice, needs
from tests.conftest import tiny_clip, tiny_processor

M = 10
LAST = "reads=scaled,dtype=bfloat16"


def run(model, folder, output, *flags):
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    given += ["--repetitions", 2, "--batch-size", 4, "--m", M, *flags]
    run_command(main, CascadeOptions, "evaluation.cascade", [str(each) for each in given])


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    path = tmp_path_factory.mktemp("stages") / "first"
    mask = Mask.dense(tiny_clip().config)
    mask.heads[:3, 1:] = False
    mask.neurons[:3, ::2] = False
    save(prune(tiny_clip(), mask), path, tiny_processor())
    return path


@pytest.fixture(scope="module")
def output(clip_directory, folder, first, tmp_path_factory):
    output = tmp_path_factory.mktemp("experiment") / "out"
    flags = ("--first-as", "stored", "dtype=bfloat16", "--last-as", "stored", LAST)
    run(clip_directory, folder, output, "--stage", first, *flags)
    return output


@pytest.fixture(scope="module")
def report(output):
    return Report.load(output / "report.json")


def test_each_first_stage_stands_before_each_last_one(report):
    assert [row.method for row in report.rows] == [
        "first",
        "first, last as scaled bfloat16",
        "first as bfloat16",
        "first as bfloat16, last as scaled bfloat16",
    ]
    assert [row.stages for row in report.rows] == [("first",)] * 2 + [("first as bfloat16",)] * 2
    assert [row.last is None for row in report.rows] == [True, False, True, False]


def test_every_stage_says_what_it_reads_and_runs_in(report):
    def said(stage):
        return stage.reads, stage.runtime, stage.dtype

    plain, in_bfloat16 = ("full", "torch", "float32"), ("full", "torch", "bfloat16")
    assert said(report.reference) == plain
    assert [said(row) for row in report.rows] == [plain] * 2 + [in_bfloat16] * 2
    assert said(report.rows[3].last) == ("scaled", "torch", "bfloat16")
    assert report.machine.dtype == "float32, bfloat16"


def test_quality_is_against_the_plain_tower_and_beside_it_against_the_last_itself(
    report, clip_directory, folder, first
):
    corpus = load_corpus("folder", folder, "validation")
    texts = [caption for several in corpus["captions"] for caption in several]
    owner = [at for at, several in enumerate(corpus["captions"]) for _ in several]
    reference = Stage.load(clip_directory)
    ahead = Stage.load(first, dtype="bfloat16")
    behind = Stage.load(clip_directory, dtype="bfloat16", reads="scaled")
    queries = reference.encode_texts(texts)
    embedded = [stage.encode_images(corpus["image"][:]) for stage in (reference, ahead, behind)]
    scores = [queries @ images.T for images in embedded]
    hits, shared, own = dict.fromkeys((1, 5, 10), 0), 0, 0
    for place, target in enumerate(owner):
        plain, early, late = (each[place] for each in scores)
        kept = early.argsort(descending=True)[:M]
        found = kept[late[kept].argsort(descending=True)].tolist()
        for k in hits:
            hits[k] += target in found[:k]
        shared += len(set(found) & set(plain.argsort(descending=True)[:10].tolist()))
        own += len(set(found) & set(late.argsort(descending=True)[:10].tolist()))
    row = report.rows[3]
    for k, number in hits.items():
        assert row.cascade.recall[k].value == pytest.approx(100 * number / len(owner))
    assert row.cascade.agreement.value == pytest.approx(10 * shared / len(owner))
    assert row.last.agreement.value == pytest.approx(10 * own / len(owner))
    apart = 1 - cosine_similarity(embedded[0], embedded[2]).mean().item()
    assert row.last.one_minus_cosine == pytest.approx(apart, abs=1e-6)
    assert apart > 1e-6, "bfloat16 and float32 can be told apart here"


def test_speedups_are_against_the_plain_tower_and_beside_it_against_the_last_itself(report):
    row, full = report.rows[3], report.reference
    for name, speedup, same in (
        ("end_to_end_seconds", row.lifetime_speedup, row.last.lifetime_speedup),
        ("encoder_seconds", row.encoder_speedup, row.last.encoder_speedup),
    ):
        seconds = [getattr(stage, name).median for stage in (row, row.last)]
        plain = getattr(full, name).median
        assert speedup.value == pytest.approx(lifetime_speedup(seconds, 0.1, plain))
        assert speedup.value == pytest.approx(plain / (seconds[0] + 0.1 * seconds[1]))
        assert same.value == pytest.approx(seconds[1] / (seconds[0] + 0.1 * seconds[1]))
        assert speedup.low <= speedup.value <= speedup.high
    assert row.query_speedup == pytest.approx(
        full.end_to_end_seconds.median / row.last.end_to_end_seconds.median
    )


def test_a_row_before_the_plain_tower_is_what_it_is_without_any_settings(
    report, clip_directory, folder, first, tmp_path
):
    run(clip_directory, folder, tmp_path / "out", "--stage", first)
    (alone,) = Report.load(tmp_path / "out" / "report.json").rows
    for name in ("method", "alone", "cascade", "f_measured", "query_speedup", "last", "dtype"):
        assert getattr(alone, name) == getattr(report.rows[0], name)


def test_tables_say_it_of_each_stage_and_name_what_it_is_measured_against(report, output):
    shown = (output / "report.md").read_text()
    assert shown == table.markdown(report)
    lines = shown.splitlines()
    cells = [cell.strip() for cell in lines[6].split("|")]
    assert cells[3] == "full, torch bfloat16 → scaled, torch bfloat16"
    row = report.rows[3]
    agreements = row.alone.agreement, row.cascade.agreement, row.last.agreement
    assert "{:.1f} → {:.1f} ({:.1f})".format(*(each.value for each in agreements)) in cells
    assert "against the full tower that reads full, in torch float32." in lines[-1]
    usual = dataclasses.replace(report, rows=report.rows[:1])
    last = table.markdown(usual).splitlines()[-1]
    assert last == "All stages read files in full. All stages run in torch, in float32."
    assert "runs in" not in table.markdown(usual)


def test_the_table_fits_120_columns_whole(report):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table.terminal(report))
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 120
    for cell in ("method", "bfloat16", "(with the", "itself", "scaled"):
        assert cell in text


def test_a_full_tower_told_to_run_as_the_reference_does_is_the_reference(
    clip_directory, folder, first, tmp_path
):
    flags = ("--stage", first, "--last-as", "reads=full", "runtime=torch,dtype=float32")
    run(clip_directory, folder, tmp_path / "out", *flags)
    (row,) = Report.load(tmp_path / "out" / "report.json").rows
    assert (row.method, row.last) == ("first", None)


def test_one_stage_in_two_runtimes_is_timed_in_both(first):
    here, there = Stage.load(first), Stage.load(first)
    assert as_run(here) == as_run(there)
    there.runs_in = RuntimeChoice("openvino", "float32")  # in which its name is the same
    assert here.name == there.name
    assert as_run(here) != as_run(there)


def test_what_has_no_export_is_said_before_anything_is_made(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("no-such-model", folder, tmp_path / "out", "--first-as", "runtime=openvino,dtype=int8")
    assert "int8 needs an export" in capsys.readouterr().err


def test_a_type_that_this_machine_lacks_is_said_before_anything_is_made(
    folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(needs, "_cpu_has_bfloat16", lambda: False)
    with pytest.raises(SystemExit):
        run("no-such-model", folder, tmp_path / "out", "--dtype", "bfloat16")
    assert "no products in bfloat16" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--last-as", "dtype=bfloat16", "--resume"), "--resume has no effect with --last-as"),
        (("--last-as", "stored", "stored"), "--last-as stored stored: name at least one, and each"),
        (("--last-as", "reads=half"), "--last-as: half: reads must be one of full, scaled"),
        (("--first-as", "speed=high"), "--first-as: 'speed=high' is no setting of a stage"),
        (("--first-as", "dtype=int8", "--dtype", "int8"), "--dtype"),
    ],
)
def test_what_cannot_be_asked_for_is_said_before_anything_is_loaded(
    flags, said, folder, first, tmp_path, capsys
):
    with pytest.raises(SystemExit) as caught:
        run("no-such-model", folder, tmp_path / "out", "--stage", first, *flags)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()
