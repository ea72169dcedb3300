"""The HTTP API: what may be asked for, and how each answer and each refusal looks."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeAlias

from fastapi import Body, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from cascade.answers import Terms
from cascade.cascade import Hit
from cascade.images import ImageSource, UnreadableImage
from cascade.queries import Query as Wanted
from cascade.serving.additions import Additions, checked_image
from cascade.serving.background import Background
from cascade.serving.description import page
from cascade.serving.engine import Engine
from cascade.serving.limits import Limits
from cascade.serving.pictures import Picture, Pictures
from cascade.serving.schemas import (
    LARGEST,
    LIMITS,
    AddedAnswer,
    ErrorAnswer,
    HitEntry,
    PathRequest,
    RefiningEntry,
    SearchAnswer,
    SearchRequest,
    StageEntry,
    StatusAnswer,
    decoded,
    problem_of,
)
from cascade.serving.work import RefusedError, Slots, run
from cascade.storing.errors import CollectionError

_TEXT = (
    "Searches a collection of images by words, by examples, or by both. Images are named by "
    'numbers. An error is {"error": "one line"}. 503 with Retry-After means: not now, ask again.'
)
_REASONS = {
    400: "the request can't be read",
    401: "a token is needed",
    403: "it isn't allowed",
    404: "there is no such image",
    408: "the body comes too slowly",
    409: "the image isn't as it was indexed",
    410: "the image is gone",
    413: "the body is too long",
    421: "the server is asked by another name than its own",
    422: "something in the request is wrong",
    503: "not now: there is too much to do, or nothing can be written",
}
_USUAL = (400, 401, 403, 408, 413, 421, 422, 503)
_OF_IMAGES = (*_USUAL, 404, 409, 410)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
Number: TypeAlias = Annotated[int, Path(ge=0, le=LARGEST, description="of an image")]
Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Served:
    """All that the API answers from."""

    engine: Engine
    pictures: Pictures
    additions: Additions
    limits: Limits
    slots: Slots
    background: Background | None = None


def application(served: Served, lifespan: Lifespan | None = None, token: bool = False) -> FastAPI:
    """The API of a collection.

    Args:
        served: what it answers from.
        lifespan: what runs besides as long as it does.
        token: whether a token is asked for, which the description says.
    """
    api = FastAPI(
        title="clip-cascade",
        description=_TEXT,
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    _add_refusals(api)
    _add_searches(api, served)
    _add_images(api, served)
    _add_status(api, served)

    @api.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(api.openapi()))

    _describe(api, token)
    return api


def _refusals(statuses: Sequence[int]) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": ErrorAnswer, "description": _REASONS[status]}
        for status in sorted(statuses)
    }


def _add_searches(api: FastAPI, served: Served) -> None:
    @api.post("/search", responses=_refusals(_OF_IMAGES))
    async def search(request: SearchRequest) -> SearchAnswer:
        """Find images: the hits once all stages have ranked."""
        return await run(served.limits.seconds, partial(_searched, served, request, None))

    kinds = {"application/x-ndjson": {"schema": {"type": "string"}}}
    described = "a line of JSON for each event"

    @api.post(
        "/search/stream",
        responses={200: {"content": kinds, "description": described}, **_refusals(_OF_IMAGES)},
        response_class=StreamingResponse,
    )
    async def stream(request: SearchRequest) -> StreamingResponse:
        """Find images: the first stage's hits at once, then those of all stages.

        Each line is an object. `event` is `first`, `final` or `error`; the others have `hits` and
        `seconds` as the answer of /search, an error has `error`.
        """
        events = _events(served, request)
        first = await anext(events)  # what is wrong with the request is said before it begins

        async def lines() -> AsyncIterator[str]:
            yield first
            async for event in events:
                yield event

        return StreamingResponse(lines(), media_type="application/x-ndjson")


async def _events(served: Served, request: SearchRequest) -> AsyncIterator[str]:
    """The lines of a search, each as soon as it is known."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[SearchAnswer | None] = asyncio.Queue()

    def tell(answer: SearchAnswer | None) -> None:
        loop.call_soon_threadsafe(waiting.put_nowait, answer)

    work = partial(_searched, served, request, tell)
    searching = asyncio.ensure_future(run(served.limits.seconds, work))
    searching.add_done_callback(lambda _: waiting.put_nowait(None))
    told = False
    try:
        while (answer := await waiting.get()) is not None:
            told = True
            yield _line("first", answer)
        try:
            yield _line("final", await searching)
        except RefusedError as refused:
            if not told:
                raise
            yield json.dumps({"event": "error", "error": refused.reason}) + "\n"
        except CollectionError as error:
            if not told:
                raise
            yield json.dumps({"event": "error", "error": _one_line(error)}) + "\n"
    finally:
        searching.cancel()


def _line(event: str, answer: SearchAnswer) -> str:
    return json.dumps({"event": event, **answer.model_dump()}) + "\n"


def _searched(
    served: Served, request: SearchRequest, first: Callable[[SearchAnswer], None] | None
) -> SearchAnswer:
    """The answer to a search.

    Raises:
        RefusedError: it can't be answered.
    """
    begun = time.perf_counter()
    engine = served.engine

    def answer(hits: Sequence[Hit]) -> SearchAnswer:
        return SearchAnswer(hits=_entries(engine, hits), seconds=time.perf_counter() - begun)

    def tell(hits: Sequence[Hit]) -> None:
        if first is not None and len(engine.collection.stages) > 1:
            first(answer(hits))

    texts = [] if request.text is None else [request.text]
    images: list[ImageSource] = [served.pictures.source(number) for number in request.like]
    if request.image is not None:
        images.append(_sent(request.image, served.limits))
    if not texts and not images:
        raise RefusedError(422, "say what to look for: a text, like, or image")
    query = Wanted(texts, images, request.without)
    terms = Terms(request.k, None if request.m is None else [request.m], request.refined)
    try:
        return answer(engine.search(query, terms, tell))
    except UnreadableImage as error:
        raise RefusedError(422, "an example can't be decoded: it is damaged") from error
    except CollectionError:
        raise
    except ValueError as error:
        raise RefusedError(422, _one_line(error)) from error


def _sent(image: str, limits: Limits) -> bytes:
    """The bytes of an example."""
    content = decoded(image)
    if content is None:
        raise RefusedError(422, "image: this is no base64")
    checked_image(content, limits.pixels)
    return content


def _entries(engine: Engine, hits: Sequence[Hit]) -> list[HitEntry]:
    entries = []
    for hit in hits:
        number = engine.collection.id_of(str(hit.key))
        if number is not None:  # otherwise it was removed a moment ago
            places = _places(number)
            entries.append(
                HitEntry(id=number, key=str(hit.key), score=hit.score, stage=hit.stage, **places)
            )
    return entries


def _places(number: int) -> dict[str, str]:
    """Where an image and its thumbnail are."""
    return {"image": f"/images/{number}", "thumbnail": f"/images/{number}/thumbnail"}


def _add_images(api: FastAPI, served: Served) -> None:
    limits = served.limits

    @api.get(
        "/images/{number}",
        responses={200: {"content": {"image/*": _BINARY}}, **_refusals(_OF_IMAGES)},
        response_class=Response,
    )
    async def image(number: Number) -> Response:
        """The file of an image, if it is as it was when it was indexed."""
        return _given(await run(limits.seconds, partial(served.pictures.image, number)))

    size_of = Query(ge=16, le=LIMITS.thumbnail, description="pixels of the longer edge, at most")

    @api.get(
        "/images/{number}/thumbnail",
        responses={200: {"content": {"image/jpeg": _BINARY}}, **_refusals(_OF_IMAGES)},
        response_class=Response,
    )
    async def thumbnail(number: Number, size: Annotated[int, size_of] = 256) -> Response:
        """A small upright JPEG of an image, if it is as it was when it was indexed."""
        return _given(await run(limits.seconds, partial(served.pictures.thumbnail, number, size)))

    added = {201: {"model": AddedAnswer, "description": "it is new"}, **_refusals(_USUAL)}
    body = {"required": True, "content": {"image/*": _BINARY, "application/octet-stream": _BINARY}}

    @api.post("/images", responses=added, openapi_extra={"requestBody": body})
    async def upload(request: Request, response: Response) -> AddedAnswer:
        """Add an image, whose file is the body; only where the server was started so.

        Once this is answered the image lasts.
        """
        work = partial(served.additions.upload, await request.body())
        return _added(response, *await run(limits.seconds, work))

    @api.post("/paths", responses=added)
    async def add_file(request: Annotated[PathRequest, Body()], response: Response) -> AddedAnswer:
        """Add a file that lies on the server, in a directory that it was started with."""
        work = partial(served.additions.file, request.path)
        return _added(response, *await run(limits.seconds, work))


def _added(response: Response, number: int, new: bool) -> AddedAnswer:
    response.status_code = 201 if new else 200
    return AddedAnswer(id=number, new=new, **_places(number))


def _given(picture: Picture) -> Response:
    headers = {"Cache-Control": "private, max-age=3600", "Content-Disposition": "inline"}
    return Response(picture.content, media_type=picture.media_type, headers=headers)


def _add_status(api: FastAPI, served: Served) -> None:
    @api.get("/status", responses=_refusals((*_USUAL,)))
    async def status() -> StatusAnswer:
        """What the collection holds, how far each stage is, and what the server does."""
        return await run(served.limits.seconds, partial(_status, served))


def _status(served: Served) -> StatusAnswer:
    found = served.engine.collection.status()
    background = served.background
    stages = [
        StageEntry(name=name, encoded=encoded, share=encoded / max(1, found.images))
        for name, encoded in zip(found.stages, found.encoded, strict=True)
    ]
    refining = None
    if background is not None:
        done = background.refining
        refining = RefiningEntry(state=done.state, encoded=done.encoded)
    return StatusAnswer(
        images=found.images,
        skipped=dict(found.skipped),
        stages=stages,
        m=list(found.m),
        waiting=found.waiting,
        precision=found.precision,
        nbytes=found.nbytes,
        requests=served.slots.taken,
        refining=refining,
    )


def _add_refusals(api: FastAPI) -> None:
    """Every error is JSON with one line."""

    @api.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return _error(error.status, error.reason, error.headers)

    @api.exception_handler(CollectionError)
    async def not_now(_: Request, error: CollectionError) -> JSONResponse:
        return _error(503, _one_line(error), {"Retry-After": "30"})

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _error(422, problem_of(error.errors()))

    @api.exception_handler(HTTPException)
    async def of_http(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, _one_line(error.detail), dict(error.headers or {}))

    @api.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return _error(500, "this is a fault of the server; its log says more")


def _error(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers)


def _one_line(error: object) -> str:
    return " ".join(str(error).split()).encode("ascii", "backslashreplace").decode()


def _describe(api: FastAPI, token: bool) -> None:
    """Let the description say how errors look, and that a token is needed."""
    made = api.openapi

    def openapi() -> dict[str, Any]:
        description = made()
        if token:
            schemes = {"token": {"type": "http", "scheme": "bearer"}}
            description["components"]["securitySchemes"] = schemes
            description["security"] = [{"token": []}]
        return description

    api.openapi = openapi  # type: ignore[method-assign]  # as FastAPI says that it is done
