import subprocess
import sys
import threading
import time

import pytest

from imitation_jax.clients.limits import Budget, BudgetSpentError, RateLimit, StoppedError, Tokens


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


def test_tokens_are_let_through_evenly_too():
    limit = RateLimit(1000, tokens_per_second=1000)
    start, begun = time.monotonic(), []
    for tokens in (100, 300, 50, 10):
        limit.wait(tokens)
        begun.append(time.monotonic() - start)
    assert all(at >= least for at, least in zip(begun, (0, 0.1, 0.4, 0.45), strict=True))


def test_a_pause_is_for_all_and_they_do_not_come_at_once_after_it():
    limit, times = RateLimit(5), []

    def call():
        limit.wait()
        times.append(time.monotonic())

    limit.wait()
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    limit.pause(0.3)
    for thread in threads:
        thread.join()
    late = sorted(at - start for at in times if at > start)  # on a busy machine one may have come before the pause
    assert all(at >= 0.3 + number / 5 - 0.001 for number, at in enumerate(late))


def test_stopped_nobody_waits():
    limit, ends = RateLimit(0.001), []
    limit.wait()

    def call():
        try:
            limit.wait()
        except StoppedError as error:
            ends.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    limit.stop()
    for thread in threads:
        thread.join()
    assert len(ends) == 4


def test_a_budget_is_reckoned_at_the_worst_until_the_cost_is_known():
    budget = Budget(dollars=1.0, prices=(1000.0, 2000.0))
    with budget.spend(Tokens(100, 200)) as charge:  # half a dollar
        charge.settle(Tokens(100, 50))
    assert budget.cost(budget.known) == pytest.approx(0.2)
    with budget.spend(Tokens(100, 200)) as charge:
        charge.cancel()
    with budget.spend(Tokens(100, 200)):
        pass  # nobody knows
    assert budget.cost(budget.uncertain) == pytest.approx(0.5) and budget.unknown == 1
    with pytest.raises(BudgetSpentError, match=r"\$1.0000 is spent \(\$0.7000 spent, the next .* cost \$0.5000\)"):
        budget.spend(Tokens(100, 200))
    with budget.spend(Tokens(100, 100)) as charge:  # to the cent
        charge.settle(Tokens(100, 100))
    assert budget.cost(budget.known + budget.uncertain) == pytest.approx(1.0)
    with pytest.raises(BudgetSpentError):
        budget.spend(Tokens(1, 0))


def test_what_might_fit_waits_for_what_is_under_way():
    budget, order = Budget(tokens=100), []
    first = budget.spend(Tokens(60, 0))

    def call():
        with budget.spend(Tokens(60, 0)) as charge:
            order.append("second")
            charge.settle(Tokens(60, 0))

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.05)
    order.append("first is known")
    first.settle(Tokens(30, 0))
    thread.join()
    assert order == ["first is known", "second"] and budget.known == (90, 0)


def test_a_bill_is_one_processes_at_a_time(tmp_path):
    path = tmp_path / "spend.sqlite"
    first, second = Budget(tokens=100, ledger=path), Budget(tokens=100, ledger=path)
    first.hold()
    with pytest.raises(ValueError, match="spend.sqlite: another process is spending on this bill; wait for its end"):
        second.hold()
    first.spend(Tokens(60, 20)).settle(Tokens(60, 20))
    first.close()
    second.hold()
    assert second.known == Tokens(60, 20)  # what came after it was opened
    with pytest.raises(BudgetSpentError):
        second.spend(Tokens(30, 0))
    second.close()


def test_a_ledger_outlives_a_kill_with_what_was_under_way(tmp_path):
    path = tmp_path / "new folder" / "spend.sqlite"
    code = (
        "import os, sys\n"
        "from imitation_jax.clients.limits import Budget, Tokens\n"
        "budget = Budget(tokens=1000, ledger=sys.argv[1])\n"
        "for number in range(5):\n"
        "    with budget.spend(Tokens(10, 20)) as charge:\n"
        "        charge.settle(Tokens(10, number))\n"
        "budget.spend(Tokens(7, 8)), budget.spend(Tokens(7, 8))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -9
    budget = Budget(tokens=1000, ledger=path)
    assert (budget.known, budget.uncertain, budget.unknown, budget.spent) == ((50, 10), (14, 16), 2, 0)
    with pytest.raises(BudgetSpentError):
        budget.spend(Tokens(900, 11))
    budget.close()
    (tmp_path / "text").write_text("no database, but long enough to be looked at as one " * 40)
    with pytest.raises(ValueError, match="text: not a cache"):
        Budget(ledger=tmp_path / "text")


def test_dollars_need_prices():
    with pytest.raises(ValueError, match="needs the prices"):
        Budget(dollars=1.0)


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
