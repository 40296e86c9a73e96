"""Evaluation on several processes: process 0 evaluates, and the others compute what it asks its engine for.

A batch runs on the devices of all processes, so each of them must ask its own engine for the same.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, Generation, Score, ScoreRequest
from imitation_jax.parallel import distributed


class BroadcastEngine:
    """The engine of process 0, which sends every call to the other processes too."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def score(
        self, requests: Sequence[ScoreRequest], on_result: Callable[[int, Score], None] | None = None
    ) -> list[Score]:
        """See `Engine.score`."""
        distributed.broadcast({"score": [vars(request) for request in requests]})
        with _heartbeats(on_result) as on_each:
            return self._engine.score(requests, on_each)

    def generate(
        self, requests: Sequence[GenerateRequest], on_result: Callable[[int, Generation], None] | None = None
    ) -> list[Generation]:
        """See `Engine.generate`."""
        distributed.broadcast({"generate": [vars(request) for request in requests]})
        with _heartbeats(on_result) as on_each:
            return self._engine.generate(requests, on_each)


def answer(call: dict[str, list[dict[str, Any]]], engine: Engine) -> None:
    """Computes what a `BroadcastEngine` has sent."""
    with contextlib.suppress(ValueError), _heartbeats() as on_each:  # process 0 has the same one, and says it
        if "score" in call:
            engine.score([ScoreRequest(**request) for request in call["score"]], on_each)
        else:
            for request in call["generate"]:
                request["stop_ids"] = None if request["stop_ids"] is None else frozenset(request["stop_ids"])
            engine.generate([GenerateRequest(**request) for request in call["generate"]], on_each)


@contextlib.contextmanager
def _heartbeats(on_result: Callable[[int, Any], None] | None = None) -> Iterator[Callable[[int, Any], None]]:
    """Gives an `on_result` that is a heartbeat too; between two calls none is expected."""
    done = 0

    def on_each(index: int, result: Any) -> None:
        nonlocal done
        done += 1
        distributed.heartbeat(f"request {done}")
        if on_result:
            on_result(index, result)

    distributed.heartbeat("request 0")
    try:
        yield on_each
    finally:
        distributed.heartbeat("")
