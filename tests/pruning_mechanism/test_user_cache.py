"""What this user's cache holds is whole, and what can't be kept leaves nothing behind."""

import pytest

from pruning_mechanism.user_cache import cache_file, keep, kept_directory


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "clip-cascade"


def test_a_directory_is_written_once():
    made = kept_directory("one", lambda place: (place / "a").write_text("first"))
    again = kept_directory("one", lambda place: (place / "a").write_text("second"))
    assert made == again == cache_file("one")
    assert (again / "a").read_text() == "first"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_directory_is_there_whole_or_not_at_all(error, cache):
    def broken(place):
        (place / "a").write_text("half")
        raise error

    with pytest.raises(error):
        kept_directory("one", broken)
    assert not list(cache.iterdir())


def test_another_process_may_be_faster(cache):
    def overtaken(place):
        (place / "a").write_text("slower")
        cache_file("one").mkdir()
        (cache_file("one") / "a").write_text("faster")

    assert (kept_directory("one", overtaken) / "a").read_text() == "faster"
    assert [place.name for place in cache.iterdir()] == ["one"]


def test_a_file_is_replaced_and_where_nothing_can_be_kept_nothing_is_said(cache):
    for text in ("first", "second"):
        keep("file", lambda place, text=text: place.write_text(text))
    assert cache_file("file").read_text() == "second"
    cache_file("other").write_text("no directory")
    keep("other/file", lambda place: place.write_text("lost"))
    with pytest.raises(OSError, match="other"):
        kept_directory("other/directory", lambda place: None)
