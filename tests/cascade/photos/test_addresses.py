"""Keys and uris: text that any table holds, different for different images, and reversible."""

import os

from hypothesis import given
from hypothesis import strategies as st

from cascade.photos.addresses import (
    FileAddress,
    RowAddress,
    address_of,
    key_of_file,
    key_of_member,
    key_of_row,
    uri_of_file,
    uri_of_member,
)

NAMES = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.lists(
        st.sampled_from(
            [b".tar#", b"#", b"?offset=", b"%", b"a", b"\n", b"\xff", b"/", "ü".encode()]
        ),
        min_size=1,
        max_size=6,
    ).map(b"".join),
).map(lambda name: os.fsdecode(name.replace(b"\0", b"")))
PATHS = NAMES.map(lambda name: f"/{name}")


@given(PATHS)
def test_a_file_is_found_again_by_its_uri(path):
    assert address_of(uri_of_file(path)) == FileAddress(path)


@given(PATHS, NAMES.filter(bool), st.integers(0, 10**12))
def test_a_file_in_a_tar_is_found_again_by_its_uri(path, member, offset):
    assert address_of(uri_of_member(path, member, offset)) == FileAddress(path, member, offset)


def test_a_row_is_found_again_by_its_uri():
    for name in ("owner/name", "owner/name@config", "/a/b"):
        assert address_of(key_of_row(name, "train", 7)) == RowAddress(name, "train", 7)


IMAGES = st.one_of(
    PATHS.map(lambda path: (path,)),
    st.tuples(PATHS.map(lambda path: f"{path}.tar"), NAMES.filter(bool)),
)


def key_of(image) -> str:
    return key_of_file(*image) if len(image) == 1 else key_of_member(*image)


@given(IMAGES, IMAGES)
def test_keys_are_text_and_different_images_have_different_ones(one, other):
    key_of(one).encode()
    assert (key_of(one) == key_of(other)) == (one == other)


def test_a_file_is_never_taken_for_one_in_a_tar():
    assert key_of_member("/a.tar", "b.jpg") == "/a.tar#b.jpg"
    assert key_of_file("/a.tar#b.jpg") == "file:///a.tar%23b.jpg"
    assert key_of_file("/a\nb#c.jpg") == "/a\nb#c.jpg"
