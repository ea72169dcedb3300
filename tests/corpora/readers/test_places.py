"""Photographs at the places that a person names."""

import pytest
from PIL import Image

from corpora import CorpusError
from corpora.readers.places import sample_of


@pytest.fixture
def photos(tmp_path):
    """Three photographs, one of them in a folder below, and what is none."""
    (tmp_path / "below").mkdir()
    for name in ("a.jpg", "b.JPG", "below/c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no photograph")
    (tmp_path / "empty.jpg").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["."], ["a.jpg", "b.JPG", "below/c.png"]),
        (["below"], ["below/c.png"]),
        (["a.jpg", "a.jpg", "*.jpg"], ["a.jpg"]),
        (["**/*.png"], ["below/c.png"]),
        (["notes.txt"], ["notes.txt"]),  # what is named is taken; opening it says what it is
    ],
)
def test_places_are_directories_files_and_patterns(photos, monkeypatch, names, found):
    monkeypatch.chdir(photos)
    sample = sample_of(names, 10, 0)
    assert sample.files == tuple(str(photos / name) for name in found)
    assert sample.among == len(found)


def test_a_sample_is_drawn_by_its_seed_whatever_the_order_of_the_names(photos):
    drawn = [sample_of([str(photos)], 2, seed) for seed in range(8)]
    assert {sample.among for sample in drawn} == {3}
    assert {len(set(sample.files)) for sample in drawn} == {2}
    assert len({sample.files for sample in drawn}) > 1
    names = [str(photos / "below"), str(photos)]
    assert sample_of(names, 2, 0) == sample_of(names[::-1], 2, 0) == drawn[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "nowhere: there is no such file or directory"),
        ("nowhere/*.jpg", "there is no directory"),
        ("*.webp", "no photographs there"),
    ],
)
def test_names_that_lead_to_nothing_are_refused(photos, monkeypatch, name, said):
    monkeypatch.chdir(photos)
    with pytest.raises(CorpusError, match=said.replace("*", r"\*")):
        sample_of([name], 10, 0)
