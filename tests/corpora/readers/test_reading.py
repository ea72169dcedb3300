import pytest

from corpora.problems import CorpusError, Problems
from corpora.readers.reading import json_object, lines


def test_lines_are_numbered_as_an_editor_does_and_stripped_of_their_ends(write, tmp_path):
    content = "\ufeffone\r\n\r\n  \nthree\vand\u2028a half\rstill three\nfour".encode()
    problems = Problems()
    read = list(lines(write(tmp_path / "x.txt", content), problems))
    assert read == [(1, "one"), (4, "three\vand\u2028a half\rstill three"), (5, "four")]
    assert problems.lines == []


def test_a_line_that_isnt_utf8_is_reported_and_the_next_one_read(write, tmp_path):
    problems = Problems()
    file = write(tmp_path / "x.txt", "é\n".encode("latin-1") + "é".encode())
    assert list(lines(file, problems)) == [(2, "é")]
    assert problems.lines == [f"{file}:1: not UTF-8 text"]


def test_json_may_begin_with_a_byte_order_mark_but_must_be_an_object(write, tmp_path):
    assert json_object(write(tmp_path / "a.json", '\ufeff{"a": 1}')) == {"a": 1}
    with pytest.raises(CorpusError, match=r"b\.json: holds a JSON list"):
        json_object(write(tmp_path / "b.json", []))
    with pytest.raises(CorpusError, match=r"c\.json: not UTF-8"):
        json_object(write(tmp_path / "c.json", b'{"a": "\xe9"}'))
    with pytest.raises(CorpusError, match="nowhere: can't be read"):
        json_object(tmp_path / "nowhere")
