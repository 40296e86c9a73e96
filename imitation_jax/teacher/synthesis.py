"""Grows a data set from a teacher: asks a request, takes what is good of its answer, until there are enough rows.

All answers are kept as they came, in OUTPUT.answers.jsonl. What is taken (OUTPUT.jsonl) and what is left out and why
(OUTPUT.rejected.jsonl) follows from them alone, request by request in the order of their numbers, and request n builds
on what came of the first n - config.window: so it does not matter which answer was faster, or where a start ended.
"""

import collections
import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.clients import config as clients
from imitation_jax.clients.chat_client import Reply, Request
from imitation_jax.clients.forecast import forecast
from imitation_jax.clients.http import ApiError
from imitation_jax.clients.request_pool import RequestPool, is_refusal, open_pool
from imitation_jax.core import append_only, json_rows
from imitation_jax.core.append_only import Lines, beside
from imitation_jax.core.progress import ticks
from imitation_jax.teacher import nq_synthetic, self_instruct, sidecar, tldr_synthetic


class Task(Protocol):
    """What one kind of data is asked for and how it is read; made from the config.

    Attributes:
      requests: how many there are at most, None for no end.
      most_of_a_request: how many rows one is meant to give.
      unusable: (what, reason) of input that nothing is asked for.
    """

    requests: int | None
    most_of_a_request: int
    unusable: Sequence[tuple[dict, str]]

    def messages(self, number: int, size: int) -> list[dict]:
        """What request `number` asks, which may build on the first `size` rows that were taken."""

    def read(self, number: int, answer: dict) -> Iterator[tuple[dict | str, str]]:
        """Yields (row, "") for what is taken of its answer, (what was said, reason) for what is left out."""


TASKS: dict[str, Callable[[ConfigDict], Task]] = {
    "nq": nq_synthetic.Questions,
    "self_instruct": self_instruct.Tasks,
    "tldr": tldr_synthetic.Summaries,
}


def grow(config: ConfigDict, output: str) -> None:
    """Asks until `config.target` rows are taken or no request is left, and writes them to `output`.

    Raises:
      ValueError, OSError: one line; what was answered is kept.
    """
    clients.check(config)
    task = _open(config)
    with contextlib.ExitStack() as stack:
        answers = stack.enter_context(contextlib.closing(Lines(beside(output, ".answers.jsonl"))))
        growth = stack.enter_context(contextlib.closing(_Growth(config, task, answers, output)))
        growth.replay()
        if not growth.finished:
            growth.ask(stack.enter_context(open_pool(config, sidecar.ledger(output))))
        logging.info("%s: %s", output, growth.summary())
    if config.target and growth.taken < config.target:
        raise ValueError(f"{output}: {growth.taken} of {config.target} rows, and no request is left; give more input")


def plan(config: ConfigDict, output: str) -> str:
    """What `grow` would ask first and what that costs, for people; asks and writes nothing."""
    clients.check(config)
    task = _open(config)
    done = sum(1 for _ in append_only.read(beside(output, ".answers.jsonl")))
    taken = sum(1 for _ in append_only.read(output))
    least = -(-max(0, config.target - taken) // task.most_of_a_request) if config.target else task.requests
    least = least if task.requests is None else max(0, min(least, task.requests - done))
    asked = [task.messages(number, 0) for number in range(done, done + least)]
    text = [f"{output}: {taken:,} rows of {done:,} answers; at least {least:,} requests to go, such as this one:", ""]
    text += [message["content"] for message in (asked[0] if asked else [])] + [""]
    return "\n".join(text + forecast(config, sidecar.ledger(output), asked))


def _open(config: ConfigDict) -> Task:
    if config.task not in TASKS:
        raise ValueError(f"config.task={config.task!r}: expected answers, {', '.join(TASKS)}")
    clients.check_positive(config, "window", "patience")
    return TASKS[config.task](config)


class _Growth:
    """The answers so far, and what came of them."""

    def __init__(self, config: ConfigDict, task: Task, answers: Lines, output: str):
        self._config, self._task, self._answers = config, task, answers
        self._source, self._target = config.source or config.task, config.target or math.inf
        self._offsets: dict[int, int] = {}  # number of a request -> where its answer stands
        self._sizes = [0]  # rows taken after so many requests
        self._reasons: collections.Counter[str] = collections.Counter()
        self._next = 0
        self._again: collections.deque[Request] = collections.deque()
        for offset, row in append_only.read(answers.path):
            sidecar.same_parameters(str(answers.path), row, config)
            self._offsets[row["request"]] = offset
        self._out = _Derived(output)
        self._left_out = _Derived(beside(output, ".rejected.jsonl"))

    def replay(self) -> None:
        """Reads the answers that are on disk, and makes up what is missing of the files that follow from them."""
        for row, reason in self._task.unusable:
            self._leave_out(None, row, reason)
        self._advance()

    @property
    def taken(self) -> int:
        """Rows."""
        return self._sizes[-1]

    @property
    def _done(self) -> int:
        """How many requests' answers were read."""
        return len(self._sizes) - 1

    @property
    def finished(self) -> bool:
        """Whether there are enough rows, or nothing is left to ask."""
        return self.taken >= self._target or self._done == self._task.requests

    def ask(self, pool: RequestPool[Request, Reply]) -> None:
        """Asks until there are enough rows."""
        target = self._config.target

        def so_far() -> int:
            return self.taken if target else self._done

        progress = {"total": target or self._task.requests, "unit": "row" if target else "answer"}
        with ticks(**progress, initial=so_far(), desc="growing") as tick:

            def done(request: Request, end: Reply | ApiError) -> None:
                before = so_far()
                self._store(request, end)
                for _ in range(so_far() - before):
                    tick(pool.budget.summary())

            pool.run(self._take, done, self._answers.sync)

    def summary(self) -> str:
        """Counts, in one line."""
        left_out = ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common())
        return f"{self.taken} rows of {self._done} answers" + (f"; left out: {left_out}" if left_out else "")

    def close(self) -> None:
        """Other processes may write to the files after this."""
        self._out.close()
        self._left_out.close()

    def _take(self) -> Request | None:
        if self.taken >= self._target:
            return None
        if self._again:
            return self._again.popleft()
        while self._next in self._offsets:
            self._next += 1
        number = self._next
        # Request n waits until n - window + 1 answers are read, whichever comes first.
        if number == self._task.requests or number - self._config.window >= self._done:
            return None
        self._next += 1
        more = {"seed": (self._config.seed + number) % 2**31} if self._config.send_seed else {}
        return Request(self._messages(number), more, {"id": f"{self._source}-{number}", "request": number})

    def _messages(self, number: int) -> list[dict]:
        return self._task.messages(number, self._sizes[max(0, number - self._config.window + 1)])

    def _store(self, request: Request, end: Reply | ApiError) -> None:
        if isinstance(end, Reply):
            row = sidecar.answer_row(request, end, self._config)
        elif is_refusal(end):
            row = request.about | {"messages": request.messages, "parameters": sidecar.parameters(self._config)}
            row |= {"refused": str(end), "time": sidecar.now()}
        else:
            self._again.append(request)
            return
        self._offsets[request.about["request"]] = self._answers.append(row)
        self._advance()

    def _advance(self) -> None:
        """Reads the answers whose turn it is."""
        while not self.finished and self._done in self._offsets:
            number = self._done
            answer = self._answers.at(self._offsets[number])
            messages = self._messages(number)
            if answer["messages"][: len(messages)] != messages:
                raise ValueError(
                    f"{self._answers.path}: request {number} asked something else than this config asks (other seeds, "
                    "prompt, seed or window); go back to the old one, or use another --output"
                )
            taken = 0
            rows = [(None, "refused")] if "refused" in answer else self._task.read(number, answer)
            for row, reason in rows:
                if reason:
                    self._leave_out(number, row, reason)
                elif self.taken + taken < self._target:
                    self._out.put(self._row(number, taken, row, answer))
                    taken += 1
            self._sizes.append(self.taken + taken)
            self._give_up_without_hope()

    def _leave_out(self, number: int | None, row: dict | str | None, reason: str) -> None:
        self._reasons[reason] += 1
        self._left_out.put({"request": number, "reason": reason, "row": row})

    def _row(self, number: int, place: int, row: dict, answer: dict) -> dict:
        turns = [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]
        own = {"id": f"{self._source}-{number}-{place}", "source": self._source, "messages": turns}
        return own | row | {"generator": answer["generator"], "model": answer["model"], "request": number}

    def _give_up_without_hope(self) -> None:
        last = self._config.patience
        if self.finished or self._done < last:
            return
        taken = self.taken - self._sizes[-1 - last]
        if taken < self._config.least_yield * last:
            raise ValueError(
                f"the last {last} answers gave {taken} rows, more are not worth asking for ({self.summary()}); change "
                "seeds, prompt or temperature and use another --output, or lower config.least_yield"
            )


class _Derived:
    """A file that follows from the answers: rows that it has already are compared, the rest is appended."""

    def __init__(self, path: str | Path):
        self._lines = Lines(path)
        self._old = open(self._lines.path, "rb")
        self._count = 0

    def put(self, row: dict) -> None:
        """The next row."""
        self._count += 1
        old = b"" if self._old.closed else self._old.readline()
        if not old:
            self._old.close()
            self._lines.append(row)
        elif old != json_rows.line(row).encode():
            raise ValueError(
                f"{self._lines.path}:{self._count}: is not what came of the answers beside it with this config; "
                "move the file away and it is made again"
            )

    def close(self) -> None:
        """Another process may write to the file."""
        self._old.close()
        self._lines.close()
