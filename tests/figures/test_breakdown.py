"""Bars are as long as the steps that a report gives, and nothing is too short to be seen."""

import dataclasses
import textwrap
from itertools import pairwise

import pytest
from matplotlib.patches import Rectangle

from evaluation.command import run_command
from evaluation.measuring.values import Timing
from figures.breakdown import BreakdownFigureOptions, draw, main, panels_of
from tests.evaluation.breaking_down.made_up import made_up, way
from tests.figures.conftest import both


def bars(axes) -> dict[int, list[tuple[float, float]]]:
    """Start and width of each part, by the place of its bar."""
    found: dict[int, list[tuple[float, float]]] = {}
    for patch in axes.patches:
        assert isinstance(patch, Rectangle)
        place = round(patch.get_y() + patch.get_height() / 2)
        found.setdefault(place, []).append((patch.get_x(), patch.get_width()))
    return found


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_each_way_is_a_bar_of_its_steps_one_after_the_other():
    report = made_up()
    axes, _ = draw([report], ["camera"], 1).axes
    parts = bars(axes)
    assert len(parts) == 4
    for place, one in enumerate(report.ways):
        left = 0.0
        for (start, width), seconds in zip(parts[place], one.split.medians, strict=True):
            assert (start, width) == (pytest.approx(left), pytest.approx(1000 * seconds))
            left += width
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first way is at the top"


def test_numbers_say_what_it_takes_as_it_runs_and_how_much_faster():
    axes, short = draw([made_up()], ["camera"], 1).axes
    assert {"260 ms", "160 ms, 1.62 ×", "66.5 ms, 3.91 ×", "2.90 ms, 89.7 ×"} <= set(texts(axes))
    assert {"0.50", "2.60"} <= set(texts(short))
    assert "0.50" not in texts(axes), "there is no room for it"


def test_bars_that_are_too_short_come_again_enlarged():
    report = made_up()
    whole, short = panels_of(report, "camera", 1)
    assert whole.ways == report.ways
    assert [one.name for one in short.ways] == ["small thumbnail"]
    alike = made_up((report.ways[0], report.ways[1]))
    assert len(panels_of(alike, "camera", 1)) == 1


def test_a_line_shows_where_it_is_as_it_runs():
    report = made_up()
    axes, _ = draw([report], ["camera"], 1).axes
    found = [float(lines.get_segments()[0][0][0]) for lines in axes.collections]
    assert found == pytest.approx([1000 * one.end_to_end.median for one in report.ways])


def test_nothing_is_cut_off_or_covers_another():
    slow = way("slow", "first stage", (1, 43, 15, 7.5), 66.5)
    slow = dataclasses.replace(slow, end_to_end=Timing(0.4, 0.3, 0.5, 5))
    long = textwrap.fill(made_up().files.described, 60)
    figure = draw([made_up(), made_up((*made_up().ways[:2], slow))], ["camera", long], 1)
    frame = figure.bbox
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in (*axes.texts, *axes.get_yticklabels())]
        boxes.append(axes._left_title.get_window_extent())
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
        rows = [text.get_window_extent() for text in axes.get_yticklabels()]
        assert all(above.y0 >= below.y1 for above, below in pairwise(rows))


def test_threads_choose_the_ways():
    other = dataclasses.replace(made_up().ways[1], threads=2)
    report = made_up((*made_up().ways, other))
    assert len(bars(draw([report], ["camera"], 2).axes[0])) == 1


def write(tmp_path, name="report.json"):
    made_up().save(tmp_path / name)
    return str(tmp_path / name)


def test_the_command_writes_the_same_picture_each_time(tmp_path, capsys):
    report = write(tmp_path)
    pictures = []
    for number in range(2):
        line = ["--report", report, "--output", str(tmp_path / str(number))]
        run_command(main, BreakdownFigureOptions, "figures.breakdown", line)
        pictures.append(both(tmp_path / str(number), "breakdown"))
    assert pictures[0] == pictures[1]
    assert "wrote" in capsys.readouterr().out
    assert b"200 files of camera (JPEG)" in pictures[0][1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--threads", "2"), "was measured with 1"),
        (("--titles", "one", "two"), "give one for each"),
        (("--report", "nowhere.json"), "evaluation.breakdown"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(tmp_path, capsys, flags, said):
    line = ["--report", write(tmp_path), *flags] if flags[0] != "--report" else list(flags)
    with pytest.raises(SystemExit) as ended:
        run_command(main, BreakdownFigureOptions, "figures.breakdown", line)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
