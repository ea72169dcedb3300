"""Images of the collection: listed, given out, as thumbnails, and added."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Annotated, Any, TypeAlias

from fastapi import Body, FastAPI, Header, Path, Query, Request
from fastapi.responses import Response

from cascade.collection import Collection
from cascade.photos.identity import version_of
from cascade.serving.pictures import Picture, Pictures
from cascade.serving.routes.refusals import OF_IMAGES, USUAL, refusals
from cascade.serving.routes.served import Served
from cascade.serving.schemas import (
    LARGEST,
    LIMITS,
    AddedAnswer,
    ImageEntry,
    ImagesAnswer,
    PathRequest,
)
from cascade.serving.work import RefusedError, run
from cascade.storing.rows import ImageRow

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_DIGITS = 12
_FOR_EVER = "private, max-age=31536000, immutable"
_ASK_AGAIN = "private, no-cache"
Number: TypeAlias = Annotated[int, Path(ge=0, le=LARGEST, description="of an image")]
Version: TypeAlias = Annotated[
    str | None,
    Query(
        pattern="^[0-9a-f]{12}$",
        description="the beginning of the image's digest, as places of images have it; an answer "
        "to such a request may be kept for ever",
    ),
]
Known: TypeAlias = Annotated[str | None, Header(alias="If-None-Match", include_in_schema=False)]


def places_of(number: int, row: ImageRow) -> dict[str, str]:
    """Where an image and its thumbnail are.

    The places hold a part of the digest: another collection at the same address has other images
    under the same numbers, and a browser must not show one for the other.
    """
    known = version_of(row)
    version = "" if known is None else f"?of={known[:_DIGITS]}"
    return {
        "image": f"/images/{number}{version}",
        "thumbnail": f"/images/{number}/thumbnail{version}",
    }


def add_images(api: FastAPI, served: Served) -> None:
    """List images, give them out, and add others."""
    _add_list(api, served)
    _add_pictures(api, served)
    _add_additions(api, served)


def _add_list(api: FastAPI, served: Served) -> None:
    collection = served.engine.collection

    @api.get("/images", responses=refusals(USUAL))
    async def images(
        start: Annotated[int, Query(ge=0, le=LARGEST, description="images to pass over")] = 0,
        step: Annotated[int, Query(ge=1, le=LARGEST, description="1: each; 2: each second")] = 1,
        limit: Annotated[int, Query(ge=1, le=LIMITS.k, description="images at most")] = 24,
    ) -> ImagesAnswer:
        """Images in the order in which they were added."""
        work = partial(_listed, collection, start, step, limit)
        return ImagesAnswer(images=await run(served.limits.seconds, work))


def _listed(collection: Collection, start: int, step: int, limit: int) -> list[ImageEntry]:
    count = len(collection)  # skipped ones, which come last in rows, are none of them
    rows = islice(collection.rows(), min(start, count), count, min(step, count + 1))
    known = collection.numbered([row.key for row in islice(rows, limit)])
    return [
        ImageEntry(id=number, key=key, **places_of(number, row))
        for key, (number, row) in known.items()
    ]


def _add_pictures(api: FastAPI, served: Served) -> None:
    seconds, pictures = served.limits.seconds, served.pictures

    @api.get("/images/{number}", responses=_of_kind("image/*"), response_class=Response)
    async def image(
        number: Number,
        of: Version = None,
        download: Annotated[bool, Query(description="to be saved, under a safe name")] = False,
        known: Known = None,
    ) -> Response:
        """The file of an image, if it is as it was when it was indexed."""
        asked = _Asked(number, "download" if download else "image", of, known)
        return await run(seconds, partial(_given, pictures, asked, pictures.image))

    size_of = Query(ge=16, le=LIMITS.thumbnail, description="pixels of the longer edge, at most")

    @api.get(
        "/images/{number}/thumbnail", responses=_of_kind("image/jpeg"), response_class=Response
    )
    async def thumbnail(
        number: Number,
        size: Annotated[int, size_of] = 256,
        of: Version = None,
        known: Known = None,
    ) -> Response:
        """A small upright JPEG of an image, if it is as it was when it was indexed."""
        asked = _Asked(number, str(size), of, known)
        made = partial(pictures.thumbnail, size=size)
        return await run(seconds, partial(_given, pictures, asked, made))


@dataclass(frozen=True)
class _Asked:
    """A picture that is asked for: of which image, in what form, and which one is known."""

    number: int
    form: str
    of: str | None
    known: str | None


def _given(pictures: Pictures, asked: _Asked, made: Callable[[int], Picture]) -> Response:
    """A picture, or the answer that the one that is known is still right.

    Raises:
        RefusedError: there is no such image, or it isn't as it was.
    """
    digest = version_of(pictures.row(asked.number))
    if asked.of is not None and not (digest or "").startswith(asked.of):
        raise RefusedError(404, f"there is no image {asked.number} of this digest")
    headers = {"Cache-Control": _ASK_AGAIN if asked.of is None else _FOR_EVER}
    if digest is not None:
        headers["ETag"] = f'"{digest}-{asked.form}"'
        if asked.known is not None and headers["ETag"] in asked.known:
            return Response(status_code=304, headers=headers)
    picture = made(asked.number)
    saved = asked.form == "download"
    headers["Content-Disposition"] = f'attachment; filename="{picture.name}"' if saved else "inline"
    return Response(picture.content, media_type=picture.media_type, headers=headers)


def _of_kind(kind: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: _BINARY}}, **refusals(OF_IMAGES)}


def _add_additions(api: FastAPI, served: Served) -> None:
    limits = served.limits
    added = {201: {"model": AddedAnswer, "description": "it is new"}, **refusals(USUAL)}
    body = {"required": True, "content": {"image/*": _BINARY, "application/octet-stream": _BINARY}}

    @api.post("/images", responses=added, openapi_extra={"requestBody": body})
    async def upload(request: Request, response: Response) -> AddedAnswer:
        """Add an image, whose file is the body; only where the server was started so.

        Once this is answered the image lasts.
        """
        work = partial(served.additions.upload, await request.body())
        return _added(served, response, *await run(limits.seconds, work))

    @api.post("/paths", responses=added)
    async def add_file(request: Annotated[PathRequest, Body()], response: Response) -> AddedAnswer:
        """Add a file that lies on the server, in a directory that it was started with."""
        work = partial(served.additions.file, request.path)
        return _added(served, response, *await run(limits.seconds, work))


def _added(served: Served, response: Response, number: int, new: bool) -> AddedAnswer:
    response.status_code = 201 if new else 200
    places = places_of(number, served.pictures.row(number))
    return AddedAnswer(id=number, new=new, **places)
