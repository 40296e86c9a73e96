"""Schedules clients' requests by continuous batching: one thread owns the device and writes all texts side by side."""

import collections
import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from absl import logging

from imitation_jax.inference.engine import Engine
from imitation_jax.inference.generate import CHUNK
from imitation_jax.inference.requests import GenerateRequest, Generation, Score, ScoreRequest, TokenScore
from imitation_jax.inference.sequence import SequenceState
from imitation_jax.inference.session import Session

# Of each text between two looks at who came and who left, while somebody watches his text grow.
STREAMED_TOKENS = 4
SECONDS_BETWEEN_LINES = 15.0


@dataclasses.dataclass(frozen=True)
class Job:
    """What a client waits for: one text, or how likely one is.

    Attributes:
      request: for the engine.
      stream: updates come as the text grows.
      alternatives: how many of the likeliest tokens come with each of the text's.
    """

    request: GenerateRequest | ScoreRequest
    stream: bool = False
    alternatives: int = 0


@dataclasses.dataclass(frozen=True)
class Update:
    """How a text went on since the last update.

    Attributes:
      text: what can be shown now.
      ids: its further tokens; they may be ahead of the text.
      scores: of `ids`.
      finish_reason: "stop" or "length" with the last update, else None.
    """

    text: str
    ids: list[int]
    scores: list[TokenScore]
    finish_reason: str | None


class QueueFullError(Exception):
    """Too many wait already; `seconds` until it is worth another try."""

    def __init__(self, seconds: int):
        super().__init__(f"too many requests are waiting; try again in {seconds} s")
        self.seconds = seconds


@dataclasses.dataclass(eq=False)
class Ticket:
    """A job while it waits and is computed.

    Attributes:
      notify: gets its updates or its Score, or the exception that ended it.
      sent_text, sent_ids: characters and tokens that the updates have held so far.
    """

    job: Job
    notify: Callable[[Update | Score | Exception], None]
    cancelled: bool = False
    sent_text: int = 0
    sent_ids: int = 0
    begun: float = 0.0


class Scheduler:
    """Hands jobs to the models' engines, first come first served; safe to call from any thread.

    Models take turns on the device. A job joins when a row is free, and a client who leaves gives his row back at the
    next look.
    """

    def __init__(self, engines: Mapping[str, Engine], rows: int, slots: Mapping[str, int], queue: int):
        """Args:
        engines: by the model's name.
        rows: texts of a model at a time.
        slots: tokens that a prompt and its answer may have together, by the model's name.
        queue: jobs that may wait.
        """
        self.queue = queue
        self._batches = {name: _ContinuousBatch(engine, rows, slots[name]) for name, engine in engines.items()}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._ready: Future[None] = Future()

    def start(self) -> None:
        """Compiles, and returns when jobs can be computed; raises what went wrong in it."""
        self._thread.start()
        self._ready.result()

    def close(self) -> None:
        """Stops after the step that is under way; jobs that wait get no more updates."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return sum(len(batch.waiting) for batch in self._batches.values())

    @property
    def writing(self) -> int:
        """Texts that have a row."""
        return sum(len(batch.writing) for batch in self._batches.values())

    def submit(
        self, model: str, jobs: Sequence[Job], notify: Callable[[int, Update | Score | Exception], None]
    ) -> list[Ticket]:
        """Queues all jobs, or none.

        Args:
          model: a name of `engines`.
          jobs: what is wanted.
          notify: called in the device's thread with a job's number and its updates.

        Raises:
          QueueFullError: there is no room for them all.
        """
        tickets = [Ticket(job, lambda update, index=index: notify(index, update)) for index, job in enumerate(jobs)]
        with self._changed:
            if self.waiting + len(tickets) > self.queue:
                raise QueueFullError(max(1, math.ceil(self._batches[model].seconds_to_free)))
            self._batches[model].waiting.extend(tickets)
            self._changed.notify()
        return tickets

    def cancel(self, model: str, tickets: Sequence[Ticket]) -> None:
        """Nobody waits for these jobs any more."""
        with self._changed:
            for ticket in tickets:
                ticket.cancelled = True
            batch = self._batches[model]
            batch.waiting = collections.deque(ticket for ticket in batch.waiting if not ticket.cancelled)
            self._changed.notify()

    def _run(self) -> None:
        batches = self._batches.values()
        try:
            for batch in batches:
                batch.open()
        except Exception as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        last, tokens = time.monotonic(), 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self.waiting or self.writing)
                if self._closing:
                    return
            for batch in batches:
                try:
                    tokens += batch.turn(self._changed)
                except Exception as error:
                    logging.exception("the device failed; its texts are lost")
                    batch.fail(error, self._changed)
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_LINES and tokens:
                rate = tokens / (now - last)
                logging.info("%.0f tokens/s; %d writing, %d waiting", rate, self.writing, self.waiting)
                last, tokens = now, 0


class _ContinuousBatch:
    """One model's jobs. `waiting` belongs to who holds the scheduler's lock, all else to the device's thread.

    Attributes:
      seconds_to_free: until a row is free where all are taken, as the last texts had it.
    """

    def __init__(self, engine: Engine, rows: int, slots: int):
        self._engine, self._rows, self._slots = engine, rows, slots
        self._session: Session | None = None
        self._taken: list[Ticket] = []  # out of `waiting` in this turn
        self.waiting: collections.deque[Ticket] = collections.deque()
        self.writing: dict[SequenceState, Ticket] = {}
        self.seconds_to_free = 0.0

    def open(self) -> None:
        """An empty session, its programs compiled."""
        self._session = self._engine.session(self._rows, self._slots)
        self._session.add([GenerateRequest([0] * 8, 2, stop_ids=frozenset())])
        while self._session.step():
            pass

    def turn(self, lock: threading.Condition) -> int:
        """Lets go who left, takes up who waits, and goes a step; returns how many tokens were written."""
        if self._session is None:
            self.open()
        for writer in [writer for writer, ticket in self.writing.items() if ticket.cancelled]:
            self._session.drop(writer)
            del self.writing[writer]
        with lock:
            scored = self._take(ScoreRequest, self._rows)
            written = self._take(GenerateRequest, self._session.free)
            self._taken = scored + written
        if scored:
            self._score(scored)
        if written:
            self._begin(written)
        return self._write() if self.writing else 0

    def fail(self, error: Exception, lock: threading.Condition) -> None:
        """After a turn that failed: all jobs end with the error, and the next turn begins with a new session."""
        with lock:
            lost = {*self._taken, *self.writing.values(), *self.waiting}
            self.waiting.clear()
        self.writing, self._session = {}, None
        for ticket in lost:
            _notify(ticket, RuntimeError(str(error)))  # whatever it is, no job is to blame

    def _take(self, kind: type, most: int) -> list[Ticket]:
        taken = [ticket for ticket in self.waiting if isinstance(ticket.job.request, kind)][:most]
        gone = set(taken)
        self.waiting = collections.deque(ticket for ticket in self.waiting if ticket not in gone)
        return taken

    def _score(self, tickets: list[Ticket]) -> None:
        score = functools.partial(self._engine.score, beside=self._session)
        for ticket, scored in self._one_by_one(score, tickets):
            _notify(ticket, scored)

    def _begin(self, tickets: list[Ticket]) -> None:
        now = time.monotonic()
        for ticket, writer in self._one_by_one(self._session.add, tickets):
            ticket.begun = now
            self.writing[writer] = ticket

    def _one_by_one(self, call: Callable, tickets: list[Ticket]) -> list[tuple[Ticket, Score | SequenceState]]:
        """What `call` makes of all requests; where it refuses one, of each alone; a refused job ends with the error."""
        try:
            return list(zip(tickets, call([ticket.job.request for ticket in tickets]), strict=True))
        except ValueError as error:
            if len(tickets) == 1:
                _notify(tickets[0], error)
                return []
            return [made for ticket in tickets for made in self._one_by_one(call, [ticket])]

    def _write(self) -> int:
        streamed = any(ticket.job.stream for ticket in self.writing.values())
        before = sum(len(writer.ids) for writer in self.writing)
        moved = self._session.step(STREAMED_TOKENS if streamed else CHUNK)
        tokens = sum(len(writer.ids) for writer in self.writing) - before
        updates = []
        for writer, generation in moved:
            ticket = self.writing[writer]
            if generation is not None:
                del self.writing[writer]
                seconds = (time.monotonic() - ticket.begun) / self._rows
                self.seconds_to_free += (seconds - self.seconds_to_free) / 8
            if (generation is not None or ticket.job.stream) and not ticket.cancelled:
                updates.append((ticket, writer, _update(ticket, writer, generation)))
        self._add_alternatives(updates)
        for ticket, _, one in updates:
            _notify(ticket, one)
        return tokens

    def _add_alternatives(self, updates: list[tuple[Ticket, SequenceState, Update]]) -> None:
        """Those of the texts' new tokens, read once more for it."""
        wanted = [(ticket, writer, one) for ticket, writer, one in updates if ticket.job.alternatives and one.ids]
        if not wanted:
            return
        requests = []
        for ticket, writer, one in wanted:
            context = [*writer.prompt, *writer.ids[: ticket.sent_ids - len(one.ids)]]
            requests.append(ScoreRequest(context, one.ids, ticket.job.alternatives))
        for (_, _, one), score in zip(wanted, self._engine.score(requests, beside=self._session), strict=True):
            one.scores[:] = score.each


def _update(ticket: Ticket, writer: SequenceState, generation: Generation | None) -> Update:
    """What was not sent yet, and from now on is."""
    text, ids = (writer.stable_text(), writer.ids) if generation is None else (generation.text, generation.ids)
    reason = generation and generation.finish_reason
    scores = [TokenScore(logprob, {}) for logprob in writer.logprobs[ticket.sent_ids : len(ids)]]
    update = Update(text[ticket.sent_text :], ids[ticket.sent_ids :], scores, reason)
    ticket.sent_text, ticket.sent_ids = len(text), len(ids)
    return update


def _notify(ticket: Ticket, update: Update | Score | Exception) -> None:
    try:
        ticket.notify(update)
    except RuntimeError:
        pass  # the event loop in which somebody waited has ended
