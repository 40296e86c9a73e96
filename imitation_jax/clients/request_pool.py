"""Many requests under way at once, all bookkeeping on one thread, and an end that throws away no answer."""

import contextlib
import math
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.clients import chat_client
from imitation_jax.clients.chat_client import Chat, Reply
from imitation_jax.clients.http import ApiError, RefusedError
from imitation_jax.clients.limits import Budget, RateLimit, Tokens
from imitation_jax.core.comma_list import comma_list

Prompt = dict[str, Any]  # at least "id" and "messages"; what is sent beside them stands under "more"

# What is wrong with every request, not with this one: key, payment, model or address.
NEVER = {401, 402, 404, 405, 410, 429}
KEY = {401, 403}
# What is wrong with this one alone: its text, or the answer to it.
REFUSALS = {200, 400, 422}


def check(config: ConfigDict) -> None:
    """Raises ValueError naming the key that cannot be."""
    for key in ("url", "model"):
        if not config[key]:
            raise ValueError(f"config.{key} is empty")
    for key in ("concurrency", "tries", "failures"):
        if config[key] < 1:
            raise ValueError(f"config.{key}={config[key]}: must be 1 or more")
    if not config.timeout > 0:
        raise ValueError(f"config.timeout={config.timeout}: must be more than 0")
    for key in ("requests_per_minute", "tokens_per_minute", "first_wait"):
        if not config[key] >= 0:
            raise ValueError(f"config.{key}={config[key]}: must not be negative")
    for name, group in (("price", config.price), ("budget", config.budget)):
        for key, value in group.items():
            if not value >= 0:
                raise ValueError(f"config.{name}.{key}={value}: must not be negative")
    if config.budget.dollars and not (config.price.prompt and config.price.completion):
        raise ValueError("config.budget.dollars: needs config.price.prompt and config.price.completion")
    for key in ("model", "messages", "stream", "n"):
        if key in config.parameters:
            raise ValueError(f"config.parameters.{key}: is not for parameters")


def rate_limit(config: ConfigDict) -> RateLimit:
    """What the config allows."""
    rates = (config.requests_per_minute, config.tokens_per_minute)
    return RateLimit(*(rate / 60 if rate else float("inf") for rate in rates))


def prices(config: ConfigDict) -> tuple[float, float]:
    """Dollars a million tokens, of prompts and of answers."""
    return config.price.prompt, config.price.completion


def open_budget(config: ConfigDict, ledger: Path) -> Budget:
    """What may be spent by all starts with that ledger, with what was."""
    return Budget(
        tokens=config.budget.tokens,
        dollars=config.budget.dollars,
        prices=prices(config),
        ledger=ledger,
    )


def open_chat(config: ConfigDict, budget: Budget) -> Chat:
    """The model that the config names.

    Raises:
      ValueError: no key in the environment, or no bound to an answer's cost.
    """
    return Chat(
        config.url,
        config.model,
        config.parameters.to_dict(),
        budget=budget,
        limit=rate_limit(config),
        key=config.key,
        also_answers=comma_list(config.also_answers),
        tries=config.tries,
        first_wait=config.first_wait,
        timeout=config.timeout,
    )


def spend(budget: Budget) -> str:
    """What was spent, in a few words."""
    found = _amount(budget, budget.known)
    if budget.unknown:
        found += f" (up to {_amount(budget, budget.uncertain)} more for {budget.unknown:,} tries without an answer)"
    return found


def _amount(budget: Budget, tokens: Tokens) -> str:
    return f"${budget.cost(tokens):.4f}" if any(budget.prices) else f"{tokens.total:,} tokens"


def forecast(config: ConfigDict, ledger: Path, asked: list[list[dict]], lengths: Sequence[int] = ()) -> list[str]:
    """Lines that say what so many requests cost and how long they take at least.

    Args:
      lengths: tokens of the answers so far.
    """
    prompt = sum(map(chat_client.estimate, asked))
    longest = chat_client.longest_answer(config.parameters)
    budget = open_budget(config, ledger) if ledger.exists() else Budget(prices=prices(config))
    spent, left = budget.known + budget.uncertain, Tokens(prompt, longest * len(asked))
    most = f"at most {left.completion:,} of answers ({longest:,} each)" if longest else "no bound on answers"
    text = [f"about {prompt:,} tokens of prompts (at {chat_client.BYTES_A_TOKEN} bytes a token), {most}"]

    def priced(tokens: Tokens) -> str:
        return f"{tokens.total:,} tokens" + (f", ${budget.cost(tokens):,.2f}" if any(budget.prices) else "")

    text.append(f"cost: from {priced(Tokens(prompt))} to {priced(left)}; spent so far: {priced(spent)}")
    if lengths:
        mean = sum(lengths) / len(lengths)
        like = Tokens(prompt, round(mean * len(asked)))
        text.append(f"with answers as long as the {len(lengths):,} so far: about {priced(like)}")
    for limit, name, least, worst in (
        (config.budget.dollars, "dollars", budget.cost(spent + Tokens(prompt)), budget.cost(spent + left)),
        (config.budget.tokens, "tokens", (spent + Tokens(prompt)).total, (spent + left).total),
    ):
        if limit:
            enough = "is enough" if worst <= limit else "may not be enough" if least <= limit else "is not enough"
            text.append(f"the budget of {limit:,} {name} {enough}")
    minutes = [len(asked) / config.requests_per_minute] if config.requests_per_minute else []
    minutes += [left.total / config.tokens_per_minute] if config.tokens_per_minute else []
    if minutes:
        text.append(f"the rate limits let that through in {math.ceil(max(minutes)):,} minutes")
    budget.close()
    return text


class Asking:
    """Asks as long as there is hope: counts what fails in a row."""

    def __init__(self, chat: Chat, config: ConfigDict):
        self.chat, self._config = chat, config
        self.answered = self._in_a_row = 0

    def run(self, take: Callable[[], Prompt | None], done: Callable[[Prompt, Reply | ApiError], None]) -> None:
        """Asks what `take` gives until it gives None and nothing is under way; `done` gets every end.

        `take` is called again after each `done`: what it has nothing for now it may have then. Both are called on this
        thread, and Ctrl-C is heard between two ends, so that none is lost on its way. When asking ends early, the
        answers under way are still waited for, unless there was no answer yet and the others will end the same way.

        Raises:
          ValueError: another request would end the same way; one line.
          BudgetSpentError: see `Budget.spend`.
        """
        todo: queue.SimpleQueue = queue.SimpleQueue()
        ends: queue.SimpleQueue = queue.SimpleQueue()

        def work() -> None:
            while (prompt := todo.get()) is not None:
                try:
                    ends.put((prompt, self.chat.ask(prompt["messages"], **prompt.get("more", {}))))
                except BaseException as error:
                    ends.put((prompt, error))

        def interrupted(*_) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the next one does not wait
            ends.put((None, KeyboardInterrupt()))

        # In a thread, or where it is ignored, there is no Ctrl-C to hear.
        heard = threading.current_thread() is threading.main_thread()
        heard = heard and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if heard:
            signal.signal(signal.SIGINT, interrupted)
        threads = under_way = 0
        try:
            while True:
                while under_way < self._config.concurrency and (prompt := take()) is not None:
                    todo.put(prompt)
                    under_way += 1
                    if threads < under_way:
                        # Daemons: a command that was interrupted twice does not wait for them.
                        threading.Thread(target=work, daemon=True).start()
                        threads += 1
                if not under_way:
                    return
                prompt, end = ends.get()
                if prompt is None:
                    raise end
                under_way -= 1
                done(prompt, self._judged(end))
        except BaseException as error:
            self.chat.limit.stop()
            if under_way and (self.answered or not isinstance(error, _EndedError)):
                logging.info("waiting for %d requests under way; interrupt again to lose their answers", under_way)
                while under_way:
                    prompt, end = ends.get()
                    if prompt is None:  # Ctrl-C when this was ending already
                        continue
                    under_way -= 1
                    if isinstance(end, Reply):
                        with contextlib.suppress(ValueError):  # what ended it may be said again
                            done(prompt, end)
            raise
        finally:
            if heard:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            for _ in range(threads):
                todo.put(None)

    def _judged(self, end: Reply | BaseException) -> Reply | ApiError:
        if isinstance(end, Reply):
            self.answered += 1
            self._in_a_row = 0
            return end
        if not isinstance(end, ApiError):
            raise end
        status = end.status if isinstance(end, RefusedError) else 0
        # Some refuse a key with 403, some a prompt.
        if status in NEVER or 300 <= status < 400 or (status == 403 and not self.answered):
            about = f" (the key is what {self._config.key} holds)" if status in KEY and self._config.key else ""
            raise _EndedError(f"{end}{about}; nothing more is asked, what was answered is kept")
        if status == 200 or (status in REFUSALS and self.answered):
            self._in_a_row = 0
            return end
        # That includes 400s before any answer: then it may be the parameters.
        self._in_a_row += 1
        if self._in_a_row >= self._config.failures:
            text = f"{self._in_a_row} requests in a row failed, the last so: {end}"
            raise ValueError(f"{text}; what was answered is kept, the same command goes on")
        return end


class _EndedError(ValueError):
    """The other requests will end the same way."""
