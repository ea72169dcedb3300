"""The picture shows what reports hold, is the same file every time, and errors are one line."""

import dataclasses
import itertools

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image

from evaluation.command import run_command
from evaluation.measuring.values import Interval, Timing
from evaluation.reports.row import Middle
from figures.pareto import ParetoOptions, counted_in, draw, front, main
from figures.style import series_style
from tests.figures.conftest import both

unhurried = settings(deadline=None)  # a busy machine is no failure
whole = st.integers(0, 4)


@unhurried
@given(st.lists(st.tuples(whole, whole), max_size=8))
def test_the_front_is_what_nothing_beats_and_beats_all_else(points):
    on = front(points)

    def beats(one, other):
        return one[0] >= other[0] and one[1] >= other[1] and one != other

    for point, flag in zip(points, on, strict=True):
        assert flag == (not any(beats(other, point) for other in points))
        if not flag:
            assert any(beats(p, point) for p, best in zip(points, on, strict=True) if best)


def line(axes, label):
    (found,) = [each for each in axes.lines if each.get_label() == label]
    return found


def corners(drawn):
    return [tuple(map(float, corner)) for corner in zip(*drawn.get_data(), strict=True)]


def test_each_method_is_a_line_through_its_rows_by_speedup(report):
    figure = draw([report], ["demo"], k=5)
    for axes, alone in zip(figure.axes, (False, True), strict=True):
        for method in ("fisher", "sensitivity"):
            rows = [row for row in report.rows if row.method == method]
            expected = sorted(
                (
                    row.lifetime_speedup.value,
                    (row.alone if alone else row.cascade).recall[5].value,
                )
                for row in rows
            )
            assert corners(line(axes, method)) == expected
        assert corners(line(axes, "full tower")) == [(1.0, report.reference.alone.recall[5].value)]


def test_intervals_of_both_axes_are_drawn(report):
    above = draw([report], ["demo"], k=10).axes[0]
    bars = {
        tuple(map(tuple, segment.tolist()))
        for collection in above.collections
        for segment in collection.get_segments()
    }
    for row in report.rows:
        speedup, recall = row.lifetime_speedup, row.cascade.recall[10]
        assert ((speedup.low, recall.value), (speedup.high, recall.value)) in bars
        assert ((speedup.value, recall.low), (speedup.value, recall.high)) in bars


def test_the_front_is_ringed_and_what_the_full_tower_beats_is_not(report):
    above, below = draw([report], ["demo"], k=10).axes
    ringed = corners(line(above, "on the front"))
    assert len(ringed) == 5  # all of fisher's; its MAC 0.8 is as good as the full tower, and faster
    beaten = {row.lifetime_speedup.value for row in report.rows if row.method == "sensitivity"}
    beaten -= {1.12}  # fisher's MAC 0.8 is there as well
    assert not beaten & {speedup for speedup, _ in ringed + corners(line(below, "on the front"))}


def boxes(figure, axes):
    renderer = figure.canvas.get_renderer()
    return {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}


def test_labels_name_constraints_and_never_cover_each_other_or_a_point(report):
    figure = draw([report], ["demo"], k=10)
    axes = figure.axes[0]
    labels = boxes(figure, axes)
    assert {"MAC 0.25", "MAC 0.4", "132 heads"} <= set(labels)
    assert set(labels) <= {row.constraint for row in report.rows}
    for text, box in labels.items():
        others = [other for name, other in labels.items() if name != text]
        assert not any(box.overlaps(other) for other in others)
        for row in report.rows:
            point = (row.lifetime_speedup.value, row.cascade.recall[10].value)
            assert not box.contains(*axes.transData.transform(point))


def test_points_on_one_spot_get_no_pile_of_labels(report):
    same = tuple(
        dataclasses.replace(report.rows[1], constraint=f"MAC {number}") for number in range(30)
    )
    figure = draw([dataclasses.replace(report, rows=same)], ["demo"], k=10)
    labels = list(boxes(figure, figure.axes[0]).values())
    assert len(labels) < 12
    assert not any(a.overlaps(b) for i, a in enumerate(labels) for b in labels[:i])


def test_several_reports_keep_their_series_apart(report):
    other = dataclasses.replace(report, corpus="coco", model="another")
    axes = draw([report, other], ["demo", "coco"], k=10).axes[0]
    for name in ("demo", "coco"):
        assert corners(line(axes, f"fisher, {name}"))
    assert len(corners(line(axes, "on the front"))) == 10  # two collections, two fronts
    again = draw([report, report], ["one", "two"], k=10).axes[0]
    assert len(corners(line(again, "on the front"))) == 10  # equal points are on it together


def variants(report):
    """The report with two variants of fisher, as `evaluation.cascade --methods` names them."""
    fisher = [row for row in report.rows if row.method == "fisher"]
    more = [
        dataclasses.replace(row, method=f"fisher+{word}", variant=word)
        for word in ("rescale", "none")
        for row in fisher
    ]
    return dataclasses.replace(report, rows=(*more, *report.rows))


def test_variants_of_a_rule_share_its_colour_and_marker_and_differ_in_their_fill(report):
    axes = draw([variants(report)], ["demo"], k=10).axes[0]
    drawn = [line(axes, name) for name in ("fisher", "fisher+rescale", "fisher+none")]
    assert len({each.get_color() for each in drawn}) == 1
    assert len({each.get_marker() for each in drawn}) == 1
    assert [each.get_fillstyle() for each in drawn] == ["full", "none", "left"]
    assert line(axes, "sensitivity").get_color() != drawn[0].get_color()
    assert line(axes, "sensitivity").get_fillstyle() == "full"


BETWEEN = Middle(
    "flip", "mask 0.5", None, 1, 0.5, 1, 1, Timing(0.02, 0.01, 0.03, 5), Timing(1, 1, 1, 5), 0.2
)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "fisher resumed", "state_bytes": 1},
        {"method": "fisher → flip mask 0.5", "middle": (BETWEEN,)},
    ],
)
def test_a_rule_with_something_else_behind_it_is_another_than_the_rule_by_itself(report, change):
    others = tuple(
        dataclasses.replace(row, **change) for row in report.rows if row.method == "fisher"
    )
    changed = dataclasses.replace(report, rows=(*report.rows, *others))
    axes = draw([changed], ["demo"], k=10).axes[0]
    assert line(axes, change["method"]).get_fillstyle() == "full"
    assert line(axes, change["method"]).get_color() != line(axes, "fisher").get_color()


@pytest.mark.parametrize("x", ["speedup", "macs"])
@pytest.mark.parametrize("y", ["recall", "agreement"])
def test_axes_of_shares_end_at_none_and_all(report, x, y):
    figure = draw([perfect(report)], ["demo"], k=10, y=y, x=x)
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert 0 <= low < high == 100
        if x == "macs":
            most, least = axes.get_xlim()
            assert 0 <= least < most == 1


def perfect(report):
    """The report with a full tower and a first stage that find all there is."""
    whole = {k: Interval(100.0, 99.5, 100.0) for k in (1, 5, 10)}

    def finding_all(result):
        return result and dataclasses.replace(result, recall=whole, agreement=whole[10])

    rows = [
        dataclasses.replace(row, alone=finding_all(row.alone), cascade=finding_all(row.cascade))
        for row in (report.reference, report.rows[0])
    ]
    reference = dataclasses.replace(rows[0], mac_fraction=1.0)
    return dataclasses.replace(report, reference=reference, rows=(rows[1], *report.rows[1:]))


def test_agreement_is_drawn_against_macs_with_the_cheaper_to_the_right(report):
    rows = [
        dataclasses.replace(
            row,
            mac_fraction=0.1 * number,
            alone=dataclasses.replace(row.alone, agreement=Interval(9.0 * number, 1.0, 99.0)),
            cascade=dataclasses.replace(row.cascade, agreement=Interval(90 + number, 1.0, 99.5)),
        )
        for number, row in enumerate(report.rows[:5], start=1)
    ]
    reference = dataclasses.replace(report.reference, mac_fraction=1.0)
    changed = dataclasses.replace(report, rows=tuple(rows), reference=reference)
    above, below = draw([changed], ["demo"], k=10, y="agreement", x="macs").axes
    expected = [(row.mac_fraction, row.alone.agreement.value) for row in rows]
    assert corners(line(below, "fisher")) == expected
    assert corners(line(above, "fisher")) == [
        (row.mac_fraction, row.cascade.agreement.value) for row in rows
    ]
    assert set(corners(line(below, "on the front"))) == set(expected)  # fewer MACs or more found
    assert below.get_xlim()[0] > below.get_xlim()[1]
    assert "agreement" in below.get_ylabel()
    assert "MACs" in below.get_xlabel()


def test_dearer_rows_that_find_no_more_are_off_the_front_of_macs(report):
    cheap, dear = (
        dataclasses.replace(report.rows[0], constraint=name, mac_fraction=fraction)
        for name, fraction in (("cheap", 0.2), ("dear", 0.6))
    )
    changed = dataclasses.replace(report, rows=(cheap, dear))
    below = draw([changed], ["demo"], k=10, y="agreement", x="macs").axes[1]
    assert corners(line(below, "on the front")) == [(0.2, 90.0)]


def test_series_differ_in_marker_line_and_grey():
    styles = [series_style(number) for number in range(4)]
    assert len({style.marker for style in styles}) == len({str(s.line) for s in styles}) == 4
    grey = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in (to_rgb(s.color) for s in styles)]
    assert all(abs(a - b) > 0.1 for a, b in itertools.pairwise(grey))


@pytest.fixture
def saved(report, tmp_path):
    path = tmp_path / "result" / "report.json"
    report.save(path)
    return path


def test_the_command_writes_beside_the_report_and_overwrites_only_when_told(saved, capsys):
    main(ParetoOptions(report=(saved,)))
    picture = saved.with_name("pareto.png")
    assert Image.open(picture).width > 1000
    assert str(picture) in capsys.readouterr().out
    first = both(saved.parent, "pareto")
    picture.write_bytes(b"mine")
    assert complaint(["--report", str(saved)], capsys).count("--overwrite") == 1
    assert picture.read_bytes() == b"mine"
    with matplotlib.rc_context({"font.size": 30}):
        main(ParetoOptions(report=(saved,), overwrite=True))
    assert both(saved.parent, "pareto") == first


def test_speedups_are_drawn_end_to_end_and_of_the_encoder_if_told(report, tmp_path, capsys):
    both_known = dataclasses.replace(
        report,
        seconds_basis="end to end",
        reference=dataclasses.replace(report.reference, encoder_speedup=Interval(1.0, 1.0, 1.0)),
        rows=tuple(
            dataclasses.replace(row, encoder_speedup=Interval(7.25, 7.0, 7.5))
            for row in report.rows
        ),
    )
    both_known.save(tmp_path / "both.json")
    old, new = tmp_path / "old.json", tmp_path / "both.json"
    report.save(old)
    drawn = {}
    for seconds in ((), ("--seconds", "encoder")):
        place = tmp_path / "-".join(("drawn", *seconds[1:]))
        line = ["--report", str(new), *seconds, "--output", str(place)]
        run_command(main, ParetoOptions, "figures.pareto", line)
        drawn[seconds] = (place / "pareto.svg").read_text()
    assert "end to end (×)" in drawn[()]
    assert "of the encoder only (×)" in drawn["--seconds", "encoder"]
    assert counted_in(new, both_known, "end to end") == both_known
    assert {row.lifetime_speedup.value for row in counted_in(new, both_known, "encoder").rows} == {
        7.25
    }
    assert "none of end to end seconds" in complaint(
        ["--report", str(old), "--seconds", "end to end"], capsys
    )
    # the first report's seconds are those of the others too, or none is drawn
    assert "old.json has speedups of the encoder only" in complaint(
        ["--report", str(new), str(old), "--output", str(tmp_path / "mixed")], capsys
    )
    run_command(main, ParetoOptions, "figures.pareto", ["--report", str(old), str(new)])


def test_another_view_is_another_file_and_methods_pick_their_series(saved, report, capsys):
    variants(report).save(saved)
    main(ParetoOptions(report=(saved,)))
    main(ParetoOptions(report=(saved,), y="agreement", x="macs", methods=("fisher+none",)))
    assert saved.with_name("pareto.png").exists()
    drawn = saved.with_name("agreement-macs.svg").read_text()
    assert "fisher+none" in drawn
    assert "sensitivity" not in drawn
    assert "fisher+rescale" not in drawn
    assert "absent: the report has fisher, " in complaint(
        ["--report", str(saved), "--overwrite", "--methods", "absent"], capsys
    )


def complaint(arguments, capsys):
    """What the command says on stderr when it refuses."""
    with pytest.raises(SystemExit) as ending:
        run_command(main, ParetoOptions, "figures.pareto", arguments)
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_bad_input_is_one_line_and_leaves_nothing(saved, report, tmp_path, capsys):
    missing = tmp_path / "missing.json"
    assert "missing.json" in complaint(["--report", str(missing)], capsys)
    (tmp_path / "other.json").write_text("{}")
    assert "not a report" in complaint(["--report", str(tmp_path / "other.json")], capsys)
    assert "Recall@1, @5, @10 only" in complaint(["--report", str(saved), "--k", "7"], capsys)
    dataclasses.replace(report, rows=()).save(tmp_path / "empty.json")
    assert "no first stage" in complaint(["--report", str(tmp_path / "empty.json")], capsys)
    blocked = ["--report", str(saved), "--output", str(missing.with_name("other.json"))]
    assert "cannot write" in complaint(blocked, capsys)
    assert not list(tmp_path.rglob("pareto*"))


def test_an_interval_that_leaves_its_value_out_is_drawn_all_the_same(report):
    odd = dataclasses.replace(report.rows[0], lifetime_speedup=Interval(2.0, 2.1, 2.2))
    draw([dataclasses.replace(report, rows=(odd,))], ["demo"], k=10)


def test_stages_that_differ_only_in_how_they_run_are_series_of_their_own(report):
    rows = [
        dataclasses.replace(row, method=f"{row.method}{told}")
        for row in report.rows
        if row.method == "fisher"
        for told in ("", " as scaled", " as openvino bfloat16")
    ]
    figure = draw([dataclasses.replace(report, rows=tuple(rows))], ["demo"], k=10)
    names = ["fisher", "fisher as scaled", "fisher as openvino bfloat16"]
    lines = [line(figure.axes[0], name) for name in names]
    assert len({each.get_color() for each in lines}) == 3


def test_stages_of_one_method_that_read_otherwise_are_told_apart(report):
    fisher = [row for row in report.rows if row.method == "fisher"]
    rows = [dataclasses.replace(row, reads=reads) for row in fisher for reads in ("full", "scaled")]
    figure = draw([dataclasses.replace(report, rows=tuple(rows))], ["demo"], k=10)
    for reads in ("full", "scaled"):
        assert len(corners(line(figure.axes[0], f"fisher ({reads})"))) == len(fisher)
    rows = [dataclasses.replace(row, reads="scaled") for row in fisher]
    figure = draw([dataclasses.replace(report, rows=tuple(rows))], ["demo"], k=10)
    assert len(corners(line(figure.axes[0], "fisher"))) == len(fisher)
