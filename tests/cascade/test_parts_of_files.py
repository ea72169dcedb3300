"""Indexing by thumbnails reads no more of files than these take, and keeps nothing wrongly."""

import io
import json
import os
import re
import shutil
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from cascade import Collection, Stage
from cascade.collecting.recalling import recorded
from cascade.collecting.refining import Budget
from cascade.machines.joining import join
from cascade.machines.worker import Job, Worker, probes_of
from cascade.photos.changes import Change, Kind
from cascade.photos.finding import Photos
from cascade.photos.identity import HEAD, LEAST, TAIL, is_of_ends
from cascade.photos.reading import read
from cascade.serving.pictures import Pictures
from cascade.serving.routes.images import places_of
from cascade.serving.work import RefusedError
from cascade.stages.mapped import Map, MappedStage, save_maps
from cascade.terminal.refining import stale_thumbnails
from cascade.upkeep import bring_up_to_date
from corpora.decoding.images import kinds_read
from corpora.decoding.simulating import as_thumbnail, exif_block, with_thumbnail
from corpora.decoding.watching import watched
from tests.cascade.test_upkeep import Counting
from tests.conftest import tiny_clip, tiny_processor
from tests.pruning_mechanism.checkpoints.test_record import RECORD

MOST = HEAD + TAIL


def plain(seed: int, size=(720, 540), quality=98) -> bytes:
    """A JPEG file of a coarse pattern under noise, as large as its noise makes it."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize(size)
    noise = generator.normal(0, 12, (size[1], size[0], 3))
    stream = io.BytesIO()
    noisy = np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def with_middle(content: bytes, by: int) -> bytes:
    """A file of the same ends and length, with one byte of its picture's middle another one."""
    changed = bytearray(content)
    changed[len(content) // 2] = (changed[len(content) // 2] + by) % 254
    return bytes(changed)


def with_exif(content: bytes, block: bytes) -> bytes:
    """A JPEG file with an EXIF block in it."""
    segment = b"Exif\0\0" + block
    return content[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:]


CAMERA = [with_thumbnail(plain(seed), 48) for seed in range(4)]
BARE = plain(7)
STALE = with_exif(plain(8), exif_block(as_thumbnail(Image.open(io.BytesIO(plain(9))), 48)))


@pytest.fixture
def stages():
    full = Counting(tiny_clip(0), tiny_processor())
    return [Counting(tiny_clip(1), tiny_processor(), texts=full, reads="thumbnail"), full]


@pytest.fixture
def photos(tmp_path):
    """Four of a camera, one without a thumbnail, and one that is small."""
    directory = tmp_path / "photos"
    directory.mkdir()
    for number, content in enumerate(CAMERA):
        (directory / f"{number}.jpg").write_bytes(content)
    (directory / "bare.jpg").write_bytes(BARE)
    (directory / "small.jpg").write_bytes(with_thumbnail(plain(6, (64, 48)), 48))
    assert min(map(len, [*CAMERA, BARE, STALE])) > LEAST
    return directory


def ran(collection, *places, **more):
    return bring_up_to_date(collection, Photos.at(map(str, places)), threads=2, **more)


def kinds(done):
    return {kind.value: number for kind, number in done.kinds.items()}


def modified(path) -> int:
    return path.stat().st_mtime_ns


def embedding(collection, stage, path):
    """What a stage has made of a photo."""
    held = collection.snapshot(stage)
    at = [row.key for row in held.rows].index(str(path))
    return held.held.embeddings[held.slots[at]]


def test_no_more_is_read_than_thumbnails_take_and_embeddings_are_the_same(stages, photos):
    files = sorted(photos.iterdir())
    with Collection.in_memory(stages, m=[3], precision="float32") as collection:
        for file in files[:4]:
            with watched() as opening:
                done = ran(collection, file)
            assert (done.opened, done.by_thumbnail) == (1, 1)
            assert done.nbytes == opening.nbytes <= MOST < LEAST < done.size
        done = ran(collection, photos)
        rest = sum(file.stat().st_size for file in files[4:])
        assert (done.opened, done.by_thumbnail, done.nbytes, done.size) == (2, 0, rest, rest)
        again = ran(collection, photos)
        assert (kinds(again), again.nbytes, again.opened) == ({"unchanged": 6}, 0, 0)
        rows = list(collection.rows())
        assert [is_of_ends(row.digest) for row in rows] == [True] * 4 + [False] * 2
        assert [row.digest for row in rows[4:]] == [read(row).row.digest for row in rows[4:]]
        assert stages[0].tally.counts == {"used": 5, "absent": 1}
        for file in files:
            assert_close(embedding(collection, 0, file), stages[0].encode_images([str(file)])[0])


@pytest.mark.parametrize("reads", ["full", "scaled"])
def test_a_stage_that_reads_the_picture_has_files_read_and_known_whole(photos, reads):
    stage = Stage(tiny_clip(0), tiny_processor(), reads=reads)
    with Collection.in_memory([stage]) as collection:
        done = ran(collection, photos)
        assert (done.opened, done.by_thumbnail) == (6, 0)
        assert done.nbytes == done.size == sum(file.stat().st_size for file in photos.iterdir())
        assert [row.digest for row in collection.rows()] == [
            read(row).row.digest for row in collection.rows()
        ]


def test_a_mapped_first_stage_reads_what_the_one_behind_it_reads(stages, photos):
    first, full = stages
    size = first.dimension
    mapped = MappedStage(first, Map(torch.eye(size), torch.zeros(size)), full)
    assert mapped.reads == "thumbnail"
    with Collection.in_memory([mapped, full], m=[3]) as collection:
        assert ran(collection, photos).by_thumbnail == 4


def test_what_was_moved_with_its_time_keeps_its_embeddings_and_hardly_any_of_it_is_read(
    stages, photos
):
    with Collection.in_memory(stages, m=[6]) as collection:
        ran(collection, photos)
        before = collection.search("a red disc", 6)
        counts = [stage.images for stage in stages]
        photos.rename(photos.parent / "elsewhere")
        done = ran(collection, photos.parent / "elsewhere", prune=True)
        assert kinds(done) == {"moved": 6}
        whole = len(BARE) + (photos.parent / "elsewhere/small.jpg").stat().st_size
        assert done.nbytes <= 4 * MOST + whole
        assert [hit.score for hit in collection.search("a red disc", 6)] == [
            hit.score for hit in before
        ]
        assert [stage.images for stage in stages] == counts


def test_a_copy_is_another_photo(stages, photos):
    with Collection.in_memory(stages, m=[6]) as collection:
        ran(collection, photos)
        shutil.copy2(photos / "0.jpg", photos / "copy.jpg")  # of the same time
        assert kinds(ran(collection, photos)) == {"unchanged": 6, "new": 1}
        assert len(collection) == 7


@pytest.mark.parametrize("change", ["touched", "edited", "edited in the middle"])
def test_what_has_another_time_is_encoded_anew_by_all_stages(stages, photos, change):
    path = photos / "0.jpg"
    with Collection.in_memory(stages, m=[6], precision="float32") as collection:
        ran(collection, photos)
        collection.refine(Budget())
        counts = [stage.images for stage in stages]
        if change != "touched":
            path.write_bytes(CAMERA[3] if change == "edited" else with_middle(CAMERA[0], 40))
        os.utime(path, ns=(9, 9))
        done = ran(collection, photos)
        assert kinds(done) == {"changed": 1, "unchanged": 5}
        assert (done.added.replaced, collection.row(str(path)).modified) == (1, 9)
        collection.refine(Budget())
        assert [stage.images for stage in stages] == [count + 1 for count in counts]
        assert_close(embedding(collection, 1, path), stages[1].encode_images([str(path)])[0])


def test_two_files_of_the_same_ends_are_two_photos(stages, photos):
    """One takes nothing of the other's, not even where it comes and the other goes."""
    path, twin = photos / "0.jpg", photos / "twin.jpg"
    with Collection.in_memory(stages, m=[6], precision="float32") as collection:
        ran(collection, photos)
        collection.refine(Budget())
        twin.write_bytes(with_middle(CAMERA[0], 40))
        assert modified(twin) != modified(path)
        path.unlink()
        assert kinds(ran(collection, photos)) == {"new": 1, "unchanged": 5, "gone": 1}
        rows = [collection.row(str(name)) for name in (path, twin)]
        assert rows[0].digest == rows[1].digest
        collection.refine(Budget())
        assert_close(embedding(collection, 1, twin), stages[1].encode_images([str(twin)])[0])


def as_before(collection, photos):
    """Add photos as all were added before: read whole, and known by a digest of the whole."""
    found = [read(row) for row in Photos.at([str(photos)])]
    collection.add([(each.row, each.source) for each in found])


def test_a_collection_that_knows_its_photos_whole_goes_on_without_encoding(
    stages, photos, tmp_path
):
    pytest.importorskip("lancedb")
    where = tmp_path / "photos.cascade"
    with Collection.create(where, stages, m=[3]) as collection:
        as_before(collection, photos)
        hits = collection.search("a red disc", 3)
    counts = [stage.images for stage in stages]
    with Collection.open(where, stages) as collection:
        done = ran(collection, photos)
        assert (kinds(done), done.nbytes) == ({"unchanged": 6}, 0)
        os.utime(photos / "0.jpg", ns=(9, 9))
        (photos / "1.jpg").rename(photos / "moved.jpg")
        os.utime(photos / "moved.jpg", ns=(9, 9))
        assert kinds(ran(collection, photos)) == {"touched": 1, "moved": 1, "unchanged": 4}
        assert [stage.images for stage in stages] == counts
        assert not any(is_of_ends(row.digest) for row in collection.rows())
        scores = [hit.score for hit in collection.search("a red disc", 3)]
        assert scores == [hit.score for hit in hits]
        (photos / "new.jpg").write_bytes(CAMERA[0] + b"\0")
        (photos / "2.jpg").write_bytes(with_middle(CAMERA[2], 40))
        assert kinds(ran(collection, photos)) == {"new": 1, "changed": 1, "unchanged": 5}
        by_ends = {row.key for row in collection.rows() if is_of_ends(row.digest)}
        assert by_ends == {str(photos / "new.jpg"), str(photos / "2.jpg")}


def test_collections_that_know_photos_in_both_ways_are_joined(stages, photos):
    with (
        Collection.in_memory(stages, m=[6]) as ours,
        Collection.in_memory(stages, m=[6]) as theirs,
    ):
        ran(ours, photos)
        as_before(theirs, photos)
        theirs.refine(Budget())
        assert join(ours, theirs).unchanged == 6
        assert ours.status().encoded == (6, 6)
        assert not any(is_of_ends(row.digest) for row in ours.rows())  # the better one stays
        os.utime(photos / "0.jpg", ns=(9, 9))
        assert kinds(ran(ours, photos)) == {"touched": 1, "unchanged": 5}


def test_a_worker_reads_and_answers_as_a_collection_does_itself(tmp_path, photos):
    for seed, name in enumerate(("full", "first")):
        tiny_clip(seed).save_pretrained(tmp_path / name)
        tiny_processor().save_pretrained(tmp_path / name)
    full = Stage.load(tmp_path / "full")
    stages = [Stage.load(tmp_path / "first", texts=full, reads="thumbnail"), full]
    with (
        Collection.in_memory(stages, m=[3], batch_size=16) as alone,
        Collection.in_memory(stages, m=[3], batch_size=16) as fed,
    ):
        ran(alone, photos)
        changes = [Change(Kind.NEW, row) for row in Photos.at([str(photos)])]
        worker = Worker()
        worker.begin(Job.of(fed, 16, "cpu", 1), probes_of(changes))
        fed.add(worker.encode(changes).additions())
        assert list(fed.rows()) == list(alone.rows())
        assert sum(is_of_ends(row.digest) for row in fed.rows()) == 4
        ours, theirs = (each.cascade.catalogue.contents.rows for each in (alone, fed))
        assert torch.equal(ours.embeddings, theirs.embeddings)


def test_a_worker_reads_for_a_mapped_stage_what_the_one_behind_it_reads(tmp_path, photos):
    for seed, name in enumerate(("full", "first")):
        tiny_clip(seed).save_pretrained(tmp_path / name)
        tiny_processor().save_pretrained(tmp_path / name)
    full = Stage.load(tmp_path / "full")
    first = Stage.load(tmp_path / "first", reads="thumbnail")
    through = Map(torch.eye(first.dimension), torch.zeros(first.dimension))
    save_maps([through], tmp_path / "maps.safetensors")
    mapped = MappedStage(first, through, full)
    known = replace(
        recorded(first),
        name=mapped.name,
        text_name=mapped.text_name,
        texts=str(tmp_path / "full"),
        maps="maps.safetensors",
    )
    changes = [Change(Kind.NEW, row) for row in Photos.at([str(photos)])]
    worker = Worker()
    job = Job((known,), "float16", 16, "cpu", 1, str(tmp_path), kinds_read())
    worker.begin(job, probes_of(changes))
    with (
        Collection.in_memory([mapped, full], m=[3], batch_size=16) as alone,
        Collection.in_memory([mapped, full], m=[3], batch_size=16) as fed,
    ):
        ran(alone, photos)
        fed.add(worker.encode(changes).additions())
        assert list(fed.rows()) == list(alone.rows())
        assert sum(is_of_ends(row.digest) for row in fed.rows()) == 4


def test_of_a_data_set_that_holds_its_images_no_bytes_are_counted(
    stages, photos, tmp_path, monkeypatch
):
    """Its own library reads them: "0 of so many" would be said else."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"image": datasets.Image()})
    directory = tmp_path / "set"
    directory.mkdir()
    images = {"image": [{"bytes": BARE, "path": None}]}
    table = datasets.Dataset.from_dict(images, features=features)
    table.to_parquet(directory / "train.parquet")
    with Collection.in_memory(stages, m=[3]) as collection:
        done = ran(collection, f"hub:{directory}")
        assert (done.opened, done.size, done.nbytes) == (1, 0, 0)
        done = ran(collection, f"hub:{directory}", photos / "bare.jpg")
        assert (done.opened, done.size, done.nbytes) == (1, len(BARE), len(BARE))


def test_what_cannot_be_decoded_is_read_whole_and_not_tried_again(stages, photos):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(2 * LEAST))
    with Collection.in_memory(stages, m=[3]) as collection:
        done = ran(collection, photos)
        (reason,) = done.skipped.values()
        assert reason.startswith("can't be decoded (")
        row = next(row for row in collection.rows() if row.reason)
        assert row.digest == read(replace(row, reason=None)).row.digest
        assert kinds(ran(collection, photos)) == {"unchanged": 7}


def test_the_server_gives_out_what_was_indexed_and_nothing_else(stages, photos):
    path = photos / "0.jpg"
    with Collection.in_memory(stages, m=[3]) as collection:
        ran(collection, photos)
        number, pictures = collection.id_of(str(path)), Pictures(collection, 1 << 24)
        assert pictures.image(number).content == CAMERA[0]
        place = places_of(number, collection.row(str(path)))["image"]
        assert re.fullmatch(rf"/images/{number}\?of=[0-9a-f]{{12}}", place)
        time = modified(path)
        for content, at in ((with_middle(CAMERA[0], 40), 9), (CAMERA[0], 9), (CAMERA[1], time)):
            path.write_bytes(content)
            os.utime(path, ns=(at, at))
            with pytest.raises(RefusedError, match="has changed since it was indexed"):
                pictures.image(number)
        touched = replace(collection.row(str(path)), modified=9)
        assert places_of(number, touched)["image"] != place


def test_thumbnails_that_show_something_else_are_counted_where_pictures_are_opened(stages, photos):
    (photos / "stale.jpg").write_bytes(STALE)
    with Collection.in_memory(stages, m=[3]) as collection:
        ran(collection, photos)
        assert (collection.thumbnails.counts, stale_thumbnails(collection)) == ({}, None)
        collection.refine(Budget())
        assert collection.thumbnails.counts == {"used": 4, "stale": 1}
        assert stale_thumbnails(collection).startswith("1 of 5 photos that were opened show")
    with Collection.in_memory(stages, m=[3]) as collection:
        ran(collection, photos / "0.jpg", photos / "bare.jpg")
        collection.refine(Budget())
        assert collection.thumbnails.counts == {"used": 1}
        assert stale_thumbnails(collection) is None
        rows = list(collection.rows())
    other = Stage(tiny_clip(2), tiny_processor())  # that has seen the pictures themselves
    with Collection.in_memory([other, stages[1]], m=[3]) as collection:
        collection.add([*rows, str(photos / "stale.jpg")])
        collection.refine(Budget())
        assert collection.thumbnails.counts == {}


def test_the_command_says_how_photos_were_opened_and_what_was_read(tmp_path, photos, capsys):
    pytest.importorskip("lancedb")
    from cascade.index import IndexOptions, main

    for seed, name in enumerate(("last", "first")):
        tiny_clip(seed).save_pretrained(tmp_path / name)
        tiny_processor().save_pretrained(tmp_path / name)
    (tmp_path / "first" / "compression.json").write_text(
        json.dumps(replace(RECORD, reads="thumbnail").__dict__)
    )
    line = {"first": str(tmp_path / "first"), "last": str(tmp_path / "last"), "other_base": True}
    main(IndexOptions(photos=(str(photos),), into=tmp_path / "a.cascade", **line))
    sizes = {file.name: file.stat().st_size for file in photos.iterdir()}
    read = 4 * MOST + sizes["bare.jpg"] + sizes["small.jpg"]
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"opened 4 by thumbnail alone, 2 whole; read {read / 1e6:,.1f} MB of "
        f"{sum(sizes.values()) / 1e6:,.1f} MB"
    ) in said
    main(IndexOptions(photos=(str(photos),), into=tmp_path / "a.cascade"))
    assert "opened" not in capsys.readouterr().out
