"""A digest of the ends says that files differ, and that they are the same only with their times."""

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.collecting.offers import is_unchanged, renewed
from cascade.measuring.copies import copies_of
from cascade.photos.identity import (
    HEAD,
    TAIL,
    better,
    digest_like,
    is_of_ends,
    of_ends,
    says_same,
    version_of,
)
from cascade.storing.rows import ImageRow
from corpora.decoding.files import digest_of

ENDS = of_ends(b"head", b"tail", 400_000)
WHOLE = digest_of(io.BytesIO(b"all of it"))
ROW = ImageRow("a", "file:///a", 400_000, 5, ENDS)


@pytest.mark.parametrize(
    ("at", "differs"),
    [(0, True), (HEAD - 1, True), (HEAD, False), (-TAIL - 1, False), (-TAIL, True), (-1, True)],
)
def test_the_ends_are_the_first_64_kb_and_the_last_16_and_the_length(at, differs):
    content = bytearray(b"x" * (5 * HEAD))
    known = digest_like(ENDS, io.BytesIO(content))
    assert known == of_ends(content[:HEAD], content[-TAIL:], len(content))
    content[at] = 0
    assert (digest_like(ENDS, io.BytesIO(content)) != known) is differs
    assert digest_like(ENDS, io.BytesIO(b"x" * (5 * HEAD + 1))) != known


@given(st.binary(max_size=40))
def test_a_digest_of_the_ends_is_never_one_of_the_whole(content):
    ends, whole = digest_like(ENDS, io.BytesIO(content)), digest_like(None, io.BytesIO(content))
    assert is_of_ends(ends)
    assert not is_of_ends(whole)
    assert whole == digest_like(WHOLE, io.BytesIO(content)) == digest_of(io.BytesIO(content))
    assert says_same(replace(ROW, digest=ends), replace(ROW, digest=whole)) is None


def test_equal_ends_are_the_same_bytes_only_if_the_time_is_too():
    assert is_unchanged(ROW, ROW)
    assert not is_unchanged(replace(ROW, modified=6), ROW)
    assert not is_unchanged(replace(ROW, digest=of_ends(b"", b"", 400_000)), ROW)
    assert not is_unchanged(replace(ROW, modified=None), replace(ROW, modified=None))
    assert is_unchanged(replace(ROW, digest=WHOLE, modified=6), replace(ROW, digest=WHOLE))


def test_digests_of_two_kinds_leave_it_to_size_and_time_and_the_better_one_stays():
    whole = replace(ROW, digest=WHOLE)
    for row, known in ((ROW, whole), (whole, ROW)):
        assert is_unchanged(row, known)
        assert not is_unchanged(replace(row, modified=6), known)
        assert renewed(row, known).digest == WHOLE
    assert (better(None, ENDS), better(ENDS, None), better(None, None)) == (ENDS, ENDS, None)


def test_a_browser_never_takes_a_file_that_was_touched_for_the_one_it_keeps():
    assert version_of(replace(ROW, digest=WHOLE)) == WHOLE
    assert version_of(replace(ROW, digest=None)) is None
    assert version_of(ROW) != version_of(replace(ROW, modified=6))
    assert len(version_of(ROW)) == len(WHOLE)
    int(version_of(ROW), 16)


def test_copies_are_files_of_the_same_bytes_and_not_of_the_same_ends():
    contents = {"a": "one", "b": "one", "c": "two", "d": "one", "e": "alone", "gone": None}
    rows = [replace(ROW, key=key) for key in contents if key not in "de"]
    rows += [replace(ROW, key="d", digest="one"), replace(ROW, key="e", digest=ENDS[::-1], size=9)]
    rows += [replace(ROW, key="skipped", reason="empty"), replace(ROW, key="plain", digest=None)]
    asked = []

    def digest(row):
        asked.append(row.key)
        return contents[row.key]

    same = {"a", "b", "d"}
    assert copies_of(rows, digest) == dict.fromkeys("abd", same) | {
        key: {key} for key in ("c", "e", "gone")
    }
    assert sorted(asked) == ["a", "b", "c", "gone"]  # e has a size of its own
