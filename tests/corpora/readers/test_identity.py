"""A picture is its file or its bytes: one row of a split, and never on both sides."""

import csv
import io
import json
import os

import datasets
import pytest
from datasets import Dataset, Features, Image, Value
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pictures

from corpora import load_corpus
from corpora.readers.identity import same_files, same_rows, united

SPLITS = ("train", "validation")


def png(colour) -> bytes:
    stream = io.BytesIO()
    Pictures.new("RGB", (6, 4), colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def contents():
    """Ten pictures, all of the same length."""
    return [png((10 + n, 20, 30)) for n in range(10)]


def pictures(corpus) -> list[bytes]:
    return [image.tobytes() for image in corpus["image"]]


def assert_grouped(sides, images, captions_each):
    """Every picture is on one side, in one row, with all of its captions."""
    seen = [set(pictures(side)) for side in sides]
    assert [len(side) for side in sides] == [len(found) for found in seen]
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == images
    assert {len(texts) for side in sides for texts in side["captions"]} == {captions_each}


def test_files_are_the_same_by_spelling_link_and_bytes(tmp_path, write, monkeypatch):
    a = write(tmp_path / "a", b"x" * 5000 + b"1" + b"x" * 5000)
    b = write(tmp_path / "b", a.read_bytes())
    c = write(tmp_path / "c", b"x" * 5000 + b"2" + b"x" * 5000)  # differs in the middle only
    os.link(c, tmp_path / "d")
    os.symlink(c, tmp_path / "e")
    empty = [write(tmp_path / name, b"") for name in ("f", "g")]
    monkeypatch.chdir(tmp_path)
    paths = [a, "a", "./a", "x/../a", b, c, tmp_path / "d", tmp_path / "e", *empty, "gone", "gone2"]
    identities = same_files(paths)
    groups = united(identities)
    assert groups == [[0, 1, 2, 3, 4], [5, 6, 7], [8], [9], [10], [11]]


def test_only_files_that_may_be_equal_are_read(tmp_path, write, monkeypatch):
    files = [write(tmp_path / str(n), bytes(n)) for n in range(1, 20)]
    monkeypatch.setattr("corpora.readers.identity.open_regular", None)
    assert len(set(same_files(files))) == 19


def test_rows_are_the_same_by_bytes_and_by_file(tmp_path, write):
    content = b"y" * 100
    file = write(tmp_path / "a", content)
    rows = [
        {"bytes": content, "path": "a"},
        {"bytes": content, "path": "b"},
        {"bytes": b"z" * 100, "path": "a"},
        {"bytes": None, "path": str(file)},
        {"bytes": None, "path": f"{tmp_path}/./a"},
        None,
        None,
        {"bytes": b"", "path": None},
    ]
    table = Dataset.from_dict({"image": rows}, features=Features({"image": Image(decode=False)}))
    own, other = same_rows([table.data.column("image")] * 2)
    assert own[:5] == other[:5]
    assert united(own) == [[0, 1], [2], [3, 4], [5], [6], [7]]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_united_is_the_closure_of_being_equal_in_any_column(rows):
    columns = list(zip(*rows, strict=True))
    groups = united(*columns)
    assert sorted(row for group in groups for row in group) == list(range(len(rows)))
    where = {row: number for number, group in enumerate(groups) for row in group}
    for one in range(len(rows)):
        for other in range(one):
            if any(column[one] == column[other] for column in columns):
                assert where[one] == where[other]
    assert len(groups) >= max(1, len(set(columns[0])) + len(set(columns[1])) - len(rows))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("copies", [False, True], ids=["one file", "a copy for each caption"])
def test_an_imagefolder_with_a_row_for_each_caption(form, copies, tmp_path, contents, write):
    rows = []
    for n, content in enumerate(contents):
        for k in range(3):
            name = f"{n}-{k}.png" if copies else f"{n}.png"
            write(tmp_path / "data" / name, content)
            rows.append({"file_name": name, "text": f"caption {k} of {n}"})
    target = tmp_path / "data" / f"metadata.{form}"
    if form == "csv":
        with target.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "text"])
            writer.writeheader()
            writer.writerows(rows)
    elif form == "jsonl":
        target.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        Dataset.from_list(rows).to_parquet(target)
    assert_grouped([load_corpus("hub", tmp_path / "data", s) for s in SPLITS], 10, 3)
    if form == "jsonl":
        sides = [load_corpus("folder", tmp_path / "data", s) for s in SPLITS]
        assert_grouped(sides, 10, 3)
        name = "{}-0.png" if copies else "{}.png"
        keys = sorted(key for side in sides for key in side["key"])
        assert keys == [name.format(n) for n in range(10)]


@pytest.mark.parametrize("names", [None, "bare", "the same"])
def test_parquet_with_a_row_for_each_caption(names, tmp_path, contents):
    path = {None: lambda n, k: None, "bare": lambda n, k: f"{n}-{k}.png"}.get(
        names, lambda n, k: "image.png"
    )
    images = [{"bytes": c, "path": path(n, k)} for n, c in enumerate(contents) for k in range(3)]
    texts = [f"caption {k} of {n}" for n in range(10) for k in range(3)]
    features = Features({"image": Image(), "text": Value("string")})
    columns = {"image": images, "text": texts}
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train.parquet")
    sides = [load_corpus("hub", tmp_path, s) for s in SPLITS]
    assert_grouped(sides, 10, 3)
    for side in sides:
        for texts in side["captions"]:
            assert len({text[-1] for text in texts}) == 1


def test_keys_of_a_data_set_with_a_row_for_each_image_stay_as_they_were(tmp_path, contents):
    for name, path, expected in (
        ("numbers", lambda n: None, [f"train/{n:07d}" for n in range(10)]),
        ("names", lambda n: f"{n}.png", [f"train/{n}.png" for n in range(10)]),
    ):
        images = [{"bytes": content, "path": path(n)} for n, content in enumerate(contents)]
        features = Features({"image": Image(), "text": Value("string")})
        columns = {"image": images, "text": ["x"] * 10}
        (tmp_path / name).mkdir()
        Dataset.from_dict(columns, features=features).to_parquet(tmp_path / name / "train.parquet")
        keys = [key for s in SPLITS for key in load_corpus("hub", tmp_path / name, s)["key"]]
        assert sorted(keys) == expected


def test_a_file_name_that_different_pictures_bear_names_none(tmp_path, contents):
    features = Features({"image": Image(), "text": Value("string"), "filename": Value("string")})
    columns = {
        "image": [{"bytes": content, "path": None} for content in contents],
        "text": [f"caption of {n}" for n in range(10)],
        "filename": ["image.png"] * 10,
    }
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train.parquet")
    assert_grouped([load_corpus("hub", tmp_path, s) for s in SPLITS], 10, 1)


def test_a_picture_in_train_and_in_a_held_out_split_is_held_out(
    tmp_path, contents, write, quiet_load
):
    for part, chosen in (("train", range(0, 6)), ("validation", range(4, 8)), ("test", [0, 9])):
        lines = []
        for n in chosen:
            write(tmp_path / part / f"{part}{n}.png", contents[n])
            lines.append(json.dumps({"file_name": f"{part}{n}.png", "text": f"{n}"}))
        write(tmp_path / part / "metadata.jsonl", "\n".join(lines))
    for corpus in ("folder", "hub"):
        train, said = quiet_load(corpus, tmp_path, "train")
        assert [texts for (texts,) in train["captions"]] == ["1", "2", "3"]
        assert [text for text in said if "held out in another split" in text and text[0] == "3"]
        validation, said = quiet_load(corpus, tmp_path, "validation")
        assert len(validation) == 4
        assert not said


def test_coco_and_flickr_know_copies_too(tmp_path, contents, write, quiet_load):
    for part, ids in (("train", (1, 2, 3)), ("val", (4, 5))):
        annotations = {
            "images": [{"id": i, "file_name": f"{i}.jpg"} for i in ids],
            "annotations": [{"image_id": i, "caption": f"text {i}"} for i in ids],
        }
        write(tmp_path / f"coco/annotations/captions_{part}2017.json", annotations)
        for i in ids:
            write(tmp_path / f"coco/{part}2017/{i}.jpg", contents[{2: 1, 5: 3}.get(i, i)])
    train, said = quiet_load("coco", tmp_path / "coco", "train")
    assert train["captions"][:] == [["text 1", "text 2"]]
    assert len(said) == 2
    names = [f"{n}{k}.jpg" for n in range(10) for k in "ab"]
    for name in names:
        write(tmp_path / "flickr/Images" / name, contents[int(name[0])])
    write(tmp_path / "flickr/captions.txt", "image,caption\n" + "".join(f"{n},x\n" for n in names))
    assert_grouped([quiet_load("flickr8k", tmp_path / "flickr", s)[0] for s in SPLITS], 10, 2)


def test_the_order_of_the_rows_decides_no_key(tmp_path, contents, write, quiet_load):
    found = []
    for name, order in (("one", 1), ("other", -1)):
        for n in range(20):
            write(tmp_path / name / f"{n}.png", contents[n // 2])
        rows = [json.dumps({"file_name": f"{n}.png", "text": "x"}) for n in range(20)][::order]
        write(tmp_path / name / "metadata.jsonl", "\n".join(rows))
        found.append(sorted(quiet_load("folder", tmp_path / name)[0]["key"]))
    assert found[0] == found[1]


def test_a_column_of_a_corpus_is_the_type_of_datasets(tmp_path, contents):
    features = Features({"image": Image(), "text": Value("string")})
    columns = {"image": [{"bytes": c, "path": None} for c in contents], "text": ["x"] * 10}
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train.parquet")
    corpus = load_corpus("hub", tmp_path, "train")
    assert corpus.features["image"] == Image() == corpus.features["image"]
    assert corpus.features["image"] != Image(decode=False)
    corpus.to_parquet(tmp_path / "again.parquet")
    again = datasets.load_dataset("parquet", data_files=str(tmp_path / "again.parquet"))["train"]
    assert again.features == corpus.features
