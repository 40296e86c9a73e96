"""One request to a JSON API, tried again where another try can help."""

from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import tenacity

from imitation_jax.clients.limits import Budget, RateLimit

Answer = TypeVar("Answer")
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504, 529}
LONGEST_WAIT = 120.0  # seconds, also where a server asks for more


class ApiError(OSError):
    """No answer was to be had."""


class RefusedError(ApiError):
    """The server says no, and would again: `status`, and `answer`, its JSON or {}."""

    def __init__(self, message: str, status: int, answer: dict):
        super().__init__(message)
        self.status, self.answer = status, answer


class _TryAgainError(Exception):
    """`after` is how many seconds the server asks to wait, 0 where it does not say."""

    def __init__(self, message: str, after: float = 0.0):
        super().__init__(message)
        self.after = after


def post(
    url: str,
    body: Mapping[str, Any],
    parse: Callable[[dict], Answer],
    *,
    headers: Mapping[str, str],
    limit: RateLimit,
    budget: Budget,
    tries: int = 8,
    first_wait: float = 1.0,
    timeout: float = 60.0,
) -> Answer:
    """parse(the JSON object that the server answers to `body`).

    Tries again, with doubling and jittered waits that are no shorter than the server's Retry-After, after a failed
    connection, no answer in time, 408, 429, a server's error, and an answer that is no JSON object or that `parse`
    raises KeyError, TypeError or ValueError for.

    Args:
      headers: keys belong here and not into the URL, which errors name.
      limit: every try waits for its turn.
      budget: every try takes one.
      first_wait: seconds before the second try.
      timeout: seconds to wait for a connection, and for each part of an answer.

    Raises:
      BudgetSpentError: see `Budget.spend`.
      ValueError: `url` is none.
      RefusedError: any other status of 400 and more.
      ApiError: all tries failed.
    """
    host = urlsplit(url).netloc

    def attempt() -> Answer:
        limit.wait()
        budget.spend()
        try:
            response = requests.post(url, json=body, headers=headers, timeout=timeout)
        except requests.Timeout:
            raise _TryAgainError(f"no answer within {timeout:g} s") from None
        except ValueError as error:
            raise ValueError(f"{url}: no address to ask ({error})") from None
        except requests.RequestException as error:
            raise _TryAgainError(f"{type(error).__name__}: {error}") from None
        try:
            answer = response.json()
        except requests.JSONDecodeError:
            answer = None
        if response.status_code in TRY_AGAIN:
            raise _TryAgainError(f"{response.status_code} {_reason(answer)}".strip(), _retry_after(response))
        if response.status_code >= 400:
            text = f"{host}: {response.status_code} {_reason(answer) or response.reason}"
            raise RefusedError(text, response.status_code, answer if isinstance(answer, dict) else {})
        try:
            if isinstance(answer, dict):
                return parse(answer)
        except (KeyError, TypeError, ValueError):
            pass
        raise _TryAgainError(f"an answer that cannot be read: {response.text[:80]!r}")

    doubling = tenacity.wait_exponential(first_wait, max=LONGEST_WAIT) + tenacity.wait_random(0, first_wait)

    def wait(state: tenacity.RetryCallState) -> float:
        return max(doubling(state), min(state.outcome.exception().after, LONGEST_WAIT))

    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_TryAgainError),
        stop=tenacity.stop_after_attempt(tries),
        wait=wait,
        reraise=True,
    )
    try:
        return again(attempt)
    except _TryAgainError as error:
        raise ApiError(f"{host}: gave up after {tries} tries: {error}") from None


def _reason(answer: Any) -> str:
    """What the usual shape of an error says: {"error": {"message"}}."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("message", "")) if isinstance(error, dict) else str(error or "")


def _retry_after(response: requests.Response) -> float:
    """Seconds, from a number or a date."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        until, now = (parsedate_to_datetime(value) for value in (text, response.headers.get("Date", "")))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0
