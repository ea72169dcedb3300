"""Keys of calibration images are kept as they are, whatever a file may be called."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compress.errors import UserError
from compress.making.keys import read_keys, write_keys
from evaluation.experiment.first_stages import KeptStage, refuse_overlap, seen

NAMES = ["a\nb.png", "a\u2028b", "a\u0085b", "a\x0bb", "a\rb", "", " ", '"', "\\n", "caf\udce9.jpg"]


@given(st.lists(st.text(st.characters(exclude_categories=[])), max_size=20))
@example(NAMES)
def test_keys_are_read_as_they_were_written(tmp_path_factory, keys):
    directory = tmp_path_factory.mktemp("result")
    write_keys(directory, keys)
    assert read_keys(directory) == list(dict.fromkeys(keys))


@pytest.mark.parametrize("name", NAMES[:5])
def test_a_stage_is_never_measured_on_its_own_calibration_images(tmp_path, name):
    write_keys(tmp_path, ["other", name])
    stage = KeptStage("flip", "mask 0.5", "mask", 0.5, tmp_path, 1.0)
    with pytest.raises(UserError, match="1 images are in both") as error:
        refuse_overlap(seen(stage), {name, "third"})
    assert len(str(error.value).splitlines()) == 1


def test_results_from_before_are_read(tmp_path):
    (tmp_path / "calibration.txt").write_bytes(b"a\x0bb.png\ncaf\xe9.jpg\n\xe2\x80\xa8c\n")
    assert read_keys(tmp_path) == ["a\x0bb.png", "caf\udce9.jpg", "\u2028c"]
    assert read_keys(tmp_path / "nowhere") == []


@pytest.mark.parametrize("content", [b"a.png\n", b"3\n", b"\xff\n", b'"a" "b"\n'])
def test_a_file_that_is_something_else_is_said(tmp_path, content):
    (tmp_path / "calibration.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"calibration\.jsonl"):
        read_keys(tmp_path)
