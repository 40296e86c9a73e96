"""How much may be spent on an API in all, and the ledger of what was: an SQLite file with a row for every try."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from imitation_jax.clients.answer_cache import open_database
from imitation_jax.core.files import Lock

TABLE = (
    "CREATE TABLE IF NOT EXISTS tries (number INTEGER PRIMARY KEY, prompt INTEGER, completion INTEGER, known INTEGER)"
)


class BudgetSpentError(ValueError):
    """As much was spent as was allowed."""


class Tokens(NamedTuple):
    """What a request is billed by."""

    prompt: int = 0
    completion: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt + other.prompt, self.completion + other.completion)

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.completion


NOTHING = Tokens()


class Budget:
    """Requests sent (tries that failed too), tokens and dollars, never more than allowed; 0 allows any number.

    A try is counted at the most it can cost before it is sent, and at what it did cost as soon as that is known. Where
    no answer says its cost it stays at its worst case: it is `uncertain`, the rest is `known`. With a `ledger` tokens
    and dollars are of all starts together, and tries under way at a kill -9 are uncertain from then on.

    Attributes:
      spent: requests of this start.
      known, uncertain: tokens.
      unknown: how many tries the uncertain tokens are of.
    """

    def __init__(
        self,
        most: int = 0,
        *,
        tokens: int = 0,
        dollars: float = 0.0,
        prices: tuple[float, float] = (0.0, 0.0),
        ledger: str | Path = ":memory:",
    ):
        """Args:
          most: requests.
          prices: dollars a million tokens, of prompts and of completions.
          ledger: file of what was spent, made where there is none.

        Raises:
          ValueError: no ledger is in that file, or dollars are limited and nothing has a price.
        """
        if dollars and not any(prices):
            raise ValueError("a budget in dollars needs the prices of tokens")
        self.most, self.tokens, self.dollars, self.prices = most, tokens, dollars, prices
        self.spent, self._path, self._lock = 0, ledger, None
        self._open: dict[int, Tokens] = {}
        self._waiting: list[asyncio.Future] = []
        self._ledger = open_database(ledger, TABLE, "ledger")
        self._read()

    def _read(self) -> None:
        self.unknown, self.known, self.uncertain = 0, Tokens(), Tokens()
        sums = "SELECT known, COUNT(*), SUM(prompt), SUM(completion) FROM tries GROUP BY known"
        for known, count, *billed in self._ledger.execute(sums):
            if known:
                self.known = Tokens(*billed)
            else:
                self.uncertain, self.unknown = Tokens(*billed), count

    def hold(self) -> None:
        """Keeps the ledger for this process until the end; what another one spent meanwhile would not count here.

        Raises:
          ValueError: another one has it.
        """
        try:
            self._lock = Lock(f"{Path(self._path).expanduser()}.lock", "another process is spending on this ledger")
        except BlockingIOError as error:
            raise ValueError(f"{self._path}: {error}; wait for its end") from None
        self._read()

    def cost(self, tokens: Tokens) -> float:
        """Dollars."""
        return (tokens.prompt * self.prices[0] + tokens.completion * self.prices[1]) / 1e6

    @contextlib.asynccontextmanager
    async def spend(self, worst: Tokens = NOTHING) -> AsyncIterator[Callable[[Tokens], None]]:
        """Takes one request that costs at most `worst`; gives the function to call with its cost once that is known.

        Where it would fit if the requests under way cost less than they can, it waits for them.

        Raises:
          BudgetSpentError: it cannot be paid.
        """
        if self.most and self.spent >= self.most:
            raise BudgetSpentError(_spent(f"{self.most} requests"))
        while passed := self._passed(worst):
            if not self._open:
                raise BudgetSpentError(passed)
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]
        self.spent += 1
        number = self._ledger.execute("INSERT INTO tries VALUES (NULL, ?, ?, 0)", worst).lastrowid
        self._open[number] = worst
        try:
            yield functools.partial(self._settle, number)
        finally:
            self._settle(number)

    def close(self) -> None:
        """The ledger can be removed after this; tries that are still under way stay in it at their worst case."""
        self._open.clear()
        self._ledger.close()
        if self._lock:
            self._lock.release()

    def summary(self) -> str:
        """What was spent, in a few words."""
        known, uncertain = (
            f"${self.cost(tokens):.4f}" if any(self.prices) else f"{tokens.total:,} tokens"
            for tokens in (self.known, self.uncertain)
        )
        more = f" (up to {uncertain} more for {self.unknown:,} tries without an answer)" if self.unknown else ""
        return known + more

    def _passed(self, worst: Tokens) -> str:
        """Which limit one more request could pass, "" for none."""
        sure = self.known + self.uncertain
        most = sum(self._open.values(), sure + worst)
        if self.tokens and most.total > self.tokens:
            return _spent(f"{self.tokens:,} tokens", f"{sure.total:,}", f"{worst.total:,}")
        # Sums of a million prices are off by less than a millionth of a cent.
        if self.dollars and self.cost(most) > self.dollars + 1e-8:
            costs = (f"${self.cost(tokens):.4f}" for tokens in (sure, worst))
            return _spent(f"${self.dollars:,.4f}", *costs)
        return ""

    def _settle(self, number: int, tokens: Tokens | None = None) -> None:
        """Counts a try that is over, at its worst case where its cost is not known; only the first call does."""
        worst = self._open.pop(number, None)
        if worst is None:
            return
        if tokens is None:
            self.uncertain += worst
            self.unknown += 1
        else:
            change = "UPDATE tries SET prompt = ?, completion = ?, known = 1 WHERE number = ?"
            self._ledger.execute(change, (*tokens, number))
            self.known += tokens
        for waiting in self._waiting:
            if not waiting.done():  # its task may have been cancelled
                waiting.set_result(None)
        self._waiting.clear()


def open_budget(config: ConfigDict, ledger: str | Path) -> Budget:
    """What may be spent by all starts with that ledger, with what was."""
    prices = config.price.prompt, config.price.completion
    return Budget(tokens=config.budget.tokens, dollars=config.budget.dollars, prices=prices, ledger=ledger)


def _spent(most: str, sure: str = "", worst: str = "") -> str:
    more = f" ({sure} spent, the next request may cost {worst})" if sure else ""
    how = "with a larger one it goes on" if sure else "another start goes on"
    return f"the budget of {most} is spent{more}; what was answered is kept, {how}"
