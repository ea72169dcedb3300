"""A Ray cluster: joining it, and how many workers it has room for."""

import logging
import math
import os
import socket
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cascade.storing.errors import CollectionError

LOCAL = "local"
"""The address of a cluster that is started on this machine and ends with the crew."""
_SECONDS = 10.0  # to wait for somebody to listen


@dataclass(frozen=True)
class Needs:
    """What a worker is given: CPU cores and GPUs, which may be shares of one; and how many."""

    cpus: float = 1
    gpus: float = 0
    workers: int | None = None  # as many as the cluster has room for

    def __post_init__(self) -> None:
        """Refuse what no worker can live on."""
        if self.cpus <= 0 or self.gpus < 0 or (self.workers or 1) < 1:
            raise ValueError(f"a worker needs CPU cores, and there must be one: {self!r}")

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPUs" if self.gpus else ""
        return f"{self.cpus:g} CPU cores{gpus}"

    def fitting(self, machines: Iterable[dict[str, float]]) -> int:
        """How many workers machines of these resources have room for."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return sum(
            int(min(machine.get(name, 0.0) / need + 1e-9 for name, need in wanted.items() if need))
            for machine in machines
        )


def room_for(needs: Needs, ray: Any) -> int:
    """How many workers there are to be in the cluster that this process has joined.

    Raises:
        CollectionError: no machine has room for one.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = needs.fitting(machines)
    if not room:
        cores = max((machine.get("CPU", 0) for machine in machines), default=0)
        gpus = max((machine.get("GPU", 0) for machine in machines), default=0)
        raise CollectionError(
            f"no machine of the cluster has {needs} for a worker: the largest have "
            f"{cores:g} CPU cores and {gpus:g} GPUs"
        )
    return needs.workers or room


def imported_ray() -> Any:
    """The package `ray`.

    Raises:
        CollectionError: it isn't installed.
    """
    try:
        import ray
    except ImportError as error:
        raise CollectionError("many machines need Ray: pip install 'clip-cascade[ray]'") from error
    return ray


def joined(ray: Any, address: str, needs: Needs) -> bool:
    """Join a cluster, unless this process belongs to one already; says whether it didn't.

    Raises:
        CollectionError: there is none at this address.
    """
    if ray.is_initialized():
        return False
    check_address(address)
    with warnings.catch_warnings():  # of lancedb, which a process started by Ray has no use for
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            _join(ray, address, needs)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            said = " ".join(str(error).split())
            raise CollectionError(f"Ray can't be reached at {address}: {said}") from error
    return True


def check_address(address: str) -> None:
    """Refuse an address where nothing is at once: Ray itself tries for minutes.

    Raises:
        CollectionError: nothing listens there.
    """
    if address in (LOCAL, "auto"):
        return
    try:
        place = urlsplit(address if "//" in address else f"//{address}")
        host, port = place.hostname, place.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise CollectionError(
            f"{address!r} is no address of a Ray cluster: local, auto, HOST:6379 or "
            "ray://HOST:10001 is expected"
        )
    try:
        socket.create_connection((host, port), _SECONDS).close()
    except OSError as error:
        raise CollectionError(
            f"Ray can't be reached at {address}: {error.strerror or error}"
        ) from error


def _join(ray: Any, address: str, needs: Needs) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        cores = os.cpu_count() or 1
        workers = needs.workers or max(1, int(cores / needs.cpus))
        cpus = max(1, math.ceil(workers * needs.cpus))
        ray.init(address=LOCAL, num_cpus=cpus, include_dashboard=False, **quiet)
    else:
        ray.init(address=address, **quiet)
