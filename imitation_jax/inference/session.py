"""Continuous batching: a fixed number of rows of a key/value cache; a finished text's row goes to the next request.

Legend: B rows, V vocabulary, C steps of a chunk, T key/value slots.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from imitation_jax.inference import generate
from imitation_jax.inference.batches import Runner
from imitation_jax.inference.generate import NO_TOKEN
from imitation_jax.inference.requests import GenerateRequest, Generation
from imitation_jax.inference.sequence import SequenceState

Moved = list[tuple[SequenceState, Generation | None]]  # texts that went on, each with its generation where it ended


class Session:
    """Rows in which texts are written, open for new requests between two steps. For one thread.

    Attributes:
      slots: a prompt and what may be written after it must fit these.
      held: bytes of its cache on each device.
    """

    def __init__(
        self,
        runner: Runner,
        start: Callable[[GenerateRequest, int], SequenceState],
        stop_mask_of: Callable[[frozenset[int], tuple[str, ...]], np.ndarray],
        rows: int,
        slots: int,
    ):
        """`Engine.session` makes these.

        Args:
          runner: the model.
          start: checks a request and makes its state; the number is for messages.
          stop_mask_of: from stop ids and stop strings, (V,) bool: tokens after which a text may end.
          rows: texts at a time; fewer where the memory does not hold them.
          slots: tokens of a text, its prompt included.
        """
        self.slots = slots
        self._runner, self._start = runner, start
        self._stop_mask_of = functools.lru_cache(16)(stop_mask_of)
        size = runner.fitting_rows(rows, slots)
        self.held = runner.held(size, slots)
        # Rows are given away from the first on, so that few texts need not wait for the others' empty places.
        self._sizes = [size // 4**power for power in (2, 1) if size % (4**power * runner.ways) == 0] + [size]
        self._active: list[SequenceState | None] = [None] * size
        self._queue: collections.deque[Iterator] = collections.deque()
        self._waiting: dict[SequenceState, None] = {}
        self._rows = {name: np.zeros(size, np.int32) for name in ("token", "position", "last", "seed")}
        self._rows |= {
            "done": np.ones(size, bool),
            "temperature": np.zeros(size, np.float32),
            "top_p": np.ones(size, np.float32),
        }
        self._stop_mask_BV = np.zeros((size, runner.model[0].vocab_size), bool)
        self._cache = runner.empty_cache(size, slots)

    @property
    def free(self) -> int:
        """Rows that nobody has or waits for."""
        return max(0, self._active.count(None) - len(self._waiting))

    def add(self, requests: Sequence[GenerateRequest]) -> list[SequenceState]:
        """Requests that get the next free rows; those of one call share what their prompts begin with.

        Raises:
          ValueError: naming the request: see `Engine.generate`, or it does not fit the slots.
        """
        sequences = [self._start(request, index) for index, request in enumerate(requests)]
        for sequence in sequences:
            length = len(sequence.prompt)
            if length + sequence.limit > self.slots:
                raise ValueError(
                    f"request {sequence.index}: a prompt of {length} tokens and {sequence.limit} new ones do not fit "
                    f"{self.slots} tokens; shorten it"
                )
        self.take(sequences)
        return sequences

    def take(self, sequences: Sequence[SequenceState]) -> None:
        """The same for texts that were begun by `start` and fit the slots.

        The last token of a prompt is left to `decode`, so that tokens are chosen in one place.
        """
        by_prompt = collections.defaultdict(list)
        for sequence in sequences:
            by_prompt[np.array(sequence.prompt[:-1], np.int32).tobytes()].append(sequence)
        short = by_prompt.pop(b"", [])
        first = {prompt: len(same[0].prompt) - 2 for prompt, same in by_prompt.items()}
        members, steps, _, slots = self._runner.plan(by_prompt, first, self.held)
        self._queue.append(self._read(short, members, steps, self._runner.empty_cache(1, slots)))
        self._waiting |= dict.fromkeys(sequences)

    def _read(self, short, members, steps, past) -> Iterator[tuple[SequenceState, tuple | None]]:
        """Yields sequences and where `fill` finds what they have read, a step read when the one before is used up."""
        yield from ((sequence, None) for sequence in short)
        runner = self._runner
        for step in steps:
            rows, _ = runner.rows(step)
            past, new = generate.prefill(*runner.model, past, rows, np.int32(step.slot), dtype=runner.dtype)
            for number, row in enumerate(step.rows):
                for part in row.parts:
                    token_T = np.full(self.slots, part.places[-1], np.int32)
                    token_T[part.start : part.start + len(part.places)] = part.places
                    source = (past, np.int32(part.start), new, np.int32(number), token_T)
                    yield from ((sequence, source) for sequence in members[part.sequence])

    def drop(self, sequence: SequenceState) -> None:
        """Ends a text that is no longer wanted."""
        self._waiting.pop(sequence, None)
        if sequence in self._active:
            self._leave(self._active.index(sequence))

    def step(self, max_steps: int = generate.CHUNK) -> Moved:
        """Up to `max_steps` (at most CHUNK) further tokens of each text.

        Returns:
          The texts that went on, each with its generation where it ended; none when nothing is left to write.
        """
        with jax.set_mesh(self._runner.mesh):
            ended = self._fill()
            if self._rows["done"].all():
                return ended
            return ended + (self._verify_drafts() or self._decode(max_steps))

    def _fill(self) -> Moved:
        """Gives free rows to waiting requests; returns those that need none, as they may not have a token."""
        ended = []
        free = collections.deque(row for row, sequence in enumerate(self._active) if sequence is None)
        while self._waiting and free:
            sequence, source = next(self._queue[0], (None, None))
            if sequence is None:
                self._queue.popleft()
            elif sequence in self._waiting:  # not dropped meanwhile
                del self._waiting[sequence]
                if sequence.limit:
                    self._enter(free.popleft(), sequence, source)
                else:
                    ended.append((sequence, Generation("", [], "length", 0.0)))
        if not self._waiting:
            self._queue.clear()
        return ended

    def _enter(self, row: int, sequence: SequenceState, source: tuple | None) -> None:
        if source is not None:
            self._cache = generate.fill(self._cache, np.int32(row), *source)
        self._active[row] = sequence
        request, rows = sequence.request, self._rows
        rows["done"][row] = False
        rows["last"][row] = len(sequence.prompt) + sequence.limit - 2
        rows["temperature"][row], rows["top_p"][row] = request.temperature, request.top_p
        rows["seed"][row] = request.seed & 0x7FFFFFFF
        self._stop_mask_BV[row] = self._stop_mask_of(sequence.stop_ids, tuple(request.stop))
        self._continue(row, sequence)

    def _continue(self, row: int, sequence: SequenceState) -> None:
        self._rows["token"][row] = (sequence.ids or sequence.prompt)[-1]
        self._rows["position"][row] = len(sequence.prompt) + len(sequence.ids) - 1

    def _leave(self, row: int) -> None:
        self._active[row] = None
        # An idle row must not make others read as much of the cache as it did.
        self._rows["done"][row], self._rows["position"][row], self._rows["temperature"][row] = True, 0, 0

    def _decode(self, max_steps: int) -> Moved:
        busy = [row for row, sequence in enumerate(self._active) if sequence is not None]
        size = next(size for size in self._sizes if size > busy[-1])
        # To look at every finished row at once would cost more than its empty place does.
        enough_done = min(size, size - len(busy) + (max(1, size // 8) if self._waiting else size))
        runner = self._runner
        self._cache, *written = generate.decode(
            *runner.model,
            self._cache,
            {name: of_rows[:size] for name, of_rows in self._rows.items()},
            self._stop_mask_BV[:size],
            np.int32(max_steps),
            np.int32(enough_done),
            dtype=runner.dtype,
        )
        tokens_BC, logprobs_BC = (np.asarray(array) for array in written)
        runner.tokens_forwarded += size * int((tokens_BC != NO_TOKEN).sum(axis=1).max())
        return self._collect({row: (tokens_BC[row], logprobs_BC[row]) for row in busy})

    def _verify_drafts(self) -> Moved:
        """One step for the last texts where a draft exists for each of them, nothing where one does not."""
        count = min(generate.DRAFT_ROWS, len(self._active))
        busy = [row for row, sequence in enumerate(self._active) if sequence is not None]
        if self._waiting or len(busy) > count:
            return []
        drafts = [self._active[row].draft(generate.DRAFT_LENGTH - 1) for row in busy]
        if any(draft is None for draft in drafts):
            return []
        # Rows that idle fill up the number; what they write is never seen.
        row_R = np.array(busy + [row for row in range(len(self._active)) if row not in busy], np.int32)[:count]
        rows = {name: of_rows[row_R] for name, of_rows in self._rows.items()}
        draft_RS = np.zeros((count, generate.DRAFT_LENGTH), np.int32)
        draft_RS[:, 0] = rows["token"]
        draft_RS[: len(busy), 1:] = drafts
        runner = self._runner
        self._cache, *chosen = generate.verify(*runner.model, self._cache, row_R, draft_RS, rows, dtype=runner.dtype)
        runner.tokens_forwarded += draft_RS.size
        token_RS, logprob_RS = (np.array(array) for array in chosen)
        # What comes after the first token that ends a text, or that differs from the draft, does not count.
        end_RS = self._stop_mask_BV[row_R[:, None], token_RS] | (np.roll(draft_RS, -1, axis=1) != token_RS)
        end_RS |= rows["position"][:, None] + np.arange(generate.DRAFT_LENGTH) >= rows["last"][:, None]
        token_RS[np.cumsum(end_RS, axis=1) - end_RS > 0] = NO_TOKEN
        return self._collect(dict(zip(busy, zip(token_RS, logprob_RS, strict=False), strict=False)))

    def _collect(self, written: dict[int, tuple[np.ndarray, np.ndarray]]) -> Moved:
        """Hands (C,) tokens and their log-probabilities to the texts of their rows."""
        moved = []
        for row, (tokens_C, logprobs_C) in written.items():
            sequence = self._active[row]
            generation = sequence.append(tokens_C, logprobs_C)
            if generation is None:
                self._continue(row, sequence)
            else:
                self._leave(row)
            moved.append((sequence, generation))
        return moved
