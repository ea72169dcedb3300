"""The picture shows each sublayer's error before and after its repair, as the results saved it."""

import json

import pytest
from matplotlib.colors import to_hex
from PIL import Image

from compress.command import run_command
from figures.repair import RepairedTower, RepairOptions, draw, main
from figures.result import load_record, load_repairs
from figures.style import series_style


@pytest.fixture
def complaint(capsys):
    """What the command says on stderr when it refuses."""

    def run(arguments):
        with pytest.raises(SystemExit) as ending:
            run_command(main, RepairOptions, "figures.repair", arguments)
        assert ending.value.code == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    return run


def tower(directory, name="one"):
    return RepairedTower(name, load_record(directory), tuple(load_repairs(directory)))


def saved(directory, kind):
    entries = json.loads((directory / "repair.json").read_text())
    return [entry for entry in entries if entry["kind"] == kind]


def lines(axes, label):
    return [each for each in axes.lines if each.get_label() == label]


def heights(axes, label):
    return [float(y) for each in lines(axes, label) for y in each.get_ydata()]


def places(axes, label):
    return [round(float(x)) for each in lines(axes, label) for x in each.get_xdata()]


def test_errors_before_and_after_are_drawn_over_their_layer(result):
    for axes, kind in zip(draw([tower(result)]).axes, ("heads", "neurons"), strict=True):
        entries = saved(result, kind)
        assert places(axes, "before") == [entry["layer"] for entry in entries] == [0, 1, 2]
        assert heights(axes, "before") == [entry["error_before"] for entry in entries]
        changed = [entry for entry in entries if entry["damping"] is not None]
        assert places(axes, "after") == [entry["layer"] for entry in changed]
        assert heights(axes, "after") == [entry["error_after"] for entry in changed]
        (stems,) = axes.collections
        for (below, above), entry in zip(stems.get_segments(), entries, strict=True):
            assert [below[1], above[1]] == [entry["error_after"], entry["error_before"]]


def test_before_is_hollow_and_after_is_filled(result):
    axes = draw([tower(result)]).axes[0]
    (before,), (after,) = lines(axes, "before"), lines(axes, "after")
    assert to_hex(before.get_markerfacecolor()) == "#ffffff"
    assert to_hex(after.get_markerfacecolor()) == series_style(0).color.lower()


def test_sublayers_left_unchanged_and_those_with_a_problem_are_marked(result):
    attention, mlp = draw([tower(result)]).axes
    assert (places(attention, "unchanged"), places(attention, "problem")) == ([1], [])
    assert (places(mlp, "unchanged"), places(mlp, "problem")) == ([], [2])


def test_several_results_stand_beside_each_other_each_in_its_own_style(result, other):
    figure = draw([tower(result), tower(other, "two")])
    axes = figure.axes[0]
    first, second = lines(axes, "before")
    assert (first.get_marker(), second.get_marker()) == tuple(
        series_style(number).marker for number in (0, 1)
    )
    for left, right in zip(first.get_xdata(), second.get_xdata(), strict=True):
        assert left < right
        assert round(left) == round(right)
    named = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert {"one", "two"} <= set(named)


def test_an_error_of_nothing_is_shown_at_the_bottom_of_the_logarithmic_axis(result):
    axes = draw([tower(result)]).axes[0]
    assert min(heights(axes, "before")) == 0
    assert axes.get_ylim()[0] < 0
    steps = axes.transData.transform([(0, 0), (0, 1e-3), (0, 1e-2), (0, 1e-1)])[:, 1]
    assert steps[0] < steps[1]
    assert steps[2] - steps[1] == pytest.approx(steps[3] - steps[2], rel=0.02)


def test_towers_of_which_nothing_was_lost_can_be_drawn(result):
    entries = [
        {**entry, "error_before": 0.0, "error_after": 0.0, "damping": None}
        for entry in json.loads((result / "repair.json").read_text())
    ]
    (result / "repair.json").write_text(json.dumps(entries))
    figure = draw([tower(result)])
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert heights(axes, "before") == [0, 0, 0]
        assert places(axes, "unchanged") + places(axes, "problem") == [0, 1, 2]
        low, high = axes.get_ylim()
        assert low < 0 < high


def test_the_panels_fill_the_picture(result):
    """A layout that gives up leaves slits."""
    figure = draw([tower(result), tower(result, "two")])
    figure.draw_without_rendering()
    assert all(axes.get_position().height > 0.3 for axes in figure.axes)


def test_the_command_writes_beside_the_first_result_and_overwrites_only_when_told(
    result, other, capsys, complaint
):
    main(RepairOptions(result=(result, other)))
    picture = result / "repair.png"
    assert Image.open(picture).width == 1440
    assert (result / "repair.svg").exists()
    assert not list(other.glob("repair.[ps]*g"))
    assert str(picture) in capsys.readouterr().out
    picture.write_bytes(b"mine")
    assert "--overwrite" in complaint(["--result", str(result)])
    assert picture.read_bytes() == b"mine"
    main(RepairOptions(result=(result,), overwrite=True))
    assert Image.open(picture).width == 1440


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no repair.json"),
        ("[]", "was not repaired"),
        ("{", "repair.json is not"),
        ('[{"layer": 0, "kind": "heads"}]', "error_before"),
        ('[{"layer": 0, "kind": "tails"}]', "error_before"),
        (
            '[{"layer": 0, "kind": "heads", "error_before": NaN, "error_after": 1,'
            ' "damping": null, "problem": null}]',
            "not numbers",
        ),
    ],
)
def test_a_result_without_repairs_is_refused_in_one_line_and_nothing_is_written(
    content, said, result, other, tmp_path, complaint
):
    path = other / "repair.json"
    path.unlink() if content is None else path.write_text(content)
    output = tmp_path / "pictures"
    arguments = ["--result", str(result), str(other), "--output", str(output)]
    assert said in complaint(arguments)
    assert not output.exists()


def test_no_result_or_something_else_is_refused(tmp_path, complaint):
    assert "--result" in complaint([])
    assert "no result" in complaint(["--result", str(tmp_path)])
    assert not list(tmp_path.iterdir())
