"""Labelled images: from class directories, metadata and data sets in the hub's layout."""

import json
import warnings
from pathlib import Path

import datasets
import pytest
from PIL import Image

from corpora import CorpusError, CorpusWarning, drop_unreadable
from corpora.labelled import Columns, fitted, load_labelled, read_class_names


def picture(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (shade, 90, 10)).save(path)
    return path


@pytest.fixture
def sorted_folder(tmp_path):
    """Class directories under train/ and val/."""
    for number, name in enumerate(["val/cat/a.png", "val/cat/b.png", "val/dog/deep/a.png"]):
        picture(tmp_path / name, 40 * number)
    picture(tmp_path / "train" / "cat" / "t.png")
    return tmp_path


def pairs(labelled) -> list[tuple[str, str]]:
    """Key and published class of each image."""
    images = labelled.images
    return [
        (key, labelled.published[label])
        for key, label in zip(images["key"], images["label"], strict=True)
    ]


def described(folder: Path, *labels: object, **beside: object) -> Path:
    """A folder with metadata: an image for each label."""
    lines = []
    for number, label in enumerate(labels):
        picture(folder / f"{number}.png", number)
        lines.append(json.dumps({"file_name": f"{number}.png", "label": label}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    for name, content in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def parquet(directory: Path, parts: dict[str, list], feature, **columns: str) -> Path:
    """A data set in the hub's layout, images embedded; columns may have other names."""
    image, label = columns.get("image", "image"), columns.get("label", "label")
    features = datasets.Features({image: datasets.Image(), label: feature})
    directory.mkdir(exist_ok=True)
    for part, labels in parts.items():
        content = [picture(directory.parent / "p.png", n).read_bytes() for n in range(len(labels))]
        rows = {image: [{"bytes": one, "path": None} for one in content], label: labels}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(
            directory / f"{part}-00000-of-00001.parquet"
        )
    return directory


# -- folders


def test_class_directories_are_the_labels_of_the_split_asked_for(sorted_folder):
    found = load_labelled("folder", sorted_folder)
    expected = [("val/cat/a.png", "cat"), ("val/cat/b.png", "cat"), ("val/dog/deep/a.png", "dog")]
    assert pairs(found) == expected
    assert pairs(load_labelled("folder", sorted_folder, "train")) == [("train/cat/t.png", "cat")]
    assert found.images[0]["image"].size == (8, 6)


def test_a_folder_without_splits_is_taken_whole_even_if_a_class_is_called_train(tmp_path):
    for name in ("train", "tram"):
        picture(tmp_path / name / "a.png")
    assert load_labelled("folder", tmp_path).published == ("train", "tram")


def test_pictures_that_come_twice_stay_twice(tmp_path):
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        picture(tmp_path / name, 7)
    assert len(load_labelled("folder", tmp_path).images) == 3


def test_images_in_no_class_are_left_out_and_said(sorted_folder):
    picture(sorted_folder / "val" / "loose.png")
    with pytest.warns(CorpusWarning, match=r"1 images in no class's directory .*loose\.png"):
        assert len(load_labelled("folder", sorted_folder).images) == 3


def test_metadata_gives_labels_and_classes_json_their_names(tmp_path):
    names = {"names": [["goldfish", "carp", "goldfish"], ["bullfrog"]]}
    described(tmp_path / "validation", 1, 0, 1)
    (tmp_path / "classes.json").write_text(json.dumps(names))
    found = load_labelled("folder", tmp_path)
    assert found.images["label"][:] == [1, 0, 1]
    assert (found.published, found.names) == (None, (("goldfish", "carp"), ("bullfrog",)))


def test_labels_may_be_names(tmp_path):
    found = load_labelled("folder", described(tmp_path / "d", "frog", "carp", "frog"))
    assert pairs(found) == [("0.png", "frog"), ("1.png", "carp"), ("2.png", "frog")]


def test_broken_images_are_named_and_lines_that_say_nothing_reported(tmp_path):
    folder = described(tmp_path / "d", 0, 1)
    (folder / "1.png").write_bytes(b"no picture")
    with (folder / "metadata.jsonl").open("a") as file:
        file.write('\n{"label": 1}\n{"file_name": "../out.png", "label": 1}\nnot JSON')
    with pytest.warns(CorpusWarning) as said:
        found = load_labelled("folder", folder)
    with pytest.warns(CorpusWarning, match=r"skipped an image: .*1\.png"):
        assert drop_unreadable(found.images)[1] == ["1.png"]
    told = " ".join(str(each.message) for each in said)
    assert "no file_name" in told
    assert "leads outside" in told
    assert "not JSON" in told


@pytest.mark.filterwarnings("ignore::corpora.CorpusWarning")
def test_what_has_no_labels_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="none of its 2 images has a label"):
        load_labelled("folder", described(tmp_path / "none", None, -1))
    with pytest.raises(CorpusError, match="no labelled images; expected a directory of images for"):
        load_labelled("folder", picture(tmp_path / "flat" / "a.png").parent)
    with pytest.raises(CorpusError, match="is no label; expected whole numbers from 0, or names"):
        load_labelled("folder", described(tmp_path / "mixed", 0, "cat"))
    with pytest.raises(CorpusError, match="no such directory"):
        load_labelled("folder", tmp_path / "nowhere")


@pytest.mark.shared
def test_the_development_photographs_have_200_classes(shared):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_labelled("folder", shared / "corpora" / "photos200")
    assert len(found.images) == 2500
    assert len(found.names) == 200
    assert {*found.images["label"]} <= set(range(200))
    assert found.names[0] == ("goldfish", "carassius auratus")


# -- the hub's layout


def test_a_hub_data_set_has_its_publishers_classes(tmp_path):
    feature = datasets.ClassLabel(names=["cat", "dog", "emu"])
    place = parquet(tmp_path / "d", {"train": [0, 1], "test": [2, 0, 0]}, feature)
    found = load_labelled("hub", place)
    assert [name for _, name in pairs(found)] == ["emu", "cat", "cat"]
    assert found.published == ("cat", "dog", "emu")
    assert found.images["key"][0] == "test/0000000"
    assert found.images[0]["image"].size == (8, 6)


@pytest.mark.parametrize("named", [True, False])
def test_columns_are_those_named_or_else_found(tmp_path, named):
    place = parquet(
        tmp_path / "d", {"test": [1, 0]}, datasets.Value("int64"), image="img", label="fine_label"
    )
    columns = Columns("img", "fine_label") if named else Columns("picture", "kind")
    found = load_labelled("hub", place, columns=columns)
    assert (found.images["label"][:], found.published) == ([1, 0], None)


def test_a_column_of_names_says_what_numbers_mean_in_every_split(tmp_path):
    rows = {"image": [None] * 3, "label": [0, 1, 2], "text": ["ak47", "bear", "cake"]}
    kinds = {"label": datasets.Value("int64"), "text": datasets.Value("string")}
    features = datasets.Features({"image": datasets.Image(), **kinds})
    content = {"bytes": picture(tmp_path / "p.png").read_bytes(), "path": None}
    rows["image"] = [content] * 3
    whole = datasets.Dataset.from_dict(rows, features=features)
    place = tmp_path / "d"
    place.mkdir()
    whole.to_parquet(place / "train-00000-of-00001.parquet")
    whole.select([2]).to_parquet(place / "test-00000-of-00001.parquet")
    found = load_labelled("hub", place, "test", Columns(name="text"))
    assert found.published == ("ak47", "bear", "cake")
    assert found.images["label"][:] == [2]


def test_images_without_a_label_are_left_out_and_said(tmp_path):
    place = parquet(tmp_path / "d", {"test": [0, -1, 1]}, datasets.Value("int64"))
    with pytest.warns(CorpusWarning, match="1 images have no label"):
        assert load_labelled("hub", place).images["label"][:] == [0, 1]


def test_a_single_split_is_taken_whole_and_said(tmp_path):
    place = parquet(tmp_path / "d", {"train": [0, 1]}, datasets.Value("int64"))
    with pytest.warns(CorpusWarning, match="no split but train: all of its images are taken"):
        assert len(load_labelled("hub", place).images) == 2


@pytest.mark.filterwarnings("ignore::corpora.CorpusWarning")
def test_a_hub_data_set_without_labels_is_refused(tmp_path):
    other = parquet(tmp_path / "a", {"test": ["x"]}, datasets.Value("string"), label="caption")
    with pytest.raises(CorpusError, match=r"no labels \(columns: image, caption\)"):
        load_labelled("hub", other)
    several = parquet(tmp_path / "b", {"test": [[0, 1]]}, datasets.List(datasets.Value("int64")))
    with pytest.raises(CorpusError, match="expected one class for each image"):
        load_labelled("hub", several)
    empty = parquet(tmp_path / "c", {"test": [-1, -1]}, datasets.Value("int64"))
    with pytest.raises(CorpusError, match="none of its 2 images has a label"):
        load_labelled("hub", empty)


# -- files of names


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("n.txt", "cat\n\n great white shark \n", (("cat",), ("great white shark",))),
        ("n.json", '["cat", ["dog", "hound"]]', (("cat",), ("dog", "hound"))),
        ("n.json", '{"names": [["cat"], ["dog"]]}', (("cat",), ("dog",))),
        ("n.json", '{"n01": "cat", "n02": ["dog", "hound"]}', {"n01": ("cat",), "n02": 2}),
    ],
)
def test_names_may_be_written_in_four_ways(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    found = read_class_names(tmp_path / name)
    if isinstance(expected, dict):
        expected["n02"] = ("dog", "hound")
    assert found == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "holds no class names"),
        ("3", "holds no class names"),
        ('["cat", ""]', "class 1 has no name"),
        ('["cat", []]', "class 1 has no name"),
        ('["cat", 3]', "class 1 has no name"),
    ],
)
def test_files_that_hold_no_names_are_refused(tmp_path, content, reason):
    (tmp_path / "n.json").write_text(content)
    with pytest.raises(CorpusError, match=reason):
        read_class_names(tmp_path / "n.json")
    with pytest.raises(CorpusError, match="can't be read"):
        read_class_names(tmp_path / "none.json")


def test_names_fit_the_classes_or_say_which_are_missing():
    by_name = {"b": ("bear",), "a": ("ape", "monkey"), "c": ("cow",)}
    assert fitted(by_name, ("a", "b"), "x") == (("ape", "monkey"), ("bear",))
    with pytest.raises(CorpusError, match=r"no name for 1 classes \(first: d\)"):
        fitted(by_name, ("a", "d"), "x")
    with pytest.raises(CorpusError, match="numbers alone"):
        fitted(by_name, None, "x")
    with pytest.raises(CorpusError, match=r"1 class names, but the data set has 2 classes"):
        fitted((("ape",),), ("a", "b"), "x")


def test_of_several_splits_only_the_one_asked_for_is_read(tmp_path):
    feature = datasets.ClassLabel(names=["cat", "dog"])
    place = parquet(tmp_path / "d", {"train": [0, 1], "test": [1, 0, 1]}, feature)
    (place / "train-00000-of-00001.parquet").write_bytes(b"a hundred gigabytes")
    found = load_labelled("hub", place)
    assert [name for _, name in pairs(found)] == ["dog", "cat", "dog"]
    with pytest.raises(CorpusError, match="can't be loaded"):
        load_labelled("hub", place, "train")


def test_a_data_set_without_the_split_asked_for_is_refused(tmp_path):
    place = parquet(tmp_path / "d", {"validation": [0], "test": [1]}, datasets.Value("int64"))
    with pytest.raises(CorpusError, match="has no train split"):
        load_labelled("hub", place, "train")
