"""The local socket, by which commands of this machine ask a warm server.

The other side, and what is said, are in `cascade.serving.asking`.
"""

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from cascade.answers import Answer, Terms, Wanted
from cascade.serving.asking import PROTOCOL, identity_of, socket_of
from cascade.serving.engine import Engine
from cascade.serving.work import RefusedError, Slots, run

_LONGEST_LINE = 1 << 24
_SECONDS_TO_ASK = 5.0


class LocalSocket:
    """Answers commands of this user on this machine."""

    def __init__(self, engine: Engine, slots: Slots, collection: Path, device: str) -> None:
        """Answer them with an engine.

        Args:
            engine: what searches.
            slots: one is held while a command is answered.
            collection: its directory.
            device: where towers run.
        """
        self._engine = engine
        self._slots = slots
        self._device = device
        self._directory = collection
        self._place = socket_of(collection)
        self._identity = identity_of(collection)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[bool]:
        """Listen; False: another server of the collection does, or there is no place for it."""
        place = self._place
        lock = None if place is None else _locked(place.with_suffix(".lock"))
        if place is None or lock is None:
            yield False
            return
        held = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)  # its number stays its own
        try:
            place.unlink(missing_ok=True)  # what a killed server has left: nobody listens there
            server = await asyncio.start_unix_server(
                self._answer, os.fspath(place), limit=_LONGEST_LINE
            )
            try:
                place.chmod(0o600)
                yield True
            finally:
                place.unlink(missing_ok=True)
                server.close()
        finally:
            os.close(held)
            os.close(lock)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # what is wrong with a question, or with whoever asks, ends the connection: who asked then
        # searches in a process of its own
        with suppress(OSError, ValueError, LookupError, TypeError, asyncio.TimeoutError):
            line = await asyncio.wait_for(reader.readline(), _SECONDS_TO_ASK)
            question = json.loads(line)
            try:
                if not self._answers(question):
                    await _say(writer, {"accepted": False})
                else:
                    with self._slots.one():
                        await _say(writer, {"accepted": True})
                        await _say(writer, await self._said_to(question))
            except RefusedError:
                await _say(writer, {"accepted": False})
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()

    def _answers(self, question: dict[str, Any]) -> bool:
        """Whether what is asked for is what this server has, and would search alike."""
        asked = [question[name] for name in ("protocol", "collection", "device")]
        if self._engine.collection.own_m and question["terms"]["m"] is None:
            return False
        return asked == [PROTOCOL, self._identity, self._device]

    async def _said_to(self, question: dict[str, Any]) -> dict[str, Any]:
        queries = [Wanted(**query) for query in question["queries"]]
        work = partial(self._engine.answers, queries, Terms(**question["terms"]))
        try:
            answers: list[Answer] = await run(None, work)
        except ValueError as error:
            return {"error": str(error)}
        return {"answers": [answer.as_entries() for answer in answers]}


async def _say(writer: asyncio.StreamWriter, entries: dict[str, Any]) -> None:
    writer.write(json.dumps(entries).encode() + b"\n")
    await writer.drain()


def _locked(file: Path) -> int | None:
    """An open file that this process alone has locked, as long as it lives; None: another has."""
    try:
        number = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number
