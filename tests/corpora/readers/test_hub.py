import datasets
import pytest
from datasets import Dataset, Features, Image, List, Value

from corpora import CorpusError, load_corpus

CAPTIONED = Features(
    {"image": Image(), "caption": List(Value("string")), "filename": Value("string")}
)


@pytest.fixture
def pictures(tmp_path_factory, paint):
    """Ten images embedded as push_to_hub embeds them: the bytes and a bare file name."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [paint(folder / f"{n}.png", (9 * n, 0, 0)) for n in range(10)]
    return [{"bytes": path.read_bytes(), "path": path.name} for path in paths]


def rows(pictures, **more):
    return {
        "image": pictures,
        "caption": [[f"one of {n}", f"two of {n}"] for n in range(len(pictures))],
        "filename": [f"{n}.png" for n in range(len(pictures))],
        **more,
    }


def parquet(directory, part, columns, features=None):
    (directory / "data").mkdir(parents=True, exist_ok=True)
    features = features or CAPTIONED
    path = directory / f"data/{part}-00000-of-00001.parquet"
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    return directory


def test_parquet_files_with_embedded_images_are_read_with_the_publishers_splits(tmp_path, pictures):
    parquet(tmp_path, "train", rows(pictures[:6]))
    parquet(tmp_path, "validation", rows(pictures[6:8]))
    parquet(tmp_path, "test", rows(pictures[8:]))
    sizes = [len(load_corpus("hub", tmp_path, s)) for s in ("train", "validation", "test")]
    assert sizes == [6, 2, 2]
    corpus = load_corpus(f"hub:{tmp_path}", split="test")
    assert corpus.column_names == ["image", "captions", "key"]
    assert corpus["key"][:] == ["test/0.png", "test/1.png"]
    assert corpus["captions"][1] == ["one of 1", "two of 1"]
    assert corpus[1]["image"].getpixel((0, 0)) == (81, 0, 0)
    assert corpus.cast_column("image", Image(decode=False))[0]["image"]["bytes"][:4] == b"\x89PNG"


def test_restval_is_train_and_val_is_validation(tmp_path, pictures):
    for part, chosen in (
        ("train", pictures[:3]),
        ("restval", pictures[3:5]),
        ("val", pictures[5:]),
    ):
        parquet(tmp_path, part, rows(chosen))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + "".join(
            f"  - split: {part}\n    path: data/{part}-*\n" for part in ("train", "restval", "val")
        )
        + "---\n"
    )
    train = load_corpus("hub", tmp_path, "train")
    assert train["key"][:] == [
        *(f"train/{n}.png" for n in range(3)),
        "restval/0.png",
        "restval/1.png",
    ]
    assert len(load_corpus("hub", tmp_path)) == 5


def test_a_part_of_no_known_name_is_not_taken_for_train(tmp_path, pictures):
    for part, chosen in (("first", pictures[:6]), ("val", pictures[6:])):
        parquet(tmp_path, part, rows(chosen))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + "".join(f"  - split: {part}\n    path: data/{part}-*\n" for part in ("first", "val"))
        + "---\n"
    )
    assert len(load_corpus("hub", tmp_path, "validation")) == 4
    with pytest.raises(CorpusError, match=r"has no train split \(found: validation\)"):
        load_corpus("hub", tmp_path, "train")


def test_a_single_part_with_a_split_column_is_split_by_it(tmp_path, pictures):
    sides = ["train"] * 6 + ["val"] + ["test"] * 3
    features = Features({**CAPTIONED, "split": Value("string")})
    parquet(tmp_path, "test", rows(pictures, split=sides), features)
    sizes = [len(load_corpus("hub", tmp_path, s)) for s in ("train", "validation", "test")]
    assert sizes == [6, 1, 3]


def test_a_data_set_of_nothing_but_train_is_split_in_two(tmp_path, pictures):
    parquet(tmp_path, "train", rows(pictures))
    train, validation = (load_corpus("hub", tmp_path, s)["key"][:] for s in ("train", "validation"))
    assert sorted(train + validation) == [f"train/{n}.png" for n in range(10)]
    assert len(validation) == 2


def test_a_data_set_of_nothing_but_test_has_no_train(tmp_path, pictures):
    parquet(tmp_path, "test", rows(pictures))
    assert len(load_corpus("hub", tmp_path, "validation")) == 10
    with pytest.raises(CorpusError, match="has no train split"):
        load_corpus("hub", tmp_path, "train")


def test_one_row_for_each_caption_becomes_one_row_for_each_image(tmp_path, pictures):
    features = Features({"jpg": Image(), "text": Value("string"), "image_id": Value("int64")})
    columns = {
        "jpg": [pictures[0], pictures[1], pictures[0]],
        "text": ["a dog", "a cat", "a red dog"],
        "image_id": [7, 8, 7],
    }
    parquet(tmp_path, "test", columns, features)
    corpus = load_corpus("hub", tmp_path)
    assert corpus["key"][:] == ["test/7", "test/8"]
    assert corpus["captions"][:] == [["a dog", "a red dog"], ["a cat"]]


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        (Value("string"), "a dog"),
        (List(Value("string")), ["a dog"]),
        (List({"raw": Value("string"), "sentid": Value("int64")}), [{"raw": "a dog", "sentid": 1}]),
        ({"raw": List(Value("string"))}, {"raw": ["a dog"]}),
    ],
)
def test_captions_are_found_however_they_are_wrapped(feature, value, tmp_path, pictures):
    features = Features({"image": Image(), "sentences": feature})
    parquet(tmp_path, "test", {"image": pictures[:1], "sentences": [value]}, features)
    assert load_corpus("hub", tmp_path)["captions"][:] == [["a dog"]]


def test_numbered_caption_columns_are_put_together(tmp_path, pictures):
    features = Features({"image": Image(), **{f"caption_{n}": Value("string") for n in range(3)}})
    columns = {"image": pictures[:1], **{f"caption_{n}": [f"text {n}"] for n in range(3)}}
    parquet(tmp_path, "test", columns, features)
    assert load_corpus("hub", tmp_path)["captions"][:] == [["text 0", "text 1", "text 2"]]


def test_an_imagefolder_is_read_and_its_broken_image_isnt_opened(tmp_path, paint, write):
    for part in ("train", "validation"):
        paint(tmp_path / part / "a.png")
        write(tmp_path / part / "b.png", b"garbage")
        write(tmp_path / part / "metadata.csv", f"file_name,text\na.png,{part} dog\nb.png,x\n")
    corpus = load_corpus("hub", tmp_path, "validation")
    assert corpus["key"][:] == ["validation/a.png", "validation/b.png"]
    assert corpus["captions"][:] == [["validation dog"], ["x"]]


def test_a_row_without_a_caption_is_reported_and_left_out(tmp_path, pictures, quiet_load):
    columns = rows(pictures[:3])
    columns["caption"][1] = [" "]
    parquet(tmp_path, "test", columns)
    corpus, problems = quiet_load("hub", tmp_path)
    assert corpus["key"][:] == ["test/0.png", "test/2.png"]
    assert len(problems) == 1
    assert f"{tmp_path} (test):1: no caption" in problems[0]


def test_a_data_set_without_images_or_captions_lists_its_columns(tmp_path, pictures):
    features = Features({"url": Value("string"), "caption": Value("string")})
    parquet(tmp_path / "a", "test", {"url": ["http://x"], "caption": ["a dog"]}, features)
    with pytest.raises(CorpusError, match=r"no column holds images \(columns: url, caption\)"):
        load_corpus("hub", tmp_path / "a")
    features = Features({"image": Image(), "label": Value("int64")})
    parquet(tmp_path / "b", "test", {"image": pictures[:1], "label": [3]}, features)
    with pytest.raises(CorpusError, match=r"no captions \(columns: image, label\)"):
        load_corpus("hub", tmp_path / "b")


def test_a_name_that_cant_be_loaded_is_one_clear_line():
    with pytest.raises(CorpusError, match="nobody/nothing: can't be loaded") as error:
        load_corpus("hub:nobody/nothing")
    assert "\n" not in str(error.value)
    with pytest.raises(CorpusError, match="hub needs a name"):
        load_corpus("hub")


@pytest.mark.parametrize("name", ["hub:owner/name@small", "owner/name@small"])
def test_a_data_set_that_ships_a_script_is_read_from_the_hubs_parquet_copy(
    name, monkeypatch, pictures
):
    asked = []

    def load_dataset(name, config, revision=None):
        asked.append((name, config, revision))
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found name.py")
        return datasets.DatasetDict(test=Dataset.from_dict(rows(pictures), features=CAPTIONED))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load_corpus(name)) == 10
    assert asked == [
        ("owner/name", "small", None),
        ("owner/name", "small", "refs/convert/parquet"),
    ]


def test_nothing_is_printed(tmp_path, pictures, capfd):
    parquet(tmp_path, "test", rows(pictures))
    datasets.enable_progress_bars()
    try:
        load_corpus("hub", tmp_path)
        assert not datasets.are_progress_bars_disabled()
    finally:
        datasets.disable_progress_bars()
    assert capfd.readouterr() == ("", "")


def test_without_captions_a_data_set_of_images_is_enough(tmp_path, pictures, quiet_load):
    features = Features({"image": Image()})
    parquet(tmp_path, "train", {"image": pictures[:8]}, features)
    parquet(tmp_path, "test", {"image": pictures[8:]}, features)
    corpus, warned = quiet_load("hub", tmp_path, "train", captions=False)
    assert corpus["captions"][:] == [[]] * 8
    assert corpus["key"][3] == "train/3.png"
    assert not warned
    with pytest.raises(CorpusError, match="no captions"):
        load_corpus("hub", tmp_path, "train")


def test_without_captions_each_image_still_comes_once(tmp_path, pictures):
    columns = {
        "image": [pictures[n // 2] for n in range(8)],
        "caption": [[], ["a"], ["b"], ["c"], [], [], [], ["d"]],
        "filename": [f"{n // 2}.png" for n in range(8)],
    }
    parquet(tmp_path, "train", columns)
    parquet(tmp_path, "test", rows(pictures[9:]))
    corpus = load_corpus("hub", tmp_path, "train", captions=False)
    assert corpus["key"][:] == [f"train/{n}.png" for n in range(4)]
    assert corpus["captions"][:] == [["a"], ["b", "c"], [], ["d"]]
