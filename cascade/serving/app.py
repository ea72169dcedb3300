"""The HTTP API: what may be asked for, and how each answer and each refusal looks."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeAlias

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, StreamingResponse

from cascade.answers import Terms
from cascade.cascade import Hit
from cascade.queries import Query as Wanted
from cascade.serving.additions import checked_image
from cascade.serving.description import page
from cascade.serving.engine import Engine, Searched
from cascade.serving.limits import Limits
from cascade.serving.page.files import add_page
from cascade.serving.routes.images import add_images, places_of
from cascade.serving.routes.progress import add_progress
from cascade.serving.routes.refusals import OF_IMAGES, add_refusals, one_line, refusals
from cascade.serving.routes.served import Served
from cascade.serving.routes.sessions import add_sessions
from cascade.serving.schemas import (
    HitEntry,
    SearchAnswer,
    SearchRequest,
    StepEntry,
    decoded,
)
from cascade.serving.work import RefusedError, run
from cascade.stages.images import ImageSource, UnreadableImage
from cascade.storing.errors import CollectionError

_TRIES = 3  # to find as many hits as there were before some of them were removed
_TEXT = (
    "Searches a collection of images by words, by examples, or by both. Images are named by "
    'numbers. An error is {"error": "one line"}. 503 with Retry-After means: not now, ask again.'
)
Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def application(served: Served, lifespan: Lifespan | None = None) -> FastAPI:
    """The API of a collection.

    Args:
        served: what it answers from.
        lifespan: what runs besides as long as it does.
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
    add_refusals(api)
    _add_searches(api, served)
    add_images(api, served)
    add_progress(api, served)
    add_sessions(api, served)
    add_page(api)

    @api.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(api.openapi()))

    _describe(api, served)
    return api


def _add_searches(api: FastAPI, served: Served) -> None:
    @api.post("/search", responses=refusals(OF_IMAGES))
    async def search(request: SearchRequest) -> SearchAnswer:
        """Find images: the hits once all stages have ranked."""
        return await run(served.limits.seconds, partial(_searched, served, request, None))

    kinds = {"application/x-ndjson": {"schema": {"type": "string"}}}
    described = "a line of JSON for each event"

    @api.post(
        "/search/stream",
        responses={200: {"content": kinds, "description": described}, **refusals(OF_IMAGES)},
        response_class=StreamingResponse,
    )
    async def stream(request: SearchRequest) -> StreamingResponse:
        """Find images: the first stage's hits at once, then those of all stages.

        Each line is an object. `event` is `first`, `final` or `error`; the others are as the answer
        of /search besides, an error has `error`.
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
            yield json.dumps({"event": "error", "error": one_line(error)}) + "\n"
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

    def answer(found: Searched) -> SearchAnswer:
        return SearchAnswer(
            hits=_entries(engine, found.hits),
            seconds=time.perf_counter() - begun,
            embedding_seconds=found.embedding_seconds,
            steps=[StepEntry.of(step) for step in found.steps],
            matches=found.matches,
        )

    def tell(found: Searched) -> None:
        if first is not None and len(engine.collection.stages) > 1:
            first(answer(found))

    texts = [] if request.text is None else [request.text]
    images: list[ImageSource] = [served.pictures.source(number) for number in request.like]
    if request.image is not None:
        images.append(_sent(request.image, served.limits))
    if not texts and not images:
        raise RefusedError(422, "say what to look for: a text, like, or image")
    query = Wanted(texts, images, request.without)
    m = [request.m] if isinstance(request.m, int) else request.m
    terms = Terms(request.k, m, request.refined)
    try:
        found = engine.search(query, terms, tell)
        made = answer(found)
        for _ in range(_TRIES):
            if len(made.hits) == len(found.hits):
                break
            found = engine.search(query, terms)  # some of what was found was removed meanwhile
            made = answer(found)
        return made
    except UnreadableImage as error:
        raise RefusedError(422, "an example can't be decoded: it is damaged") from error
    except CollectionError:
        raise
    except ValueError as error:
        raise RefusedError(422, one_line(error)) from error


def _sent(image: str, limits: Limits) -> bytes:
    """The bytes of an example."""
    content = decoded(image)
    if content is None:
        raise RefusedError(422, "image: this is no base64")
    checked_image(content, limits.pixels)
    return content


def _entries(engine: Engine, hits: Sequence[Hit]) -> list[HitEntry]:
    known = engine.collection.numbered([str(hit.key) for hit in hits])
    entries = []
    for hit in hits:
        key = str(hit.key)
        if key in known:  # otherwise it was removed a moment ago
            number, row = known[key]
            entries.append(
                HitEntry(
                    id=number,
                    key=key,
                    score=hit.score,
                    stage=hit.stage,
                    probability=hit.probability,
                    **places_of(number, row),
                )
            )
    return entries


def _describe(api: FastAPI, served: Served) -> None:
    """Let the description say how errors look, and that a token is needed."""
    made = api.openapi

    def openapi() -> dict[str, Any]:
        description = made()
        if served.sessions is not None:
            cookie = {"type": "apiKey", "in": "cookie", "name": served.sessions.name}
            schemes = {"token": {"type": "http", "scheme": "bearer"}, "session": cookie}
            description["components"]["securitySchemes"] = schemes
            description["security"] = [{"token": []}, {"session": []}]
        return description

    api.openapi = openapi  # type: ignore[method-assign]  # as FastAPI says that it is done
