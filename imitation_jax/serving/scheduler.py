"""The one thread that owns the device: all clients' texts are written side by side, a few tokens of each at a time."""

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
from imitation_jax.inference.sequence import Writer
from imitation_jax.inference.session import Session

# Of each text between two looks at who came and who left, while somebody watches his text grow.
STREAMED_TOKENS = 4
SECONDS_BETWEEN_LINES = 15.0


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a client waits for: one text, or how likely one is.

    Attributes:
      request: for the engine.
      stream: a text is told as it grows.
      alternatives: how many of the likeliest tokens are told with each of a text's.
    """

    request: GenerateRequest | ScoreRequest
    stream: bool = False
    alternatives: int = 0


@dataclasses.dataclass(frozen=True)
class News:
    """How a text went on since the last news of it.

    Attributes:
      text: what can be shown now.
      ids: its further tokens; they may be ahead of the text.
      scores: of `ids`.
      finish_reason: "stop" or "length" with the last news, else None.
    """

    text: str
    ids: list[int]
    scores: list[TokenScore]
    finish_reason: str | None


class FullError(Exception):
    """Too many wait already; `seconds` until it is worth another try."""

    def __init__(self, seconds: int):
        super().__init__(f"too many requests are waiting; try again in {seconds} s")
        self.seconds = seconds


@dataclasses.dataclass(eq=False)
class Ticket:
    """A wish while it waits and is fulfilled; `tell` gets its News or Score, or the exception that ended it."""

    wish: Wish
    tell: Callable[[News | Score | Exception], None]
    left: bool = False
    told_text: int = 0
    told_ids: int = 0
    begun: float = 0.0


class Scheduler:
    """Hands wishes to the models' engines, first come first served; safe to call from any thread.

    Models take turns on the device. A wish joins when a row is free, and a client who leaves gives his row back at the
    next look.
    """

    def __init__(self, engines: Mapping[str, Engine], rows: int, slots: Mapping[str, int], queue: int):
        """Args:
        engines: by the model's name.
        rows: texts of a model at a time.
        slots: tokens that a prompt and its answer may have together, by the model's name.
        queue: wishes that may wait.
        """
        self.queue = queue
        self._lanes = {name: _Lane(engine, rows, slots[name]) for name, engine in engines.items()}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._ready: Future[None] = Future()

    def start(self) -> None:
        """Compiles, and returns when wishes can be fulfilled; raises what the device has against it."""
        self._thread.start()
        self._ready.result()

    def close(self) -> None:
        """Stops after the step that is under way; who still waits is not told."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Wishes in the queue."""
        return sum(len(lane.waiting) for lane in self._lanes.values())

    @property
    def writing(self) -> int:
        """Texts that have a row."""
        return sum(len(lane.writing) for lane in self._lanes.values())

    def submit(
        self, model: str, wishes: Sequence[Wish], tell: Callable[[int, News | Score | Exception], None]
    ) -> list[Ticket]:
        """Queues all wishes, or none.

        Args:
          model: a name of `engines`.
          wishes: what is wanted.
          tell: called in the device's thread with a wish's number and its news.

        Raises:
          FullError: there is no room for them all.
        """
        tickets = [Ticket(wish, lambda news, index=index: tell(index, news)) for index, wish in enumerate(wishes)]
        with self._changed:
            if self.waiting + len(tickets) > self.queue:
                raise FullError(max(1, math.ceil(self._lanes[model].seconds_to_free)))
            self._lanes[model].waiting.extend(tickets)
            self._changed.notify()
        return tickets

    def leave(self, model: str, tickets: Sequence[Ticket]) -> None:
        """Nobody waits for these any more."""
        with self._changed:
            for ticket in tickets:
                ticket.left = True
            lane = self._lanes[model]
            lane.waiting = collections.deque(ticket for ticket in lane.waiting if not ticket.left)
            self._changed.notify()

    def _run(self) -> None:
        lanes = self._lanes.values()
        try:
            for lane in lanes:
                lane.open()
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
            for lane in lanes:
                try:
                    tokens += lane.turn(self._changed)
                except Exception as error:
                    logging.exception("the device failed; its texts are lost")
                    lane.fail(error, self._changed)
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_LINES and tokens:
                rate = tokens / (now - last)
                logging.info("%.0f tokens/s; %d writing, %d waiting", rate, self.writing, self.waiting)
                last, tokens = now, 0


class _Lane:
    """One model's wishes. `waiting` belongs to who holds the scheduler's lock, all else to the device's thread.

    Attributes:
      seconds_to_free: until a row is free where all are taken, as the last texts had it.
    """

    def __init__(self, engine: Engine, rows: int, slots: int):
        self._engine, self._rows, self._slots = engine, rows, slots
        self._session: Session | None = None
        self._taken: list[Ticket] = []  # out of `waiting` in this turn
        self.waiting: collections.deque[Ticket] = collections.deque()
        self.writing: dict[Writer, Ticket] = {}
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
        for writer in [writer for writer, ticket in self.writing.items() if ticket.left]:
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
        """After a turn that did not end: whoever is here is told, and the next turn begins with a new session."""
        with lock:
            lost = {*self._taken, *self.writing.values(), *self.waiting}
            self.waiting.clear()
        self.writing, self._session = {}, None
        for ticket in lost:
            _tell(ticket, RuntimeError(str(error)))  # whatever it is, no wish is to blame

    def _take(self, kind: type, most: int) -> list[Ticket]:
        taken = [ticket for ticket in self.waiting if isinstance(ticket.wish.request, kind)][:most]
        gone = set(taken)
        self.waiting = collections.deque(ticket for ticket in self.waiting if ticket not in gone)
        return taken

    def _score(self, tickets: list[Ticket]) -> None:
        score = functools.partial(self._engine.score, beside=self._session)
        for ticket, found in self._one_by_one(score, tickets):
            _tell(ticket, found)

    def _begin(self, tickets: list[Ticket]) -> None:
        now = time.monotonic()
        for ticket, writer in self._one_by_one(self._session.add, tickets):
            ticket.begun = now
            self.writing[writer] = ticket

    def _one_by_one(self, call: Callable, tickets: list[Ticket]) -> list[tuple[Ticket, Score | Writer]]:
        """What `call` makes of all requests; where it refuses one, of each alone, and who is refused is told."""
        try:
            return list(zip(tickets, call([ticket.wish.request for ticket in tickets]), strict=True))
        except ValueError as error:
            if len(tickets) == 1:
                _tell(tickets[0], error)
                return []
            return [made for ticket in tickets for made in self._one_by_one(call, [ticket])]

    def _write(self) -> int:
        streamed = any(ticket.wish.stream for ticket in self.writing.values())
        before = sum(len(writer.ids) for writer in self.writing)
        moved = self._session.step(STREAMED_TOKENS if streamed else CHUNK)
        tokens = sum(len(writer.ids) for writer in self.writing) - before
        news = []
        for writer, generation in moved:
            ticket = self.writing[writer]
            if generation is not None:
                del self.writing[writer]
                seconds = (time.monotonic() - ticket.begun) / self._rows
                self.seconds_to_free += (seconds - self.seconds_to_free) / 8
            if (generation is not None or ticket.wish.stream) and not ticket.left:
                news.append((ticket, writer, _news(ticket, writer, generation)))
        self._add_alternatives(news)
        for ticket, _, one in news:
            _tell(ticket, one)
        return tokens

    def _add_alternatives(self, news: list[tuple[Ticket, Writer, News]]) -> None:
        """Those of the texts' new tokens, read once more for it."""
        wanted = [(ticket, writer, one) for ticket, writer, one in news if ticket.wish.alternatives and one.ids]
        if not wanted:
            return
        requests = []
        for ticket, writer, one in wanted:
            context = [*writer.prompt, *writer.ids[: ticket.told_ids - len(one.ids)]]
            requests.append(ScoreRequest(context, one.ids, ticket.wish.alternatives))
        for (_, _, one), score in zip(wanted, self._engine.score(requests, beside=self._session), strict=True):
            one.scores[:] = score.each


def _news(ticket: Ticket, writer: Writer, generation: Generation | None) -> News:
    """What was not told yet, and from now on is."""
    text, ids = (writer.stable_text(), writer.ids) if generation is None else (generation.text, generation.ids)
    reason = generation and generation.finish_reason
    scores = [TokenScore(logprob, {}) for logprob in writer.logprobs[ticket.told_ids : len(ids)]]
    news = News(text[ticket.told_text :], ids[ticket.told_ids :], scores, reason)
    ticket.told_text, ticket.told_ids = len(text), len(ids)
    return news


def _tell(ticket: Ticket, news: News | Score | Exception) -> None:
    try:
        ticket.tell(news)
    except RuntimeError:
        pass  # the event loop in which somebody waited has ended
