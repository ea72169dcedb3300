"""The picture shows each keep rule's recalls and speedups with their spread, from one report."""

import dataclasses

import pytest
from PIL import Image

from evaluation.command import run_command
from evaluation.reports.record import RecordError
from figures.masking import MaskingFigureOptions, draw, main
from figures.style import series_style
from tests.figures.conftest import both, row

SHARES = (0.0, 0.3, 0.6, 0.9)


@pytest.fixture
def masking(report):
    """A report as `evaluation.masking` makes it, its rows in no order."""
    rows = [
        row(keep, f"mask {share:g}", 1 / (1.1 - share), 60 - 40 * share, 84 - lost * share)
        for keep, lost in (("grid", 5), ("saliency", 20))
        for share in reversed(SHARES)
    ]
    return dataclasses.replace(report, rows=tuple(rows))


def of(report, keep):
    rows = [each for each in report.rows if each.method == keep]
    return sorted(rows, key=lambda each: each.constraint_value)


def panels(figure):
    """The axes of recall and those of speedup."""
    half = len(figure.axes) // 2
    return figure.axes[:half], figure.axes[half:]


def line(axes, label):
    (found,) = [each for each in axes.lines if each.get_label() == label]
    return found


def test_each_keep_rule_has_a_panel_of_the_cascades_recalls_by_share(masking):
    left, _ = panels(draw(masking))
    assert [axes.get_title() for axes in left] == ["grid", "saliency"]
    for axes in left:
        rows = of(masking, axes.get_title())
        for k in (1, 5, 10):
            drawn = line(axes, f"Recall@{k}")
            assert list(drawn.get_ydata()) == [each.cascade.recall[k].value for each in rows]
            assert list(drawn.get_xdata()) == pytest.approx(SHARES, abs=0.02)


def test_intervals_stand_on_their_points(masking):
    axes = panels(draw(masking))[0][0]
    for bars, k in zip(axes.collections, (1, 5, 10), strict=True):
        found = [each.cascade.recall[k] for each in of(masking, "grid")]
        ends = [(low, high) for (_, low), (_, high) in bars.get_segments()]
        assert ends == [(each.low, each.high) for each in found]
        places = [start[0] for start, _ in bars.get_segments()]
        assert places == list(line(axes, f"Recall@{k}").get_xdata())


def test_the_full_towers_recalls_are_lines_across(masking):
    for axes in panels(draw(masking))[0]:
        across = {each.get_ydata()[0] for each in axes.lines if list(each.get_xdata()) == [0, 1]}
        assert across == {each.value for each in masking.reference.alone.recall.values()}


def test_speedup_is_drawn_on_a_logarithmic_axis_with_its_bounds_as_a_band(masking):
    left, right = panels(draw(masking))
    for axes, keep in zip(right, (each.get_title() for each in left), strict=True):
        found = [each.lifetime_speedup for each in of(masking, keep)]
        assert axes.get_yscale() == "log"
        assert list(line(axes, "speedup").get_ydata()) == [each.value for each in found]
        (band,) = axes.collections
        corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
        for share, each in zip(SHARES, found, strict=True):
            assert {(share, each.low), (share, each.high)} <= corners


def test_all_panels_have_the_same_scales_and_show_all(masking):
    for axes in panels(draw(masking)):
        assert (
            len({each.get_ylim() for each in axes}) == len({each.get_xlim() for each in axes}) == 1
        )
        low, high = axes[0].get_ylim()
        for each in axes:
            assert all(low <= y <= high for drawn in each.lines for y in drawn.get_ydata())
            spread = [path.vertices[:, 1] for c in each.collections for path in c.get_paths()]
            assert all(low <= y <= high for ends in spread for y in ends)


def test_recalls_differ_in_marker_line_and_colour(masking):
    axes = panels(draw(masking))[0][0]
    drawn = [line(axes, f"Recall@{k}") for k in (1, 5, 10)]
    assert len({each.get_marker() for each in drawn}) == 3
    assert len({each.get_linestyle() for each in drawn}) == 3
    assert [each.get_color() for each in drawn] == [series_style(n).color for n in range(3)]


def test_nothing_written_on_the_figure_overlaps_or_is_cut_off(masking):
    figure = draw(masking)
    renderer = figure.canvas.get_renderer()
    left, right = panels(figure)
    written = [axes.xaxis.label for axes in left] + [axes.title for axes in left]
    written += [left[0].yaxis.label, right[-1].yaxis.label, *figure.legends]
    boxes = [each.get_window_extent(renderer) for each in written]
    for number, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_the_legend_names_recalls_speedup_and_both_spreads(masking):
    (legend,) = draw(masking).legends
    said = " ".join(text.get_text() for text in legend.get_texts())
    for each in ("Recall@1", "Recall@5", "Recall@10", "95 %", "quartiles", "full tower"):
        assert each in said


@pytest.mark.parametrize("keeps", [("grid",), ("grid", "random", "saliency")])
def test_there_may_be_one_rule_or_three_and_a_single_share(masking, keeps, tmp_path):
    rows = [dataclasses.replace(masking.rows[0], method=keep) for keep in keeps]
    left, right = panels(draw(dataclasses.replace(masking, rows=tuple(rows))))
    assert [axes.get_title() for axes in left] == list(keeps)
    assert all(line(axes, "speedup").get_marker() == "o" for axes in right)


def test_rows_that_are_no_shares_of_patches_are_refused(masking, report):
    with pytest.raises(RecordError, match=r"fisher MAC 0\.25 is no share of patches masked"):
        draw(report)
    mixed = dataclasses.replace(masking, rows=(*masking.rows, report.rows[-1]))
    with pytest.raises(RecordError, match="sensitivity 132 heads"):
        draw(mixed)


@pytest.fixture
def saved(masking, tmp_path):
    path = tmp_path / "result" / "report.json"
    masking.save(path)
    return path


def complaint(arguments, capsys):
    """What the command says on stderr when it refuses."""
    with pytest.raises(SystemExit) as ending:
        run_command(main, MaskingFigureOptions, "figures.masking", list(map(str, arguments)))
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_the_command_writes_beside_the_report_and_overwrites_only_when_told(saved, capsys):
    main(MaskingFigureOptions(report=saved))
    assert Image.open(saved.with_name("masking.png")).width > 1000
    first = both(saved.parent, "masking")
    assert "--overwrite" in complaint(["--report", saved], capsys)
    main(MaskingFigureOptions(report=saved, overwrite=True))
    assert both(saved.parent, "masking") == first


def test_bad_input_is_one_line_and_leaves_nothing(saved, report, masking, tmp_path, capsys):
    missing = tmp_path / "missing.json"
    assert "python -m evaluation.masking" in complaint(["--report", missing], capsys)
    report.save(tmp_path / "cascade.json")
    found = complaint(["--report", tmp_path / "cascade.json"], capsys)
    assert "no share of patches masked" in found
    dataclasses.replace(masking, rows=()).save(tmp_path / "empty.json")
    assert "no first stage" in complaint(["--report", tmp_path / "empty.json"], capsys)
    (tmp_path / "other.json").write_text("{}")
    assert "not a report" in complaint(["--report", tmp_path / "other.json"], capsys)
    assert not list(tmp_path.rglob("masking.*"))
