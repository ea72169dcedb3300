"""The picture has a point for each model, its whiskers, and the front; labels cover nothing."""

import dataclasses
import math

import pytest
from matplotlib.text import Annotation, Text
from PIL import Image

from evaluation.command import run_command
from evaluation.measuring.values import Interval, Machine, Timing
from evaluation.reports.latency.report import Latency, ModelRow, Scored, Side, Timed
from figures.latency import LatencyFigureOptions, draw, main
from figures.milliseconds import View
from figures.style import series_style
from tests.figures.conftest import around, both

# name, parameters (M) and milliseconds of an image, the same of a text, score
MODELS = [
    ("small", 11.4, 1.5, 42.4, 1.6, 67.8),
    ("middle", 35.7, 3.6, 63.4, 3.3, 74.4),
    ("large", 86.3, 10.4, 63.4, 3.3, 77.2),
    ("large as well", 86.3, 10.4, 63.4, 3.3, 76.8),
    ("slow", 86.2, 11.5, 63.4, 3.3, 68.3),
    ("alone", 5.0, 0.9, None, None, 40.0),
]


def timed(milliseconds: float) -> tuple[Timed, ...]:
    """Batch 32 takes half of batch 1, and a whole file a tenth more."""

    def timing(value: float) -> Timing:
        return Timing(value / 1000, 0.96 * value / 1000, 1.05 * value / 1000, 10)

    return tuple(
        Timed(batch, timing(milliseconds / part), timing(1.1 * milliseconds / part))
        for batch, part in ((1, 1), (32, 2))
    )


def model(name, image, image_ms, text, text_ms, score) -> ModelRow:
    own = Side(int(1e6 * text), timed(text_ms)) if text else None
    borrows = None if text else "small"
    pixels = Side(int(1e6 * image), timed(image_ms))
    return ModelRow(name, 10**9, pixels, own, borrows, "float32", (around(score, 0.9),))


@pytest.fixture
def report() -> Latency:
    """Numbers made up, of a family and a vision tower alone."""
    return Latency(
        command="made up",
        batches=(1, 32),
        timed_on="imagenette",
        scored=(Scored("imagenette", "top-1", "imagenette", "validation", 3925, 10),),
        models=tuple(model(*values) for values in MODELS),
        skipped=(),
        seed=0,
        machine=Machine("a processor", 2, 2, "cpu", "float32", "Linux"),
        versions={},
        date="2026-01-01T00:00:00+00:00",
    )


def markers(axes):
    """The points of the models: lines of one place."""
    return [line for line in axes.lines if len(line.get_xdata()) == 1]


def places(axes) -> set[tuple[float, float]]:
    return {
        (round(line.get_xdata()[0], 6), round(line.get_ydata()[0], 6)) for line in markers(axes)
    }


@pytest.mark.parametrize(
    ("view", "of"),
    [
        (View(1), lambda image, text: image),
        (View(32), lambda image, text: image / 2),
        (View(1, "end to end"), lambda image, text: 1.1 * image),
        (View(32, "encoder", "image + text"), lambda image, text: (image + (text or 1.6)) / 2),
    ],
)
def test_each_model_is_a_point_at_its_milliseconds_and_score(report, view, of):
    (axes,) = draw([report], view).axes
    assert places(axes) == {
        (round(of(image, text), 6), score) for _, _, image, _, text, score in MODELS
    }
    assert f"per {view.side} (" in axes.get_xlabel()
    assert f"batch {view.batch})" in axes.get_xlabel()


def test_whiskers_are_the_quartiles_and_the_interval(report):
    (axes,) = draw([report], View(1)).axes
    ends = [path.vertices for bars in axes.collections for path in bars.get_paths()]
    level = sorted((bar[0][0], bar[1][0]) for bar in ends if bar[0][1] == bar[1][1])
    upright = sorted((bar[0][1], bar[1][1]) for bar in ends if bar[0][0] == bar[1][0])
    assert [x for pair in level for x in pair] == pytest.approx(
        [x for pair in sorted((0.96 * row[2], 1.05 * row[2]) for row in MODELS) for x in pair]
    )
    assert upright == sorted((row[5] - 0.9, row[5] + 0.9) for row in MODELS)


def test_the_front_goes_through_what_nothing_else_beats(report):
    (axes,) = draw([report], View(1)).axes
    (line,) = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert list(line.get_ydata()) == [40.0, 67.8, 74.4, 77.2]
    assert list(line.get_xdata()) == pytest.approx([0.9, 1.5, 3.6, 10.4])


def test_the_area_of_a_marker_grows_with_the_parameters(report):
    (axes,) = draw([report], View(1)).axes
    width = {line.get_ydata()[0]: line.get_markersize() for line in markers(axes)}
    small, middle, large, alone = (width[score] ** 2 for score in (67.8, 74.4, 77.2, 40.0))
    assert alone < small < middle < large
    grown = (middle - small) / (large - small)
    assert grown == pytest.approx((35.7 - 11.4) / (86.3 - 11.4))


def test_every_model_is_named_and_nothing_written_overlaps_or_is_cut_off(report):
    figure = draw([report], View(1))
    (axes,) = figure.axes
    assert {label.get_text() for label in axes.texts} == {name for name, *_ in MODELS}
    renderer = figure.canvas.get_renderer()
    written = [axes.title, axes.xaxis.label, axes.yaxis.label, *figure.legends, *axes.texts]
    boxes = [_letters(each, renderer) for each in written]
    for number, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:number])


def _letters(written, renderer):
    """Where something is written, without the line that leads from a label to its point."""
    whole = written.get_window_extent(renderer)
    led = isinstance(written, Annotation) and written.arrowprops
    return Text.get_window_extent(written, renderer) if led else whole


def test_a_crowd_has_labels_that_lie_apart_and_keep_off_the_markers(report):
    copies = 14
    crowd = tuple(
        model(f"model {n}", 20, 5 + 0.15 * n, 20, 2, 60 + 3 * math.sin(n)) for n in range(copies)
    )
    figure = draw([dataclasses.replace(report, models=crowd)], View(1))
    (axes,) = figure.axes
    assert len(axes.texts) == copies
    assert any(label.arrowprops for label in axes.texts)  # it is one
    boxes = [_letters(label, figure.canvas.get_renderer()) for label in axes.texts]
    spots = axes.transData.transform([line.get_xydata()[0] for line in markers(axes)])
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert not any(box.contains(*spot) for spot in spots)


def test_the_axis_is_logarithmic_where_models_are_far_from_each_other(report):
    assert draw([report], View(1)).axes[0].get_xscale() == "log"
    near = dataclasses.replace(report, models=report.models[1:4])
    (axes,) = draw([near], View(1)).axes
    assert (axes.get_xscale(), axes.get_xlim()[0]) == ("linear", 0)


def test_each_score_has_a_panel(report):
    second = Scored("cifar10", "top-1", "cifar10", "test", 10000, 10)
    models = tuple(
        dataclasses.replace(each, scores=(*each.scores, Interval(90.0, 89.0, 91.0)))
        for each in report.models
    )
    both = dataclasses.replace(report, scored=(*report.scored, second), models=models)
    first, last = draw([both], View(1)).axes
    assert places(first) == places(draw([report], View(1)).axes[0])
    assert {y for _, y in places(last)} == {90.0}
    assert "cifar10" in last.get_ylabel()


def test_no_axis_goes_beyond_what_a_share_can_be(report):
    whole = tuple(
        dataclasses.replace(each, scores=(Interval(value, value, value),))
        for each, value in zip(report.models, (100.0, 100.0, 0.0, 0.0, 50.0, 100.0), strict=True)
    )
    for models in (whole, whole[:2]):
        (axes,) = draw([dataclasses.replace(report, models=models)], View(1)).axes
        low, high = axes.get_ylim()
        assert 0 <= low < high <= 102


def test_machines_have_colours_and_fronts_of_their_own(report):
    machine = dataclasses.replace(report.machine, cpu="another")
    other = dataclasses.replace(report, machine=machine, models=report.models[:2])
    figure = draw([report, other], View(1))
    (axes,) = figure.axes
    colours = [line.get_color() for line in markers(axes)]
    assert [colours.count(series_style(n).color) for n in range(2)] == [6, 2]
    assert len([line for line in axes.lines if len(line.get_xdata()) > 1]) == 2
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said[:2] == [report.machine.summary, machine.summary]


def test_the_legend_says_what_size_lines_and_whiskers_mean(report):
    (legend,) = draw([report], View(1)).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "5.00 M parameters (image)", "86.3 M parameters (image)", "Pareto front",
        "across: quartiles; up: 95 % interval",
    ]  # fmt: skip


# -- the command


def complaint(arguments, capsys) -> str:
    """What the command says on stderr when it refuses."""
    with pytest.raises(SystemExit) as ending:
        run_command(main, LatencyFigureOptions, "figures.latency", list(map(str, arguments)))
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_the_command_writes_beside_the_report_and_overwrites_only_when_told(
    report, tmp_path, capsys
):
    report.save(tmp_path / "report.json")
    main(LatencyFigureOptions(report=(tmp_path / "report.json",)))
    assert Image.open(tmp_path / "latency.png").width > 1000
    first = both(tmp_path, "latency")
    assert "--overwrite" in complaint(["--report", tmp_path / "report.json"], capsys)
    main(LatencyFigureOptions(report=(tmp_path / "report.json",), overwrite=True))
    assert both(tmp_path, "latency") == first


def test_bad_input_is_one_line_and_leaves_nothing(report, tmp_path, capsys):
    unscored = tuple(dataclasses.replace(each, scores=()) for each in report.models)
    changed = {
        "report": {},
        "times": {"scored": (), "models": unscored},
        "others": {"scored": (dataclasses.replace(report.scored[0], images=7),)},
        "lonely": {"models": report.models[1:]},
    }
    for name, change in changed.items():
        dataclasses.replace(report, **change).save(tmp_path / f"{name}.json")
    (tmp_path / "else.json").write_text("{}")

    def said(*names, more=()) -> str:
        paths = [tmp_path / f"{name}.json" for name in names]
        return complaint(["--report", *paths, *more], capsys)

    assert "python -m evaluation.latency" in said("missing")
    assert "not a latency report" in said("else")
    assert "has milliseconds alone" in said("times")
    assert "their models don't compare" in said("report", "others")
    assert "was measured at batch 1 or 32" in said("report", more=("--batch", 8))
    assert "text tower of alone" in said("lonely", more=("--side", "image + text"))
    assert "--report" in complaint(["--report"], capsys)
    assert not list(tmp_path.rglob("latency.*"))
