"""The contact sheet shows what a record says of patches, and no tower is needed for it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PatchCollection
from PIL import Image

from evaluation.command import run_command
from evaluation.reports.patches import Patches, StagePatches
from figures.patches import PatchesFigureOptions, SeenImage, SheetRow, draw, main
from figures.picture import save_picture
from tests.figures.conftest import both

PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
MERGED = np.array([[0, 0, 1, 2], [0, 0, 3, 2], [4, 5, 6, 7], [4, 8, 6, 0]])
MASKED = np.array([[0, -1, 1, -1], [-1, 2, -1, 3], [4, -1, 5, -1], [-1, 6, -1, 7]])


def row(title, groups, images=2):
    return SheetRow(title, (SeenImage(PICTURE, groups),) * images)


def patch(picture, row, column):
    return picture[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]


def test_merged_patches_take_their_tokens_mean_and_others_stay_as_they_are():
    painted = SeenImage(PICTURE, MERGED).painted()
    for token in range(9):
        members = np.argwhere(token == MERGED).tolist()
        before = np.concatenate([patch(PICTURE, *each).reshape(-1, 3) for each in members])
        after = np.concatenate([patch(painted, *each).reshape(-1, 3) for each in members])
        expected = before if len(members) == 1 else before.mean(0).round()
        assert (after == expected).all(), token


def test_what_is_left_out_is_no_token():
    image = SeenImage(PICTURE, MASKED)
    assert (image.painted() == PICTURE).all()
    assert image.sizes.tolist() == (MASKED >= 0).astype(int).tolist()
    assert sorted((y, x) for x, y in image.dropped()) == sorted(
        map(tuple, np.argwhere(MASKED == -1).tolist())
    )
    assert row("", MASKED).tokens == "16 patches → 8 tokens"
    assert row("", np.zeros((4, 4), int)).tokens == "16 patches → 1 token"


@given(st.lists(st.integers(-1, 3), min_size=12, max_size=12))
def test_borders_run_between_patches_of_different_tokens_and_nowhere_else(groups):
    groups = np.array(groups).reshape(3, 4)
    found = set(SeenImage(np.zeros((3, 4, 3), np.uint8), groups).borders())
    for y in range(3):
        for x in range(4):
            if x < 3:
                edge = ((x + 1, y), (x + 1, y + 1))
                assert (edge in found) == (groups[y, x] != groups[y, x + 1])
            if y < 2:
                edge = ((x, y + 1), (x + 1, y + 1))
                assert (edge in found) == (groups[y, x] != groups[y + 1, x])
    assert all(0 < max(a[0], b[0]) <= 4 and 0 < max(a[1], b[1]) <= 3 for a, b in found)


def test_a_row_a_stage_below_the_images_with_what_was_done_over_it():
    figure = draw([row("flip mask 0.5 (grid)", MASKED), row("merge r 2", MERGED)])
    plain, flip, merge = figure.axes
    assert [axes.get_title(loc="left") for axes in (flip, merge)] == [
        "flip mask 0.5 (grid)",
        "merge r 2",
    ]
    assert flip.get_title(loc="right") == "16 patches → 8 tokens"
    assert [len(axes.images) for axes in figure.axes] == [2, 2, 2]
    assert (plain.images[0].get_array() == PICTURE).all()
    assert (merge.images[1].get_array() == SeenImage(PICTURE, MERGED).painted()).all()
    assert not plain.collections


def test_left_out_patches_are_hatched_in_their_place_and_tokens_outlined():
    flip = draw([row("", MASKED)]).axes[1]
    (hatched,) = [each for each in flip.collections if isinstance(each, PatchCollection)]
    assert hatched.get_hatch()
    corners = {tuple(np.round(path.vertices.min(0), 6)) for path in hatched.get_paths()}
    places = SeenImage(PICTURE, MASKED).dropped()
    lefts = [image.get_extent()[0] for image in flip.images]
    assert corners == {(round(left + x, 6), float(y)) for left in lefts for x, y in places}
    outlines = [each for each in flip.collections if isinstance(each, LineCollection)]
    borders = len(SeenImage(PICTURE, MASKED).borders())
    assert {len(each.get_segments()) for each in outlines} == {2 * borders}


def meanings(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_the_legend_explains_what_is_there_and_no_more():
    assert meanings(draw([row("", MASKED)])) == ["left out"]
    (only,) = meanings(draw([row("", MERGED)]))
    assert "merged" in only
    assert len(meanings(draw([row("", MASKED), row("", MERGED)]))) == 2


def test_long_titles_break_between_steps():
    title = "recover MAC 0.3 → flip mask 0.5 (saliency) → merge r 4 → exit layer 8"
    lines = row(title, MASKED).lines
    assert len(lines) > 1
    assert " ".join(lines) == title
    assert all(step in "|".join(lines) for step in title.split(" → "))


@pytest.mark.parametrize("images", [1, 3, 8])
@pytest.mark.parametrize("steps", [1, 4])
def test_nothing_written_overlaps_anything_or_is_cut_off(images, steps):
    title = " → ".join(["flip mask 0.5 (saliency)"] * steps)
    figure = draw([row(title, MASKED, images), row(title, MERGED, images)])
    renderer = figure.canvas.get_renderer()
    panels = [axes.get_window_extent(renderer) for axes in figure.axes]
    titles = [
        text.get_window_extent(renderer)
        for axes in figure.axes
        for text in (axes._left_title, axes._right_title)
        if text.get_text()
    ]
    boxes = [*panels, *titles, *(each.get_window_extent(renderer) for each in figure.legends)]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


@pytest.fixture
def record(tmp_path):
    """A record of one image, as `evaluation.patches` writes it."""
    directory = tmp_path / "patches"
    directory.mkdir()
    Image.fromarray(PICTURE).save(directory / "image-0.png")
    stages = tuple(
        StagePatches(name, name, 4, 4, ("image-0.png",), (tuple(groups.ravel().tolist()),))
        for name, groups in (("flip mask 0.5 (grid)", MASKED), ("merge r 2", MERGED))
    )
    made = Patches("made up", "scenes", "validation", 0, ("0",), stages)
    made.save(directory)
    return directory


def test_the_same_rows_are_the_same_file(record, tmp_path):
    main(PatchesFigureOptions(record=record, output=tmp_path))
    rows = [row("flip mask 0.5 (grid)", MASKED, 1), row("merge r 2", MERGED, 1)]
    save_picture(draw(rows), tmp_path, "drawn")
    assert both(tmp_path, "drawn")[0] == both(tmp_path, "patches")[0]


def complaint(arguments, capsys):
    """What the command says on stderr when it refuses."""
    with pytest.raises(SystemExit) as ending:
        run_command(main, PatchesFigureOptions, "figures.patches", list(map(str, arguments)))
    assert ending.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_the_command_writes_beside_the_record_and_overwrites_only_when_told(record, capsys):
    main(PatchesFigureOptions(record=record))
    assert Image.open(record / "patches.png").width > 1000
    first = both(record, "patches")
    assert "--overwrite" in complaint(["--record", record], capsys)
    main(PatchesFigureOptions(record=record, overwrite=True))
    assert both(record, "patches") == first


def test_bad_input_is_one_line_and_leaves_nothing(record, tmp_path, capsys):
    assert "python -m evaluation.patches" in complaint(["--record", tmp_path / "no"], capsys)
    whole = Patches.load(record)
    dataclasses.replace(whole, stages=()).save(record)
    assert "no first stage" in complaint(["--record", record], capsys)
    whole.save(record)
    Image.fromarray(PICTURE[:13]).save(record / "image-0.png")
    assert "can't be cut into 4 x 4 patches" in complaint(["--record", record], capsys)
    (record / "image-0.png").write_bytes(b"no image")
    assert "can't be read as an image" in complaint(["--record", record], capsys)
    (record / "image-0.png").unlink()
    assert "can't be read as an image" in complaint(["--record", record], capsys)
    (record / "patches.json").write_text("{}")
    assert "not a record of patches" in complaint(["--record", record], capsys)
    assert not list(tmp_path.rglob("patches.png"))
