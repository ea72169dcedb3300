"""The paper's table from reports: every number is the report's, and unlike things stay apart."""

import csv
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.command import run_command
from evaluation.measuring.values import Interval, Timing
from evaluation.reports.blocks import forms as blocks_forms
from evaluation.reports.blocks import values as blocks_values
from evaluation.reports.blocks.block import blocks_of
from evaluation.reports.record import RecordError
from evaluation.reports.row import Last, Middle
from evaluation.table import TableOptions, main
from tests.evaluation.conftest import made_up, row
from tests.lanes import examples

ROOT = Path(__file__).resolve().parents[2]
REPORT = made_up()


@pytest.fixture
def cascades(report):
    """Two stages of three methods' rows in no order, and one with a middle stage."""
    between = Middle(
        "flip", "mask 0.5", None, 9 * 10**9, 0.5, 9 * 10**9, 86_000_000,
        Timing(0.025, 0.02, 0.03, 5), Timing(0.03, 0.02, 0.04, 5), 0.5,
    )  # fmt: skip
    two = row("flip", "mask 0.74", 0.26)
    three = dataclasses.replace(
        two, method="flip → flip mask 0.5", middle=(between,), query_speedup=1.25
    )
    rows = (row("fisher", "MAC 0.65", 0.65), three, row("fisher", "MAC 0.4", 0.4), two)
    return dataclasses.replace(report, rows=rows, m=(50, 10), skipped=())


def cells(line):
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def markdown(*reports, methods=()):
    names = [f"report-{place}" for place in range(len(reports))]
    return blocks_forms.markdown(blocks_of(reports, names, methods))


def table(text):
    """The cells of each row of the first table by its header."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(cells(lines[0]), cells(line), strict=True)) for line in lines[2:]]


# -- one block


def test_rows_are_grouped_by_method_and_sorted_by_constraint(cascades):
    rows = table(markdown(cascades))
    assert [(each["method"], each["constraint"]) for each in rows] == [
        ("fisher", "MAC 0.4"),
        ("fisher", "MAC 0.65"),
        ("flip", "mask 0.74"),
        ("flip → flip mask 0.5", "mask 0.74"),
    ]


def test_a_row_has_the_reports_numbers(cascades):
    two, three = table(markdown(cascades))[2:]
    change = {"ΔR@1": "0.0 [-0.5, +0.5]", "ΔR@5": "-0.2 [-0.8, +0.2]", "ΔR@10": "-0.5 [-1.0, 0.0]"}
    assert two == {
        "method": "flip", "constraint": "mask 0.74", "m": "50", **change, "agreement@10": "88.1",
        "tower MACs": "4.54 G", "share of seconds": "26.0 %", "lifetime speedup": "2.78",
        "per-query speedup": "1.00",
    }  # fmt: skip
    assert three == two | {
        "method": "flip → flip mask 0.5", "m": "50 → 10", "tower MACs": "4.54 G → 9.00 G",
        "share of seconds": "26.0 % → 50.0 %", "per-query speedup": "1.25",
    }  # fmt: skip


def test_what_all_rows_say_is_said_below_instead(cascades):
    text = markdown(cascades)
    assert "f = 0.1." in text.splitlines()
    assert "| m |" in text
    assert "m = 50, f = 0.1." in markdown(cascades, methods=["fisher"]).splitlines()
    assert "| m |" not in markdown(cascades, methods=["fisher"])


def test_the_block_says_what_it_is_of(cascades):
    text = markdown(cascades)
    title, _, full, *_ = text.splitlines()
    assert title == f"## {cascades.title}"
    assert full == "Full tower: R@1/5/10 30.5/60.2/71.0 %, 17.1 G MACs, 50.0 ms an image."
    assert "of the encoder only, on a processor, 2 threads, cpu, float32." in text
    assert "end to end, on a" in markdown(dataclasses.replace(cascades, seconds_basis="end to end"))


def test_seconds_are_shares_of_the_basis_that_speedups_are_made_of(cascades):
    slow = dataclasses.replace(
        cascades,
        seconds_basis="end to end",
        reference=dataclasses.replace(
            cascades.reference, end_to_end_seconds=Timing(0.12, 0.1, 0.13, 5)
        ),
    )
    assert table(markdown(slow))[3]["share of seconds"] == "13.0 % → 25.0 %"


@pytest.fixture
def otherwise(cascades):
    """Rows of which one ends with the full tower as it will run."""
    plain = {"runtime": "torch", "dtype": "float32", "encoder_speedup": Interval(5.5, 5, 6)}
    rows = [dataclasses.replace(each, **plain) for each in cascades.rows[::2]]
    last = Last(
        "scaled openvino bfloat16", "scaled", "openvino", "bfloat16", Timing(0.02, 0.02, 0.02, 5),
        Timing(0.03, 0.03, 0.03, 5), rows[0].alone, 0.01, Interval(99.5, 99, 100),
        Interval(2.5, 2, 3), Interval(3.5, 3, 4),
    )  # fmt: skip
    rows[1] = dataclasses.replace(rows[1], reads="thumbnail", last=last)
    reference = dataclasses.replace(cascades.reference, runtime="torch", dtype="float32")
    return dataclasses.replace(
        cascades, rows=tuple(rows), reference=reference, seconds_basis="end to end"
    )


def test_encoder_only_seconds_stand_beside_those_end_to_end(otherwise):
    text = markdown(otherwise)
    row, plain = table(text)
    assert (plain["share of seconds"], plain["of encoder seconds"]) == ("65.0 %", "65.0 %")
    assert row["share of seconds"] == "40.0 % → 50.0 %"
    assert row["of encoder seconds"] == "40.0 % → 40.0 %"
    assert (row["lifetime speedup"], row["encoder only"]) == ("2.00", "5.50")
    assert "60.0 ms an image (50.0 ms in its encoder)." in text
    old = dataclasses.replace(
        otherwise,
        rows=tuple(dataclasses.replace(each, encoder_speedup=None) for each in otherwise.rows),
    )
    assert {each["encoder only"] for each in table(markdown(old))} == {"–"}
    alone = dataclasses.replace(otherwise, seconds_basis="encoder")
    assert "encoder only" not in table(markdown(alone))[0]


def test_what_stages_read_and_run_in_is_a_column_where_it_is_not_the_usual(otherwise):
    text = markdown(otherwise)
    row, plain = table(text)
    assert (plain["reads"], row["reads"]) == ("full → full", "thumbnail → scaled")
    assert row["runs in"] == "torch float32 → openvino bfloat16"
    assert "speedups are against the full tower that reads full, in torch float32." in text
    usual = markdown(dataclasses.replace(otherwise, rows=otherwise.rows[:1]))
    assert not {"reads", "runs in"} & set(table(usual)[0])
    assert "All stages read files in full.\nAll stages run in torch, in float32." in usual


def test_csv_says_of_each_stage_what_it_reads_and_runs_in(otherwise):
    text = blocks_values.comma_separated(blocks_of([otherwise], ["a"]))
    full, row, plain = csv.DictReader(text.splitlines())
    assert [each["reads"] for each in (full, row, plain)] == [
        "full",
        "thumbnail → scaled",
        "full → full",
    ]
    assert row["runtime"] == "torch → openvino"
    assert row["dtype"] == "float32 → bfloat16"
    assert row["seconds_per_image"] == f"{0.06 * 0.4!r} → 0.03"
    assert row["encoder_seconds_per_image"] == f"{0.05 * 0.4!r} → 0.02"
    assert (row["encoder_speedup"], row["last_agreement_10"]) == ("5.5", "99.5")
    assert (row["last_lifetime_speedup"], plain["last_lifetime_speedup"]) == ("2.5", "")


def test_methods_are_chosen_and_ordered_by_name(cascades):
    rows = table(markdown(cascades, methods=["flip", "fisher"]))
    assert [each["method"] for each in rows] == ["flip", "fisher", "fisher"]
    with pytest.raises(RecordError, match="no report has a method merge, but fisher, flip, flip →"):
        markdown(cascades, methods=["merge"])


# -- several reports


def test_reports_of_one_experiment_share_a_block_and_are_told_apart(cascades):
    again = dataclasses.replace(cascades, seed=1, m=(50,), rows=cascades.rows[:1])
    text = markdown(again, cascades)
    assert text.count("## ") == 1
    rows = table(text)
    assert [each["report"] for each in rows if each["constraint"] == "MAC 0.65"] == [
        "report-0",
        "report-1",
    ]
    assert "disagree" not in text


@pytest.mark.parametrize(
    "change",
    [
        {"model": "demo/other"},
        {"corpus": "coco"},
        {"split": "validation"},
        {"images": 999},
        {"queries": 999},
        {"captions": "first"},
        {"seconds_basis": "end to end"},
    ],
)
def test_what_does_not_compare_has_a_block_of_its_own(cascades, change):
    blocks = blocks_of([cascades, dataclasses.replace(cascades, **change)], ["one", "other"])
    assert [{line.name for line in block.lines} for block in blocks] in (
        [{"one"}, {"other"}],
        [{"other"}, {"one"}],
    )
    assert [len(block.references) for block in blocks] == [1, 1]


def test_blocks_are_sorted_by_corpus_then_full_tower(cascades):
    names = [("scenes", "b"), ("coco", "b"), ("scenes", "a"), ("coco", "a")]
    reports = [dataclasses.replace(cascades, corpus=corpus, model=model) for corpus, model in names]
    titles = [line for line in markdown(*reports).splitlines() if line.startswith("## ")]
    assert [line.split()[1:4:2] for line in titles] == [
        ["a", "coco"],
        ["b", "coco"],
        ["a", "scenes"],
        ["b", "scenes"],
    ]


def test_full_towers_of_one_name_that_find_other_things_are_pointed_out(cascades):
    full = dataclasses.replace(
        cascades.reference,
        alone=row("x", "", 0.5).alone,
        encoder_seconds=Timing(0.07, 0.06, 0.08, 5),
    )
    text = markdown(cascades, dataclasses.replace(cascades, reference=full))
    assert "50.0 to 70.0 ms an image" in text
    assert "The reports disagree on the full tower's R@1/5/10" in text
    assert "report-0 30.5/60.2/71.0; report-1 15.2/30.1/35.5." in text


def test_a_report_without_rows_of_these_methods_is_not_in_the_block(cascades):
    other = dataclasses.replace(
        cascades,
        rows=(row("merge", "r 8", 0.5),),
        reference=dataclasses.replace(
            cascades.reference, encoder_seconds=Timing(0.07, 0.06, 0.08, 5)
        ),
    )
    text = markdown(cascades, other, methods=["merge"])
    assert "70.0 ms an image" in text
    assert "report-1" not in text  # one report needs no name
    with pytest.raises(RecordError, match="no first stage"):
        markdown(dataclasses.replace(cascades, rows=()))


@settings(max_examples=examples(25, 100))
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from([0.2, 0.5, 0.7]))),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_every_row_of_every_report_is_in_one_block_once(drawn):
    reports = [
        dataclasses.replace(REPORT, model=model, rows=tuple(row(m, f"MAC {v}", v) for m, v in rows))
        for model, rows in drawn
    ]
    names = [str(place) for place in range(len(reports))]
    if not any(report.rows for report in reports):
        return
    blocks = blocks_of(reports, names)
    shown = [(line.name, id(line.row)) for block in blocks for line in block.lines]
    assert sorted(shown) == sorted(
        (name, id(each))
        for name, report in zip(names, reports, strict=True)
        for each in report.rows
    )
    for block in blocks:
        keys = [(line.row.method, line.row.constraint_value) for line in block.lines]
        assert keys == sorted(keys)
        assert len({line.report.model for line in (*block.lines, *block.references)}) == 1


# -- other forms


def test_latex_has_the_same_cells_as_markdown_and_nothing_that_latex_reads_as_its_own(cascades):
    odd = dataclasses.replace(cascades, model="a_b & 50%{$#~^\\", m=(50, 10))
    text = blocks_forms.latex(blocks_of([odd], ["x"]))
    assert "a\\_b \\& 50\\%\\{\\$\\#\\textasciitilde{}\\textasciicircum{}\\textbackslash{}" in text
    plain = re.sub(r"\\[\\%&{}$#_]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert text.isascii()
    rows = [line for line in text.splitlines() if line.startswith(("fisher", "flip"))]
    shown = table(markdown(odd))
    for line, expected in zip(rows, shown, strict=True):
        found = [cell.strip() for cell in line.removesuffix("\\\\").split(" & ")]
        readable = [
            cell.replace("$\\rightarrow$", "→").replace("{[}", "[").replace("\\%", "%")
            for cell in found
        ]
        bounds = re.compile(r"\$(.+)_\{(.+)\}\^\{(.+)\}\$")
        assert [bounds.sub(r"\1 [\2, \3]", cell) for cell in readable] == list(expected.values())
    assert "& $-0.5_{-1.0}^{0.0}$ &" in rows[0]
    assert "\\shortstack[r]{lifetime\\\\speedup}" in text


def test_csv_has_every_number_whole_and_the_full_tower(cascades):
    text = blocks_values.comma_separated(blocks_of([cascades], ["a"]))
    full, *lines = csv.DictReader(text.splitlines())
    assert (full["method"], full["stages"], full["m"]) == ("full tower", "1", "")
    assert (full["recall_1"], full["recall_change_1"], full["query_speedup"]) == ("30.5", "", "")
    three = lines[-1]
    assert (three["stages"], three["m"], three["model"]) == ("3", "50 → 10", "demo/clip-scenes")
    measured = cascades.rows[1]
    for k, change in measured.cascade.difference.items():
        names = (f"recall_change_{k}", f"recall_change_{k}_low", f"recall_change_{k}_high")
        assert [float(three[name]) for name in names] == [change.value, change.low, change.high]
        assert float(three[f"recall_{k}"]) == measured.cascade.recall[k].value
    assert float(three["lifetime_speedup_low"]) == measured.lifetime_speedup.low
    assert three["tower_macs"] == f"{measured.tower_macs} → {9 * 10**9}"
    assert [float(each) for each in three["seconds_share"].split(" → ")] == pytest.approx(
        [0.26, 0.5]
    )


def test_the_projects_own_reports_make_a_table():
    paths = sorted((ROOT / "docs" / "reports").glob("*.json"))
    done = subprocess.run(
        [
            sys.executable, "-c",
            "import sys; from evaluation.table import TableOptions, main; from pathlib import Path;"
            "main(TableOptions(report=tuple(map(Path, sys.argv[1:])), methods=('joint',)));"
            "print([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])",
            *map(str, paths),
        ],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.count("\n## ") == 1  # one at the beginning, one more
    assert "| joint | latency 0.075 | joint-latency-scenes |" in done.stdout
    assert done.stdout.endswith("[]\n")


# -- the command


@pytest.fixture
def saved(cascades, tmp_path):
    path = tmp_path / "experiment" / "report.json"
    cascades.save(path)
    return path


def run(*flags):
    run_command(main, TableOptions, "evaluation.table", list(map(str, flags)))


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_the_screen_shows_what_a_file_gets(saved, tmp_path, capsys, form):
    run("--report", saved, saved, "--format", form)
    shown = capsys.readouterr().out
    assert shown.count("MAC 0.65") == 1  # a report named twice is one report
    output = tmp_path / "new" / "table"
    run("--report", saved, "--format", form, "--output", output)
    assert output.read_text() == shown
    assert capsys.readouterr().out == f"wrote {output}\n"
    output.write_text("mine")
    with pytest.raises(SystemExit):
        run("--report", saved, "--output", output)
    assert output.read_text() == "mine"
    run("--report", saved, "--format", form, "--output", output, "--overwrite")
    assert output.read_text() == shown


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--report", "nowhere.json"], "nowhere.json: No such file or directory; make one with"),
        (["--report"], "--report"),
        (["--report", "{0}", "--methods", "merge"], "no report has a method merge"),
        (["--report", "{0}", "--output", "{0}"], "which is read"),
        (["--report", "{0}", "--output", "{0}", "--overwrite"], "which is read"),
        (["--report", "{0}", "--output", "{0.parent}"], "exists already"),
        (["--report", "{0}", "--output", "{0.parent}", "--overwrite"], "is a directory"),
        (["--report", "{0}", "--overwrite"], "--overwrite"),
        (["--report", "{0.parent}"], "Is a directory"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(saved, tmp_path, capsys, flags, complaint):
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as ending:
        run(*(flag.format(saved) for flag in flags))
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
