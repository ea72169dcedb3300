"""What has become of images is what comparing all bytes would say, reading few of them."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.photos.changes import Change, Kind, changes
from cascade.storing.rows import ImageRow
from tests.lanes import examples

KEYS = st.sampled_from("abcde")
CONTENTS = st.sampled_from(["", "x", "y", "long", "more"])
"""What files hold; those of one length differ, the empty one can't be read."""


def digest_of(content: str) -> str:
    return f"digest of {content}"


def row_of(key: str, content: str, modified: int, digest: bool) -> ImageRow:
    if not content:
        return ImageRow(key, f"file://{key}", reason="empty file")
    found = ImageRow(key, f"file://{key}", len(content), modified)
    return replace(found, digest=digest_of(content)) if digest else found


@st.composite
def histories(draw):
    """Files then and now: (content, time) by key; a new time wherever bytes are others."""
    before = draw(st.dictionaries(KEYS, CONTENTS))
    after = draw(st.dictionaries(KEYS, st.tuples(CONTENTS, st.booleans())))
    now = {
        key: (content, 2 if touched or before.get(key) != content else 1)
        for key, (content, touched) in after.items()
    }
    order = draw(st.permutations(sorted(now)))
    return {key: (content, 1) for key, content in before.items()}, {key: now[key] for key in order}


def by_bytes(before, now) -> list[tuple[Kind, str, str | None]]:
    """The definition: kind, key now, key before."""
    answers, gone = [], [key for key in before if key not in now]
    for key, (content, time) in now.items():
        if key in before:
            if content == before[key][0]:
                same = not content or time == before[key][1]
                answers.append((Kind.UNCHANGED if same else Kind.TOUCHED, key, key))
            else:
                answers.append((Kind.CHANGED, key, key))
            continue
        source = next((old for old in gone if content and before[old][0] == content), None)
        if source is not None:
            gone.remove(source)
        answers.append((Kind.MOVED if source else Kind.NEW, key, source))
    return answers + [(Kind.GONE, key, key) for key in gone]


@settings(max_examples=examples(200, 5000))
@given(histories())
def test_changes_are_what_comparing_all_bytes_would_say(history):
    before, now = history
    asked = []

    def digest(row, _):
        asked.append(row.key)
        return digest_of(now[row.key][0])

    known = [row_of(key, *held, digest=True) for key, held in before.items()]
    found = [row_of(key, *held, digest=False) for key, held in now.items()]
    said = list(changes(known, found, digest, lambda row: row.key in now))
    assert [
        (change.kind, change.row.key, change.before and change.before.key) for change in said
    ] == by_bytes(before, now)
    assert len(asked) == len(set(asked))
    for key in asked:  # only where size and time leave it open
        lengths = {len(content) for content, _ in before.values()}
        assert len(now[key][0]) in lengths
        assert now[key] != before.get(key)
    for change in said:
        if change.kind in (Kind.UNCHANGED, Kind.TOUCHED, Kind.MOVED):
            assert (change.row.digest, change.row.reason) == (
                change.before.digest,
                change.before.reason,
            )


def one(known, found, digest=lambda *_: None, there=lambda _: False, **more) -> Change:
    (change,) = changes(known, found, digest, there, **more)
    return change


A = ImageRow("a", "file://a", 3, 1, "one")


def test_nothing_is_read_of_what_is_as_it_was():
    def digest(*_):
        raise AssertionError("read")

    assert one([A], [replace(A, digest=None)], digest).kind is Kind.UNCHANGED
    assert one([A], [replace(A, digest=None, size=4)], digest).kind is Kind.CHANGED
    assert one([A], [ImageRow("b", "file://b", 9, 1)], digest, lambda _: True).kind is Kind.NEW


def test_another_way_to_write_the_same_file_is_no_change_of_it():
    (change,) = changes([replace(A, uri="/a")], [replace(A, digest=None)], None, None)
    assert (change.kind, change.row) == (Kind.TOUCHED, A)


def test_a_copy_is_new_as_long_as_the_original_is_there():
    copy = ImageRow("b", "file://b", 3, 1)
    (change,) = changes([A], [copy], lambda *_: "one", lambda _: True)
    assert (change.kind, change.row.digest) == (Kind.NEW, "one")


def test_what_cannot_be_read_again_is_changed_once():
    broken = ImageRow("a", "file://a", reason="empty file")
    assert one([A], [broken]).kind is Kind.CHANGED
    assert one([broken], [broken]).kind is Kind.UNCHANGED
    assert one([broken], [replace(A, digest=None)]).kind is Kind.CHANGED  # mended
    undecodable = replace(A, reason="can't be decoded")
    again = one([undecodable], [replace(A, digest=None)])
    assert (again.kind, again.row.reason) == (Kind.UNCHANGED, "can't be decoded")
    moved = one([undecodable], [ImageRow("b", "file://b", 3, 9)], lambda *_: "one")
    assert (moved.kind, moved.row.reason) == (Kind.MOVED, "can't be decoded")


def test_what_is_found_twice_counts_once():
    assert one([], [A, A]).kind is Kind.NEW
    assert one([A], [A, A]).kind is Kind.UNCHANGED


def test_only_what_is_covered_is_gone():
    assert one([A], []).kind is Kind.GONE
    assert list(changes([A], [], lambda _: None, lambda _: False, lambda _: False)) == []
    assert list(changes([A], [], lambda _: None, lambda _: True)) == []


def test_a_digest_that_cannot_be_had_is_never_equal():
    touched = replace(A, modified=2, digest=None)
    assert one([A], [touched]).kind is Kind.CHANGED
    assert one([replace(A, digest=None)], [touched], lambda *_: "one").kind is Kind.CHANGED
    new, gone = changes([A], [ImageRow("b", "file://b", 3, 1)], lambda *_: None, lambda _: False)
    assert (new.kind, gone.kind) == (Kind.NEW, Kind.GONE)


# -- known by their ends alone

TWINS = ("a1z", "a2z", "b1z", "a1y", "longer")
"""What files hold; their ends are the first and the last letter, so the first two are told apart by
nothing but their times."""


def ends_of(content: str) -> str:
    return f"{len(content)} {content[0]}{content[-1]}-ends"


@st.composite
def kept_by_ends(draw):
    """Files then and now, with times that no two different contents share, and what is known."""
    times = st.tuples(st.sampled_from(TWINS), st.integers(0, 1))
    before = draw(st.dictionaries(KEYS, st.tuples(times, st.booleans())))
    after = draw(st.dictionaries(KEYS, times))
    return before, after


@settings(max_examples=examples(100, 5000))
@given(kept_by_ends())
def test_equal_ends_never_keep_what_was_made_of_other_bytes(history):
    before, now = history

    def row(key, content, touched):
        return ImageRow(key, f"file://{key}", len(content), 10 * TWINS.index(content) + touched)

    known = [
        replace(row(key, *held), digest=ends_of(held[0]) if ends else digest_of(held[0]))
        for key, (held, ends) in before.items()
    ]

    def digest(found, like):
        content = now[found.key][0]
        return ends_of(content) if like.endswith("-ends") else digest_of(content)

    found = [row(key, *held) for key, held in now.items()]
    moved = set()
    for change in changes(known, found, digest, lambda row: row.key in now):
        if change.kind in (Kind.UNCHANGED, Kind.TOUCHED, Kind.MOVED):
            (held, ends), here = before[change.before.key], now[change.row.key]
            assert here[0] == held[0]
            assert change.row.digest == change.before.digest
            assert here == held or not ends
        moved |= {change.before.key} if change.kind is Kind.MOVED else set()
    gone = {key: held for key, held in before.items() if key not in now}
    for key, (held, ends) in gone.items():  # what moved with its time is found again
        sources = sum(other == held for other, _ in gone.values())
        targets = sum(other == held for name, other in now.items() if name not in before)
        if ends and sources == 1 and targets == 1 and key not in moved:
            assert any(before[other][0][0] == held[0] for other in moved)


def test_what_is_known_by_its_ends_has_changed_where_its_time_has_and_is_not_read_for_that():
    def digest(*_):
        raise AssertionError("read")

    known = replace(A, digest="one-ends")
    found = replace(A, digest=None)
    assert one([known], [found], digest).kind is Kind.UNCHANGED
    assert one([known], [replace(found, modified=2)], digest).kind is Kind.CHANGED
    elsewhere = ImageRow("b", "file://b", 3, 2)
    new, gone = changes([known], [elsewhere], digest, lambda _: False)
    assert (new.kind, gone.kind) == (Kind.NEW, Kind.GONE)


def test_what_has_a_digest_of_the_whole_is_compared_by_that():
    asked = []

    def digest(_, like):
        asked.append(like)
        return "one"

    assert one([A], [replace(A, modified=2, digest=None)], digest).kind is Kind.TOUCHED
    ends = replace(A, key="x", uri="file://x", digest="one-ends")
    moved, gone = changes([ends, A], [ImageRow("b", "file://b", 3, 9)], digest, lambda _: False)
    assert (moved.before.key, moved.row.digest, gone.row.key) == ("a", "one", "x")
    assert asked == ["one", "one"]
