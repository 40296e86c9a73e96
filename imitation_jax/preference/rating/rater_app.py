"""The rating page and what it asks the server; who has a rater's secret sees that rater's tasks and nothing else."""

import functools
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
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


def _name(text: str) -> str:
    name = " ".join(text.split())
    if not 0 < len(name) <= MOST_NAME or not name.isprintable():
        raise ValueError("not a name")
    return name


class Join(BaseModel):
    """What a new rater sends."""

    model_config = ConfigDict(strict=True)
    name: Annotated[str, AfterValidator(_name)]
    code: str = ""
    secret: str | None = Field(None, pattern="^[0-9a-f]{36}$")


class Ballot(BaseModel):
    """A vote on a task; 1 is for the first answer, 2 for neither, 3 for the second one."""

    model_config = ConfigDict(strict=True)
    task: str = Field(max_length=MOST_NAME)
    choice: int = Field(ge=1, le=3)
    instead_of: int | None = Field(None, ge=1, le=3)


REFUSALS = {
    "name": f"A name has 1 to {MOST_NAME} characters.",
    "secret": "A secret has 36 hexadecimal digits.",
    "task": "A vote has a task and a choice of 1, 2 or 3.",
}


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

    def endpoint(answer: Callable) -> Callable:
        return functools.partial(_for_rater, store, answer)

    routes = [
        Route("/", page),
        Route("/api/join", functools.partial(_join, store, code), methods=["POST"]),
        Route("/api/task", endpoint(_next_task)),
        Route("/api/task/{key}", endpoint(_one_task)),
        Route("/api/vote", endpoint(_vote), methods=["POST"]),
    ]
    handlers = {HTTPException: _refusal, Exception: _failure}
    middleware = [Middleware(_LocalOnly)] if code is None else []
    return Starlette(routes=routes, exception_handlers=handlers, middleware=middleware)


class _LocalOnly:
    """Turns away somebody else's web page in a browser on this machine."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        why = web.foreign_page(dict(scope["headers"])) if scope["type"] == "http" else None
        await (JSONResponse({"error": why[0]}, 403) if why else self._app)(scope, receive, send)


# ----------------------------------------------------------------------------------------------------------------------
# What a page may ask
# ----------------------------------------------------------------------------------------------------------------------


async def _join(store: Store, code: str | None, request: Request) -> Response:
    asked = await _body(request, Join)
    if code is not None and not hmac.compare_digest(asked.code.encode(errors="replace"), code.encode()):
        raise HTTPException(403, "That is not the code. Whoever invited you knows it.")
    try:
        return JSONResponse({"secret": await run_in_threadpool(store.join, asked.name, asked.secret)})
    except ValueError as error:
        raise HTTPException(409, str(error)) from None


async def _for_rater(store: Store, answer: Callable, request: Request) -> Response:
    _, _, secret = request.headers.get("authorization", "").partition(" ")
    rater = await run_in_threadpool(store.rater, secret)
    if rater is None:
        raise HTTPException(401, "Nobody rates here under that link.")
    asked = await _body(request, Ballot) if request.method == "POST" else request.path_params.get("key")
    return JSONResponse(await run_in_threadpool(answer, store, rater, asked), headers={"Cache-Control": "no-store"})


def _next_task(store: Store, rater: int, _: None) -> dict:
    task, done, left = store.task(rater)
    return {"task": task and _seen(task), "done": done, "left": left, "last": store.last(rater)}


def _one_task(store: Store, rater: int, key: str) -> dict:
    return _seen(_own(store.shown(rater, key)))


def _vote(store: Store, rater: int, ballot: Ballot) -> dict:
    return {"stands": _own(store.vote(rater, ballot.task, ballot.choice, ballot.instead_of))}


def _own(answer: Any) -> Any:
    if answer is None:
        raise HTTPException(404, "That is none of your pairs.")
    return answer


def _seen(task: Task) -> dict[str, Any]:
    """What goes to the browser: neither names, nor which file an answer is from."""
    sides = {"first": rendered(task.first), "second": rendered(task.second)}
    return {"id": task.id, "instruction": task.instruction, **sides, "choice": task.choice}


async def _body(request: Request, kind: type[BaseModel]) -> Any:
    try:
        return kind.model_validate(await web.json_object(request.stream(), REQUEST_BYTES))
    except ValidationError as error:
        raise HTTPException(400, REFUSALS.get(error.errors()[0]["loc"][0], REFUSALS["task"])) from None
    except OverflowError:
        raise HTTPException(413, "That is too much.") from None
    except ValueError:
        raise HTTPException(400, "Not a JSON object.") from None


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
