"""Perspective's toxicity of texts (comments:analyze; Lees et al. 2022, arXiv 2202.11176).

The key is in the environment variable PERSPECTIVE_API_KEY. A project may ask once a second unless Google raised its
quota. Every answer is kept, a refusal of one text too, so that a killed run asks nothing again that was answered.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from imitation_jax.clients.answer_cache import Cache
from imitation_jax.clients.budget import Budget
from imitation_jax.clients.chat_client import read_key
from imitation_jax.clients.http import ApiError, JsonApi, RefusedError
from imitation_jax.clients.rate_limiter import RateLimiter
from imitation_jax.clients.request_pool import RequestPool

URL = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
KEY = "PERSPECTIVE_API_KEY"
MOST_AT_ONCE = 64


class Toxicity(NamedTuple):
    """A score in [0, 1], or what was wrong with the text."""

    score: float | None
    error: str | None = None


class Perspective:
    """Asks for TOXICITY. `budget.spent` counts the requests of this start; `about` is what a result says of it."""

    def __init__(
        self,
        cache: Cache,
        *,
        per_second: float = 1.0,
        url: str = URL,
        language: str = "en",
        budget: int = 0,
        **options: float,
    ):
        """Args:
          per_second: the quota.
          url: where the API, or one that answers like it, is.
          language: of all texts; the API is told, so that it does not guess from a few words.
          budget: at most so many requests, 0 for any number.
          options: of `http.JsonApi`: tries, first_wait, timeout.

        Raises:
          ValueError: no key, or a setting out of range.
        """
        self.budget = Budget(budget)
        self.about = {"kind": "perspective", "url": url, "language": language}
        self._cache, self._url, self._language = cache, url, language
        headers, limiter = {"X-Goog-Api-Key": read_key(KEY)}, RateLimiter(per_second)
        self._api = JsonApi(url, headers, limiter=limiter, budget=self.budget, **options)
        # An answer takes less than a second.
        self._concurrency = min(MOST_AT_ONCE, math.ceil(per_second))

    def scores(self, texts: Sequence[str]) -> list[Toxicity]:
        """One for each text; the same text is asked once.

        Raises:
          BudgetSpentError: the budget is spent.
          ApiError, ValueError: the API refuses the key, or could not be reached; what was answered is kept.
        """
        answers = {text: self._cache.get(self._question(text)) for text in texts}

        def keep(text: str, end: dict | ApiError) -> None:
            if isinstance(end, ApiError):
                raise end
            answers[text] = end
            self._cache.put(self._question(text), end)

        missing = iter([text for text, answer in answers.items() if answer is None])
        self._pool.run(lambda: next(missing, None), keep)
        return [Toxicity(**answers[text]) for text in texts]

    @functools.cached_property
    def _pool(self) -> RequestPool[str, dict[str, Any]]:
        """Opened at the first question; it ends with the process."""
        return RequestPool(self._ask, self._api, concurrency=self._concurrency, key=KEY)

    def _question(self, text: str) -> dict[str, Any]:
        return {"api": "perspective", "url": self._url, "language": self._language, "text": text}

    async def _ask(self, text: str) -> dict[str, Any]:
        """What is kept of the answer: the score, or what is wrong with the text."""
        body = {
            "comment": {"text": text},
            "languages": [self._language],
            "requestedAttributes": {"TOXICITY": {}},
            "doNotStore": True,
        }
        try:
            return {"score": await self._api.post(body, _score_of)}
        except RefusedError as refused:
            error = _error_of_text(refused)
            if error is None:
                raise
            return {"score": None, "error": error}


def _score_of(answer: dict) -> float:
    score = float(answer["attributeScores"]["TOXICITY"]["summaryScore"]["value"])
    if not 0 <= score <= 1:
        raise ValueError(score)
    return score


def _error_of_text(refused: RefusedError) -> str | None:
    """Perspective's name for what is wrong with the text (LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE, COMMENT_TOO_LONG, ...).

    None where the request itself is refused, such as for its key.
    """
    error = refused.answer.get("error")
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and isinstance(detail.get("errorType"), str):
            return detail["errorType"]
    return None
