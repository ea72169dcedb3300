"""A worker gives what a collection would have made of the same photos, or says why it can't."""

import pickle
import re
import socket
import sys
from dataclasses import replace

import pytest
import torch

from cascade import Collection, ResumedStage, Stage, States
from cascade.machines.worker import Job, Worker, probes_of
from cascade.photos.changes import Change, Kind
from cascade.photos.finding import Photos
from cascade.storing.errors import CollectionError
from cascade.upkeep import bring_up_to_date
from pruning_mechanism import Reduction, reduce
from pruning_mechanism.runtimes.needs import bfloat16_problem
from tests.cascade.known import Known
from tests.cascade.photos.conftest import encoded, packed, painted
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import thorough_only


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A tower and an early exit of it, as checkpoints; and photos, some of which are none."""
    root = tmp_path_factory.mktemp("machines")
    full = tiny_clip(num_hidden_layers=4)
    for name, model in {"full": full, "early": reduce(full, Reduction(layers=2))}.items():
        model.save_pretrained(root / name)
        tiny_processor().save_pretrained(root / name)
    for number in range(7):
        painted(root / "photos" / f"{number}.png")
    (root / "photos" / "3.png").write_bytes((root / "photos" / "2.png").read_bytes()[:60])
    (root / "photos" / "5.png").write_bytes(b"")
    packed(root / "photos" / "some.tar", {"a.png": encoded("red"), "b.png": b"no picture"})
    return root


@pytest.fixture
def stages(places):
    return [Stage.load(places / "early"), Stage.load(places / "full")]


def changes_of(*places):
    return [Change(Kind.NEW, row) for row in Photos.at(map(str, places))]


def answered(job, changes):
    """What a worker makes of photos, sent there and back."""
    worker = Worker()
    worker.begin(pickle.loads(pickle.dumps(job)), probes_of(changes))
    answer = worker.encode(pickle.loads(pickle.dumps(changes)))
    return pickle.loads(pickle.dumps(answer)).additions()


def test_its_answers_are_what_the_collection_makes_itself(places, stages):
    photos = [places / "photos", places / "photos" / "some.tar"]
    with Collection.in_memory(stages, m=[3], batch_size=16) as alone:
        bring_up_to_date(alone, Photos.at(map(str, photos)), threads=1)
        additions = answered(Job.of(alone, 16, "cpu", 1), changes_of(*photos))
        with Collection.in_memory(stages, m=[3], batch_size=16) as fed:
            fed.add(additions)
            assert list(fed.rows()) == list(alone.rows())
            assert fed.skipped == alone.skipped
            assert len(fed) == 6
            assert len(fed.skipped) == 3
            ours, theirs = (each.cascade.catalogue.contents.rows for each in (alone, fed))
            assert torch.equal(ours.embeddings, theirs.embeddings)


def test_states_come_along_where_a_stage_resumes_from_the_first(places, stages):
    first, full = stages
    resumed = ResumedStage(full, first)
    changes = changes_of(places / "photos")
    with Collection.in_memory([first, resumed], m=[3]) as collection:
        additions = answered(Job.of(collection, 32, "cpu", 1), changes)
        collection.add(additions)
        assert collection.status().states == 5
        held = collection.cascade.catalogue.states.found([0, 1, 2])
        sources = [change.row.uri.removeprefix("file://") for change in changes]
        _, expected = resumed.encode_first(sources[:3])
        assert torch.equal(States.joined([held[at] for at in range(3)]).hidden, expected.hidden)


def test_an_embedding_that_was_made_elsewhere_is_checked(places, stages):
    changes = changes_of(places / "photos" / "0.png", places / "photos" / "1.png")
    with Collection.in_memory(stages, m=[3]) as collection:
        (row, made), (other, _) = answered(Job.of(collection, 32, "cpu", 1), changes)
        collection.add([(row, made)])
        longer = replace(made, embedding=torch.zeros(made.embedding.numel() + 1))
        with pytest.raises(ValueError, match=r"1.png' came with an embedding \[\d+\], \[\d+\] is"):
            collection.add([(other, longer)])
        endless = replace(made, embedding=torch.full_like(made.embedding, 1e9))
        collection.add([(other, endless)])
        assert collection.skipped == {other.key: "its embedding is not finite"}


def test_photos_that_others_see_and_it_does_not_are_no_skipped_photos(places, stages):
    changes = changes_of(places / "photos" / "0.png")
    with Collection.in_memory(stages, m=[3]) as collection:
        job = Job.of(collection, 32, "cpu", 1)
    [probe] = probes_of(changes)
    elsewhere = replace(probe.row, uri=probe.row.uri.replace("photos", "nowhere"))
    with pytest.raises(
        CollectionError, match=r"can't begin: .*0.png can't be read there: all mach"
    ):
        Worker().begin(job, [replace(probe, row=elsewhere)])
    with pytest.raises(CollectionError, match=r"0.png is another file there"):
        Worker().begin(job, [replace(probe, digest="0" * 32)])


def test_a_machine_that_lacks_a_decoder_is_refused(stages):
    """Its photos of that kind would be skipped, and not looked at again."""
    with Collection.in_memory(stages, m=[3]) as collection:
        job = Job.of(collection, 32, "cpu", 1)
    assert {"PNG", "WEBP"} <= job.kinds
    with pytest.raises(CollectionError, match=r"can't begin: XYZ can't be read there: install"):
        Worker().begin(replace(job, kinds=job.kinds | {"XYZ"}), [])


def test_another_checkpoint_than_the_collections_is_refused_by_name(places, stages):
    with Collection.in_memory(stages, m=[3]) as collection:
        job = Job.of(collection, 32, "cpu", 1)
    other = replace(job.stages[0], checkpoint=str(places / "full"))
    said = f"{places / 'full'} \\({stages[0].name[:12]}\\), which is now {stages[1].name[:12]}"
    with pytest.raises(CollectionError, match=said):
        Worker().begin(replace(job, stages=(other,)), [])


def test_a_stage_without_a_checkpoint_is_refused_before_any_worker_starts():
    with (
        Collection.in_memory([Known(0), Known(1)], m=[3]) as collection,
        pytest.raises(CollectionError, match="workers can't load the stage known 0"),
    ):
        Job.of(collection, 32, "cpu", 1)


@thorough_only  # an export takes seconds
def test_a_worker_computes_in_the_runtime_that_the_command_names(places, stages):
    pytest.importorskip("onnxruntime")
    changes = changes_of(places / "photos" / "0.png")
    with Collection.in_memory(stages[1:]) as collection:
        job = Job.of(collection, 32, "cpu", 1, "onnxruntime")
    worker = Worker()
    worker.begin(pickle.loads(pickle.dumps(job)), probes_of(changes))
    assert worker._first.runs_in.runtime == "onnxruntime"
    wanted = stages[1].encode_images([places / "photos" / "0.png"])
    torch.testing.assert_close(worker.encode(changes).embeddings, wanted, atol=1e-3, rtol=0)


@pytest.mark.skipif(bfloat16_problem("cpu") is not None, reason="no products in bfloat16")
def test_a_worker_computes_and_reads_as_the_collection_was_made(places):
    """In a type of its own whatever the command names, which would give other embeddings."""
    stage = Stage.load(places / "full", dtype="bfloat16", reads="thumbnail")
    changes = changes_of(places / "photos" / "0.png")
    with Collection.in_memory([stage]) as collection:
        job = Job.of(collection, 32, "cpu", 1, "onnxruntime")
    worker = Worker()
    worker.begin(job, probes_of(changes))
    found = worker._first
    assert (found.runs_in.runtime, found.runs_in.dtype) == ("torch", "bfloat16")
    assert (found.reads, found.name) == ("thumbnail", stage.name)


def test_a_runtime_that_a_worker_lacks_is_said_with_the_workers_name(stages, monkeypatch):
    with Collection.in_memory(stages) as collection:
        job = Job.of(collection, 32, "cpu", 1, "onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = rf"the worker on {re.escape(socket.gethostname())}, .* can't begin: .*pip install 'clip-"
    with pytest.raises(CollectionError, match=said) as caught:
        Worker().begin(job, [])
    assert "\n" not in str(caught.value)
