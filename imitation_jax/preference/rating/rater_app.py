"""The rating page and what it asks the server; who has a rater's secret sees that rater's tasks and nothing else."""

import hmac
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from imitation_jax.core import web
from imitation_jax.core.fingerprint import digest
from imitation_jax.preference.rating.database import Store, Task
from imitation_jax.preference.rating.rendering import rendered

CODE = "IMITATION_RATING_CODE"
PAGE = Path(__file__).with_name("rater_page.html")
CODE_FIELD = '<label>Code of the invitation<input id="code" autocomplete="off" required></label>'
REQUEST_BYTES = 2**14
MOST_NAME = 60


def make_app(store: Store, code: str | None) -> ASGIApp:
    """The ASGI application.

    Args:
      store: with items.
      code: what a new rater must know; None lets in whoever asks this machine by a local name.
    """
    html = PAGE.read_text(encoding="utf-8")
    headers = web.page_headers(html)
    settings = store.settings()
    html = html.replace("<!-- rating -->", digest(settings["secret"]))
    html = html.replace("<!-- guidelines -->", rendered(settings["guidelines"], breaks=False))
    html = html.replace("<!-- code -->", "" if code is None else CODE_FIELD)

    async def page(request: Request) -> Response:
        return HTMLResponse(html, headers=headers)

    async def join(request: Request) -> Response:
        body = await _json(request)
        name = " ".join(str(body.get("name", "")).split())
        if not 0 < len(name) <= MOST_NAME or not name.isprintable():
            raise HTTPException(400, f"A name has 1 to {MOST_NAME} characters.")
        if code is not None and not hmac.compare_digest(str(body.get("code", "")).encode(), code.encode()):
            raise HTTPException(403, "That is not the code. Whoever invited you knows it.")
        secret = body.get("secret")
        if secret is not None and not (isinstance(secret, str) and re.fullmatch("[0-9a-f]{36}", secret)):
            raise HTTPException(400, "A secret has 36 hexadecimal digits.")
        try:
            return JSONResponse({"secret": await run_in_threadpool(store.join, name, secret)})
        except ValueError as error:
            raise HTTPException(409, str(error)) from None

    def for_rater(answer: Callable[[int, dict], Any]) -> Callable:
        async def endpoint(request: Request) -> Response:
            _, _, secret = request.headers.get("authorization", "").partition(" ")
            rater = await run_in_threadpool(store.rater, secret)
            if rater is None:
                raise HTTPException(401, "Nobody rates here under that link.")
            asked = await _json(request) if request.method == "POST" else request.path_params
            return JSONResponse(await run_in_threadpool(answer, rater, asked), headers={"Cache-Control": "no-store"})

        return endpoint

    def next_task(rater: int, asked: Mapping) -> dict:
        task, done, left = store.task(rater)
        return {"task": task and _seen(task), "done": done, "left": left, "last": store.last(rater)}

    def one_task(rater: int, asked: Mapping) -> dict:
        task = store.shown(rater, asked["key"])
        if task is None:
            raise HTTPException(404, "That is none of your pairs.")
        return _seen(task)

    def vote(rater: int, asked: Mapping) -> dict:
        key, choice, instead_of = (asked.get(name) for name in ("task", "choice", "instead_of"))
        if not isinstance(key, str) or not _is_choice(choice) or not (instead_of is None or _is_choice(instead_of)):
            raise HTTPException(400, "A vote has a task and a choice of 1, 2 or 3.")
        stands = store.vote(rater, key, choice, instead_of)
        if stands is None:
            raise HTTPException(404, "That is none of your pairs.")
        return {"stands": stands}

    routes = [
        Route("/", page),
        Route("/api/join", join, methods=["POST"]),
        Route("/api/task", for_rater(next_task)),
        Route("/api/task/{key}", for_rater(one_task)),
        Route("/api/vote", for_rater(vote), methods=["POST"]),
    ]
    handlers = {HTTPException: _refusal, Exception: _failure}
    doors = [Middleware(_LocalDoor)] if code is None else []
    return Starlette(routes=routes, exception_handlers=handlers, middleware=doors)


class _LocalDoor:
    """Turns away somebody else's web page in a browser on this machine."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        why = web.stranger(dict(scope["headers"])) if scope["type"] == "http" else None
        await (JSONResponse({"error": why[0]}, 403) if why else self._app)(scope, receive, send)


def _seen(task: Task) -> dict[str, Any]:
    """What goes to the browser: neither names, nor which file an answer is from."""
    sides = {"first": rendered(task.first), "second": rendered(task.second)}
    return {"id": task.id, "instruction": task.instruction, **sides, "choice": task.choice}


def _is_choice(value: object) -> bool:
    return type(value) is int and 1 <= value <= 3


async def _json(request: Request) -> dict:
    size, pieces = 0, []
    async for piece in request.stream():
        size += len(piece)
        if size > REQUEST_BYTES:
            raise HTTPException(413, "That is too much.")
        pieces.append(piece)
    try:
        body = json.loads(b"".join(pieces))
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "Not a JSON object.")
    return body


async def _refusal(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failure(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "Something went wrong; the server's log says what."}, 500)


def serve(store: Store, host: str, port: int, code: str | None) -> None:
    """Serves the page until SIGTERM or SIGINT.

    Args:
      code: what new raters must know; without one, only this machine is served.

    Raises:
      ValueError, OSError: it cannot be served there.
    """
    with web.bind(host, port, code, CODE) as bound:
        web.run(make_app(store, code), bound, f"rating page {{url}}/, votes in {store.path}")
