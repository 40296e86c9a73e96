"""The HTTP application: routes, access, and sending answers to clients who may leave at any time."""

import asyncio
import contextlib
import dataclasses
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from imitation_jax.core import web
from imitation_jax.inference.requests import Score
from imitation_jax.serving import parameters
from imitation_jax.serving.model import ServedModel
from imitation_jax.serving.parameters import ChatRequest, CompletionRequest, ParsedRequest, RefusedError, TextRequest
from imitation_jax.serving.responses import Answer
from imitation_jax.serving.scheduler import QueueFullError, Scheduler, Update

PAGE = Path(__file__).with_name("page.html")
ERROR_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may cost: bytes of its JSON, seconds from its first byte to the last of its answer."""

    request_bytes: int
    seconds: float


def make_app(models: Mapping[str, ServedModel], scheduler: Scheduler, limits: Limits, key: str | None) -> ASGIApp:
    """The ASGI application.

    Args:
      models: by name.
      scheduler: of their engines, started.
      limits: of a request.
      key: who does not know it gets nothing but the page; None lets in whoever asks this machine by a local name.
    """
    html = PAGE.read_text(encoding="utf-8")
    headers = web.page_headers(html)

    async def page(request: Request) -> Response:
        return HTMLResponse(html, headers=headers)

    async def list_models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_description(model) for model in models.values()]})

    async def one_model(request: Request) -> Response:
        return JSONResponse(_description(_find(models, request.path_params["name"])))

    def texts(kind: type[TextRequest]) -> Callable:
        def read(body: dict) -> ParsedRequest:
            given = parameters.parse(kind, body)
            return parameters.prepare(given, _find(models, given.model), scheduler.queue)

        async def endpoint(request: Request) -> ASGIApp:
            deadline = asyncio.get_running_loop().time() + limits.seconds
            body = await _json(request, limits, deadline)
            # Templates and tokenizers take a while over long texts, and others are waiting.
            return _Responder(await run_in_threadpool(read, body), scheduler, deadline)

        return endpoint

    routes = [
        Route("/", page),
        Route("/v1/models", list_models),
        Route("/v1/models/{name:path}", one_model),
        Route("/v1/chat/completions", texts(ChatRequest), methods=["POST"]),
        Route("/v1/completions", texts(CompletionRequest), methods=["POST"]),
    ]
    return _AccessControl(Starlette(routes=routes, exception_handlers=_HANDLERS), key)


class _AccessControl:
    """Turns away who does not know the key or, where there is none, a web page of somebody else in a local browser."""

    def __init__(self, app: ASGIApp, key: str | None):
        self._app, self._key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refused(scope) if scope["type"] == "http" else None
        await (_error(refused) if refused else self._app)(scope, receive, send)

    def _refused(self, scope: Scope) -> RefusedError | None:
        headers = dict(scope["headers"])
        if self._key is not None:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            right = scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._key.encode())
            if scope["path"] == "/" or right:
                return None
            message = "no API key, or a wrong one: send it as 'Authorization: Bearer KEY'"
            return RefusedError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        why = web.foreign_page(headers)
        return RefusedError(403, why[0], code=why[1]) if why else None


class _Responder:
    """Sends the answer to one request; a client who leaves, or takes too long, frees its rows."""

    def __init__(self, request: ParsedRequest, scheduler: Scheduler, deadline: float):
        self._request, self._scheduler, self._deadline = request, scheduler, deadline
        self._events: asyncio.Queue = asyncio.Queue()
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop, put = asyncio.get_running_loop(), self._events.put_nowait

        def notify(index: int, update: Update | Score | Exception) -> None:
            loop.call_soon_threadsafe(put, (index, update))

        name = self._request.model.name
        tickets = self._scheduler.submit(name, self._request.jobs, notify)
        watcher = asyncio.create_task(self._watch(receive))
        refused = None
        try:
            async with asyncio.timeout_at(self._deadline):
                await (self._stream(send) if self._request.parameters.stream else self._whole(send))
        except TimeoutError:
            refused = RefusedError(503, "the time for a request is over", code="timeout")
        except ClientDisconnect:
            pass
        except RefusedError as error:
            refused = error
        except asyncio.CancelledError:  # by uvicorn, whose patience with what is under way has ended
            refused = RefusedError(503, "the server stops", code="stopping")
        finally:
            watcher.cancel()
            self._scheduler.cancel(name, tickets)
        if refused is not None:
            await self._say(refused, send)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._events.put_nowait((0, ClientDisconnect()))

    async def _updates(self) -> AsyncIterator[tuple[int, Update | Score]]:
        """The updates and scores, until every job is done.

        Raises:
          ClientDisconnect: the client has left.
          RefusedError: the engine refused a job, or broke.
        """
        if not self._request.jobs:
            for index in range(self._request.count):
                yield index, Update("", [], [], "length")
        left = len(self._request.jobs)
        while left:
            index, update = await self._events.get()
            if isinstance(update, ClientDisconnect):
                raise update
            if isinstance(update, ValueError):
                raise RefusedError(400, str(update))
            if isinstance(update, Exception):
                raise RefusedError(500, "the device failed; the server's log says how", code="device_failed")
            yield index, update
            left -= isinstance(update, Score) or update.finish_reason is not None

    async def _whole(self, send: Send) -> None:
        updates, scores = [Update("", [], [], "length")] * self._request.count, [None] * len(self._request.prompts)
        texts = self._request.count if self._request.max_tokens else 0
        async for index, one in self._updates():
            if isinstance(one, Score):
                scores[index - texts] = one
            else:
                updates[index] = one
        answer = Answer(self._request).whole(updates, [score for score in scores if score is not None])
        self._started = True
        await _respond(JSONResponse(answer), send)

    async def _stream(self, send: Send) -> None:
        answer = Answer(self._request)
        async for index, update in self._updates():
            if not self._started:  # until now an error could still have a status of its own
                self._started = True
                headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                for chunk in answer.first():
                    await self._event(chunk, send)
            if update.text or update.finish_reason or (update.ids and self._request.logprobs):
                await self._event(answer.chunk(index, update), send)
        if self._request.parameters.stream_options.include_usage:
            await self._event(answer.last(), send)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _event(self, content: Mapping[str, Any], send: Send) -> None:
        data = b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"
        await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _say(self, refused: RefusedError, send: Send) -> None:
        """The error, as far as the client still listens."""
        response = _error(refused)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ERROR_SECONDS):
                if not self._started:
                    await _respond(response, send)
                elif self._request.parameters.stream:
                    data = b"data: " + response.body + b"\n\n"
                    await send({"type": "http.response.body", "body": data})


async def _respond(response: Response, send: Send) -> None:
    await response({"type": "http"}, None, send)


async def _json(request: Request, limits: Limits, deadline: float) -> dict:
    try:
        async with asyncio.timeout_at(deadline):
            return await web.json_object(request.stream(), limits.request_bytes)
    except TimeoutError:
        raise RefusedError(408, "the request took too long to arrive", code="timeout") from None
    except OverflowError as error:
        raise RefusedError(413, str(error), code="too_large") from None
    except ValueError as error:
        raise RefusedError(400, str(error), code="bad_json") from None


def _find(models: Mapping[str, ServedModel], name: str) -> ServedModel:
    if name not in models:
        text = f"the model {name[:80]!r} is not served here; there is {', '.join(models)}"
        raise RefusedError(404, text, "model", "model_not_found")
    return models[name]


def _description(model: ServedModel) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "imitation_jax"}


def _error(error: RefusedError) -> JSONResponse:
    """In OpenAI's shape."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status, "invalid_request_error") if error.status < 500 else "server_error"
    content = {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    return JSONResponse({"error": content}, error.status, error.headers)


def _full(request: Request, error: QueueFullError) -> Response:
    headers = {"Retry-After": str(error.seconds)}
    return _error(RefusedError(429, str(error), code="queue_full", headers=headers))


_HANDLERS = {
    RefusedError: lambda request, error: _error(error),
    QueueFullError: _full,
    HTTPException: lambda request, error: _error(RefusedError(error.status_code, error.detail, headers=error.headers)),
    ClientDisconnect: lambda request, error: Response(status_code=499),  # nobody reads it
    Exception: lambda request, error: _error(RefusedError(500, "something went wrong; the server's log says what")),
}
