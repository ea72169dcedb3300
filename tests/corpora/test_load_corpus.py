import warnings
from collections import Counter
from pathlib import Path

import datasets
import pytest

import corpora
from corpora import CORPORA, CorpusError, CorpusWarning, drop_unreadable, load_corpus

FLICKR8K = Path(__file__).resolve().parents[3] / "shared/corpora/flickr8k"


@pytest.fixture
def garbage(tmp_path, write):
    """A corpus none of whose images is one."""
    for n in range(10):
        write(tmp_path / f"Images/{n}.jpg", f"garbage {n}")
    write(tmp_path / "Flickr8k.token.txt", "".join(f"{n}.jpg#0\ttext {n}\n" for n in range(10)))
    return tmp_path


def test_loading_opens_no_image(garbage):
    corpus = load_corpus("flickr8k", garbage, "train")
    assert len(corpus) == 8
    assert corpus["captions"][0] == [f"text {corpus['key'][0][0]}"]
    assert drop_unreadable(corpus)[1] == corpus["key"][:]


def test_columns_and_types_are_the_contract(garbage):
    assert load_corpus("flickr8k", garbage).features == datasets.Features(
        {
            "image": datasets.Image(),
            "captions": datasets.List(datasets.Value("string")),
            "key": datasets.Value("string"),
        }
    )


def test_paths_hold_after_the_working_directory_changes(garbage, monkeypatch, paint):
    for n in range(10):
        paint(garbage / f"Images/{n}.jpg")
    monkeypatch.chdir(garbage.parent)
    corpus = load_corpus("flickr8k", garbage.name)
    monkeypatch.chdir("/")
    assert corpus[0]["image"].size == (6, 4)


def test_validation_is_the_default_split(garbage):
    assert (
        load_corpus("flickr8k", garbage)["key"]
        == load_corpus("flickr8k", garbage, "validation")["key"]
    )


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(CorpusError, match="no corpus is called 'imagenet'") as error:
        load_corpus("imagenet", tmp_path)
    assert all(name in str(error.value) for name in CORPORA)


def test_an_unknown_split_lists_the_known_ones(garbage):
    with pytest.raises(CorpusError, match="'val'; choose one of train, validation, test"):
        load_corpus("flickr8k", garbage, "val")


@pytest.mark.parametrize("name", ["coco", "flickr30k", "flickr8k", "folder", "hub"])
def test_a_directory_that_isnt_there_is_named(name, tmp_path):
    with pytest.raises(CorpusError, match=r"nowhere: no such directory; .*expect"):
        load_corpus(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["coco", "flickr30k", "flickr8k", "folder"])
def test_a_directory_is_asked_for_with_its_layout(name):
    with pytest.raises(CorpusError, match=f"{name} needs a directory that holds .*(/|jsonl)"):
        load_corpus(name)


def test_scenes_take_no_directory_and_test_is_their_validation(tmp_path, monkeypatch):
    with pytest.raises(CorpusError, match="read no directory"):
        load_corpus("scenes", tmp_path)
    asked = []
    monkeypatch.setattr("corpora.loading.load_scenes", lambda split: asked.append(split))
    for split in (None, "train", "test"):
        load_corpus("scenes", split=split)
    assert asked == ["validation", "train", "validation"]


def test_problems_point_at_the_line_that_loads(garbage):
    with (garbage / "Flickr8k.token.txt").open("a") as file:
        file.write("broken\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_corpus("flickr8k", garbage)
    assert [w.filename for w in caught if w.category is CorpusWarning] == [__file__]


def test_every_corpus_is_in_the_table_of_layouts():
    assert all(f"| {name}" in corpora.__doc__ for name in CORPORA)


@pytest.mark.shared
@pytest.mark.skipif(not FLICKR8K.is_dir(), reason="the development data isn't here")
def test_the_development_photographs_are_all_there():
    train, validation = (load_corpus("folder", FLICKR8K, s) for s in ("train", "validation"))
    assert (len(train), len(validation)) == (5999, 1000)  # of 6,000 two are the same picture
    captions = Counter(len(texts) for part in (train, validation) for texts in part["captions"])
    assert captions == {5: 6998, 10: 1}
    names = [{Path(key).name for key in part["key"]} for part in (train, validation)]
    assert not names[0] & names[1]
    assert validation[0]["image"].size[0] >= 128
