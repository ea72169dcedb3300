"""Workers of a Ray cluster, real processes: what they make together is what one process makes.

Ray and each worker take seconds to start, so there is one cluster for all of these tests, and they
run where all examples are asked for.
"""

import os
import re
import signal
from dataclasses import replace

import pytest
import torch

from cascade import Collection, Stage
from cascade.machines.cluster import Needs
from cascade.machines.crew import WAITING, Crew
from cascade.machines.worker import Job
from cascade.photos.finding import Photos
from cascade.storing.errors import CollectionError
from cascade.upkeep import bring_up_to_date
from tests.cascade.photos.conftest import painted
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import thorough_only

PHOTOS, SIZE = 120, 4
NEEDS = Needs(cpus=1, workers=2)
pytestmark = thorough_only  # ray is imported by its fixture: that alone takes seconds


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("crew")
    for seed, name in enumerate(("first", "last")):
        tiny_clip(seed).save_pretrained(root / name)
        tiny_processor().save_pretrained(root / name)
    for number in range(PHOTOS):
        painted(root / "photos" / f"{number:03}.png")
    (root / "photos" / "010.png").write_bytes((root / "photos" / "011.png").read_bytes()[:60])
    (root / "photos" / "050.png").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def stages(directory):
    return [Stage.load(directory / name) for name in ("first", "last")]


@pytest.fixture(scope="module")
def alone(directory, stages):
    """The collection that one process makes."""
    collection = Collection.in_memory(stages, m=[5], batch_size=SIZE)
    bring_up_to_date(collection, Photos.at([str(directory / "photos")]), threads=1)
    return collection


def crew_of(collection):
    return Crew("local", Job.of(collection, SIZE, "cpu", 1), NEEDS)


def ran(collection, crew, directory, progress=None):
    photos = Photos.at([str(directory / "photos")])
    return bring_up_to_date(collection, photos, progress=progress, preparing=crew.additions)


def assert_equal(collection, expected):
    assert list(collection.rows()) == list(expected.rows())
    found, wanted = (each.cascade.catalogue.contents.rows for each in (collection, expected))
    assert torch.equal(found.embeddings, wanted.embeddings)
    queries = ["a red disc", "a blue square"]
    assert collection.search_many(queries, 9) == expected.search_many(queries, 9)


def process_of(worker):
    return int(re.search(r"process (\d+)", worker).group(1))


def test_a_worker_that_is_killed_changes_nothing(cluster, directory, stages, alone, tmp_path):
    killed = []
    with (
        Collection.create(tmp_path / "c", stages, m=[5], batch_size=SIZE) as collection,
        crew_of(collection) as crew,
    ):

        def kill_one(done):
            ahead = done.found - len(done.skipped) - done.added.added
            assert ahead <= (WAITING * NEEDS.workers + 2) * SIZE + 2048
            if done.found > PHOTOS // 2 and not killed:
                killed.append(process_of(crew.machines[0]))
                os.kill(killed[0], signal.SIGKILL)

        done = ran(collection, crew, directory, kill_one)
        assert killed
        assert crew.lost == 1
        assert done.added.added == PHOTOS - 2
        assert done.skipped == alone.skipped
        assert_equal(collection, alone)


def test_a_run_that_is_interrupted_goes_on_with_the_same_workers(
    cluster, directory, stages, alone, tmp_path
):
    with (
        Collection.create(tmp_path / "c", stages, m=[5], batch_size=SIZE) as collection,
        crew_of(collection) as crew,
    ):

        def interrupt(done):
            if done.found > PHOTOS // 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ran(collection, crew, directory, interrupt)
        workers = crew.machines
        before = len(collection)
        assert 0 < before < PHOTOS
        done = ran(collection, crew, directory)
        assert crew.machines == workers
        assert done.added.added + before == PHOTOS - 2
        assert_equal(collection, alone)


def test_what_no_machine_has_is_refused_at_once(cluster, stages):
    with (
        Collection.in_memory(stages, m=[5]) as collection,
        pytest.raises(CollectionError, match=r"has 64 CPU cores .* the largest have 2 CPU cores"),
    ):
        Crew("local", Job.of(collection, SIZE, "cpu", 1), Needs(cpus=64))


def test_a_worker_that_cannot_begin_ends_the_run_with_its_reason(cluster, directory, stages):
    """Where the checkpoint isn't what it was; nothing is skipped for it."""
    with Collection.in_memory(stages, m=[5], batch_size=SIZE) as collection:
        job = Job.of(collection, SIZE, "cpu", 1)
        other = replace(job.stages[0], name=stages[1].name)
        with (
            Crew("local", replace(job, stages=(other,)), NEEDS) as crew,
            pytest.raises(CollectionError, match=r"the worker on .* can't begin: .* is now"),
        ):
            ran(collection, crew, directory)
        assert not list(collection.rows())


def test_workers_compute_in_the_runtime_that_the_command_names(cluster, directory, stages, alone):
    """In float32, where the results are the same to rounding."""
    pytest.importorskip("onnxruntime")
    with Collection.in_memory(stages, m=[5], batch_size=SIZE) as collection:
        job = Job.of(collection, SIZE, "cpu", 1, "onnxruntime")
        with Crew("local", job, NEEDS) as crew:
            ran(collection, crew, directory)
        assert list(collection.rows()) == list(alone.rows())
        found, wanted = (each.cascade.catalogue.contents.rows for each in (collection, alone))
        torch.testing.assert_close(found.embeddings, wanted.embeddings, atol=2e-3, rtol=0)


def test_a_runtime_that_no_worker_has_ends_the_run_with_a_workers_name(cluster, directory, stages):
    with Collection.in_memory(stages, m=[5], batch_size=SIZE) as collection:
        job = Job.of(collection, SIZE, "cpu", 1, "no such runtime")
        with (
            Crew("local", job, NEEDS) as crew,
            pytest.raises(
                CollectionError, match=r"the worker on .* can't begin: .* runtime is one"
            ),
        ):
            ran(collection, crew, directory)
        assert not list(collection.rows())
