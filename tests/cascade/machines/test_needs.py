"""How many workers machines have room for, and what is refused before any is started."""

import sys

import pytest

from cascade import Collection, CollectionError, Stage
from cascade.machines.cluster import Needs, check_address
from cascade.machines.crew import Crew
from cascade.machines.worker import Job
from tests.conftest import tiny_clip, tiny_processor

MACHINES = [{"CPU": 8, "GPU": 2}, {"CPU": 16}, {"memory": 1e9}]


@pytest.mark.parametrize(
    ("cpus", "gpus", "room"),
    [(1, 0, 24), (4, 0, 6), (0.1, 0, 240), (4, 1, 2), (1, 0.5, 4), (8, 0.2, 1), (17, 0, 0)],
)
def test_each_worker_has_what_it_needs(cpus, gpus, room):
    assert Needs(cpus, gpus).fitting(MACHINES) == room


@pytest.mark.parametrize("needs", [{"cpus": 0}, {"gpus": -1}, {"workers": -2}])
def test_a_worker_that_needs_nothing_is_none(needs):
    with pytest.raises(ValueError, match="a worker needs CPU cores"):
        Needs(**needs)


def test_ray_that_is_not_installed_is_said_with_what_to_do(tmp_path, monkeypatch):
    tiny_clip().save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    with Collection.in_memory([Stage.load(tmp_path)]) as collection:
        job = Job.of(collection, 32, "cpu", 1)
    with pytest.raises(CollectionError, match=r"need Ray: pip install 'clip-cascade\[ray\]'"):
        Crew("local", job)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_an_address_where_nothing_is_comes_back_at_once(address):
    with pytest.raises(CollectionError, match=f"Ray can't be reached at {address}: "):
        check_address(address)


@pytest.mark.parametrize("address", ["", "cluster", "http://", "host:port"])
def test_what_is_no_address_is_said(address):
    with pytest.raises(CollectionError, match="is no address of a Ray cluster: local, auto"):
        check_address(address)
