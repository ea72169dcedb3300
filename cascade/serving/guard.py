"""What stands before the API: strangers, floods and oversized requests come no further.

- The name that a browser asked for must be this machine's, as long as only this machine is
  listened to: a page elsewhere whose name suddenly means 127.0.0.1 is refused.
- What a page of another origin sends is refused, whether or not it could read the answer. Only a
  link to the page itself may come from anywhere.
- The token, where there is one, is compared in constant time; a session stands for it. The files of
  the page need neither, since they hold nothing of the collection.
- A body is counted while it comes, and comes within a time.
"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from cascade.serving.limits import Limits
from cascade.serving.sessions import Sessions
from cascade.serving.work import RefusedError, Slots

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""What this machine calls itself."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Door:
    """Who is let in.

    Attributes:
        token: what requests must bring; None: nothing.
        sessions: what they may bring in its place.
        names: of the machine, by which it may be asked; None: any.
        page: the path of the page, which links anywhere may lead to.
        files: paths of files that anybody may read, the page among them.
    """

    token: str | None = None
    sessions: Sessions | None = None
    names: frozenset[str] | None = OWN_NAMES
    page: str | None = None
    files: frozenset[str] = frozenset()

    def check(self, scope: Message) -> None:
        """Refuse whom this server doesn't answer.

        Raises:
            RefusedError: it doesn't.
        """
        host = _only(scope, b"host")
        if self.names is not None and _name_of(host) not in self.names:
            raise RefusedError(
                421, "this server is asked by another name than localhost: it answers no other"
            )
        origin = _only(scope, b"origin")
        if origin is not None and origin.partition("://")[2].lower() != (host or "").lower():
            raise RefusedError(403, "pages of other origins are not answered")
        if not self._is_own_page(scope):
            raise RefusedError(403, "pages of other origins are not answered")
        if self.token is None or (scope["method"] == "GET" and scope["path"] in self.files):
            return
        known = self.sessions is not None and self.sessions.known(_only(scope, b"cookie"))
        if not known and not self._is_token(_only(scope, b"authorization")):
            raise RefusedError(
                401,
                "a token is needed: send the header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )

    def _is_own_page(self, scope: Message) -> bool:
        """Whether no other page has sent it, or it is a link that a person has followed here."""
        if (_only(scope, b"sec-fetch-site") or "none") in ("none", "same-origin"):
            return True
        followed = [_only(scope, name) for name in (b"sec-fetch-mode", b"sec-fetch-dest")]
        link = scope["method"] == "GET" and followed == ["navigate", "document"]
        return link and scope["path"] == self.page

    def _is_token(self, given: str | None) -> bool:
        scheme, _, token = (given or "").partition(" ")
        expected = (self.token or "").encode()
        same = hmac.compare_digest(token.strip().encode("latin-1"), expected)
        return same and scheme.lower() == "bearer"


class Guard:
    """An application with a guard before it."""

    def __init__(
        self, application: Application, limits: Limits, slots: Slots, door: Door | None = None
    ) -> None:
        """Guard an application.

        Args:
            application: what answers the requests that are let through.
            limits: of a request.
            slots: one is held while a request is answered.
            door: who is let in; by default whoever asks by a name of this machine.
        """
        self._application = application
        self._limits = limits
        self._slots = slots
        self._door = door or Door()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request or refuse it."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing else is spoken here
            await send({"type": "websocket.close", "code": 1003})
            return
        send = _with_headers(send)
        try:
            self._door.check(scope)
            with self._slots.one():
                body = await self._body(scope, receive)
                await self._application(scope, _again(body, receive), send)
        except RefusedError as refused:
            await refuse(refused, send)

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        """The body, as long as it isn't too long."""
        too_long = RefusedError(
            413, f"the body has more than {self._limits.body:,} bytes", {"Connection": "close"}
        )
        length = _only(scope, b"content-length")
        if length is not None and length.isdigit() and int(length[:20]) > self._limits.body:
            raise too_long

        async def whole() -> bytes:
            parts, size = [], 0
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedError(400, "the body ends early", {"Connection": "close"})
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > self._limits.body:
                    raise too_long
                if not message.get("more_body", False):
                    return b"".join(parts)

        try:
            return await asyncio.wait_for(whole(), self._limits.seconds)
        except asyncio.TimeoutError as error:
            raise RefusedError(
                408,
                f"the body took longer than {self._limits.seconds:g} s",
                {"Connection": "close"},
            ) from error


async def refuse(refused: RefusedError, send: Send) -> None:
    """Answer with an error."""
    content = json.dumps({"error": refused.reason}).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **refused.headers,
    }
    start = {"type": "http.response.start", "status": refused.status}
    await send({**start, "headers": list(_encoded(headers))})
    await send({"type": "http.response.body", "body": content})


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, to be read by the application."""
    given = False

    async def from_memory() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return from_memory


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            others = [header for header in _encoded(_HEADERS) if header[0] not in names]
            message = {**message, "headers": [*given, *others]}
        await send(message)

    return sending


def _encoded(headers: dict[str, str]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers.items():
        yield name.lower().encode("latin-1"), value.encode("latin-1")


def _only(scope: Message, name: bytes) -> str | None:
    """The value of a header that may come once."""
    values = [value for key, value in scope["headers"] if key.lower() == name]
    if len(values) > 1:
        raise RefusedError(400, f"the header {name.decode()} comes more than once")
    return values[0].decode("latin-1").strip() if values else None


def _name_of(host: str | None) -> str:
    """The name in a Host header, without the port."""
    name = (host or "").lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]
