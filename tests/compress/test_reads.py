"""A first stage is calibrated on what it will read, against what the full tower reads in full."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from cascade import Stage
from compress import align, merge
from compress.choices import Checkpoints, Sampling
from compress.command import run_command
from compress.errors import UserError
from compress.making.source import Needs, Source, open_source
from corpora.decoding.simulating import usual_long_side, with_thumbnail
from corpora.pixels import pixel_values
from pruning_mechanism import read_record
from tests.conftest import tiny_clip, tiny_processor

FULL = Needs(full=True)


def source(model, folder, reads) -> Source:
    sampling = Sampling("folder", folder, samples=6, batch_size=4, reads=reads)
    return open_source(Checkpoints(str(model)), sampling, FULL)


def run(rule, model, folder, output, *flags) -> None:
    options = {align: align.AlignCommandOptions, merge: merge.MergeOptions}[rule]
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    given += ["--samples", 12, *flags]
    run_command(rule.main, options, rule.__name__, [str(each) for each in given])


@pytest.fixture
def photographs(folder, tmp_path) -> Path:
    """The folder's images with thumbnails of their own, larger than those that would be made."""
    root = tmp_path / "photographs"
    shutil.copytree(folder, root)
    for file in root.glob("*/*.png"):
        file.write_bytes(with_thumbnail(file.read_bytes(), 17))
    return root


def pixels(made: Source) -> torch.Tensor:
    return torch.cat([batch.pixels for batch in made.calibration.batches()])


def test_files_without_thumbnails_are_given_some_and_that_is_on_record(clip_directory, folder):
    full, thumbnail = (source(clip_directory, folder, reads) for reads in ("full", "thumbnail"))
    assert full.notes == ()
    assert thumbnail.notes == (
        "the calibration images have no thumbnails: each was given one of 11 pixels, a JPEG of "
        "quality 75",
    )
    assert usual_long_side(16) == 11
    contents = [
        with_thumbnail(image["bytes"] or Path(image["path"]).read_bytes(), 11)
        for image in thumbnail.calibration.files()
    ]
    stage = Stage(tiny_clip(), tiny_processor(), reads="thumbnail")
    assert torch.equal(pixels(thumbnail), stage.pixels(contents))
    assert stage.tally.counts == {"used": 6}
    assert not torch.equal(pixels(thumbnail), pixels(full))


def test_files_that_have_thumbnails_are_read_as_they_are(clip_directory, photographs):
    made = source(clip_directory, photographs, "thumbnail")
    assert made.notes == ()
    files = list(made.calibration.files())
    expected = pixel_values(made.processor, files, reads="thumbnail")
    assert torch.equal(pixels(made), expected)
    assert not torch.equal(expected, pixel_values(made.processor, files))


def test_the_full_tower_reads_in_full_whatever_the_first_stage_reads(clip_directory, folder):
    full, thumbnail = (source(clip_directory, folder, reads) for reads in ("full", "thumbnail"))
    assert torch.equal(full.full_embeddings(), thumbnail.full_embeddings())


def test_a_result_says_what_it_reads_and_what_is_made_of_it_does_so_too(
    clip_directory, folder, tmp_path, capsys
):
    run(merge, clip_directory, folder, tmp_path / "a", "--r", 2, "--reads", "thumbnail")
    assert read_record(tmp_path / "a").reads == "thumbnail"
    assert "each was given one of 11 pixels" in capsys.readouterr().out
    assert Stage.load(tmp_path / "a").reads == "thumbnail"
    run(align, tmp_path / "a", folder, tmp_path / "b", "--target", clip_directory)
    assert read_record(tmp_path / "b").reads == "thumbnail"
    run(
        align, tmp_path / "a", folder, tmp_path / "c", "--target", clip_directory, "--reads", "full"
    )
    assert read_record(tmp_path / "c").reads == "full"


def test_a_tower_may_be_kept_as_it_is_and_only_read_less(clip_directory, folder, tmp_path):
    run(align, clip_directory, folder, tmp_path / "a", "--align", "none", "--reads", "scaled")
    record = read_record(tmp_path / "a")
    assert (record.reads, record.chain) == ("scaled", ("align none",))
    before, after = Stage.load(clip_directory), Stage.load(tmp_path / "a", reads="full")
    assert after.name == before.name


def test_a_record_that_reads_what_nobody_knows_is_refused(clip_directory, folder, tmp_path):
    run(align, clip_directory, folder, tmp_path / "a", "--align", "none", "--reads", "scaled")
    file = tmp_path / "a" / "compression.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"reads": "half"}))
    with pytest.raises(UserError, match=r"can't be followed: .* got 'half'"):
        source(tmp_path / "a", folder, None)
