"""POST requests to a JSON API, each within budget and rate limit, tried again where another try can help."""

import asyncio
import contextlib
import json
import logging as std_logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import tenacity
from absl import logging

from imitation_jax.clients.budget import NOTHING, Budget, Tokens
from imitation_jax.clients.rate_limiter import RateLimiter, StoppedError

std_logging.getLogger("httpx").setLevel(std_logging.WARNING)  # it tells of every request

Answer = TypeVar("Answer")
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504, 529}
# Errors behind which an answer may have been made, and billed.
MAYBE_BILLED = {500, 502, 504}
# What is no matter of time although its status is 429: there is no money left.
HOPELESS = {"insufficient_quota", "billing_hard_limit_reached"}
LONGEST_WAIT = 120.0  # seconds, also where a server asks for more
KEEP_OPEN = 3.0  # seconds that an idle connection is kept: servers close theirs after five and more
SHOWN = 80  # characters of an answer that cannot be read


class ApiError(OSError):
    """No answer was to be had; `answered`: the last one was whole, but `parse` would not have it."""

    def __init__(self, message: str, answered: bool = False):
        super().__init__(message)
        self.answered = answered


class RefusedError(ApiError):
    """The server says no, and would again: `status`, and `answer`, its JSON or {}."""

    def __init__(self, message: str, status: int, answer: dict):
        super().__init__(message)
        self.status, self.answer = status, answer


class BadAnswerError(ValueError):
    """What `parse` may raise to say what is wrong with an answer."""


class _TryAgainError(Exception):
    """`after` is how many seconds the server asks to wait, 0 where it does not say."""

    def __init__(self, message: str, after: float = 0.0, answered: bool = False):
        super().__init__(message)
        self.after, self.answered = after, answered


class JsonApi:
    """One address that answers a JSON object to a JSON object.

    Attributes:
      limiter: every try waits for its turn; a server's Retry-After is a pause for all who share it.
      budget: every try takes one request.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        limiter: RateLimiter,
        budget: Budget,
        cost_of: Callable[[dict], Tokens | None] = lambda answer: None,
        tries: int = 8,
        first_wait: float = 1.0,
        timeout: float = 60.0,
    ):
        """Args:
        headers: keys belong here and not into the URL, which errors name; errors never hold these values.
        cost_of: what an answer did cost, None where it does not say.
        tries: of one request.
        first_wait: seconds before the second try; they double.
        timeout: seconds until the whole answer must be there, to its last byte.
        """
        self.limiter, self.budget, self.tries = limiter, budget, tries
        self._url, self._host, self._cost_of = url, urlsplit(url).netloc.rpartition("@")[2], cost_of
        self._timeout = timeout
        self._doubling = tenacity.wait_exponential(first_wait, max=LONGEST_WAIT) + tenacity.wait_random(0, first_wait)
        self._secrets = [part for value in headers.values() for part in (value, value.split(" ")[-1]) if part]
        # `auth` does nothing, but keeps what stands in the URL from replacing the key.
        self._options = {"auth": lambda request: request, "timeout": None, "verify": httpx.create_ssl_context()}
        self._options["headers"] = {"Content-Type": "application/json", **headers}
        self._options["limits"] = httpx.Limits(keepalive_expiry=KEEP_OPEN)
        # One for each request under way: one for all looks at all connections again and again, which is quadratic.
        self._idle: list[httpx.AsyncClient] = []

    async def post(
        self,
        body: Mapping[str, Any],
        parse: Callable[[dict], Answer],
        *,
        tokens: int = 0,
        worst: Tokens = NOTHING,
    ) -> Answer:
        """parse(the JSON object that the server answers to `body`).

        Tries again, with doubling and jittered waits that are no shorter than the server's Retry-After, after a failed
        connection, no answer in time, 408, 429, a server's error, and an answer that is no JSON object or that `parse`
        raises AttributeError, LookupError, TypeError or ValueError for.

        Args:
          tokens: what a try counts for the rate limiter.
          worst: the most that a try can cost.

        Raises:
          BudgetSpentError: see `Budget.spend`.
          StoppedError: see `RateLimiter.stop`.
          ValueError: the address is none, or the body no JSON.
          RefusedError: any other status of 300 and more.
          ApiError: all tries failed.
        """
        again = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TryAgainError),
            stop=tenacity.stop_after_attempt(self.tries),
            wait=self._wait,
            sleep=self.limiter.sleep,
            reraise=True,
        )
        try:
            return await again(self._try, json.dumps(body, allow_nan=False), parse, tokens, worst)
        except _TryAgainError as error:
            raise ApiError(f"{self._host}: gave up after {self.tries} tries: {error}", error.answered) from None

    async def close(self) -> None:
        """Ends all connections."""
        for client in self._idle:
            await client.aclose()

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception()
        seconds = max(self._doubling(state), error.after)
        if state.attempt_number < self.tries:
            text = "%s: %s; trying again in %.0f s"
            logging.log_every_n_seconds(logging.INFO, text, 15, self._host, error, seconds)
        return seconds

    async def _try(self, content: str, parse: Callable[[dict], Answer], tokens: int, worst: Tokens) -> Answer:
        await self.limiter.wait(tokens)
        async with self.budget.spend(worst) as settle:
            if self.limiter.stopped:  # it may have waited for the budget
                settle(NOTHING)
                raise StoppedError("stopped")
            response = await self._exchange(content, settle)
            status, parsed = response.status_code, _object(response)
            answer = parsed or {}
            if status in TRY_AGAIN - MAYBE_BILLED or 300 <= status < 500:
                settle(NOTHING)
            if (cost := self._cost_of(answer)) is not None:
                settle(cost)
        reason, hopeless = _error_of(answer)
        if status in TRY_AGAIN and not hopeless:
            after = min(_retry_after(response.headers), LONGEST_WAIT)
            self.limiter.pause(after)
            raise _TryAgainError(f"{status} {self._shown(reason)}".strip(), after)
        if status >= 300:
            text = f"{self._host}: {status} {self._shown(reason) or response.reason_phrase}"
            raise RefusedError(text, status, answer)
        try:
            if parsed is not None:
                return parse(answer)
        except BadAnswerError as error:
            raise _TryAgainError(self._shown(error), answered=True) from None
        except (AttributeError, LookupError, TypeError, ValueError):
            pass
        text = self._shown(response.text[: 2 * SHOWN])[:SHOWN]
        raise _TryAgainError(f"an answer that cannot be read: {text!r}")

    async def _exchange(self, content: str, settle: Callable[[Tokens], None]) -> httpx.Response:
        """Raises:
        ValueError: the address is none.
        _TryAgainError: no whole response in time.
        """
        client = self._idle.pop() if self._idle else httpx.AsyncClient(**self._options)
        try:
            async with asyncio.timeout(self._timeout):
                return await client.post(self._url, content=content)
        except TimeoutError:
            raise _TryAgainError(f"no answer within {self._timeout:g} s") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            settle(NOTHING)
            raise ValueError(f"{self._url}: no address to ask ({error})") from None
        except (httpx.RequestError, OSError) as error:
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                settle(NOTHING)  # nobody heard it
            raise _TryAgainError(f"{type(error).__name__}: {error}") from None
        finally:
            self._idle.append(client)

    def _shown(self, text: object) -> str:
        text = str(text)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _object(response: httpx.Response) -> dict | None:
    """The JSON object that the server answered, None where it is none."""
    try:
        parsed = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _error_of(answer: dict) -> tuple[str, bool]:
    """What an error of the usual shape says ({"error": {"message", "code", "type"}}); whether waiting cannot help."""
    error = answer.get("error")
    error = error if isinstance(error, dict) else {"message": error or ""}
    reason = " ".join(str(error.get("message", "")).split())
    return reason, bool(HOPELESS & {str(error.get("code")), str(error.get("type"))})


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, from a number or a date; 0 where the server does not say."""
    text = headers.get("Retry-After", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    with contextlib.suppress(TypeError, ValueError):
        # By the server's clock where it tells it.
        now = parsedate_to_datetime(headers["Date"]) if "Date" in headers else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    return 0.0
