"""Gives out the files of the page, with what a browser may do with them."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

from fastapi import FastAPI, Header
from fastapi.responses import Response

PAGE = "/"
"""The path of the page; its other files are below /page/."""
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    # blob: is a picture that was chosen in the browser to search with
    "Content-Security-Policy": "default-src 'self'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; object-src 'none'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def _read() -> dict[str, _File]:
    """The files by the paths at which they are given out."""
    found = {}
    for place in files("cascade.serving.page").iterdir():
        kind = place.name.rpartition(".")[2]
        if kind in _TYPES:
            content = place.read_bytes()
            digest = hashlib.blake2b(content, digest_size=12).hexdigest()
            path = PAGE if place.name == "index.html" else f"/page/{place.name}"
            found[path] = _File(content, _TYPES[kind], f'"{digest}"')
    return found


_FILES = _read()
OPEN = frozenset(_FILES)
"""The paths of these files, which hold nothing of a collection."""


def add_page(api: FastAPI) -> None:
    """Give out the files of the page."""

    def add(path: str, file: _File) -> None:
        @api.get(path, include_in_schema=False)
        async def given(
            known: Annotated[str | None, Header(alias="If-None-Match")] = None,
        ) -> Response:
            headers = {**_HEADERS, "ETag": file.etag}
            if known is not None and file.etag in known:
                return Response(status_code=304, headers=headers)
            return Response(file.content, media_type=file.media_type, headers=headers)

    for path, file in _FILES.items():
        add(path, file)
