"""Many requests under way at once, and an end that throws away no answer."""

import asyncio
import collections
import contextlib
import math
import queue
import signal
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, TypeVar

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.clients.budget import open_budget
from imitation_jax.clients.chat_client import ChatClient, Reply, Request, read_key
from imitation_jax.clients.http import ApiError, JsonApi, RefusedError
from imitation_jax.core.progress import ticks

Item = TypeVar("Item")
Answer = TypeVar("Answer")

ROUNDS = 3  # an item that all tries of a request failed for gets so many requests in one start
# What is wrong with every request, not with this one: key, payment, model or address.
NEVER = {401, 402, 404, 405, 410, 429}
KEY = {401, 403}
# What is wrong with this one alone: its text, or the answer to it.
REFUSALS = {200, 400, 422}


class RequestPool(Generic[Item, Answer]):
    """Asks for each item one request, many at once, as long as there is hope: counts what fails in a row.

    The requests share an event loop in a thread of its own. What is called back, which may wait for the disk, runs on
    the calling thread, and Ctrl-C is heard between two answers, so that none is lost on its way.

    Attributes:
      budget: of all requests.
      answered: how many were.
    """

    def __init__(
        self,
        ask: Callable[[Item], Coroutine[Any, Any, Answer]],
        api: JsonApi,
        *,
        concurrency: int,
        failures: float = math.inf,
        key: str = "",
    ):
        """Args:
        ask: what asks `api`.
        concurrency: requests under way at once.
        failures: so many requests in a row without an answer end a run.
        key: name of the environment variable that holds the key, for errors.
        """
        self.budget, self.answered = api.budget, 0
        self._ask, self._api, self._concurrency = ask, api, concurrency
        self._failures, self._key, self._in_a_row = failures, key, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)  # nobody who is in a hurry waits
        self._thread.start()

    def run(
        self,
        take: Callable[[], Item | None],
        done: Callable[[Item, Answer | ApiError], None],
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        """Asks what `take` gives until it gives None and nothing is under way; `done` gets every end.

        `take` is called again after each `done`: what it has nothing for now it may have then. When asking ends early,
        the answers under way are still waited for, unless there was no answer yet and the others will end the same way;
        after that no more can be asked.

        Args:
          flush: makes sure of what `done` wrote; called before it waits for an answer, after at most as many of them as
            may be under way, and in the end.

        Raises:
          ValueError: another request would end the same way; one line.
          BudgetSpentError: see `Budget.spend`.
        """
        ends: queue.SimpleQueue[tuple[Item, Future] | None] = queue.SimpleQueue()
        under_way = unflushed = 0
        with _interrupts(lambda: ends.put(None)):
            try:
                while True:
                    while under_way < self._concurrency and (item := take()) is not None:
                        future = asyncio.run_coroutine_threadsafe(self._ask(item), self._loop)
                        future.add_done_callback(lambda future, item=item: ends.put((item, future)))
                        under_way += 1
                    if not under_way:
                        return
                    if unflushed and (ends.empty() or unflushed >= self._concurrency):
                        flush()
                        unflushed = 0
                    if (end := ends.get()) is None:
                        raise KeyboardInterrupt
                    under_way -= 1
                    done(end[0], self._judged(end[1]))
                    unflushed += 1
            except BaseException as error:
                self._loop.call_soon_threadsafe(self._api.limiter.stop)
                if under_way and (self.answered or not isinstance(error, _EndedError)):
                    text = "waiting for %d requests under way; interrupt again to lose their answers"
                    logging.info(text, under_way)
                    while under_way:
                        if (end := ends.get()) is None:  # Ctrl-C when this was ending already
                            continue
                        under_way -= 1
                        if not end[1].exception():
                            with contextlib.suppress(ValueError):  # what ended it may be said again
                                done(end[0], end[1].result())
                raise
            finally:
                flush()

    def ask_all(
        self,
        items: Collection[Item],
        done: Callable[[Item, Answer | ApiError], None],
        *,
        desc: str,
        unit: str,
        total: int,
        is_final: Callable[[ApiError], bool],
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        """Asks for each of the items, up to ROUNDS times while there is neither answer nor final error; shows progress.

        Args:
          done: gets the last end of each item.
          desc, unit: what is done and to what, see `core.progress`.
          total: of the items with what was answered before.
          is_final: whether asking again is no use.
          flush: see `run`.

        Raises:
          ValueError: some got neither; else as `run`.
        """
        waiting = collections.deque(items)
        rounds: collections.Counter[int] = collections.Counter()
        given_up = []
        with ticks(total=total, initial=total - len(items), desc=desc, unit=unit) as tick:

            def ended(item: Item, end: Answer | ApiError) -> None:
                if isinstance(end, ApiError) and not is_final(end):
                    rounds[id(item)] += 1
                    if rounds[id(item)] < ROUNDS:
                        waiting.append(item)
                        return
                    given_up.append(str(end))
                done(item, end)
                tick(self.budget.summary())

            self.run(lambda: waiting.popleft() if waiting else None, ended, flush)
        if given_up:
            text = f"{len(given_up)} of {total} {unit}s got no answer, the last because of: {given_up[-1]}"
            raise ValueError(f"{text}; the same command asks them again")

    def close(self) -> None:
        """Ends all connections; what is still under way is given up."""

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if tasks:
                # Cancelled as it begins to connect, anyio would warn of a coroutine that was never awaited.
                await asyncio.wait(tasks, timeout=0.1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._api.close()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _judged(self, future: Future) -> Answer | ApiError:
        """The answer, or what is wrong with this request alone; raises where others will fare no better."""
        error = future.exception()
        if error is None:
            self.answered += 1
            self._in_a_row = 0
            return future.result()
        if not isinstance(error, ApiError):
            raise error
        status = error.status if isinstance(error, RefusedError) else 0
        # Some refuse a key with 403, some a prompt.
        if status in NEVER or 300 <= status < 400 or (status == 403 and not self.answered):
            about = f" (the key is what {self._key} holds)" if status in KEY and self._key else ""
            raise _EndedError(f"{error}{about}; nothing more is asked, what was answered is kept")
        if status == 200 or (status in REFUSALS and self.answered):
            self._in_a_row = 0
            return error
        # That includes 400s before any answer: then it may be the parameters.
        self._in_a_row += 1
        if self._in_a_row >= self._failures:
            text = f"{self._in_a_row} requests in a row failed, the last so: {error}"
            raise ValueError(f"{text}; what was answered is kept, the same command goes on")
        return error


@contextlib.contextmanager
def _interrupts(heard: Callable[[], None]) -> Iterator[None]:
    """Calls `heard` at the first Ctrl-C in place of KeyboardInterrupt; the next one does not wait."""

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        heard()

    # In a thread, or where it is ignored, there is no Ctrl-C to hear.
    main = threading.current_thread() is threading.main_thread()
    hears = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if hears:
        signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        if hears:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def is_refusal(error: ApiError) -> bool:
    """Whether the same request would have the same end: it is refused, or its answers are not what was asked for."""
    return isinstance(error, RefusedError) or error.answered


class _EndedError(ValueError):
    """The other requests will end the same way."""


@contextlib.contextmanager
def open_pool(config: ConfigDict, ledger: Path, hold: bool = False) -> Iterator[RequestPool[Request, Reply]]:
    """A pool that asks the chat model of the config; tells in the end what was spent.

    Args:
      ledger: file of what is spent, with what was.
      hold: whether no other process may spend on that ledger meanwhile.

    Raises:
      ValueError: see `ChatClient` and `Budget`.
    """
    if config.key:
        read_key(config.key)  # before there is a ledger
    with contextlib.ExitStack() as stack:
        budget = stack.enter_context(contextlib.closing(open_budget(config, ledger)))
        if hold:
            budget.hold()
        client = ChatClient(config, budget)
        pool = RequestPool(
            client.ask, client.api, concurrency=config.concurrency, failures=config.failures, key=config.key
        )
        try:
            yield stack.enter_context(contextlib.closing(pool))
        finally:
            logging.info("spent, with all starts before: %s", budget.summary())
