"""The picture shows each stage's top-k and the full tower's top-1 with intervals, task by task."""

import dataclasses

import pytest
from PIL import Image

from evaluation.command import run_command
from evaluation.measuring.values import Machine, Timing
from evaluation.reports.zero_shot.report import Accuracy, StageCost, TaskResult, ZeroShot
from figures.style import INK, series_style
from figures.topk import TopkOptions, draw, main
from tests.figures.conftest import around, both

NAMES = ("full-clip", "first-small", "first-tiny")


def accuracy(stage: str, start: float, classes: int) -> Accuracy:
    ks = [k for k in (1, 3, 5, 10, 20) if k < classes]
    top = {k: around(min(97.0, start + 12 * number), 2.0) for number, k in enumerate(ks)}
    return Accuracy(stage, top, start, (start,) * classes, ())


def task(name: str, classes: int, start: float = 40.0) -> TaskResult:
    return TaskResult(
        name=name, data_set=name, split="test", classes=tuple(map(str, range(classes))),
        images=(3,) * classes, templates=("a {}",), m=2, skipped=(), notes=(),
        full=accuracy(NAMES[0], start + 5, classes),
        stages=tuple(accuracy(stage, start - 6 * n, classes) for n, stage in enumerate(NAMES[1:])),
    )  # fmt: skip


@pytest.fixture
def report():
    """Numbers made up, of three stages on four tasks of different sizes."""
    timing = Timing(0.01, 0.009, 0.011, 5)
    return ZeroShot(
        command="made up",
        stages=tuple(StageCost(name, 10**9, 10**6, timing, timing) for name in NAMES),
        tasks=(task("cifar10", 10), task("cifar100", 100), task("imagenette", 4), task("x", 30)),
        seed=0,
        machine=Machine("a processor", 2, 2, "cpu", "float32", "Linux"),
        versions={},
        date="2026-01-01T00:00:00+00:00",
    )


def stage_lines(axes):
    """The lines of the stages of a panel: those with markers."""
    return [line for line in axes.lines if line.get_marker() not in ("None", "")]


def test_each_task_has_a_panel_with_a_line_for_each_stage(report):
    panels = [axes for axes in draw(report).axes if axes.axison]
    assert [axes.get_title() for axes in panels] == [
        "cifar10\n10 classes", "cifar100\n100 classes", "imagenette\n4 classes", "x\n30 classes",
    ]  # fmt: skip
    for axes, shown in zip(panels, report.tasks, strict=True):
        lines = stage_lines(axes)
        assert [line.get_color() for line in lines] == [series_style(n).color for n in range(2)]
        for line, stage in zip(lines, shown.stages, strict=True):
            assert list(line.get_ydata()) == [stage.top[k].value for k in sorted(stage.top)]
            near = zip(line.get_xdata(), sorted(stage.top), strict=True)
            assert all(abs(x / k - 1) < 0.03 for x, k in near)


def test_the_full_towers_top_1_is_a_horizontal_line_in_its_interval(report):
    axes, shown = draw(report).axes[0], report.tasks[0]
    own = shown.full.top[1]
    level = [line for line in axes.lines if set(line.get_ydata()) == {own.value}]
    assert [line.get_color() for line in level] == [INK]
    (band,) = axes.patches
    low, high = band.get_extents().transformed(axes.transData.inverted()).intervaly
    assert (low, high) == pytest.approx((own.low, own.high))


def test_intervals_stand_at_their_points(report):
    axes, shown = draw(report).axes[1], report.tasks[1]
    bars = [path.vertices for each in axes.collections for path in each.get_paths()]
    found = sorted((float(bar[0][1]), float(bar[1][1])) for bar in bars)
    expected = [(one.low, one.high) for stage in shown.stages for one in stage.top.values()]
    assert found == sorted(expected)


def test_all_panels_share_a_scale_from_0_that_holds_all_that_is_drawn(report):
    low = dataclasses.replace(report, tasks=(task("hard", 200, 12.0), task("easier", 30, 14.0)))
    for one in (report, low):
        limits = {axes.get_ylim() for axes in draw(one).axes if axes.axison}
        ((bottom, top),) = limits
        drawn = [
            found for each in one.tasks for stage in each.stages for found in stage.top.values()
        ]
        assert (bottom, top >= max(found.high for found in drawn)) == (0, True)
    assert draw(low).axes[0].get_ylim()[1] < 75


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
def test_nothing_written_on_the_figure_overlaps_or_is_cut_off(report, tasks):
    figure = draw(dataclasses.replace(report, tasks=report.tasks[:tasks]))
    renderer = figure.canvas.get_renderer()
    panels = [axes for axes in figure.axes if axes.axison]
    written = [axes.title for axes in panels] + list(figure.legends)
    written += [label for axes in panels for label in (axes.xaxis.label, axes.yaxis.label)]
    boxes = [each.get_window_extent(renderer) for each in written if _said(each)]
    for number, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:number])


def _said(written) -> bool:
    return not hasattr(written, "get_text") or bool(written.get_text())


def test_the_legend_names_stages_full_tower_chance_and_intervals(report):
    (legend,) = draw(report).legends
    said = [text.get_text() for text in legend.get_texts()]
    reference = "top-1 of full-clip (full tower)"
    assert said == ["first-small", "first-tiny", reference, "chance", "95 % interval"]


def test_a_full_tower_by_itself_is_drawn_as_a_line(report):
    alone = tuple(dataclasses.replace(each, stages=()) for each in report.tasks)
    report = dataclasses.replace(report, tasks=alone, stages=report.stages[:1])
    assert len(stage_lines(draw(report).axes[0])) == 1


def complaint(arguments, capsys) -> str:
    """What the command says on stderr when it refuses."""
    with pytest.raises(SystemExit) as ending:
        run_command(main, TopkOptions, "figures.topk", list(map(str, arguments)))
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_the_command_writes_beside_the_report_and_overwrites_only_when_told(
    report, tmp_path, capsys
):
    report.save(tmp_path / "report.json")
    main(TopkOptions(report=tmp_path / "report.json"))
    assert Image.open(tmp_path / "topk.png").width > 1000
    first = both(tmp_path, "topk")
    assert "--overwrite" in complaint(["--report", tmp_path / "report.json"], capsys)
    main(TopkOptions(report=tmp_path / "report.json", overwrite=True))
    assert both(tmp_path, "topk") == first


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys):
    missing = complaint(["--report", tmp_path / "missing.json"], capsys)
    assert "python -m evaluation.zero_shot" in missing
    (tmp_path / "other.json").write_text("{}")
    assert "not a zero-shot report" in complaint(["--report", tmp_path / "other.json"], capsys)
    assert not list(tmp_path.rglob("topk.*"))
