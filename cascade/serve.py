"""Serving: a warm collection as a page, for programs by HTTP, and for the search command.

    python -m cascade.serve photos.cascade --open

Only this machine is answered, unless another address and a token are given.
"""

import os
import socket
import threading
import webbrowser
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import tyro

from cascade.inverted.fitting import Index
from cascade.terminal.command import run_command
from commands.errors import UsageError
from commands.flags import (
    Bounds,
    Count,
    CountOrAuto,
    Positional,
    ReadPath,
    Seconds,
    Share,
)
from commands.run import main_of
from commands.towers import TowersOptions

TOKEN = "CLIP_CASCADE_TOKEN"
"""The variable of the environment that a token is read from: a command line is seen by others."""
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class ServeOptions(TowersOptions):
    """Serve a collection as a page and to programs; cascade.search then answers at once, too.

    Example: python -m cascade.serve photos.cascade --open
    """

    collection: Positional[Annotated[ReadPath, tyro.conf.arg(metavar="COLLECTION")]] = Path(
        "photos.cascade"
    )
    """the collection, as cascade.index made it"""
    m: CountOrAuto | None = None
    """candidates that the last stage looks at, other than the collection's own; auto: as many as
    each query needs"""
    host: str = "127.0.0.1"
    """address to listen at; one that other machines reach needs a token"""
    port: Annotated[int, Bounds(0, 65535)] = 7860
    """port to listen at; 0: any that is free"""
    open: bool = False
    """open the page in a browser"""
    token: str | None = None
    """what requests must bring; better kept in the variable CLIP_CASCADE_TOKEN"""
    allow_upload: bool = False
    """let images be uploaded, into the folder uploads of the collection"""
    allow_paths: tuple[ReadPath, ...] = ()
    """directories of which files may be added by their paths"""
    refine: Share | None = None
    """share of the photos that the last stage encodes in the background when nobody searches"""
    refine_seconds: Seconds | None = None
    """the same, for so many seconds"""
    at_once: Count = 16
    """requests that are answered at the same time; others are told to come again"""
    seconds: Seconds = 60.0
    """after how long a request is given up"""
    index: Index = "auto"
    """search the first stage in memory (exact), by its lists on disk (ivf), or as it fits (auto)"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("cascade.serve"), ServeOptions, "cascade.serve")

try:
    import fastapi as _fastapi  # noqa: F401 – what is missing is said before anything is loaded
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as missing:
    raise UsageError(
        f"serving needs {missing.name}: pip install 'clip-cascade[search]'"
    ) from missing

from cascade.collecting.refining import Budget
from cascade.collection import Collection
from cascade.serving.limits import Limits
from cascade.serving.running import (
    Allowed,
    guarded,
    is_loopback,
    listening_at,
    run_until_signal,
)
from commands.screen import announced, console


def main(options: ServeOptions) -> None:
    """Serve until a signal ends it."""
    allowed = _allowed(options)
    try:
        at = listening_at(options.host, options.port)
    except OSError as error:
        raise UsageError(
            f"{options.host}:{options.port} can't be listened at ({error.strerror}): choose "
            "another --port"
        ) from error
    page = _page_at(*at.getsockname()[:2])
    with at, _opened(options) as collection:
        if allowed.refine is not None and len(collection.stages) == 1:
            raise UsageError("--refine has no effect with a collection of one stage")
        with announced("loading checkpoints"):
            guard = guarded(collection, allowed, options.device)
        screen = console()

        def ready() -> None:
            screen.print(
                f"{options.collection}: {len(collection):,} photos at {page} (for programs: "
                f"{page}/docs); Ctrl-C ends it"
            )
            if options.open:  # on a thread: some browsers are waited for
                threading.Thread(target=_open, args=(page,), daemon=True).start()

        run_until_signal(guard, at, ready)
    screen.print("ended; everything is stored")


def _open(page: str) -> None:
    """Open the page in a browser."""
    if not webbrowser.open(page):
        console().print(f"no browser was found: open {page}")


def _page_at(host: str, port: int) -> str:
    """The address of the page of a server that listens at an address."""
    try:
        anywhere = ip_address(host).is_unspecified
    except ValueError:  # a zone is named, too
        anywhere = False
    name = socket.gethostname() if anywhere else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def _opened(options: ServeOptions) -> Collection:
    """The collection.

    Raises:
        UsageError: m doesn't fit it, or "auto" isn't calibrated.
    """
    m = [options.m] if isinstance(options.m, int) else options.m
    try:
        return Collection.open(
            options.collection,
            m=m,
            device=options.device,
            index=options.index,
            runtime=options.runtime,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _allowed(options: ServeOptions) -> Allowed:
    """What the options allow.

    Raises:
        UsageError: they don't go together.
    """
    loopback = is_loopback(options.host)
    token = options.token or os.environ.get(TOKEN) or None
    if token is None and not loopback:
        raise UsageError(
            f"{options.host} is reached by other machines: give a token, as in {TOKEN}=$(openssl "
            "rand -hex 16), or listen at 127.0.0.1"
        )
    if token is not None and (len(token) < _SHORTEST_TOKEN or not token.isascii()):
        raise UsageError(f"a token has at least {_SHORTEST_TOKEN} ASCII characters")
    for directory in options.allow_paths:
        if not directory.is_dir():
            raise UsageError(f"--allow-paths {directory}: there is no such directory")
    refine = None
    if options.refine is not None or options.refine_seconds is not None:
        refine = Budget(share=options.refine, seconds=options.refine_seconds)
    return Allowed(
        token=token,
        loopback=loopback,
        uploads=options.collection / "uploads" if options.allow_upload else None,
        paths=options.allow_paths,
        refine=refine,
        limits=Limits(at_once=options.at_once, seconds=options.seconds),
    )
