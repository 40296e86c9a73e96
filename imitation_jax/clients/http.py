"""One request to a JSON API, tried again where another try can help."""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import tenacity
import urllib3
from absl import logging
from requests.adapters import HTTPAdapter

from imitation_jax.clients.limits import Budget, Charge, RateLimit, StoppedError, Tokens

Answer = TypeVar("Answer")
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504, 529}
# Errors behind which an answer may have been made, and billed.
MAYBE_BILLED = {500, 502, 504}
# What is no matter of time although its status is 429: there is no money left.
HOPELESS = {"insufficient_quota", "billing_hard_limit_reached"}
LONGEST_WAIT = 120.0  # seconds, also where a server asks for more
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


def post(
    url: str,
    body: Mapping[str, Any],
    parse: Callable[[dict], Answer],
    *,
    headers: Mapping[str, str],
    limit: RateLimit,
    budget: Budget,
    tokens: int = 0,
    worst: Tokens = Tokens(),  # noqa: B008 (immutable)
    bill: Callable[[dict], Tokens | None] = lambda answer: None,
    tries: int = 8,
    first_wait: float = 1.0,
    timeout: float = 60.0,
) -> Answer:
    """parse(the JSON object that the server answers to `body`).

    Tries again, with doubling and jittered waits that are no shorter than the server's Retry-After, after a failed
    connection, no answer in time, 408, 429, a server's error, and an answer that is no JSON object or that `parse`
    raises AttributeError, LookupError, TypeError or ValueError for. A Retry-After holds for all who share `limit`.

    Args:
      headers: keys belong here and not into the URL, which errors name; errors never hold these values.
      limit: every try waits for its turn.
      budget: every try takes one.
      tokens: what a try counts for `limit`.
      worst: the most that a try can cost.
      bill: what an answer did cost, None where it does not say.
      first_wait: seconds before the second try.
      timeout: seconds until the whole answer must be there.

    Raises:
      BudgetSpentError: see `Budget.spend`.
      StoppedError: see `RateLimit.stop`.
      ValueError: `url` is none.
      RefusedError: any other status of 300 and more.
      ApiError: all tries failed.
    """
    host = urlsplit(url).netloc.rpartition("@")[2]
    secrets = [secret for value in headers.values() for secret in (value, value.split(" ")[-1]) if secret]

    def shown(text: object) -> str:
        text = str(text)
        for secret in secrets:
            text = text.replace(secret, "***")
        return text

    def attempt() -> Answer:
        limit.wait(tokens)
        with budget.spend(worst) as charge:
            try:
                limit.sleep(0)  # it may have waited for the budget
            except StoppedError:
                charge.cancel()
                raise
            status, found, raw = _exchange(url, body, headers, timeout, charge)
            answer = found if isinstance(found, dict) else {}
            if status in TRY_AGAIN - MAYBE_BILLED or 300 <= status < 500:
                charge.cancel()
            if (billed := bill(answer)) is not None:
                charge.settle(billed)
        if status in TRY_AGAIN and not HOPELESS & _codes(answer):
            after = _retry_after(raw.headers)
            limit.pause(min(after, LONGEST_WAIT))
            raise _TryAgainError(f"{status} {shown(_reason(answer))}".strip(), after)
        if status >= 300:
            text = f"{host}: {status} {shown(_reason(answer)) or raw.reason}"
            raise RefusedError(text, status, answer)
        try:
            if isinstance(found, dict):
                return parse(answer)
        except BadAnswerError as error:
            raise _TryAgainError(shown(error), answered=True) from None
        except (AttributeError, LookupError, TypeError, ValueError):
            pass
        text = shown(raw.text[: 2 * SHOWN])[:SHOWN]
        raise _TryAgainError(f"an answer that cannot be read: {text!r}")

    doubling = tenacity.wait_exponential(first_wait, max=LONGEST_WAIT) + tenacity.wait_random(0, first_wait)

    def wait(state: tenacity.RetryCallState) -> float:
        return max(doubling(state), min(state.outcome.exception().after, LONGEST_WAIT))

    def tell(state: tenacity.RetryCallState) -> None:
        text = "%s: %s; trying again in %.0f s"
        logging.log_every_n_seconds(logging.INFO, text, 15, host, state.outcome.exception(), state.upcoming_sleep)

    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_TryAgainError),
        stop=tenacity.stop_after_attempt(tries),
        wait=wait,
        sleep=limit.sleep,
        before_sleep=tell,
        reraise=True,
    )
    try:
        return again(attempt)
    except _TryAgainError as error:
        raise ApiError(f"{host}: gave up after {tries} tries: {error}", error.answered) from None


def _exchange(
    url: str, body: Mapping[str, Any], headers: Mapping[str, str], timeout: float, charge: Charge
) -> tuple[int, Any, requests.Response]:
    """(status, JSON or None where it is none, response) of one try.

    Raises:
      ValueError: `url` is none.
      _TryAgainError: no whole response in time.
    """
    late = _TryAgainError(f"no answer within {timeout:g} s")
    lines = _Lines()
    timer = threading.Timer(timeout, lines.cut)
    timer.daemon = True
    begin = time.monotonic()
    timer.start()
    try:
        with requests.Session() as session:
            session.mount("http://", lines)
            session.mount("https://", lines)
            # `auth` does nothing, but keeps a ~/.netrc from replacing the key; a redirect would be asked with GET.
            given = {"headers": headers, "auth": lambda request: request, "allow_redirects": False}
            response = session.post(url, json=body, timeout=timeout, **given)
    except ValueError as error:
        charge.cancel()
        raise ValueError(f"{url}: no address to ask ({error})") from None
    except (requests.RequestException, OSError) as error:
        cause = getattr(error.args[0], "reason", None) if error.args else None
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            charge.cancel()  # nobody heard it
        if isinstance(error, requests.Timeout) or time.monotonic() - begin >= timeout:
            raise late from None
        raise _TryAgainError(f"{type(error).__name__}: {error}") from None
    finally:
        timer.cancel()
    try:
        return response.status_code, json.loads(response.content), response
    except (ValueError, RecursionError):
        if time.monotonic() - begin >= timeout:
            raise late from None  # headers that end where the line was cut look whole
        return response.status_code, None, response


class _Lines(HTTPAdapter):
    """Knows the sockets of its connections: a timeout of requests begins again with every byte that drips in."""

    def __init__(self):
        super().__init__()
        self._sockets: list[socket.socket] = []

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> urllib3.HTTPConnectionPool:
        pool = super().get_connection_with_tls_context(*args, **options)
        sockets = self._sockets

        class Connection(pool.ConnectionCls):
            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)

        pool.ConnectionCls = Connection
        return pool

    def cut(self) -> None:
        """Ends all that is being waited for."""
        for line in self._sockets:
            try:
                socket.socket.shutdown(line, socket.SHUT_RDWR)
            except OSError:
                pass  # ended by itself


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
