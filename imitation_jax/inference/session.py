"""Continuous batching: a fixed number of rows, and whoever is finished gives his row to the next.

Legend: B rows, V vocabulary, C steps of a chunk, T key/value slots.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from imitation_jax.inference import generate
from imitation_jax.inference.batches import Runner
from imitation_jax.inference.generate import NOTHING
from imitation_jax.inference.requests import GenerateRequest, Generation
from imitation_jax.inference.sequence import Writer


class Session:
    """Rows in which texts are written, open for new requests between two steps. For one thread.

    Attributes:
      slots: a prompt and what may be written after it must fit these.
      held: bytes of its cache on each device.
    """

    def __init__(
        self,
        runner: Runner,
        writer_of: Callable[[GenerateRequest, int], Writer],
        pauses_of: Callable[[frozenset[int], tuple[str, ...]], np.ndarray],
        rows: int,
        slots: int,
    ):
        """`Engine.session` makes these.

        Args:
          runner: the model.
          writer_of: checks a request and begins its text; the number is for messages.
          pauses_of: from stop ids and stop strings, (V,) bool: tokens after which a text may end.
          rows: texts at a time; fewer where the memory does not hold them.
          slots: tokens of a text, its prompt included.
        """
        self.slots = slots
        self._runner, self._writer_of = runner, writer_of
        self._pauses_of = functools.lru_cache(16)(pauses_of)
        size = runner.fitting_rows(rows, slots)
        self.held = runner.held(size, slots)
        # Rows are given away from the first on, so that few texts need not wait for the others' empty places.
        self._sizes = [size // 4**power for power in (2, 1) if size % (4**power * runner.ways) == 0] + [size]
        self._active: list[Writer | None] = [None] * size
        self._queue: collections.deque[Iterator] = collections.deque()
        self._waiting: dict[Writer, None] = {}
        self._rows = {name: np.zeros(size, np.int32) for name in ("token", "position", "last", "seed")}
        self._rows |= {
            "done": np.ones(size, bool),
            "temperature": np.zeros(size, np.float32),
            "top_p": np.ones(size, np.float32),
        }
        self._pauses_BV = np.zeros((size, runner.model[1].vocab_size), bool)
        self._cache = runner.empty_cache(size, slots)

    @property
    def free(self) -> int:
        """Rows that nobody has or waits for."""
        return max(0, self._active.count(None) - len(self._waiting))

    def add(self, requests: Sequence[GenerateRequest]) -> list[Writer]:
        """Requests that get the next free rows; those of one call share what their prompts begin with.

        Raises:
          ValueError: naming the request: see `Engine.generate`, or it does not fit the slots.
        """
        writers = [self._writer_of(request, index) for index, request in enumerate(requests)]
        for writer in writers:
            if len(writer.prompt) + writer.limit > self.slots:
                raise ValueError(
                    f"request {writer.index}: a prompt of {len(writer.prompt)} tokens and {writer.limit} new ones do "
                    f"not fit {self.slots} tokens; shorten it"
                )
        self.take(writers)
        return writers

    def take(self, writers: Sequence[Writer]) -> None:
        """The same for texts that were begun by `writer_of` and fit the slots.

        The last token of a prompt is left to `decode`, so that tokens are chosen in one place.
        """
        by_prompt = collections.defaultdict(list)
        for writer in writers:
            by_prompt[np.array(writer.prompt[:-1], np.int32).tobytes()].append(writer)
        short = by_prompt.pop(b"", [])
        first = {key: len(those[0].prompt) - 2 for key, those in by_prompt.items()}
        self._queue.append(self._read(short, *self._runner.prepare(by_prompt, first, self.held)))
        self._waiting |= dict.fromkeys(writers)

    def _read(self, short, members, steps, past) -> Iterator[tuple[Writer, tuple | None]]:
        """Yields writers and where `fill` finds what they have read, a step read when the one before is used up."""
        yield from ((writer, None) for writer in short)
        runner = self._runner
        for step in steps:
            rows, _ = runner.rows(step)
            past, new = generate.prefill(*runner.model, past, rows, np.int32(step.at), dtype=runner.dtype)
            for at, filled in enumerate(step.rows):
                for part in filled.parts:
                    tokens_T = np.full(self.slots, part.places[-1], np.int32)
                    tokens_T[part.start : part.start + len(part.places)] = part.places
                    source = (past, np.int32(part.start), new, np.int32(at), tokens_T)
                    yield from ((writer, source) for writer in members[part.sequence])

    def drop(self, writer: Writer) -> None:
        """Ends a text that nobody waits for any more."""
        self._waiting.pop(writer, None)
        if writer in self._active:
            self._leave(self._active.index(writer))

    def step(self, most: int = generate.CHUNK) -> list[tuple[Writer, Generation | None]]:
        """Up to `most` (at most CHUNK) further tokens of each text.

        Returns:
          The texts that went on, each with its generation where it ended; none when nothing is left to write.
        """
        with jax.set_mesh(self._runner.mesh):
            ended = self._fill()
            if self._rows["done"].all():
                return ended
            return ended + (self._check_guesses() or self._decode(most))

    def _fill(self) -> list[tuple[Writer, Generation]]:
        """Gives free rows to who waits; returns those that need none."""
        ended = []
        free = collections.deque(row for row, writer in enumerate(self._active) if writer is None)
        while self._waiting and free:
            writer, source = next(self._queue[0], (None, None))
            if writer is None:
                self._queue.popleft()
            elif writer in self._waiting:  # not dropped meanwhile
                del self._waiting[writer]
                if writer.limit:
                    self._enter(free.popleft(), writer, source)
                else:
                    ended.append((writer, Generation("", [], "length", 0.0)))
        if not self._waiting:
            self._queue.clear()
        return ended

    def _enter(self, row: int, writer: Writer, source: tuple | None) -> None:
        if source is not None:
            self._cache = generate.fill(self._runner.model[0], self._cache, np.int32(row), *source)
        self._active[row] = writer
        request, rows = writer.request, self._rows
        rows["done"][row] = False
        rows["last"][row] = len(writer.prompt) + writer.limit - 2
        rows["temperature"][row], rows["top_p"][row] = request.temperature, request.top_p
        rows["seed"][row] = request.seed & 0x7FFFFFFF
        self._pauses_BV[row] = self._pauses_of(writer.stop_ids, tuple(request.stop))
        self._go_on(row, writer)

    def _go_on(self, row: int, writer: Writer) -> None:
        self._rows["token"][row] = (writer.ids or writer.prompt)[-1]
        self._rows["position"][row] = len(writer.prompt) + len(writer.ids) - 1

    def _leave(self, row: int) -> None:
        self._active[row] = None
        # An idle row must not make others read as much of the cache as it did.
        self._rows["done"][row], self._rows["position"][row], self._rows["temperature"][row] = True, 0, 0

    def _decode(self, most: int) -> list[tuple[Writer, Generation | None]]:
        busy = [row for row, writer in enumerate(self._active) if writer is not None]
        size = next(size for size in self._sizes if size > busy[-1])
        # To look at every finished row at once would cost more than its empty place does.
        enough = min(size, size - len(busy) + (max(1, size // 8) if self._waiting else size))
        runner = self._runner
        self._cache, *written = generate.decode(
            *runner.model,
            self._cache,
            {name: of_rows[:size] for name, of_rows in self._rows.items()},
            self._pauses_BV[:size],
            np.int32(most),
            np.int32(enough),
            dtype=runner.dtype,
        )
        tokens_BC, logprobs_BC = (np.asarray(array) for array in written)
        runner.tokens_forwarded += size * int((tokens_BC != NOTHING).sum(axis=1).max())
        return self._collect({row: (tokens_BC[row], logprobs_BC[row]) for row in busy})

    def _check_guesses(self) -> list[tuple[Writer, Generation | None]]:
        """One step for the last texts where all repeat what stood before, nothing where they do not."""
        count = min(generate.GUESSED_ROWS, len(self._active))
        busy = [row for row, writer in enumerate(self._active) if writer is not None]
        if self._waiting or len(busy) > count:
            return []
        guesses = [self._active[row].guess(generate.GUESS - 1) for row in busy]
        if any(guess is None for guess in guesses):
            return []
        # Rows that idle fill up the number; what they write is never seen.
        row_R = np.array(busy + [row for row in range(len(self._active)) if row not in busy], np.int32)[:count]
        rows = {name: of_rows[row_R] for name, of_rows in self._rows.items()}
        given_RS = np.zeros((count, generate.GUESS), np.int32)
        given_RS[:, 0] = rows["token"]
        given_RS[: len(busy), 1:] = guesses
        runner = self._runner
        self._cache, *said = generate.check(*runner.model, self._cache, row_R, given_RS, rows, dtype=runner.dtype)
        runner.tokens_forwarded += given_RS.size
        said_RS, logprobs_RS = (np.array(array) for array in said)
        # What was said after the first token that ends a text, or that was guessed wrong, was never asked.
        ends_RS = self._pauses_BV[row_R[:, None], said_RS] | (np.roll(given_RS, -1, axis=1) != said_RS)
        ends_RS |= rows["position"][:, None] + np.arange(generate.GUESS) >= rows["last"][:, None]
        said_RS[np.cumsum(ends_RS, axis=1) - ends_RS > 0] = NOTHING
        return self._collect(dict(zip(busy, zip(said_RS, logprobs_RS, strict=False), strict=False)))

    def _collect(self, written: dict[int, tuple[np.ndarray, np.ndarray]]) -> list[tuple[Writer, Generation | None]]:
        """Hands (C,) tokens and their log-probabilities to the texts of their rows."""
        moved = []
        for row, (tokens_C, logprobs_C) in written.items():
            writer = self._active[row]
            generation = writer.write(tokens_C, logprobs_C)
            if generation is None:
                self._go_on(row, writer)
            else:
                self._leave(row)
            moved.append((writer, generation))
        return moved
