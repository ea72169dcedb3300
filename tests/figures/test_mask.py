"""The picture shows what a result saved: each head, each count, each curve and its choice."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from PIL import Image

from compress import recover
from compress.allocation.allocate import Curve
from compress.command import run_command
from figures.mask import MaskOptions, draw, main
from figures.result import ChosenCurve, Record, load_curves, load_mask, load_record
from figures.style import KEPT, REMOVED
from pruning_mechanism import Mask
from tests.figures.conftest import both
from tests.lanes import sweep

FILES = {"mask.png", "mask.svg"}
RECORD = Record("recover", "MAC 0.5", "reconstruct", "some/clip", "scenes train", 2048, 0.4987)


@pytest.fixture
def complaint(capsys):
    """What the command says on stderr when it refuses."""

    def run(arguments):
        with pytest.raises(SystemExit) as ending:
            run_command(main, MaskOptions, "figures.mask", arguments)
        assert ending.value.code == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    return run


def drawn(directory):
    mask = load_mask(directory)
    return draw(load_record(directory), mask, load_curves(directory, mask))


def head_map(figure):
    (cells,) = figure.axes[0].collections
    return cells


def bars(axes, label):
    (group,) = [each for each in axes.containers if each.get_label() == label]
    return [bar.get_height() for bar in group]


def curve_panels(figure):
    """The small pictures of attention and of MLP, in the order in which they are drawn."""
    panels = [axes for axes in figure.axes[2:] if axes.get_visible()]
    return panels[: len(panels) // 2], panels[len(panels) // 2 :]


def line(axes, label):
    (found,) = [each for each in axes.lines if each.get_label() == label]
    return [tuple(map(float, corner)) for corner in zip(*found.get_data(), strict=True)]


def test_a_cell_of_the_map_is_dark_where_the_head_stays(result):
    cells = head_map(drawn(result))
    kept = load_mask(result).heads.numpy()
    assert np.array_equal(np.asarray(cells.get_array()).reshape(4, 3), kept.T)
    assert [to_hex(cells.cmap(cells.norm(value))) for value in (0, 1)] == [REMOVED, KEPT.lower()]
    axes = cells.axes
    for layer, head in ((0, 1), (2, 3)):  # its column and row are the layer and the head
        assert cells.get_coordinates()[head, layer].tolist() == [layer - 0.5, head - 0.5]
    (counts,) = axes.child_axes
    assert [text.get_text() for text in counts.get_xticklabels()] == ["2", "0", "4"]


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, 24), min_size=1, max_size=6))
def test_a_bar_is_as_high_as_the_neurons_that_its_layer_keeps(counts):
    neurons = torch.arange(24) < torch.tensor(counts)[:, None]
    heads = torch.ones(len(counts), 2, dtype=torch.bool)
    axes = draw(RECORD, Mask(heads, neurons)).axes[1]
    assert bars(axes, "kept") == counts
    assert bars(axes, "all") == [24] * len(counts)
    assert [text.get_text() for text in axes.texts] == [str(count) for count in counts]


def test_each_sublayer_has_its_measured_curve_with_the_chosen_size_on_it(result):
    attention, mlp = curve_panels(drawn(result))
    saved = json.loads((result / "curves.json").read_text())["curves"]
    assert len(attention) == len(mlp) == 3
    for entry in saved:
        axes = (attention if entry["kind"] == "heads" else mlp)[entry["layer"]]
        measured = list(zip(entry["sizes"], entry["losses"], strict=True))
        assert line(axes, "measured") == measured
        ((size, loss),) = line(axes, "chosen")
        assert size == entry["chosen"]
        below = max(loss for at, loss in measured if at >= size)
        above = min(loss for at, loss in measured if at <= size)
        assert below - 1e-12 <= loss <= above + 1e-12
        assert [text.get_text() for text in axes.texts] == [str(entry["chosen"])]
    for row in (attention, mlp):
        assert len({axes.get_ylim() for axes in row}) == 1


def test_a_result_without_curves_is_drawn_without_them(result):
    (result / "curves.json").unlink()
    assert len(drawn(result).axes) == 2


def test_a_curve_measured_around_its_choice_only_is_drawn_over_all_sizes(result):
    path = result / "curves.json"
    content = json.loads(path.read_text())
    content["curves"][0].update(units=4, sizes=[1, 2, 3], losses=[0.2, 0.1, 0.04], chosen=4)
    path.write_text(json.dumps(content))
    axes = curve_panels(drawn(result))[0][0]
    assert axes.get_xlim() == (0, 4)
    assert line(axes, "chosen") == [(4, 0.04)]


def test_a_sublayer_without_a_curve_leaves_its_place_empty(result):
    path = result / "curves.json"
    content = json.loads(path.read_text())
    content["curves"] = [each for each in content["curves"] if each["layer"] != 1]
    path.write_text(json.dumps(content))
    shown = [axes.get_visible() for axes in drawn(result).axes[2:]]
    assert shown == [True, False, True] * 2


def deep_curves(mask):
    """A steep curve for every sublayer of a mask."""
    curves = []
    for kind in ("heads", "neurons"):
        tensor = getattr(mask, kind)
        units = tensor.shape[1]
        for layer, chosen in enumerate(tensor.sum(1).tolist()):
            sizes, losses = (0, units // 8, units), (0.4, 0.3, 0.0)
            curves.append(ChosenCurve(Curve(layer, kind, units, sizes, losses), chosen))
    return curves


@pytest.mark.parametrize("layers", sweep([24, 32], [24]))
def test_what_is_written_in_a_deep_tower_stays_apart(layers, result):
    """Counts over columns, bars and curves neither cover each other nor leave the picture."""
    torch.manual_seed(0)
    mask = Mask(torch.rand(layers, 16) < 0.7, torch.rand(layers, 4096) < 0.9)
    figure = draw(load_record(result), mask, deep_curves(mask))
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    (counts,) = figure.axes[0].child_axes
    rows = [counts.get_xticklabels(), figure.axes[1].texts, figure.axes[1].get_xticklabels()]
    attention, mlp = curve_panels(figure)
    rows.append([text for axes in (*attention, *mlp) for text in (*axes.texts, axes.title)])
    for texts in rows:
        boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
        assert len(boxes) >= layers
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:number])
            assert box.x0 >= figure.bbox.x0
            assert box.x1 <= figure.bbox.x1


def test_no_place_in_a_picture_has_more_digits_than_the_solver_repeats(result):
    figure = drawn(result)
    bounds = [part.bbox_relative.bounds for part in figure.subfigs]
    bounds += [axes.get_position().bounds for axes in figure.axes]
    assert len(figure.subfigs) > 1
    for edge in np.ravel(bounds):
        assert edge == pytest.approx(round(edge, 3), abs=1e-12)


def test_the_command_writes_beside_the_result_and_overwrites_only_when_told(
    result, capsys, complaint
):
    main(MaskOptions(result=result))
    picture = result / "mask.png"
    assert Image.open(picture).width == 1440
    assert {path.name for path in result.glob("mask.[ps]*g")} == FILES
    assert str(picture) in capsys.readouterr().out
    first = both(result, "mask")
    picture.write_bytes(b"mine")
    assert "--overwrite" in complaint(["--result", str(result)])
    assert picture.read_bytes() == b"mine"
    main(MaskOptions(result=result, overwrite=True))
    assert both(result, "mask") == first


def test_a_tower_cut_by_a_command_can_be_drawn(clip_directory, folder, tmp_path):
    output = tmp_path / "recover"
    flags = {
        "--model": clip_directory, "--corpus": "folder", "--corpus-dir": folder, "--samples": 8,
        "--repair-samples": 8, "--curve-samples": 4, "--mac-constraint": 0.6, "--output": output,
    }  # fmt: skip
    arguments = [str(word) for flag in flags.items() for word in flag]
    run_command(recover.main, recover.RecoverOptions, "compress.recover", arguments)
    main(MaskOptions(result=output))
    assert {path.name for path in output.iterdir()} >= FILES


def broken(name, change):
    """A way to spoil one JSON file of a result."""

    def spoil(directory):
        content = json.loads((directory / name).read_text())
        change(content)
        (directory / name).write_text(json.dumps(content))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda directory: (directory / "compression.json").unlink(), "no compression.json"),
        (lambda directory: (directory / "mask.safetensors").unlink(), "is not a mask"),
        (lambda directory: (directory / "curves.json").write_text("{"), "curves.json is not"),
        (broken("compression.json", lambda content: content.pop("rule")), "'rule'"),
        (broken("curves.json", lambda content: content.update(schema=2)), "schema 2"),
        (broken("curves.json", lambda content: content["curves"][0].update(layer=3)), "3 layers"),
        (broken("curves.json", lambda content: content["curves"][0].update(chosen=5)), "keeps 5"),
        (broken("curves.json", lambda content: content["curves"][0].update(kind="x")), "'x'"),
        (broken("curves.json", lambda content: content["curves"][0]["sizes"].pop()), "no curve"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line_and_nothing_is_written(
    spoil, said, result, tmp_path, complaint
):
    spoil(result)
    output = tmp_path / "pictures"
    assert said in complaint(["--result", str(result), "--output", str(output)])
    assert not output.exists()


def test_a_missing_directory_or_none_or_an_unwritable_one_is_refused(result, tmp_path, complaint):
    assert "no result" in complaint(["--result", str(tmp_path / "missing")])
    assert "--result" in complaint([])
    blocked = ["--result", str(result), "--output", str(result / "compression.json")]
    assert "cannot write" in complaint(blocked)
    assert not list(tmp_path.rglob("mask.[ps]*g"))
