import asyncio
import subprocess
import sys

import pytest

from imitation_jax.clients.budget import NOTHING, Budget, BudgetSpentError, Tokens


def spend(budget, worst=NOTHING, cost=None):
    """One try; where its cost is not given nobody knows it."""

    async def main():
        async with budget.spend(worst) as settle:
            if cost is not None:
                settle(cost)

    asyncio.run(main())


def test_a_budget_is_reckoned_at_the_worst_until_the_cost_is_known():
    budget = Budget(dollars=1.0, prices=(1000.0, 2000.0))
    spend(budget, Tokens(100, 200), Tokens(100, 50))  # half a dollar at most
    assert budget.cost(budget.known) == pytest.approx(0.2)
    spend(budget, Tokens(100, 200), NOTHING)
    spend(budget, Tokens(100, 200))
    assert budget.cost(budget.uncertain) == pytest.approx(0.5) and budget.unknown == 1
    with pytest.raises(BudgetSpentError, match=r"\$1.0000 is spent \(\$0.7000 spent, the next .* cost \$0.5000\)"):
        spend(budget, Tokens(100, 200))
    spend(budget, Tokens(100, 100), Tokens(100, 100))  # to the cent
    assert budget.cost(budget.known + budget.uncertain) == pytest.approx(1.0)
    with pytest.raises(BudgetSpentError):
        spend(budget, Tokens(1, 0))


def test_what_might_fit_waits_for_what_is_under_way():
    budget, order = Budget(tokens=100), []

    async def call():
        async with budget.spend(Tokens(60, 0)) as settle:
            order.append("second")
            settle(Tokens(60, 0))

    async def main():
        async with budget.spend(Tokens(60, 0)) as settle:
            second = asyncio.create_task(call())
            await asyncio.sleep(0.05)
            order.append("first is known")
            settle(Tokens(30, 0))
            await second

    asyncio.run(main())
    assert order == ["first is known", "second"] and budget.known == (90, 0)


def test_a_ledger_is_one_processes_at_a_time(tmp_path):
    path = tmp_path / "spend.sqlite"
    first, second = Budget(tokens=100, ledger=path), Budget(tokens=100, ledger=path)
    first.hold()
    with pytest.raises(ValueError, match="spend.sqlite: another process is spending on this ledger; wait for its end"):
        second.hold()
    spend(first, Tokens(60, 20), Tokens(60, 20))
    first.close()
    second.hold()
    assert second.known == Tokens(60, 20)  # what came after it was opened
    with pytest.raises(BudgetSpentError):
        spend(second, Tokens(30, 0))
    second.close()


def test_a_ledger_outlives_a_kill_with_what_was_under_way(tmp_path):
    path = tmp_path / "new folder" / "spend.sqlite"
    code = (
        "import asyncio, os, sys\n"
        "from imitation_jax.clients.budget import Budget, Tokens\n"
        "async def main(budget):\n"
        "    for number in range(5):\n"
        "        async with budget.spend(Tokens(10, 20)) as settle:\n"
        "            settle(Tokens(10, number))\n"
        "    async with budget.spend(Tokens(7, 8)), budget.spend(Tokens(7, 8)):\n"
        "        os.kill(os.getpid(), 9)\n"
        "asyncio.run(main(Budget(tokens=1000, ledger=sys.argv[1])))\n"
    )
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -9
    budget = Budget(tokens=1000, ledger=path)
    assert (budget.known, budget.uncertain, budget.unknown, budget.spent) == ((50, 10), (14, 16), 2, 0)
    with pytest.raises(BudgetSpentError):
        spend(budget, Tokens(900, 11))
    budget.close()
    (tmp_path / "text").write_text("no database, but long enough to be looked at as one " * 40)
    with pytest.raises(ValueError, match="text: not a ledger"):
        Budget(ledger=tmp_path / "text")


def test_dollars_need_prices():
    with pytest.raises(ValueError, match="needs the prices"):
        Budget(dollars=1.0)


def test_budget():
    budget = Budget(2)
    spend(budget)
    spend(budget)
    with pytest.raises(BudgetSpentError, match="budget of 2 requests"):
        spend(budget)
    assert budget.spent == 2
    free = Budget()
    for _ in range(9):
        spend(free)
    assert free.spent == 9
