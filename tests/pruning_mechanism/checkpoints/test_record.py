"""What a record says is read back as it was written, and nothing else is believed."""

import json
from dataclasses import asdict

import pytest

from pruning_mechanism import Compression, TowerError, read_record

RECORD = Compression(
    rule="merge", constraint="r 8", repair="none", base="tiny", base_fingerprint="none",
    corpus="scenes train", samples=8, seed=0, macs=1, mac_fraction=0.5, tower_macs=2,
    parameters=3, seconds=0.1, chain=("fisher MAC 0.5", "merge r 8"), notes=("a note",),
    settings={"r": "8"},
)  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def written(content: object) -> None:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / "compression.json").write_bytes(text)

    return written


def test_a_record_is_read_as_it_was_written(tmp_path, write):
    write(asdict(RECORD))
    assert read_record(tmp_path) == RECORD
    assert RECORD.steps == ("fisher MAC 0.5", "merge r 8")


def test_a_directory_without_a_record_has_none(tmp_path):
    assert read_record(tmp_path) is None


def test_records_of_other_versions_are_read(tmp_path, write):
    known = asdict(RECORD)
    for name in ("tower", "align", "chain", "settings", "notes", "unreadable_images", "versions"):
        del known[name]
    write({**known, "seconds": 3, "what comes later": {"a": 1}})
    found = read_record(tmp_path)
    assert (found.seconds, found.tower, found.versions) == (3, "vision", {})
    assert found.steps == ("merge r 8",)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("rule", 3), ("rule", None), ("samples", "8"), ("samples", 8.5), ("samples", True),
        ("mac_fraction", "half"), ("mac_fraction", float("nan")), ("mac_fraction", 10**400),
        ("seconds", []), ("chain", "merge r 8"), ("chain", [1]), ("chain", {"a": "b"}),
        ("notes", None), ("settings", ["r"]), ("settings", {"r": 8}), ("versions", "2"),
    ],
)  # fmt: skip
def test_an_entry_of_another_kind_is_refused_by_name(tmp_path, write, entry, value):
    write({**asdict(RECORD), entry: value})
    with pytest.raises(TowerError, match=rf"compression\.json: {entry} must be") as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[]", b"null", b"3", b'"merge"', b"[" * 100_000, b"{}",
     b'{"samples": ' + b"9" * 10_000 + b"}"],
)  # fmt: skip
def test_what_is_no_record_is_refused_in_one_line(tmp_path, write, content):
    write(content)
    with pytest.raises(TowerError, match=r"compression\.json") as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)
