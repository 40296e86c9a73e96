import threading
import time

import pytest

from imitation_jax.clients.limits import Budget, BudgetSpentError, RateLimit


def test_calls_of_several_threads_are_spread_evenly():
    start, times = time.monotonic(), []
    limit = RateLimit(50)

    def call():
        for _ in range(5):
            limit.wait()
            times.append(time.monotonic())

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    # A thread may be late, never early.
    assert all(at - start >= number / 50 for number, at in enumerate(times))


def test_time_without_calls_is_not_made_up_for():
    limit = RateLimit(20)
    limit.wait()
    time.sleep(0.3)
    start = time.monotonic()
    for _ in range(3):
        limit.wait()
    assert time.monotonic() - start >= 2 / 20


def test_budget():
    budget = Budget(2)
    budget.spend()
    budget.spend()
    with pytest.raises(BudgetSpentError, match="budget of 2 requests"):
        budget.spend()
    assert budget.spent == 2
    free = Budget()
    for _ in range(9):
        free.spend()
    assert free.spent == 9


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="more than 0"):
        RateLimit(rate)
