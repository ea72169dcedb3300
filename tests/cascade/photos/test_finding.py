"""Photos are found wherever they lie; what can't be one is named with a reason, and never hangs."""

import io
import os
import socket
import tarfile
import tracemalloc

import datasets
import pytest
from PIL import Image as Picture

from cascade.photos.finding import Photos, PhotosError, listed_paths
from cascade.photos.opening import is_there, source_of
from cascade.stages.images import open_image
from corpora.readers import walking
from corpora.readers.patterns import Patterns
from tests.cascade.photos.conftest import encoded, packed, painted

posix = pytest.mark.skipif(os.name != "posix", reason="names and special files as POSIX has them")


def found(*places, patterns=None, listed=None):
    return list(Photos.at(map(str, places), patterns, listed and io.BytesIO(listed)))


def names(rows, root):
    return [row.key.removeprefix(f"{root}/") for row in rows]


# -- directories


def test_a_directory_gives_its_photos_in_the_same_order_each_time(tmp_path):
    for name in ("b/2.png", "b/1.jpg", "a.png", "c/d/e.webp", "b/10.png"):
        painted(tmp_path / name)
    photos = Photos.at([str(tmp_path)])
    assert names(photos, tmp_path) == ["a.png", "b/1.jpg", "b/10.png", "b/2.png", "c/d/e.webp"]
    assert list(photos) == list(photos)
    row = next(iter(photos))
    stat = (tmp_path / "a.png").stat()
    assert (row.size, row.modified, row.reason) == (stat.st_size, stat.st_mtime_ns, None)
    assert source_of(row.uri) == str(tmp_path / "a.png")


def test_other_files_are_counted_and_what_should_be_a_photo_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(walking.UNSUPPORTED, ".heic", "pip install 'clip-cascade[search]'")
    painted(tmp_path / "directory.jpg/x.png")
    for name in (
        "notes.txt",
        ".hidden.jpg",
        "Thumbs.db",
        "@eaDir/thumb.jpg",
        "empty.jpg",
        "p.heic",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"" if name == "empty.jpg" else b"content")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "round.png").symlink_to(tmp_path / "round.png")
    photos = Photos.at([str(tmp_path)])
    rows = {name: row.reason for name, row in zip(names(photos, tmp_path), photos, strict=True)}
    assert rows == {
        "directory.jpg/x.png": None,
        "empty.jpg": "empty file",
        "gone.png": "link that leads nowhere",
        "round.png": "link that leads nowhere",
        "p.heic": ".heic file (pip install 'clip-cascade[search]')",
    }
    assert sum(photos.ignored.values()) == 4
    assert photos.ignored[".txt file"] == 1


@posix
def test_pipes_sockets_and_devices_are_skipped_without_being_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.jpg"))
        rows = found(tmp_path)
    assert {name: row.reason for name, row in zip(names(rows, tmp_path), rows, strict=True)} == {
        "device.jpg": "file that is a device",
        "pipe.jpg": "file that is a pipe",
        "socket.jpg": "file that is a socket",
    }
    assert found(tmp_path / "pipe.jpg")[0].reason == "file that is a pipe"
    assert found(tmp_path / "device.jpg")[0].reason == "file that is a device"


def test_links_are_followed_and_loops_end(tmp_path):
    painted(tmp_path / "data/a/1.png")
    painted(tmp_path / "elsewhere/2.png")
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/self").symlink_to(tmp_path / "data/self")
    assert names(found(tmp_path / "data"), tmp_path) == ["data/a/1.png", "data/linked/2.png"]


@posix
def test_any_name_survives_and_opens(tmp_path):
    for name in (b"a\nb.png", b"\xff\xfe.png", "schön.png".encode(), b"x.tar#y.png", b"100%.png"):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
        Picture.new("RGB", (9, 7), "red").save(path)
    os.makedirs(os.fsencode(tmp_path) + b"/\xf0dir")
    Picture.new("RGB", (9, 7), "red").save(os.fsdecode(os.fsencode(tmp_path) + b"/\xf0dir/z.png"))
    rows = found(tmp_path)
    assert len({row.key for row in rows}) == 6
    assert f"{tmp_path}/a\nb.png" in {row.key for row in rows}
    for row in rows:
        row.key.encode()
        row.uri.encode()
        assert open_image(source_of(row.uri)).size == (9, 7)


def test_patterns_choose_and_leave_out(tmp_path):
    for name in ("a/1.JPG", "a/2.png", "b/3.jpg", "b/private/4.jpg", "c/5.jpg"):
        painted(tmp_path / name)

    def chosen(**patterns):
        return names(found(tmp_path, patterns=Patterns(**patterns)), tmp_path)

    assert chosen(include=["*.jpg"]) == ["a/1.JPG", "b/3.jpg", "b/private/4.jpg", "c/5.jpg"]
    assert chosen(include=["b/*"]) == ["b/3.jpg", "b/private/4.jpg"]
    assert chosen(include=["b"]) == ["b/3.jpg", "b/private/4.jpg"]
    assert chosen(exclude=["private", "c/*"]) == ["a/1.JPG", "a/2.png", "b/3.jpg"]
    assert chosen(include=["*.jpg"], exclude=["a/", "*/private"]) == ["b/3.jpg", "c/5.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["1.png"]),
        ("*/*.png", ["a/2.png", "b/3.png"]),
        ("**/*.png", ["1.png", "a/2.png", "a/c/4.png", "b/3.png"]),
        ("a/**/?.png", ["a/2.png", "a/c/4.png"]),
        ("[a]*", ["a/2.png", "a/c/4.png"]),
        ("**", ["1.png", "a/2.png", "a/c/4.png", "b/3.png"]),
        ("*.gif", []),
    ],
)
def test_globs_mean_what_they_mean_to_a_shell(tmp_path, pattern, expected):
    for name in ("1.png", "a/2.png", "b/3.png", "a/c/4.png"):
        painted(tmp_path / name)
    assert names(found(f"{tmp_path}/{pattern}"), tmp_path) == expected


def test_a_file_that_looks_like_a_glob_is_that_file(tmp_path):
    painted(tmp_path / "photo[1].png")
    painted(tmp_path / "photo1.png")
    assert names(found(tmp_path / "photo[1].png"), tmp_path) == ["photo[1].png"]


def test_a_place_that_is_none_is_refused_before_anything_is_read(tmp_path):
    for name in (f"{tmp_path}/nowhere", f"{tmp_path}/nowhere/*.jpg", "hub:", "hub:./nowhere"):
        with pytest.raises(PhotosError):
            Photos.at([name])


def test_a_directory_of_many_files_is_not_held(tmp_path):
    for folder in range(40):
        (tmp_path / f"{folder}").mkdir()
        for number in range(50):
            (tmp_path / f"{folder}/{number}.jpg").write_bytes(b"x")
    assert sum(1 for _ in Photos.at([str(tmp_path)])) == 2000
    tracemalloc.start()
    try:
        assert sum(1 for _ in Photos.at([str(tmp_path)])) == 2000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000  # 2,000 rows alone would take a million


# -- lists


@pytest.mark.parametrize("separator", [b"\n", b"\0"])
@pytest.mark.parametrize("end", [True, False])
def test_a_list_names_files(tmp_path, separator, end):
    paths = [painted(tmp_path / name) for name in ("b.png", "a.png")] + [tmp_path / "gone.jpg"]
    listed = separator.join(map(os.fsencode, paths)) + separator * end
    rows = found("-", listed=listed)
    assert names(rows, tmp_path) == ["b.png", "a.png", "gone.jpg"]
    assert [row.reason for row in rows] == [None, None, "file that isn't there"]


@posix
def test_names_with_newlines_and_bytes_come_through_a_list_with_nul():
    listed = [b"/a\nb.jpg", b"/\xff.jpg", b"/c.jpg"]
    given = io.BytesIO(b"\0".join(listed) + b"\0")
    assert list(map(os.fsencode, listed_paths(given))) == listed


def test_a_long_list_is_read_piece_by_piece():
    names = [f"/{number:07d}.jpg" for number in range(20_000)]
    assert list(listed_paths(io.BytesIO("\n".join(names).encode()))) == names
    assert list(listed_paths(io.BytesIO(b""))) == []


def test_a_directory_on_a_list_is_no_photo(tmp_path):
    assert [row.reason for row in found("-", listed=os.fsencode(tmp_path))] == [
        "file that is a directory"
    ]


# -- archives


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_photos_in_a_tar_are_read_in_place(tmp_path, form):
    long = "d" * 80 + "/" + "n" * 90 + ".png"
    images = {"0.png": "red", "a/1.png": "green", long: "blue"}
    others = {"0.txt": b"words", ".hidden.png": b"x", "__MACOSX/x.png": b"x", "empty.jpg": b""}
    archive = packed(
        tmp_path / "s.tar", {name: encoded(of) for name, of in images.items()} | others, form
    )
    photos = Photos.at([str(archive)])
    rows = list(photos)
    assert [row.key for row in rows if not row.reason] == [f"{archive}#{name}" for name in images]
    assert [row.reason for row in rows if row.reason] == ["empty file"]
    assert sum(photos.ignored.values()) == 3
    for row, colour in zip(rows, images.values(), strict=False):
        opened = open_image(source_of(row.uri))
        assert opened.getpixel((3, 3)) == Picture.new("RGB", (1, 1), colour).getpixel((0, 0))
        assert is_there(row.uri)
    assert list(tmp_path.iterdir()) == [archive]  # nothing is unpacked


def test_a_tar_that_was_made_anew_gives_nothing_under_an_old_address(tmp_path):
    archive = packed(tmp_path / "s.tar", {"a.png": encoded("red"), "b.png": encoded("blue")})
    _, old = found(archive)
    packed(archive, {"c.png": encoded("green"), "b.png": encoded("green"), "d": b"x" * 9999})
    archive.write_bytes(archive.read_bytes()[512:])  # nothing lies where it lay
    assert not is_there(old.uri)
    with pytest.raises(Exception, match="the archive was changed"):
        open_image(source_of(old.uri))
    archive.unlink()
    assert not is_there(old.uri)


def test_what_is_wrong_with_an_archive_is_a_reason_beside_what_can_be_read(tmp_path):
    members = {f"{n}.png": encoded("red") * 5 for n in range(4)}
    whole = packed(tmp_path / "s.tar", members).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])  # in the first file
    (tmp_path / "none.tar").write_bytes(b"no archive " * 200)
    damaged = bytearray(whole)
    _, second, *_ = found(tmp_path / "s.tar")
    start = int(second.uri.partition("offset=")[2].partition("#")[0])
    damaged[start : start + 512] = b"\x07" * 512
    (tmp_path / "bad.tar").write_bytes(damaged)
    for name, kept, reason in (
        ("cut.tar", 0, "is cut off after 0 files"),
        ("none.tar", 0, "is no tar archive"),
        ("bad.tar", 1, "is damaged after 1 files"),
    ):
        *rows, last = found(tmp_path / name)
        assert [row.reason for row in rows] == [None] * kept, name
        assert last.key == f"{tmp_path / name}"
        assert reason in last.reason


def test_archives_are_meant_by_a_glob_and_not_by_their_directory(tmp_path):
    packed(tmp_path / "0.tar", {"a.png": encoded("red")})
    packed(tmp_path / "1.tar", {"a.png": encoded("red")})
    assert found(tmp_path) == []
    assert names(found(f"{tmp_path}/*.tar"), tmp_path) == ["0.tar#a.png", "1.tar#a.png"]


# -- data sets


def test_a_local_data_set_is_read_by_its_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    directory = tmp_path / "set"
    directory.mkdir()
    contents = [encoded(colour) for colour in ("red", "green", "blue")]
    images = [{"bytes": content, "path": None} for content in contents] + [None]
    features = datasets.Features({"photo": datasets.Image(), "text": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"photo": images, "text": list("abcd")}, features=features)
    table.to_parquet(directory / "train.parquet")
    monkeypatch.chdir(tmp_path)
    rows = found("hub:./set")
    assert [row.key for row in rows] == [f"hub:{directory}#train/{n}" for n in range(4)]
    assert [row.size for row in rows[:3]] == list(map(len, contents))
    assert [row.reason for row in rows] == [None] * 3 + ["row without an image"]
    assert open_image(source_of(rows[2].uri)).getpixel((1, 1)) == (0, 0, 255)
    assert is_there(rows[2].uri)
    assert not is_there(rows[2].uri.replace("/2", "/99"))
    assert Photos.at(["hub:./set"]).covers(rows[0].key)


# -- what is covered


def test_a_place_covers_what_lies_in_it(tmp_path):
    painted(tmp_path / "in/a.png")
    painted(tmp_path / "inside/b.png")
    archive = packed(tmp_path / "s.tar", {"a.png": encoded("red")})
    photos = Photos.at([str(tmp_path / "in"), str(archive)])
    assert photos.covers(f"{tmp_path}/in/gone.png")
    assert photos.covers(f"{archive}#gone.png")
    assert not photos.covers(f"{tmp_path}/inside/b.png")
    assert not photos.covers(str(archive))
    assert not Photos.at(["-"], listed=io.BytesIO()).covers(f"{tmp_path}/in/a.png")
