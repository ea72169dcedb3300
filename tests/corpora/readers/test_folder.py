import json

import pytest

from corpora import SPLITS, CorpusError, CorpusWarning, load_corpus


def fill(directory, paint, write, names, **fields):
    entries = [
        {"file_name": name, **(fields or {"captions": [f"one of {name}", f"two of {name}"]})}
        for name in names
    ]
    for name in names:
        paint(directory / name)
    write(directory / "metadata.jsonl", "\n".join(map(json.dumps, entries)) + "\n")
    return directory


@pytest.fixture
def split_folder(tmp_path, paint, write):
    fill(tmp_path / "train", paint, write, ["a.png", "b.png"])
    fill(tmp_path / "validation", paint, write, ["a.png"])
    return tmp_path


@pytest.fixture
def plain(tmp_path, paint, write):
    return fill(tmp_path, paint, write, [f"{n}.png" for n in range(10)])


def test_sub_directories_are_the_splits_and_keys_tell_them_apart(split_folder):
    assert load_corpus("folder", split_folder, "train")["key"][:] == ["train/a.png", "train/b.png"]
    validation = load_corpus("folder", split_folder)
    assert validation["key"][:] == ["validation/a.png"]
    assert validation["captions"][0] == ["one of a.png", "two of a.png"]
    assert validation[0]["image"].size == (6, 4)


def test_the_only_held_out_split_answers_to_both_names(split_folder):
    assert load_corpus("folder", split_folder, "test")["key"][:] == ["validation/a.png"]
    (split_folder / "validation").rename(split_folder / "test")
    assert load_corpus("folder", split_folder, "validation")["key"][:] == ["test/a.png"]


def test_three_splits_are_kept_apart(split_folder, paint, write):
    fill(split_folder / "test", paint, write, ["c.png"])
    assert load_corpus("folder", split_folder, "test")["key"][:] == ["test/c.png"]
    assert load_corpus("folder", split_folder, "validation")["key"][:] == ["validation/a.png"]


def test_a_split_that_isnt_there_is_never_carved_from_another(split_folder):
    (split_folder / "validation/metadata.jsonl").unlink()
    with pytest.raises(CorpusError, match=r"has no validation split \(found: train\)"):
        load_corpus("folder", split_folder)


def test_a_plain_folder_is_split_in_two_that_share_nothing(plain):
    train, validation = (load_corpus("folder", plain, s)["key"][:] for s in ("train", "validation"))
    assert sorted(train + validation) == [f"{n}.png" for n in range(10)]
    assert len(validation) == 2
    assert load_corpus("folder", plain, "validation")["key"][:] == validation


def test_one_metadata_file_over_split_folders_keeps_the_split(tmp_path, paint, write):
    fill(tmp_path, paint, write, ["train/1.png", "val/2.png", "train/3.png", "val/4.png"])
    assert load_corpus("folder", tmp_path, "train")["key"][:] == ["train/1.png", "train/3.png"]
    assert load_corpus("folder", tmp_path)["key"][:] == ["val/2.png", "val/4.png"]


@pytest.mark.parametrize("field", ["captions", "caption", "text"])
def test_a_single_text_will_do(field, tmp_path, paint, write):
    fill(tmp_path / "test", paint, write, ["1.png"], **{field: "ein Hund 🐕"})
    assert load_corpus("folder", tmp_path)["captions"][:] == [["ein Hund 🐕"]]


def test_lines_that_name_the_same_image_are_one_row(tmp_path, paint, write):
    fill(tmp_path / "test", paint, write, ["1.png", "1.png"], caption="a dog")
    corpus = load_corpus("folder", tmp_path)
    assert corpus["captions"][:] == [["a dog", "a dog"]]


def test_malformed_lines_are_reported_and_passed_over(split_folder, write, quiet_load):
    good = '{"file_name": "a.png", "captions": ["fine", ""]}'
    bad = ["{broken", '["a.png"]', '{"file_name": "a.png"}', '{"captions": ["x"]}']
    bad += ['{"file_name": "a.png", "captions": ["half \\ud83d"]}', '{"file_name": 3, "text": "x"}']
    file = write(split_folder / "validation/metadata.jsonl", "\ufeff" + "\r\n".join([good, *bad]))
    corpus, problems = quiet_load("folder", split_folder)
    assert corpus["captions"][:] == [["fine"]]
    assert [problem.split(": ")[0] for problem in problems] == [f"{file}:{n}" for n in range(1, 8)]


def test_after_ten_problems_there_is_only_a_count(split_folder, write, quiet_load):
    good = '{"file_name": "a.png", "captions": ["fine"]}\n'
    write(split_folder / "validation/metadata.jsonl", good + "bad\n" * 1234)
    _, problems = quiet_load("folder", split_folder)
    assert len(problems) == 11
    assert "1,224 more" in problems[-1]


def test_a_corpus_without_captions_is_one_clear_line(tmp_path, paint, write):
    fill(tmp_path, paint, write, ["1.png"], label=3)
    with pytest.warns(UserWarning, match="no caption"), pytest.raises(CorpusError) as error:
        load_corpus("folder", tmp_path)
    assert "no image with a caption" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_corpus_whose_images_are_all_gone_is_an_error_that_counts_them(plain):
    for image in plain.glob("*.png"):
        image.unlink()
    with (
        pytest.warns(CorpusWarning),
        pytest.raises(CorpusError, match="2 images that aren't on disk"),
    ):
        load_corpus("folder", plain)


def test_without_metadata_the_layout_is_named(tmp_path, write):
    with pytest.raises(CorpusError, match=r"no metadata\.jsonl; expected .*file_name and captions"):
        load_corpus("folder", tmp_path)
    write(tmp_path / "train/metadata.csv", "file_name,text\n")
    with pytest.raises(CorpusError, match=r"found metadata\.csv: the corpus `hub:"):
        load_corpus("folder", tmp_path)


def test_without_captions_images_that_lie_in_split_folders_are_enough(tmp_path, paint):
    for name in ("train/a.png", "train/deeper/b.JPG", "val/c.png", "train/notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no image")
        else:
            paint(tmp_path / name)
    corpus = load_corpus("folder", tmp_path, "train", captions=False)
    assert corpus["key"][:] == ["train/a.png", "train/deeper/b.JPG"]
    assert corpus["captions"][:] == [[], []]
    assert load_corpus("folder", tmp_path, captions=False)["key"][:] == ["val/c.png"]
    with pytest.raises(CorpusError, match=r"no metadata\.jsonl"):
        load_corpus("folder", tmp_path, "train")


def test_without_captions_a_tree_of_images_is_split_by_hash(tmp_path, paint):
    names = [f"{part}/{n}.png" for part in ("cats", "dogs") for n in range(10)]
    for name in names:
        paint(tmp_path / name)
    parts = [load_corpus("folder", tmp_path, s, captions=False)["key"][:] for s in SPLITS]
    assert sorted(parts[0] + parts[1]) == sorted(names)
    assert parts[1] == parts[2]
    assert len(parts[1]) == 4


def test_rows_without_captions_are_loaded_where_none_are_asked_for(
    tmp_path, paint, write, quiet_load
):
    entries = [{"file_name": f"{n}.png", "captions": ["one"] * (n % 2)} for n in range(40)]
    for entry in entries:
        paint(tmp_path / entry["file_name"])
    write(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, entries)))
    all_of = {s: quiet_load("folder", tmp_path, s, captions=False) for s in ("train", "test")}
    captioned = {s: quiet_load("folder", tmp_path, s) for s in ("train", "test")}
    assert sum(len(corpus) for corpus, _ in all_of.values()) == 40
    assert not any(warned for _, warned in all_of.values())
    for split, (corpus, warned) in captioned.items():
        expected = {row["key"]: row["captions"] for row in all_of[split][0] if row["captions"]}
        assert dict(zip(corpus["key"], corpus["captions"], strict=True)) == expected
        assert len(warned) == 11  # ten lines, and a count of the others


def test_a_folder_without_any_image_is_one_clear_line(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(CorpusError, match="no image is left in train"):
        load_corpus("folder", tmp_path, "train", captions=False)


def test_a_split_without_metadata_beside_one_with_it_is_loaded(split_folder, paint):
    paint(split_folder / "test" / "c.png")
    assert load_corpus("folder", split_folder, "test", captions=False)["key"][:] == ["test/c.png"]
    assert load_corpus("folder", split_folder, "test")["key"][:] == ["validation/a.png"]
