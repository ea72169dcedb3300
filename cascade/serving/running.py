"""Letting a server run: from an address to listen at to a clean end by a signal."""

import asyncio
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from cascade.collecting.refining import Budget
from cascade.collection import Collection
from cascade.serving.additions import Additions
from cascade.serving.app import application
from cascade.serving.background import Background
from cascade.serving.engine import Engine
from cascade.serving.guard import OWN_NAMES, Door, Guard
from cascade.serving.limits import Limits
from cascade.serving.local import LocalSocket
from cascade.serving.page.files import OPEN, PAGE
from cascade.serving.pictures import Pictures
from cascade.serving.routes.served import Served
from cascade.serving.sessions import Sessions
from cascade.serving.work import Slots

_SECONDS_TO_END = 10
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@dataclass(frozen=True)
class Allowed:
    """What a server allows, and to whom.

    Attributes:
        token: what requests must bring; None: nothing.
        loopback: whether only this machine is listened to.
        uploads: where uploads are kept; None: there may be none.
        paths: directories of which files may be added.
        refine: what the last stage encodes in the background; None: nothing.
        limits: of requests.
    """

    token: str | None = None
    loopback: bool = True
    uploads: Path | None = None
    paths: tuple[Path, ...] = ()
    refine: Budget | None = None
    limits: Limits = field(default_factory=Limits)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def guarded(collection: Collection, allowed: Allowed, device: str = "cpu") -> Guard:
    """The whole application that serves a collection, with the local socket and the background.

    Raises:
        CollectionError: a stage isn't what it was, or isn't there.
    """
    limits = allowed.limits
    engine, slots = Engine(collection), Slots(limits.at_once)
    engine.load()
    local = None
    if collection.path is not None:
        local = LocalSocket(engine, slots, collection.path, device)
    background = Background(engine)
    sessions = None if allowed.token is None else Sessions(allowed.token)
    served = Served(
        engine,
        Pictures(collection, limits.file),
        Additions(collection, limits, allowed.uploads, allowed.paths),
        limits,
        slots,
        background,
        sessions,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if allowed.refine is not None:
            background.start(allowed.refine)
        try:
            if local is None:
                yield
            else:
                async with local.listening():
                    yield
        finally:
            await asyncio.to_thread(background.stop)
            await asyncio.to_thread(slots.wait_until_free, _SECONDS_TO_END)

    api = application(served, lifespan)
    names = OWN_NAMES if allowed.loopback else None
    return Guard(api, limits, slots, Door(allowed.token, sessions, names, PAGE, OPEN))


def listening_at(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        OSError: it can't.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except BaseException:
        made.close()
        raise
    return made


def run_until_signal(guard: Guard, at: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; requests that are being answered are finished.

    Args:
        guard: the application.
        at: the socket that listens.
        ready: called once it does.
    """
    config = uvicorn.Config(
        guard,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )
    _Server(config, ready).run([at])


class _Server(uvicorn.Server):
    """A server that ends by a signal as if it had been asked to, and says when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals while this lasts."""
        numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self.handle_exit) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
