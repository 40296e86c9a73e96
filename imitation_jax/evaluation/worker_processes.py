"""Evaluation on several processes: the first one evaluates; what it asks its engine, the others ask theirs with it."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, Generation, Score, ScoreRequest
from imitation_jax.parallel import hosts


class Leader:
    """The first process's engine."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def score(
        self, requests: Sequence[ScoreRequest], on_result: Callable[[int, Score], None] | None = None
    ) -> list[Score]:
        """See `Engine.score`."""
        hosts.tell({"score": [vars(request) for request in requests]})
        return self._engine.score(requests, on_result)

    def generate(
        self, requests: Sequence[GenerateRequest], on_result: Callable[[int, Generation], None] | None = None
    ) -> list[Generation]:
        """See `Engine.generate`."""
        hosts.tell({"generate": [vars(request) for request in requests]})
        return self._engine.generate(requests, on_result)


def repeat(engine: Engine, told: dict[str, list[dict[str, Any]]]) -> None:
    """Computes what a `Leader` told."""
    with contextlib.suppress(ValueError):  # it has the same one, and decides what comes of it
        if "score" in told:
            engine.score([ScoreRequest(**request) for request in told["score"]])
        else:
            for request in told["generate"]:
                request["stop_ids"] = None if request["stop_ids"] is None else frozenset(request["stop_ids"])
            engine.generate([GenerateRequest(**request) for request in told["generate"]])
