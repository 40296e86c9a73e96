import asyncio
import os
import signal
import threading
import time

import pytest

from imitation_jax.clients.budget import Budget
from imitation_jax.clients.http import ApiError, RefusedError
from imitation_jax.clients.rate_limiter import RateLimiter
from imitation_jax.clients.request_pool import RequestPool


class Api:
    """What a pool needs of an API; `ask` answers a number with its double, after so many seconds."""

    def __init__(self, seconds=0.0, errors=()):
        self.limiter, self.budget = RateLimiter(), Budget()
        self.under_way = self.most = 0
        self._seconds, self._errors = seconds, dict(errors)

    async def ask(self, number):
        await self.limiter.wait()
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(self._seconds)
        self.under_way -= 1
        if number in self._errors:
            raise self._errors[number]
        return 2 * number

    async def close(self):
        pass


@pytest.fixture
def open_pool():
    """`open_pool(api)` is a pool that is closed after the test."""
    pools = []

    def make(api, **options):
        pools.append(RequestPool(api.ask, api, **{"concurrency": 4, **options}))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def ask(pool, numbers, keep):
    pending = iter(numbers)
    pool.run(lambda: next(pending, None), keep)


def test_it_asks_so_many_at_once_and_calls_back_on_the_calling_thread(open_pool):
    api, answers, threads = Api(0.01), {}, set()

    def keep(number, end):
        answers[number] = end
        threads.add(threading.current_thread())

    pool = open_pool(api)
    for numbers in (range(20), range(20, 30)):  # it can be used again
        ask(pool, numbers, keep)
    assert answers == {number: 2 * number for number in range(30)}
    assert api.most == 4 and threads == {threading.current_thread()}


def test_what_there_is_nothing_for_now_may_come_after_an_answer(open_pool):
    answers = []

    def take():
        return len(answers) if len(answers) < 5 else None

    open_pool(Api(), concurrency=1).run(take, lambda number, end: answers.append(end))
    assert answers == [0, 2, 4, 6, 8]


def test_what_was_written_is_flushed_before_it_waits_and_in_the_end(open_pool):
    written, flushed, waits = [], [], []

    def take():
        waits.append(len(written) - len(flushed))
        return len(waits) if len(waits) < 30 else None

    pool = open_pool(Api(0.01), concurrency=3)
    pool.run(take, lambda number, end: written.append(number), lambda: flushed.extend(written[len(flushed) :]))
    assert flushed == written and len(written) == 29 and max(waits) <= 3
    with pytest.raises(ZeroDivisionError):
        pool.run(iter([1, 2, None]).__next__, lambda number, end: written.append(1 / 0), lambda: flushed.append("end"))
    assert flushed[-1] == "end"


def test_when_bookkeeping_fails_the_answers_under_way_are_kept(open_pool):
    answers = []

    def keep(number, end):
        if number == 1:
            raise ValueError("no more")
        answers.append(number)

    with pytest.raises(ValueError, match="no more"):
        ask(open_pool(Api(0.05)), range(100), keep)
    assert set(answers) >= {0, 2, 3} and len(answers) < 10


def test_rounds_end_where_an_error_is_final_and_others_are_told_in_the_end(open_pool):
    api = Api(errors={3: RefusedError("no", 400, {}), 5: ApiError("gave up")})
    ends = []
    with pytest.raises(ValueError, match="1 of 9 numbers got no answer, the last because of: gave up; the same"):
        open_pool(api).ask_all(
            range(8),
            lambda number, end: ends.append((number, type(end))),
            desc="doubling",
            unit="number",
            total=9,
            is_final=lambda error: isinstance(error, RefusedError),
        )
    assert sorted(ends)[3:6] == [(3, RefusedError), (4, int), (5, ApiError)] and len(ends) == 8


def test_the_first_interrupt_keeps_what_is_under_way_and_the_second_does_not_wait(open_pool):
    pool, answers, before = open_pool(Api(0.5)), [], signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(*seconds):
        for pause in seconds:
            time.sleep(pause)
            os.kill(os.getpid(), signal.SIGINT)

    try:
        for pauses, least in (((0.1,), 4), ((0.1, 0.1), 0)):
            answers.clear()
            thread = threading.Thread(target=interrupt, args=pauses)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                ask(pool, range(100), lambda number, end: answers.append(end))
            thread.join()
            assert len(answers) == least
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            pool = open_pool(Api(2.0))
    finally:
        signal.signal(signal.SIGINT, before)
