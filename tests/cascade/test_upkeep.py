"""A collection is kept what a person's photos are: nothing is encoded twice, nothing is lost."""

import os
import shutil

import pytest
import torch

from cascade import Cascade, Collection, Stage
from cascade.photos.changes import Kind
from cascade.photos.finding import Photos
from cascade.photos.reading import read
from cascade.upkeep import bring_up_to_date
from corpora.readers.patterns import Patterns
from tests.cascade.photos.conftest import encoded, packed, painted
from tests.conftest import tiny_clip, tiny_processor


class Counting(Stage):
    """A stage that notes how many images it was given."""

    images = 0

    def encode_images(self, images):
        self.images += len(images)
        return super().encode_images(images)


@pytest.fixture
def stages():
    return [Counting(tiny_clip(seed), tiny_processor()) for seed in range(2)]


@pytest.fixture
def photos(tmp_path):
    """Six photos in two folders."""
    for number in range(6):
        painted(tmp_path / "photos" / f"{'ab'[number % 2]}/{number}.png")
    return tmp_path / "photos"


def ran(collection, *places, patterns=None, **more):
    names = [str(place) for place in places]
    return bring_up_to_date(collection, Photos.at(names, patterns), **more)


def keys(collection):
    return sorted(row.key for row in collection.rows())


def test_photos_are_added_once_and_found_as_a_cascade_finds_them(stages, photos):
    with Collection.in_memory(stages, m=[3], precision="float32") as collection:
        done = ran(collection, photos)
        assert (done.found, done.added.added, done.kinds[Kind.NEW]) == (6, 6, 6)
        again = ran(collection, photos)
        assert (again.kinds[Kind.UNCHANGED], again.added.added) == (6, 0)
        assert stages[0].images == 6
        cascade = Cascade(stages, m=[3])
        cascade.index(sorted(photos.rglob("*.png"), key=lambda path: (path.parent, path.name)))
        for query in ("a red disc", "a small blue square on the left"):
            hits, expected = collection.search(query, 5), cascade.search(query, 5)
            assert [(hit.key, hit.stage) for hit in hits] == [
                (hit.key, hit.stage) for hit in expected
            ]


def test_only_what_is_new_or_changed_is_encoded(stages, photos):
    with Collection.in_memory(stages, m=[3]) as collection:
        ran(collection, photos)
        stages[0].images = 0
        os.utime(photos / "a/0.png", ns=(5, 5))
        painted(photos / "b/1.png", "red")
        painted(photos / "c/new.png")
        (photos / "b/3.png").rename(photos / "c/moved.png")
        (photos / "b/5.png").unlink()
        done = ran(collection, photos)
        assert {kind.value: number for kind, number in done.kinds.items()} == {
            "touched": 1, "unchanged": 2, "changed": 1, "new": 1, "moved": 1, "gone": 1,
        }  # fmt: skip
        assert stages[0].images == 2
        assert collection.row(str(photos / "a/0.png")).modified == 5
        assert str(photos / "c/moved.png") in collection
        assert str(photos / "b/3.png") not in collection
        assert str(photos / "b/5.png") in collection  # until it is pruned
        assert ran(collection, photos, prune=True).pruned == 1
        assert str(photos / "b/5.png") not in collection
        assert stages[0].images == 2


def test_a_renamed_folder_keeps_what_both_stages_made(stages, photos):
    with Collection.in_memory(stages, m=[6]) as collection:
        ran(collection, photos)
        before = collection.search("a red disc", 6)
        counts = [stage.images for stage in stages]
        (photos / "a").rename(photos / "elsewhere")
        assert ran(collection, photos).kinds[Kind.MOVED] == 3
        after = collection.search("a red disc", 6)
        assert [stage.images for stage in stages] == counts
        renamed = [hit.key.replace(f"{photos}/a/", f"{photos}/elsewhere/") for hit in before]
        assert [hit.key for hit in after] == renamed
        assert [hit.score for hit in after] == [hit.score for hit in before]


def test_what_cannot_be_read_is_skipped_with_a_reason_and_not_tried_again(stages, photos):
    (photos / "cut.png").write_bytes((photos / "a/0.png").read_bytes()[:60])
    (photos / "text.jpg").write_text("no picture")
    (photos / "empty.jpg").write_bytes(b"")
    if hasattr(os, "mkfifo"):
        os.mkfifo(photos / "pipe.jpg")
    with Collection.in_memory(stages, m=[3]) as collection:
        done = ran(collection, photos)
        reasons = {os.path.basename(key): reason for key, reason in done.skipped.items()}
        assert reasons["empty.jpg"] == "empty file"
        assert reasons["cut.png"].startswith("can't be decoded (")
        assert reasons["text.jpg"].startswith("can't be decoded (")
        assert reasons.get("pipe.jpg", "file that is a pipe") == "file that is a pipe"
        assert done.added.added == 6
        assert collection.skipped == done.skipped
        again = ran(collection, photos)
        assert (again.kinds[Kind.UNCHANGED], again.skipped) == (done.found, done.skipped)
        shutil.copy(photos / "a/0.png", photos / "empty.jpg")  # mended
        shutil.copy(photos / "a/2.png", photos / "cut.png")
        mended = ran(collection, photos)
        assert mended.added.added + mended.added.replaced == 2
        assert sorted(map(os.path.basename, mended.skipped)) == sorted(
            {*reasons} - {"empty.jpg", "cut.png"}
        )


def test_skipped_photos_are_tried_again_on_request(stages, photos, monkeypatch):
    path = photos / "later.png"
    painted(path)
    with Collection.in_memory(stages, m=[3]) as collection:
        with monkeypatch.context() as patch:
            patch.setattr("corpora.decoding.images.FORMATS", ())  # as without a decoder
            assert len(ran(collection, photos).skipped) == 7
        assert len(ran(collection, photos).skipped) == 7
        assert ran(collection, photos, retry=True).skipped == {}
        assert len(collection) == 7


def test_a_photo_that_becomes_unreadable_is_no_longer_found(stages, photos):
    with Collection.in_memory(stages, m=[3]) as collection:
        ran(collection, photos)
        (photos / "a/0.png").write_bytes(b"")
        ran(collection, photos)
        assert len(collection) == 5
        assert collection.skipped == {str(photos / "a/0.png"): "empty file"}


def test_a_photo_that_vanishes_before_it_is_read_is_counted_and_forgotten(
    stages, photos, monkeypatch
):
    def vanishing(row):
        (photos / "b/5.png").unlink(missing_ok=True)
        return read(row)

    monkeypatch.setattr("cascade.photos.preparing.read", vanishing)
    with Collection.in_memory(stages, m=[3]) as collection:
        found = list(Photos.at([str(photos)]))
        monkeypatch.setattr(Photos, "__iter__", lambda _: iter(found))
        done = ran(collection, photos)
        assert (done.vanished, len(collection), collection.skipped) == (1, 5, {})


def test_places_that_are_not_named_stay_as_they_are(stages, photos, tmp_path):
    painted(tmp_path / "others/x.png")
    with Collection.in_memory(stages, m=[3]) as collection:
        ran(collection, photos, tmp_path / "others")
        shutil.rmtree(tmp_path / "others")
        assert ran(collection, photos, prune=True).pruned == 0
        assert ran(collection, photos, patterns=Patterns(include=["a"]), prune=True).pruned == 0
        assert len(collection) == 7


def test_photos_in_a_tar_are_searched_by_both_stages(stages, tmp_path):
    members = {f"{n}.png": encoded(colour) for n, colour in enumerate(("red", "green", "blue"))}
    archive = packed(tmp_path / "s.tar", members)
    with Collection.in_memory(stages, m=[3]) as collection:
        assert ran(collection, archive).added.added == 3
        hits = collection.search("a red disc", 3)
        assert {hit.stage for hit in hits} == {1}
        assert {hit.key for hit in hits} == {f"{archive}#{name}" for name in members}
        packed(archive, members | {"3.png": encoded("white")})
        os.utime(archive, ns=(9, 9))
        done = ran(collection, archive)
        assert (done.kinds[Kind.TOUCHED], done.kinds[Kind.NEW]) == (3, 1)


@pytest.mark.parametrize("after", [1, 3])
def test_what_was_done_before_an_interrupt_stays_and_the_next_run_goes_on(stages, photos, after):
    class Stopped(BaseException):
        pass

    def stop(done):
        if done.found == after:
            raise Stopped

    with Collection.in_memory(stages, m=[3], batch_size=1) as collection:
        with pytest.raises(Stopped):
            ran(collection, photos, progress=stop)
        held = len(collection)
        assert held == stages[0].images
        ran(collection, photos)
        assert len(collection) == 6
        assert stages[0].images == 6


def test_a_collection_on_disk_opens_what_was_found(stages, photos, tmp_path):
    pytest.importorskip("lancedb")
    odd = os.fsdecode(os.fsencode(photos) + b"/\xff.png")
    shutil.copy(photos / "a/0.png", odd)
    with Collection.create(tmp_path / "c.cascade", stages, m=[7]) as collection:
        ran(collection, photos)
        expected = collection.search("a red disc", 7)
    with Collection.open(tmp_path / "c.cascade", stages) as collection:
        assert collection.search("a red disc", 7) == expected
        assert {hit.stage for hit in expected} == {1}
        assert ran(collection, photos).kinds[Kind.UNCHANGED] == 7
        assert torch.isfinite(torch.tensor([hit.score for hit in expected])).all()
