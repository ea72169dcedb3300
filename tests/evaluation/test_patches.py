"""The record of patches says what towers do to images, and is read strictly."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from compress import flip, merge, rank, resolution
from compress.command import run_command
from evaluation.patches import PatchesOptions, as_seen, main
from evaluation.reports.patches import LEFT_OUT, Patches
from evaluation.reports.record import RecordError
from pruning_mechanism import load
from pruning_mechanism.groups import DROPPED, patch_groups
from tests.conftest import tiny_processor

COMMANDS = {
    "flip": (flip.main, flip.FlipOptions),
    "merge": (merge.main, merge.MergeOptions),
    "rank": (rank.main, rank.RankOptions),
    "resolution": (resolution.main, resolution.ResolutionCommandOptions),
}


@pytest.fixture(scope="module")
def stages(clip_directory, folder, tmp_path_factory):
    """Makes a first stage by a rule's command, without alignment."""
    root = tmp_path_factory.mktemp("stages")

    def make(name, output, *flags, model=clip_directory):
        if not (root / output).exists():
            given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder]
            given += ["--samples", 4, "--align", "none", "--output", root / output, *flags]
            run_command(*COMMANDS[name], f"compress.{name}", [str(each) for each in given])
        return root / output

    return make


def run(stages, folder, output, *flags):
    given = ["--stage", *stages, "--corpus", "folder", "--corpus-dir", folder]
    given += ["--images", 3, "--output", output, *flags]
    run_command(main, PatchesOptions, "evaluation.patches", [str(each) for each in given])
    return output


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err.strip().split("\n")[-1]


def pixels(directory, names):
    """The image files as the tower takes them."""
    images = [Image.open(directory / name) for name in names]
    return tiny_processor()(images=images, return_tensors="pt")["pixel_values"]


def test_the_record_numbers_patches_that_are_left_out_as_towers_do():
    assert LEFT_OUT == DROPPED


def test_the_record_holds_the_groups_of_the_images_beside_it(stages, folder, tmp_path):
    made = [stages("flip", "salient", "--keep", "saliency"), stages("merge", "merged", "--r", 2)]
    record = Patches.load(run(made, folder, tmp_path / "out"))
    assert (record.corpus, record.split, len(record.keys)) == ("folder", "validation", 3)
    for path, stage in zip(made, record.stages, strict=True):
        assert (stage.name, stage.rows, stage.columns) == (path.name, 4, 4)
        seen = pixels(tmp_path / "out", stage.images)
        assert stage.groups == tuple(map(tuple, patch_groups(load(path), seen).tolist()))
    assert all(sum(token >= 0 for token in each) == 8 for each in record.stages[0].groups)
    assert any(LEFT_OUT in groups for groups in record.stages[0].groups)
    assert all(set(each) == set(range(10)) for each in record.stages[1].groups)


def test_a_stage_is_called_by_all_that_was_done_to_it(stages, folder, tmp_path):
    salient = stages("flip", "salient", "--keep", "saliency")
    ranked = stages("rank", "ranked", "--keep", 0.5, "--ranker", "attention", model=salient)
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in stages("merge", "merged", "--r", 2).iterdir():
        if file.is_file() and file.name != "compression.json":
            (bare / file.name).write_bytes(file.read_bytes())
    record = Patches.load(run([salient, ranked, bare], folder, tmp_path / "out"))
    assert [stage.made_by for stage in record.stages] == [
        "flip mask 0.5 (saliency)",
        "flip mask 0.5 (saliency) → rank keep 0.5 (attention)",
        "bare",
    ]


def test_stages_that_see_the_same_images_share_their_files(stages, folder, tmp_path):
    merged, salient = stages("merge", "merged", "--r", 2), stages("flip", "grid", "--keep", "grid")
    small = stages("resolution", "small", "--resolution", 8)
    fewer = stages("merge", "small-merged", "--r", 1, model=small)
    record = Patches.load(run([merged, salient, fewer], folder, tmp_path / "out"))
    one, two, other = (stage.images for stage in record.stages)
    assert one == two
    assert not set(one) & set(other)
    sizes = {name: Image.open(tmp_path / "out" / name).size for name in (*one, *other)}
    assert set(sizes.values()) == {(16, 16), (8, 8)}
    assert len(list((tmp_path / "out").glob("*.png"))) == 6
    assert (record.stages[2].rows, record.stages[2].columns) == (2, 2)


def test_pictures_are_the_pixels_with_their_normalisation_undone():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    processor = tiny_processor()
    prepared = processor(images=[Image.fromarray(picture)], return_tensors="pt")["pixel_values"]
    assert np.array_equal(as_seen(prepared, processor)[0], picture)
    plain = processor.image_processor
    plain.do_normalize = False
    assert np.array_equal(
        as_seen(torch.tensor(picture / 255).permute(2, 0, 1)[None], plain)[0], picture
    )


def test_another_seed_draws_other_images_and_the_same_seed_the_same(stages, folder, tmp_path):
    made = [stages("flip", "grid", "--keep", "grid")]
    keys = [
        Patches.load(run(made, folder, tmp_path / f"out-{name}", "--seed", seed)).keys
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_stage_that_changes_no_token_is_refused(stages, clip_directory, folder, tmp_path, capsys):
    nothing = stages("merge", "nothing", "--r", 0)
    grid = stages("flip", "grid", "--keep", "grid")
    for path in (clip_directory, nothing):
        message = refused(capsys, [grid, path], folder, tmp_path / "out")
        assert f"--stage {path}: nothing to show" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--images", 0), "--images must be at least 1"),
        (("--stage",), "--stage needs at least one value"),
        (("--stage", "nowhere"), "--stage nowhere: no such directory"),
        (("--split", "odd"), "odd"),
    ],
)
def test_what_cannot_work_is_refused(stages, folder, tmp_path, capsys, flags, reason):
    made = [stages("flip", "grid", "--keep", "grid")]
    assert reason in refused(capsys, made, folder, tmp_path / "out", *flags)
    assert list(tmp_path.iterdir()) == []


def test_images_of_several_sizes_are_refused(stages, folder, tmp_path, capsys):
    flags = ("--choose-from", "8,16", "--mac-constraint", 0.6)
    path = stages("resolution", "several", *flags)
    message = refused(capsys, [path], folder, tmp_path / "out")
    assert message.startswith(f"error: --stage {path}")
    assert "one size" in message


def test_an_earlier_record_is_replaced_when_told_only(stages, folder, tmp_path, capsys):
    made = [stages("flip", "grid", "--keep", "grid")]
    run(made, folder, tmp_path / "out")
    assert "pass --overwrite" in refused(capsys, made, folder, tmp_path / "out")
    run(made, folder, tmp_path / "out", "--overwrite", "--images", 2)
    assert len(Patches.load(tmp_path / "out").keys) == 2
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda stage: stage.update(rows=5), "aren't of 20 patches"),
        (lambda stage: stage["groups"].pop(), "2 lists of groups"),
        (lambda stage: stage["groups"][0].__setitem__(0, -2), "aren't of 16 patches"),
        (lambda stage: stage["groups"][0].__setitem__(0, 0.5), "should be int"),
        (lambda stage: stage.pop("made_by"), "lacks made_by"),
        (lambda stage: stage.update(rows=0), "of 0 patches"),
    ],
)
def test_a_record_that_is_not_whole_is_not_read(stages, folder, tmp_path, change, reason):
    out = run([stages("flip", "grid", "--keep", "grid")], folder, tmp_path / "out")
    content = json.loads((out / "patches.json").read_text())
    change(content["stages"][0])
    (out / "patches.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match=reason):
        Patches.load(out)
