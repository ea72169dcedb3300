"""Three stages: an experiment with a middle stage, against the definition worked out by hand."""

import dataclasses
import json

import pytest
import torch

from cascade import Stage, lifetime_speedup, query_speedup
from compress.command import run_command
from compress.errors import UserError
from corpora import load_corpus
from evaluation.cascade import CascadeOptions, main
from evaluation.equal_time import compared
from evaluation.masking import MaskingExperimentOptions
from evaluation.reports import table
from evaluation.reports.conclusion import conclusion
from evaluation.reports.equal_time import table as equal_time_table
from evaluation.reports.report import Report
from pruning_mechanism import Mask, prune, save
from tests.conftest import tiny_clip, tiny_processor

M = (12, 10)


def run(model, folder, output, *flags):
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    given += ["--repetitions", 2, "--batch-size", 4, *flags]
    run_command(main, CascadeOptions, "evaluation.cascade", [str(each) for each in given])


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Two pruned towers: a first stage that keeps little, a middle stage that keeps more."""
    root = tmp_path_factory.mktemp("stages")
    for name, layers in (("first", 3), ("middle", 1)):
        mask = Mask.dense(tiny_clip().config)
        mask.heads[:layers, 1:] = False
        mask.neurons[:layers, ::2] = False
        save(prune(tiny_clip(), mask), root / name, tiny_processor())
    return root


@pytest.fixture(scope="module")
def experiment(clip_directory, folder, stages, tmp_path_factory):
    output = tmp_path_factory.mktemp("experiment") / "out"
    flags = ("--stage", stages / "first", stages / "middle", "--middle", stages / "middle")
    run(clip_directory, folder, output, *flags, "--m", *M, "--f", 0.2)
    return Report.load(output / "report.json")


def test_a_first_stage_has_a_row_of_two_stages_and_one_of_three(experiment):
    assert experiment.m == M
    two, three, middle = experiment.rows
    assert [row.method for row in experiment.rows] == ["first", "first → middle", "middle"]
    assert [row.stages for row in experiment.rows] == [("first",), ("first", "middle"), ("middle",)]
    assert [experiment.m_of(row) for row in experiment.rows] == [(12,), M, (12,)]
    assert two.middle == middle.middle == ()
    assert (three.alone, three.encoder_macs) == (two.alone, two.encoder_macs)
    (between,) = three.middle  # the tower that the third row is of, timed once
    assert between.encoder_seconds == middle.encoder_seconds
    assert (between.name, between.directory) == ("middle", "middle")
    for name in ("encoder_macs", "mac_fraction", "tower_macs", "parameters"):
        assert getattr(between, name) == getattr(middle, name)


def test_speedups_follow_from_the_reports_own_seconds(experiment):
    two, three, _ = experiment.rows
    full = experiment.reference.end_to_end_seconds.median
    seconds = [three.end_to_end_seconds.median, three.middle[0].end_to_end_seconds.median, full]
    stages = (three, three.middle[0], experiment.reference)
    encoders = [stage.encoder_seconds.median for stage in stages]
    assert three.encoder_speedup.value == pytest.approx(lifetime_speedup(encoders, 0.2))
    assert three.encoder_seconds == two.encoder_seconds
    assert three.lifetime_speedup.value == pytest.approx(lifetime_speedup(seconds, 0.2))
    assert three.lifetime_speedup.value == pytest.approx(
        full / (seconds[0] + 0.2 * (seconds[1] + full))
    )
    assert three.lifetime_speedup.low <= three.lifetime_speedup.value <= three.lifetime_speedup.high
    assert three.query_speedup == pytest.approx(query_speedup(seconds, M))
    assert three.query_speedup == pytest.approx(12 * full / (12 * seconds[1] + 10 * full))
    assert two.query_speedup == 1


def test_what_it_finds_is_what_the_definition_finds(experiment, clip_directory, folder, stages):
    corpus = load_corpus("folder", folder, "validation")
    texts = [caption for several in corpus["captions"] for caption in several]
    owner = [at for at, several in enumerate(corpus["captions"]) for _ in several]
    towers = [Stage.load(path) for path in (stages / "first", stages / "middle", clip_directory)]
    queries = towers[-1].encode_texts(texts)
    scores = [queries @ tower.encode_images(corpus["image"][:]).T for tower in towers]
    hits, shared, reached = dict.fromkeys((1, 5, 10), 0), 0, (set(), set())
    for query, target in enumerate(owner):
        first, middle, full = (each[query] for each in scores)
        ahead = first.argsort(descending=True)[:12]
        kept = ahead[middle[ahead].argsort(descending=True)][:10]
        found = kept[full[kept].argsort(descending=True)].tolist()
        for k in hits:
            hits[k] += target in found[:k]
        shared += len(set(found) & set(full.argsort(descending=True)[:10].tolist())) / 10
        reached[0].update(ahead.tolist())
        reached[1].update(kept.tolist())
    row = experiment.rows[1]
    for k, number in hits.items():
        assert row.cascade.recall[k].value == pytest.approx(100 * number / len(owner))
    assert row.cascade.agreement.value == pytest.approx(100 * shared / len(owner))
    assert row.middle[0].f_measured == pytest.approx(len(reached[0]) / len(corpus))
    assert row.f_measured == pytest.approx(len(reached[1]) / len(corpus))
    assert not torch.equal(scores[0], scores[1])


def test_two_stages_beside_three_are_those_of_a_report_without(
    experiment, clip_directory, folder, stages, tmp_path
):
    run(clip_directory, folder, tmp_path / "out", "--stage", stages / "first", "--m", 12)
    (alone,) = Report.load(tmp_path / "out" / "report.json").rows
    beside = experiment.rows[0]
    for name in ("method", "alone", "cascade", "f_measured", "query_speedup", "middle"):
        assert getattr(alone, name) == getattr(beside, name)


def test_a_middle_stage_stands_behind_methods_too(clip_directory, folder, stages, tmp_path):
    flags = ("--methods", "fisher", "--mac-constraint", 0.3, 0.5, "--samples", 8)
    flags += ("--repair-samples", 8, "--middle", stages / "middle", "--m", *M)
    run(clip_directory, folder, tmp_path / "out", *flags)
    assert [
        (row.method, row.constraint) for row in Report.load(tmp_path / "out" / "report.json").rows
    ] == [
        (method, constraint)
        for constraint in ("MAC 0.3", "MAC 0.5")
        for method in ("fisher", "fisher → middle")
    ]


def test_tables_and_the_conclusion_say_which_stages_stand_where(experiment):
    lines = table.markdown(experiment).splitlines()
    first, between = (
        f"{table.three_digits(1000 * row.end_to_end_seconds.median)} "
        f"({table.three_digits(1000 * row.encoder_seconds.median)})"
        for row in experiment.rows[::2]
    )
    assert f"| {first} → {between} |" in lines[4]
    assert "| first → middle |" in lines[4]
    three = dataclasses.replace(experiment, rows=experiment.rows[1:2])
    assert conclusion(three).startswith("The first stage first takes ")
    assert "with it and middle in front, search finds" in conclusion(three)
    caption = equal_time_table.markdown(compared([experiment], ["out"], (0.5,)))
    assert "with m = 12 → 10 candidates" in caption
    assert "first stage's top 12 (where further stages follow" in caption.replace("\n", " ")


def test_a_report_is_read_as_it_was_written_and_from_before_there_were_middle_stages(
    experiment, tmp_path
):
    experiment.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == experiment
    before = json.loads((tmp_path / "report.json").read_text())
    for row in (before["reference"], *before["rows"]):
        del row["middle"]
    (tmp_path / "report.json").write_text(json.dumps(before))
    assert not any(row.middle for row in Report.load(tmp_path / "report.json").rows)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (
            ("--m", 12, 10),
            "--m takes 1 number here, one for each stage after the first, found 12",
        ),
        (
            ("--middle", "{0}"),
            "--m takes 2 numbers here, one for each stage after the first",
        ),
        (("--middle", "{0}", "--m", 10, 12), "each stage hands fewer candidates on than the one"),
        (("--middle", "{0}", "--m", 12, 12), "each stage hands fewer candidates on than the one"),
        (("--middle", "{0}", "--m", 12, 9), "--m must be at least 10, found 9"),
        (("--middle", "nowhere", "--m", 12, 10), "--middle nowhere: no such directory"),
    ],
)
def test_what_cannot_work_is_refused(
    clip_directory, folder, stages, tmp_path, capsys, flags, reason
):
    given = [str(flag).format(stages / "middle") for flag in flags]
    with pytest.raises(SystemExit) as caught:
        run(clip_directory, folder, tmp_path / "out", *given)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err.strip().split("\n")[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_middle_stage_of_another_tower_is_refused_before_anything_is_made(
    clip_directory, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("evaluation.cascade.make_all", lambda *_: pytest.fail("made too much"))
    save(tiny_clip(1), tmp_path / "other", tiny_processor())
    flags = ("--methods", "fisher", "--samples", 8, "--middle", tmp_path / "other", "--m", *M)
    with pytest.raises(SystemExit) as caught:
        run(clip_directory, folder, tmp_path / "out", *flags)
    assert caught.value.code == 2
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert f"--middle {tmp_path / 'other'} was made from another checkpoint than --model" in said
    assert not (tmp_path / "out").exists()


def test_the_masking_experiment_has_two_stages():
    with pytest.raises(UserError, match="--m takes 1 number here"):
        MaskingExperimentOptions(m=(50, 10)).check()
