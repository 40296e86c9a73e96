"""One loop that grows data: a request, its answer, what of it is taken or left out and why, until there is enough.

A task (nq_synthetic.py, tldr_synthetic.py, self_instruct.py) is an object with

    requests                 how many there are at most, None for no end
    most_of_a_request        how many rows one is meant to give
    unusable                 (what, reason) of input that nothing is asked for
    messages(number, size)   what request `number` asks, which may build on the first `size` rows that were taken
    read(number, answer)     yields (row, "") for what is taken, (what was said, reason) for what is left out

All answers are kept as they came, in OUTPUT.answers.jsonl. What is taken (OUTPUT.jsonl) and left out
(OUTPUT.rejected.jsonl) follows from them alone, request by request in the order of their numbers, and request n builds
on what came of the first n - config.window: so it does not matter which answer was faster, or where a start ended.
"""

import collections
import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.clients import config as clients
from imitation_jax.clients.chat_client import Reply, Request
from imitation_jax.clients.forecast import forecast
from imitation_jax.clients.http import ApiError, RefusedError
from imitation_jax.clients.request_pool import RequestPool, open_pool
from imitation_jax.core import append_only, json_rows
from imitation_jax.core.append_only import Lines, beside
from imitation_jax.core.progress import ticks
from imitation_jax.teacher import sidecar

TASKS = {"nq": "nq_synthetic", "self_instruct": "self_instruct", "tldr": "tldr_synthetic"}  # -> its module


class Task(Protocol):
    """See the top of this module."""

    requests: int | None
    most_of_a_request: int
    unusable: list[tuple[dict, str]]

    def messages(self, number: int, size: int) -> list[dict]:
        """What request `number` asks."""

    def read(self, number: int, answer: dict) -> Iterator[tuple[dict | str, str]]:
        """What comes of its answer."""


def grow(config: ConfigDict, output: str) -> None:
    """Asks until `config.target` rows are taken or no request is left, and writes them to `output`.

    Raises:
      ValueError, OSError: one line; what was answered is kept.
    """
    clients.check(config)
    task = _open(config)
    with contextlib.ExitStack() as stack:
        answers = stack.enter_context(contextlib.closing(Lines(beside(output, ".answers.jsonl"), sync=True)))
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
    for key in ("window", "patience"):
        if config[key] < 1:
            raise ValueError(f"config.{key}={config[key]}: must be 1 or more")
    return importlib.import_module(f"imitation_jax.teacher.{TASKS[config.task]}").open_task(config)


class _Growth:
    """The answers so far, and what came of them."""

    def __init__(self, config: ConfigDict, task: Task, answers: Lines, output: str):
        self._config, self._task, self._answers = config, task, answers
        self._source = config.source or config.task
        self._stored: dict[int, int] = {}  # number of a request -> where its answer stands
        self._sizes = [0]  # rows taken after so many requests
        self._reasons: collections.Counter[str] = collections.Counter()
        self._next = 0
        self._again: collections.deque[Request] = collections.deque()
        for offset, row in append_only.read(answers.path):
            sidecar.same_parameters(str(answers.path), row, config)
            self._stored[row["request"]] = offset
        self._out = _Derived(output)
        self._left_out = _Derived(beside(output, ".rejected.jsonl"))

    def replay(self) -> None:
        """Reads the answers that are there, and makes up what is missing of the files that follow from them."""
        for row, reason in self._task.unusable:
            self._leave_out(None, row, reason)
        self._advance()

    @property
    def taken(self) -> int:
        """Rows."""
        return self._sizes[-1]

    @property
    def _done(self) -> int:
        return len(self._sizes) - 1

    @property
    def finished(self) -> bool:
        """Whether there is enough, or nothing is left to ask."""
        return self._enough() or self._done == self._task.requests

    def ask(self, pool: RequestPool[Request, Reply]) -> None:
        """Asks until there is enough."""
        target = self._config.target
        total, unit = (target, "row") if target else (self._task.requests, "answer")

        def so_far() -> int:
            return self.taken if target else self._done

        with ticks(total=total, initial=so_far(), desc="growing", unit=unit) as tick:

            def done(request: Request, end: Reply | ApiError) -> None:
                before = so_far()
                self._store(request, end)
                for _ in range(so_far() - before):
                    tick(pool.budget.summary())

            pool.run(self._take, done)

    def summary(self) -> str:
        """Counts, in one line."""
        left_out = ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common())
        return f"{self.taken} rows of {self._done} answers" + (f"; left out: {left_out}" if left_out else "")

    def close(self) -> None:
        """The files can be written to by others."""
        self._out.close()
        self._left_out.close()

    def _take(self) -> Request | None:
        if self._enough():
            return None
        if self._again:
            return self._again.popleft()
        while self._next in self._stored:
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
        number = request.about["request"]
        if isinstance(end, Reply):
            row = sidecar.answer_row(request, end, self._config)
        elif isinstance(end, RefusedError) or end.answered:
            row = request.about | {"messages": request.messages, "parameters": sidecar.parameters(self._config)}
            row |= {"refused": str(end), "time": sidecar.now()}
        else:
            self._again.append(request)
            return
        self._stored[number] = self._answers.append(row)
        self._advance()

    def _advance(self) -> None:
        """Reads the answers whose turn it is."""
        while not self.finished and self._done in self._stored:
            number = self._done
            answer = self._answers.at(self._stored[number])
            messages = self._messages(number)
            if answer["messages"][: len(messages)] != messages:
                raise ValueError(
                    f"{self._answers.path}: request {number} asked something else than this config asks (other seeds, "
                    "prompt, seed or window); go back to the old one, or use another --output"
                )
            taken = 0
            found = [(None, "refused")] if "refused" in answer else self._task.read(number, answer)
            for row, reason in found:
                if reason:
                    self._leave_out(number, row, reason)
                elif not self._full(taken):
                    self._out.put(self._row(number, taken, row, answer))
                    taken += 1
            self._sizes.append(self.taken + taken)
            self._give_up_without_hope()

    def _leave_out(self, number: int | None, row: dict | str | None, reason: str) -> None:
        self._reasons[reason] += 1
        self._left_out.put({"request": number, "reason": reason, "row": row})

    def _full(self, more: int) -> bool:
        return bool(self._config.target) and self.taken + more >= self._config.target

    def _enough(self) -> bool:
        return self._full(0)

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
    """A file that follows from the answers: what stands there already is compared, the rest appended."""

    def __init__(self, path: str | Path):
        self._lines = Lines(path)
        self._old = open(self._lines.path, "rb")
        self._count = 0

    def put(self, row: dict) -> None:
        """The next row."""
        self._count += 1
        if self._old.closed:
            self._lines.append(row)
            return
        old = self._old.readline()
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
