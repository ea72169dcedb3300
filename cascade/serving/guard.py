"""What stands before the API: strangers, floods and oversized requests come no further.

- The name that a browser asked for must be this machine's, as long as only this machine is
  listened to: a page elsewhere whose name suddenly means 127.0.0.1 is refused.
- What a page of another origin sends is refused, whether or not it could read the answer.
- The token, where there is one, is compared in constant time.
- A body is counted while it comes, and comes within a time.
"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, TypeAlias

from cascade.serving.limits import Limits
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


class Guard:
    """An application with a guard before it."""

    def __init__(
        self,
        application: Application,
        limits: Limits,
        slots: Slots,
        token: str | None = None,
        names: frozenset[str] | None = OWN_NAMES,
    ) -> None:
        """Guard an application.

        Args:
            application: what answers the requests that are let through.
            limits: of a request.
            slots: one is held while a request is answered.
            token: what requests must bring; None: nothing.
            names: of the machine, by which it may be asked; None: any.
        """
        self._application = application
        self._limits = limits
        self._slots = slots
        self._token = token
        self._names = names

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
            self._check(scope)
            with self._slots.one():
                body = await self._body(scope, receive)
                await self._application(scope, _again(body, receive), send)
        except RefusedError as refused:
            await refuse(refused, send)

    def _check(self, scope: Message) -> None:
        """Refuse whom this server doesn't answer."""
        host = _only(scope, b"host")
        if self._names is not None and _name_of(host) not in self._names:
            raise RefusedError(
                421, "this server is asked by another name than localhost: it answers no other"
            )
        origin = _only(scope, b"origin")
        if origin is not None and origin.partition("://")[2].lower() != (host or "").lower():
            raise RefusedError(403, "pages of other origins are not answered")
        if (_only(scope, b"sec-fetch-site") or "none") not in ("none", "same-origin"):
            raise RefusedError(403, "pages of other origins are not answered")
        if self._token is not None and not self._is_token(_only(scope, b"authorization")):
            raise RefusedError(
                401,
                "a token is needed: send the header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )

    def _is_token(self, given: str | None) -> bool:
        scheme, _, token = (given or "").partition(" ")
        expected = (self._token or "").encode()
        same = hmac.compare_digest(token.strip().encode("latin-1"), expected)
        return same and scheme.lower() == "bearer"

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
            message = {**message, "headers": [*message.get("headers", ()), *_encoded(_HEADERS)]}
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
