"""How the API refuses: an error is JSON with one line, and the description says which may come."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cascade.serving.schemas import ErrorAnswer, problem_of
from cascade.serving.work import RefusedError
from cascade.storing.errors import CollectionError

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
USUAL = (400, 401, 403, 408, 413, 421, 422, 503)
"""Statuses that any request may be refused with."""
OF_IMAGES = (*USUAL, 404, 409, 410)
"""Those of requests that name an image."""


def refusals(statuses: Sequence[int]) -> dict[int | str, dict[str, Any]]:
    """The description of some refusals."""
    return {
        status: {"model": ErrorAnswer, "description": _REASONS[status]}
        for status in sorted(statuses)
    }


def add_refusals(api: FastAPI) -> None:
    """Every error is JSON with one line."""

    @api.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return _error(error.status, error.reason, error.headers)

    @api.exception_handler(CollectionError)
    async def not_now(_: Request, error: CollectionError) -> JSONResponse:
        return _error(503, one_line(error), {"Retry-After": "30"})

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _error(422, problem_of(error.errors()))

    @api.exception_handler(HTTPException)
    async def of_http(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, one_line(error.detail), dict(error.headers or {}))

    @api.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return _error(500, "this is a fault of the server; its log says more")


def one_line(error: object) -> str:
    """What an error says, in one line of ASCII."""
    return " ".join(str(error).split()).encode("ascii", "backslashreplace").decode()


def _error(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers)
