"""POST requests to a JSON API, paid for and in turn, tried again where another try can help."""

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import tenacity
from absl import logging

from imitation_jax.clients.budget import Budget, Charge, Tokens
from imitation_jax.clients.rate_limiter import RateLimiter, StoppedError

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
        bill: Callable[[dict], Tokens | None] = lambda answer: None,
        tries: int = 8,
        first_wait: float = 1.0,
        timeout: float = 60.0,
    ):
        """Args:
        headers: keys belong here and not into the URL, which errors name; errors never hold these values.
        bill: what an answer did cost, None where it does not say.
        tries: of one request.
        first_wait: seconds before the second try; they double.
        timeout: seconds until the whole answer must be there, to its last byte.
        """
        self.limiter, self.budget, self.tries = limiter, budget, tries
        self._url, self._host, self._bill = url, urlsplit(url).netloc.rpartition("@")[2], bill
        self._first_wait, self._timeout = first_wait, timeout
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
        worst: Tokens = Tokens(),  # noqa: B008 (immutable)
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
        content = json.dumps(body, allow_nan=False)
        doubling = tenacity.wait_exponential(self._first_wait, max=LONGEST_WAIT)
        doubling += tenacity.wait_random(0, self._first_wait)

        def wait(state: tenacity.RetryCallState) -> float:
            return max(doubling(state), min(state.outcome.exception().after, LONGEST_WAIT))

        def tell(state: tenacity.RetryCallState) -> None:
            text = "%s: %s; trying again in %.0f s"
            error = state.outcome.exception()
            logging.log_every_n_seconds(logging.INFO, text, 15, self._host, error, state.upcoming_sleep)

        again = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TryAgainError),
            stop=tenacity.stop_after_attempt(self.tries),
            wait=wait,
            sleep=self.limiter.sleep,
            before_sleep=tell,
            reraise=True,
        )
        try:
            return await again(self._try, content, parse, tokens, worst)
        except _TryAgainError as error:
            raise ApiError(f"{self._host}: gave up after {self.tries} tries: {error}", error.answered) from None

    async def close(self) -> None:
        """Ends all connections."""
        for client in self._idle:
            await client.aclose()

    async def _try(self, content: str, parse: Callable[[dict], Answer], tokens: int, worst: Tokens) -> Answer:
        await self.limiter.wait(tokens)
        with await self.budget.spend(worst) as charge:
            if self.limiter.stopped:  # it may have waited for the budget
                charge.cancel()
                raise StoppedError("stopped")
            response = await self._exchange(content, charge)
            status, found = response.status_code, _json(response)
            answer = found if isinstance(found, dict) else {}
            if status in TRY_AGAIN - MAYBE_BILLED or 300 <= status < 500:
                charge.cancel()
            if (billed := self._bill(answer)) is not None:
                charge.settle(billed)
        if status in TRY_AGAIN and not HOPELESS & _codes(answer):
            after = _retry_after(response.headers)
            self.limiter.pause(min(after, LONGEST_WAIT))
            raise _TryAgainError(f"{status} {self._shown(_reason(answer))}".strip(), after)
        if status >= 300:
            reason = self._shown(_reason(answer)) or response.reason_phrase
            raise RefusedError(f"{self._host}: {status} {reason}", status, answer)
        try:
            if isinstance(found, dict):
                return parse(answer)
        except BadAnswerError as error:
            raise _TryAgainError(self._shown(error), answered=True) from None
        except (AttributeError, LookupError, TypeError, ValueError):
            pass
        text = self._shown(response.text[: 2 * SHOWN])[:SHOWN]
        raise _TryAgainError(f"an answer that cannot be read: {text!r}")

    async def _exchange(self, content: str, charge: Charge) -> httpx.Response:
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
            charge.cancel()
            raise ValueError(f"{self._url}: no address to ask ({error})") from None
        except (httpx.RequestError, OSError) as error:
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                charge.cancel()  # nobody heard it
            raise _TryAgainError(f"{type(error).__name__}: {error}") from None
        finally:
            self._idle.append(client)

    def _shown(self, text: object) -> str:
        text = str(text)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _json(response: httpx.Response) -> Any:
    """None where it is none."""
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return None


def _reason(answer: dict) -> str:
    """What the usual shape of an error says: {"error": {"message"}}."""
    error = answer.get("error")
    return " ".join(str(error.get("message", "") if isinstance(error, dict) else error or "").split())


def _codes(answer: dict) -> set[str]:
    error = answer.get("error")
    return {str(error.get(key)) for key in ("code", "type")} if isinstance(error, dict) else set()


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, from a number or a date."""
    text = headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        # By the server's clock where it tells it.
        here = format_datetime(datetime.now(UTC))
        until, now = (parsedate_to_datetime(value) for value in (text, headers.get("Date", here)))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0
