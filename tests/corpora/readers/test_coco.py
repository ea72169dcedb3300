import pytest
from datasets import Image

from corpora import CorpusError, load_corpus


def annotations(ids, prefix=""):
    return {
        "images": [{"id": i, "file_name": f"{prefix}{i:012d}.jpg", "height": 4} for i in ids],
        "annotations": [
            {"id": 10 * i + n, "image_id": i, "caption": f"caption {n} of {i}\n"}
            for n in range(5)
            for i in ids
        ],
    }


def make(directory, paint, write, year="2017", prefixes=("", ""), parent=""):
    for part, ids, prefix in zip(("train", "val"), ((1, 2, 3), (4, 5)), prefixes, strict=True):
        content = annotations(ids, prefix)
        write(directory / f"annotations/captions_{part}{year}.json", content)
        for image in content["images"]:
            paint(directory / f"{parent}{part}{year}" / image["file_name"])
    return directory


@pytest.fixture
def coco(tmp_path, paint, write):
    return make(tmp_path, paint, write)


def test_each_split_has_the_publishers_images_with_all_their_captions(coco, quiet_load):
    train, _ = quiet_load("coco", coco, "train")
    validation, problems = quiet_load("coco", coco, "validation")
    assert train["key"][:] == ["000000000001", "000000000002", "000000000003"]
    assert validation["key"][:] == ["000000000004", "000000000005"]
    assert validation[0]["captions"] == [f"caption {n} of 4" for n in range(5)]
    assert validation[0]["image"].size == (6, 4)
    assert problems == []


def test_test_means_validation_since_test_captions_arent_published(coco):
    assert load_corpus("coco", coco, "test")["key"] == load_corpus("coco", coco)["key"]


def test_the_2014_layout_and_an_images_folder_are_read_too(tmp_path, paint, write):
    make(tmp_path, paint, write, "2014", ("COCO_train2014_", "COCO_val2014_"), "images/")
    corpus = load_corpus("coco", tmp_path, "validation")
    assert corpus["key"][:] == ["000000000004", "000000000005"]
    assert corpus[1]["image"].size == (6, 4)


def test_the_year_is_that_of_the_images_on_disk(tmp_path, paint, write):
    make(tmp_path, paint, write, "2014", ("COCO_train2014_", "COCO_val2014_"))
    for part in ("train", "val"):
        write(tmp_path / f"annotations/captions_{part}2017.json", annotations([7, 8]))
    assert len(load_corpus("coco", tmp_path, "train")) == 3


def test_of_two_years_with_images_2017_is_read(coco, paint, write):
    make(coco, paint, write, "2014", ("COCO_train2014_", "COCO_val2014_"))
    corpus = load_corpus("coco", coco).cast_column("image", Image(decode=False))
    assert "val2017" in corpus[0]["image"]["path"]


def test_unusable_annotations_are_reported_by_number_and_left_out(coco, write, quiet_load):
    content = annotations((4, 5))
    content["annotations"][1]["caption"] = "  "
    content["annotations"] += [{"image_id": 99, "caption": "whose?"}, "junk"]
    content["images"].append({"id": 6})
    write(coco / "annotations/captions_val2017.json", content)
    corpus, problems = quiet_load("coco", coco)
    assert [len(captions) for captions in corpus["captions"]] == [5, 4]
    assert [problem.split("json: ")[1][:13] for problem in problems] == [
        "image 2 has n",
        "annotation 1 ",
        "annotation 10",
        "annotation 11",
    ]


def test_an_image_missing_on_disk_is_counted_and_skipped(coco, quiet_load):
    (coco / "val2017/000000000004.jpg").unlink()
    corpus, problems = quiet_load("coco", coco)
    assert corpus["key"][:] == ["000000000005"]
    assert len(problems) == 1
    assert problems[0].startswith("1 of 2 images")


def test_images_of_the_other_split_arent_needed(coco):
    for image in (coco / "train2017").iterdir():
        image.unlink()
    assert len(load_corpus("coco", coco)) == 2
    with pytest.raises(CorpusError, match=r"looked in train2017/, images/train2017/"):
        load_corpus("coco", coco, "train")


def test_a_file_cut_short_is_named_with_its_line(coco, write):
    write(coco / "annotations/captions_val2017.json", '{"images": [\n{"id": 4, "fi')
    with pytest.raises(CorpusError, match=r"captions_val2017\.json:2: not JSON"):
        load_corpus("coco", coco)


def test_without_annotations_the_layout_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"annotations/captions_train2017\.json"):
        load_corpus("coco", tmp_path)


def test_karpathys_split_goes_before_the_publishers(coco, write, paint, quiet_load):
    paint(coco / "val2014/COCO_val2014_000000000009.jpg")
    sides = {1: "train", 4: "restval", 2: "val", 5: "test", 9: "test"}
    images = [
        {
            "filename": f"COCO_val2014_{i:012d}.jpg",
            "filepath": "val2014",
            "cocoid": i,
            "split": side,
            "sentences": [{"raw": f"text of {i}", "tokens": []}],
        }
        for i, side in sides.items()
    ]
    write(
        coco / "dataset_coco.json",
        {"images": [*images, {"split": "test"}, {"filename": "x"}], "dataset": "coco"},
    )
    found = {split: quiet_load("coco", coco, split) for split in ("train", "validation", "test")}
    keys = {split: [int(key) for key in corpus["key"]] for split, (corpus, _) in found.items()}
    assert keys == {"train": [1, 4], "validation": [2], "test": [5, 9]}
    test, problems = found["test"]
    assert test["captions"][:] == [["text of 5"], ["text of 9"]]
    assert all(row["image"].size == (6, 4) for row in test)  # 5 lies in val2017, 9 in val2014
    assert [problem.split("json: ")[1][:7] for problem in problems] == ["image 5", "image 6"]
