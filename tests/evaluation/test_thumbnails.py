"""Stages that read thumbnails are measured on files that have some; which do is counted."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cascade import Stage
from compress import align
from compress.calibrating.calibration import Calibration
from compress.command import run_command
from corpora import load_corpus
from corpora.decoding.simulating import as_thumbnail, exif_block, with_thumbnail
from evaluation.cascade import CascadeOptions
from evaluation.cascade import main as cascade
from evaluation.experiment.giving import Giving
from evaluation.experiment.search import embeddings_of
from evaluation.reports import table
from evaluation.reports.report import Report
from evaluation.thumbnails import SAYS, ThumbnailsOptions, main
from tests.conftest import tiny_clip, tiny_processor


@pytest.fixture(scope="module")
def reading(clip_directory, folder, tmp_path_factory):
    """The tower itself, but reading thumbnails, in front of it: the experiment's report."""
    root = tmp_path_factory.mktemp("reading")
    given = ["--model", clip_directory, "--corpus", "folder", "--corpus-dir", folder]
    as_it_is = ["--align", "none", "--reads", "thumbnail", "--samples", 4]
    run_command(
        align.main,
        align.AlignCommandOptions,
        "compress.align",
        [str(each) for each in (*given, *as_it_is, "--output", root / "stage")],
    )
    measured = ["--stage", root / "stage", "--m", 10, "--repetitions", 1, "--batch-size", 4]
    run_command(
        cascade,
        CascadeOptions,
        "evaluation.cascade",
        [str(each) for each in (*given, *measured, "--output", root / "out")],
    )
    return Report.load(root / "out" / "report.json")


def test_a_report_says_what_its_stages_read_and_what_files_were_given(reading):
    (row,) = reading.rows
    assert (row.reads, row.thumbnails_given) == ("thumbnail", 11)
    assert (reading.reference.reads, reading.reference.thumbnails_given) == ("full", None)
    assert row.one_minus_cosine > 1e-3  # it wasn't measured on what the full tower reads
    shown = table.markdown(reading)
    assert "| method | constraint | reads |" in shown
    assert "| thumbnail (given) → full |" in shown
    assert "files have no thumbnails and were given some, 11 pixels long" in str(
        table.terminal(reading).caption
    )


def test_files_that_have_thumbnails_are_given_none(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "own")
    for file in (tmp_path / "own").glob("*/*.png"):
        file.write_bytes(with_thumbnail(file.read_bytes(), 11))
    stage = Stage(tiny_clip(), tiny_processor(), reads="thumbnail")
    plain, own = (load_corpus("folder", root, "train") for root in (folder, tmp_path / "own"))
    assert Giving.to(stage, plain).long_side == 11
    assert Giving.to(stage, own).long_side is None
    assert np.array_equal(
        embeddings_of(stage, plain, "given"), embeddings_of(stage, own, "their own")
    )
    assert Giving.to(Stage(tiny_clip(), tiny_processor()), plain).long_side is None


def photograph(seed: int) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(stream, "JPEG")
    return stream.getvalue()


def with_other(content: bytes, thumbnail: bytes) -> bytes:
    block = b"Exif\0\0" + exif_block(thumbnail)
    return content[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + content[2:]


def test_what_thumbnails_files_have_is_counted_and_timed(tmp_path, capsys):
    plain, other = (photograph(seed) for seed in (0, 1))
    with Image.open(io.BytesIO(other)) as image:
        stale, cropped = as_thumbnail(image, 160), as_thumbnail(image.crop((0, 0, 480, 480)), 160)
    files = {
        "used": with_thumbnail(plain, 160),
        "absent": plain,
        "too small": with_thumbnail(plain, 80),
        "other shape": with_other(plain, cropped),
        "broken": with_other(plain, stale[:-200]),
        "stale": with_other(plain, stale),
        "unreadable": plain[:3000],
    }
    assert files.keys() == SAYS.keys()
    (tmp_path / "train").mkdir()
    for number, content in enumerate(files.values()):
        (tmp_path / "train" / f"{number}.jpg").write_bytes(content)
    given = ["--corpus", "folder", "--corpus-dir", str(tmp_path), "--split", "train"]
    given += ["--repetitions", "1"]
    run_command(main, ThumbnailsOptions, "evaluation.thumbnails", [*given, "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["outcomes"] == dict.fromkeys(SAYS, 1)
    assert found["files"] == 7
    assert found["seconds"].keys() == {"full", "scaled", "thumbnail"}
    run_command(main, ThumbnailsOptions, "evaluation.thumbnails", given)
    shown = capsys.readouterr().out
    assert SAYS["stale"] in shown
    assert "14.3%" in shown


def test_a_stage_of_smaller_images_meets_the_thumbnails_of_its_full_tower(folder):
    full = Stage(tiny_clip(), tiny_processor())
    small = Stage(tiny_clip(image_size=8, patch_size=2), tiny_processor(8), reads="thumbnail")
    corpus = load_corpus("folder", folder, "train")
    assert Giving.to(small, corpus).long_side == 6
    assert Giving.to(small, corpus, full).long_side == 11
    sample = Calibration.draw(corpus, 2, 0, small.preparation.processor)
    assert sample.reading("thumbnail").long_side == 6
    assert sample.reading("thumbnail", full.preparation.processor).long_side == 11
