"""Sessions of browsers: given for the token, ended on request."""

from fastapi import FastAPI, Request, Response

from cascade.serving.routes.refusals import USUAL, refusals
from cascade.serving.routes.served import Served


def add_sessions(api: FastAPI, served: Served) -> None:
    """Begin and end sessions."""
    sessions = served.sessions

    @api.post("/session", status_code=204, responses=refusals(USUAL))
    async def begin_session(request: Request) -> Response:
        """Give a browser a cookie that stands for the token; where none is needed, nothing."""
        secure = request.url.scheme == "https"
        return _empty(sessions.cookie(secure) if sessions else None)

    @api.delete("/session", status_code=204, responses=refusals(USUAL))
    async def end_session(request: Request) -> Response:
        """Take the cookie back."""
        secure = request.url.scheme == "https"
        return _empty(sessions.no_cookie(secure) if sessions else None)


def _empty(cookie: str | None) -> Response:
    headers = {"Cache-Control": "no-store"} | ({"Set-Cookie": cookie} if cookie else {})
    return Response(status_code=204, headers=headers)
