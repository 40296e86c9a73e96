import asyncio
import time

import pytest

from imitation_jax.clients.rate_limiter import RateLimiter, StoppedError


def test_calls_of_several_tasks_are_spread_evenly():
    times = []

    async def call(limiter):
        for _ in range(5):
            await limiter.wait()
            times.append(time.monotonic())

    async def main():
        start, limiter = time.monotonic(), RateLimiter(50)
        await asyncio.gather(*(call(limiter) for _ in range(4)))
        return start

    start = asyncio.run(main())
    times.sort()
    # A task may be late, never early.
    assert len(times) == 20 and all(at - start >= number / 50 for number, at in enumerate(times))


def test_time_without_calls_is_not_made_up_for():
    async def main():
        limiter = RateLimiter(20)
        await limiter.wait()
        await asyncio.sleep(0.3)
        start = time.monotonic()
        for _ in range(3):
            await limiter.wait()
        return time.monotonic() - start

    assert asyncio.run(main()) >= 2 / 20


def test_tokens_are_let_through_evenly_too():
    async def main():
        limiter = RateLimiter(1000, tokens_per_second=1000)
        start, begun = time.monotonic(), []
        for tokens in (100, 300, 50, 10):
            await limiter.wait(tokens)
            begun.append(time.monotonic() - start)
        return begun

    assert all(at >= least for at, least in zip(asyncio.run(main()), (0, 0.1, 0.4, 0.45), strict=True))


def test_a_pause_is_for_all_and_they_do_not_come_at_once_after_it():
    times = []

    async def call(limiter):
        await limiter.wait()
        times.append(time.monotonic())

    async def main():
        limiter = RateLimiter(5)
        await limiter.wait()
        calls = [asyncio.create_task(call(limiter)) for _ in range(4)]
        await asyncio.sleep(0)
        start = time.monotonic()
        limiter.pause(0.3)
        await asyncio.gather(*calls)
        return start

    start = asyncio.run(main())
    assert len(times) == 4
    assert all(at - start >= 0.3 + number / 5 - 0.001 for number, at in enumerate(sorted(times)))


def test_stopped_nobody_waits():
    async def main():
        limiter = RateLimiter(0.001)
        await limiter.wait()
        calls = [asyncio.create_task(limiter.wait()) for _ in range(4)]
        await asyncio.sleep(0.01)
        limiter.stop()
        return await asyncio.gather(*calls, limiter.wait(), return_exceptions=True)

    assert [type(end) for end in asyncio.run(main())] == [StoppedError] * 5


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="more than 0"):
        RateLimiter(rate)
