"""Perspective's toxicity of texts (comments:analyze; Lees et al. 2022, arXiv 2202.11176).

The key is in the environment variable PERSPECTIVE_API_KEY. A project may ask once a second unless Google raised its
quota. Every answer is kept, a refusal of one text too, so that a killed run asks nothing again that was answered.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from imitation_jax.clients.answer_cache import Cache
from imitation_jax.clients.http import RefusedError, post
from imitation_jax.clients.limits import Budget, RateLimit

URL = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
KEY = "PERSPECTIVE_API_KEY"
MOST_THREADS = 64


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
        tries: int = 8,
        first_wait: float = 1.0,
        timeout: float = 60.0,
    ):
        """Args:
          per_second: the quota.
          url: where the API, or one that answers like it, is.
          language: of all texts; the API is told, so that it does not guess from a few words.
          budget: at most so many requests, 0 for any number.
          tries, first_wait, timeout: see `http.post`.

        Raises:
          ValueError: no key, or a setting out of range.
        """
        key = os.environ.get(KEY, "").strip()
        if not key:
            raise ValueError(f"{KEY} is not set in the environment; Perspective cannot be asked without a key")
        self.budget = Budget(budget)
        self.about = {"kind": "perspective", "url": url, "language": language}
        self._cache, self._url, self._language = cache, url, language
        self._call = {
            "headers": {"X-Goog-Api-Key": key},
            "limit": RateLimit(per_second),
            "budget": self.budget,
            "tries": tries,
            "first_wait": first_wait,
            "timeout": timeout,
        }
        # An answer takes less than a second.
        self._threads = min(MOST_THREADS, math.ceil(per_second))

    def scores(self, texts: Sequence[str]) -> list[Toxicity]:
        """One for each text; the same text is asked once.

        Raises:
          BudgetSpentError: the budget is spent.
          ApiError: the API refuses the key, or could not be reached; what was answered is kept.
        """
        different = list(dict.fromkeys(texts))
        pool = ThreadPoolExecutor(self._threads)
        try:
            found = dict(zip(different, pool.map(self._score, different), strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
        return [found[text] for text in texts]

    def _score(self, text: str) -> Toxicity:
        question = {"api": "perspective", "url": self._url, "language": self._language, "text": text}
        answer = self._cache.get(question)
        if answer is None:
            body = {
                "comment": {"text": text},
                "languages": [self._language],
                "requestedAttributes": {"TOXICITY": {}},
                "doNotStore": True,
            }
            try:
                answer = {"score": post(self._url, body, _score_of, **self._call)}
            except RefusedError as refused:
                error = _error_of_text(refused)
                if error is None:
                    raise
                answer = {"score": None, "error": error}
            self._cache.put(question, answer)
        return Toxicity(**answer)


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
