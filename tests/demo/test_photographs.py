"""Photographs are written as a corpus, with the captions of the pictures they were made of."""

import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image

from compress.command import run_command
from corpora import load_corpus
from demo.photographs import PhotographsOptions, file_names, main

SMALL = ("--megapixels", "0.02", "--web-edge", "64", "--web", "0.3", "--preview", "0.3")


def make(*line: object) -> None:
    run_command(main, PhotographsOptions, "demo.photographs", [*map(str, line)])


def test_files_are_a_corpus_with_the_captions_of_their_pictures(folder, tmp_path, capsys):
    output = tmp_path / "photos"
    make("--corpus", "folder", "--corpus-dir", folder, "--output", output, "--noise", 0, *SMALL)
    pictures, photos = (load_corpus("folder", place, "validation") for place in (folder, output))
    assert photos["captions"] == pictures["captions"]
    assert [key.rpartition(".")[0] for key in photos["key"]] == [
        key.rpartition(".")[0] for key in pictures["key"]
    ]
    for picture, photo in zip(pictures["image"], photos["image"], strict=True):
        colour, other = (np.asarray(image).mean(axis=(0, 1)) for image in (picture, photo))
        assert np.abs(colour - other).max() < 4
    assert f"wrote {output}" in capsys.readouterr().out


def test_what_is_known_of_a_file_is_what_it_is(folder, tmp_path):
    output = tmp_path / "photos"
    make("--corpus", "folder", "--corpus-dir", folder, "--output", output, *SMALL)
    lines = (output / "validation" / "metadata.jsonl").read_text().splitlines()
    assert len(lines) == 14
    for line in lines:
        known = json.loads(line)
        opened = Image.open(io.BytesIO((output / "validation" / known["file_name"]).read_bytes()))
        assert opened.size == (known["width"], known["height"])
        assert opened.getexif().get(ExifTags.Base.Orientation, 1) == known["orientation"]
        assert bool(opened.getexif()) == known["camera"]
        assert bool(opened.getexif().get_ifd(ExifTags.IFD.IFD1)) == (known["thumbnail"] != "none")
        assert (opened.format == "MPO") == known["preview"]


def test_pictures_without_captions_do(tmp_path):
    pictures = tmp_path / "pictures"
    for name in ("a.png", "deeper/a.png"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 16), "red" if name == "a.png" else "blue").save(pictures / name)
    output = tmp_path / "photos"
    for split in ("train", "validation"):  # without folders of splits, a hash parts them
        make("--corpus", "folder", "--corpus-dir", pictures, "--split", split, *SMALL,
             "--output", output / split)  # fmt: skip
    found = [path.name for path in sorted(output.rglob("*.jpg"))]
    assert sorted(found) == ["a.jpg", "deeper-a.jpg"]
    again = load_corpus("folder", output / "train", "train", captions=False)
    assert again["captions"] == [[]]


def test_the_first_files_are_the_same_whatever_number_is_made(folder, tmp_path):
    for images in (2, 5):
        make("--corpus", "folder", "--corpus-dir", folder, "--images", images, *SMALL,
             "--output", tmp_path / str(images))  # fmt: skip
    few, more = (sorted((tmp_path / str(n)).rglob("*.jpg")) for n in (2, 5))
    assert [path.read_bytes() for path in few] == [path.read_bytes() for path in more[:2]]


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["train/1.jpg", "validation/2.png"], ["1.jpg", "2.jpg"]),
        (["a/1.jpg", "b/1.jpg"], ["a-1.jpg", "b-1.jpg"]),
        (["x.jpg", "X.png", "x-2.gif"], ["x.jpg", "X-2.jpg", "x-2-2.jpg"]),
        (["a:b?.jpg", "..", ".hidden"], ["a_b_.jpg", "photo.jpg", "hidden.jpg"]),
    ],
)
def test_names_are_their_own_and_safe(keys, names):
    assert file_names(keys) == names


@pytest.mark.parametrize(
    "line",
    [
        ("--without-thumbnail", "0.9", "--stale", "0.2"),
        ("--web", "1", "--stale", "0.2"),
        ("--web-edge", "100"),
        ("--corpus", "folder", "--corpus-dir", "nowhere"),
    ],
)
def test_what_cannot_be_made_is_said_in_a_line(line, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        make(*line, "--output", tmp_path / "photos")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "photos").exists()
