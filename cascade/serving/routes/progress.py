"""What the collection holds, what was skipped, and the background that refines it."""

from functools import partial
from itertools import islice
from typing import Annotated

from fastapi import Body, FastAPI, Query

from cascade.collecting.refining import Budget
from cascade.collection import Collection
from cascade.serving.background import Background
from cascade.serving.routes.refusals import USUAL, refusals
from cascade.serving.routes.served import Served
from cascade.serving.schemas import (
    LARGEST,
    LIMITS,
    RefiningAnswer,
    RefiningEntry,
    RefiningRequest,
    SkippedAnswer,
    SkippedEntry,
    StageEntry,
    StatusAnswer,
)
from cascade.serving.work import RefusedError, run


def add_progress(api: FastAPI, served: Served) -> None:
    """Say how far everything is, and start and stop what goes on in the background."""
    seconds = served.limits.seconds

    @api.get("/status", responses=refusals(USUAL))
    async def status() -> StatusAnswer:
        """What the collection holds, how far each stage is, and what the server does."""
        return await run(seconds, partial(_status, served))

    @api.get("/skipped", responses=refusals(USUAL))
    async def skipped(
        start: Annotated[int, Query(ge=0, le=LARGEST, description="files to pass over")] = 0,
        limit: Annotated[int, Query(ge=1, le=LIMITS.k, description="files at most")] = 100,
    ) -> SkippedAnswer:
        """Which files have no embedding, and why."""
        return await run(seconds, partial(_skipped, served, start, limit))

    @api.post("/refining", responses=refusals(USUAL))
    async def start_refining(request: Annotated[RefiningRequest, Body()]) -> RefiningAnswer:
        """Let the last stage encode in the background, in place of what it was asked for before."""
        budget = Budget(share=request.share, seconds=request.seconds)
        if len(served.engine.collection.stages) == 1:
            raise RefusedError(422, "a collection with one stage has nothing to refine")
        await run(seconds, partial(served.background.start, budget))
        return RefiningAnswer(refining=_refining(served.background))

    @api.delete("/refining", responses=refusals(USUAL))
    async def stop_refining() -> RefiningAnswer:
        """Stop that, after the batch that is being encoded; what was encoded is kept."""
        await run(seconds, served.background.stop)
        return RefiningAnswer(refining=_refining(served.background))


def _refining(background: Background) -> RefiningEntry | None:
    done = background.refining
    if done is None:
        return None
    return RefiningEntry(
        state=done.state, encoded=done.encoded, share=done.budget.share, seconds=done.budget.seconds
    )


def _status(served: Served) -> StatusAnswer:
    collection = served.engine.collection
    found = collection.status()
    stages = [
        StageEntry(name=name, encoded=encoded, share=encoded / max(1, found.images))
        for name, encoded in zip(found.stages, found.encoded, strict=True)
    ]
    return StatusAnswer(
        collection="" if collection.path is None else _as_text(collection.path.name),
        images=found.images,
        skipped={_as_text(reason): number for reason, number in found.skipped.items()},
        stages=stages,
        m=list(found.m),
        calibrated=_calibrated(collection, found.images),
        waiting=found.waiting,
        precision=found.precision,
        nbytes=found.nbytes,
        requests=served.slots.taken,
        uploads=served.additions.may_upload,
        token=served.sessions is not None,
        longest_body=served.limits.body,
        refining=_refining(served.background),
    )


def _calibrated(collection: Collection, images: int) -> int | None:
    """For how many hits as many candidates as each query needs can be handed on."""
    known = collection.calibration
    names = [stage.name for stage in collection.stages]
    return None if known is None or known.unfit(names, images) else known.k


def _skipped(served: Served, start: int, limit: int) -> SkippedAnswer:
    every = served.engine.collection.skipped
    chosen = islice(every.items(), min(start, len(every)), min(start + limit, len(every)))
    entries = [SkippedEntry(key=_as_text(key), reason=_as_text(reason)) for key, reason in chosen]
    return SkippedAnswer(skipped=entries, count=len(every))


def _as_text(said: str) -> str:
    """Itself, but for bytes of names that are no text: these are written out."""
    return said.encode("utf-8", "backslashreplace").decode()
