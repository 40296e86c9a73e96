"""Packed training batches as a pure function of (dataset, seed, step), read with Grain.

Shapes: B rows of this host's share of a global batch, S = seq_len positions.
"""

import hashlib
import weakref
from collections.abc import Iterator, Mapping

import grain
import numpy as np
from absl import flags

from imitation_jax.data.input import budgets, mixture, token_cache
from imitation_jax.data.input.mixture import Part, Source

PREFETCH = 4  # batches that are ready before they are asked for


class Stream:
    """All batches of a run, by number: `stream[step]` is a random access, `iterator(step)` reads ahead.

    A batch is a dict of numpy arrays (B, S):
      tokens int32, targets int32 (the next token of the same dialogue), loss_mask float32 (1 where the target is
      loss-bearing), positions int32 (from 0 in each segment), segment_ids int32 (1.. within a row, 0 = padding).
    A dialogue longer than `seq_len` goes on in further blocks, each a segment of its own. An epoch ends exactly: its
    last batch is filled up with rows of padding.

    Args:
      data: what `token_cache.load` reads, or a mixture: name -> Source.
      tokenizer, template: render and tokenise; see `token_cache.load`.
      seq_len: (input, target) pairs in a row.
      batch_size: rows in a global batch, all hosts together.
      seed: decides what a budget keeps; with the epoch, packing and order.
      epochs: how often everything is seen; where a mixture's share is less than all of a dataset, an epoch goes on in
        it where the one before stopped.
      packing: False gives each block a row of its own.
      process_index, process_count: this host gets rows [index * B, (index + 1) * B) of each global batch.
      workers: processes that tokenise and assemble batches; 0 does it on threads. Changes no batch.
      cache_dir: local folder for the token cache.

    Attributes:
      steps_per_epoch, total_steps: in global batches.
      stats: dialogues and their tokens, over_budget and over_budget_tokens (what a budget left out), texts (how many
        rows were plain text) and rejected (how many could not be used); of the first epoch: rows, pairs, loss_tokens,
        padding_share (of those rows' positions).
      sources: name -> the same of each dataset, with epochs (how often its dialogues are seen in an epoch), share (of
        all pairs) and loss_share (of all loss-bearing tokens).

    Raises:
      ValueError: a size that does not fit, a mixture that cannot be made, or no dialogue left.
      FileNotFoundError: nothing at a path.
    """

    def __init__(
        self,
        data: str | Mapping[str, Source],
        tokenizer,
        template,
        *,
        seq_len: int,
        batch_size: int,
        seed: int,
        epochs: int,
        packing: bool = True,
        process_index: int = 0,
        process_count: int = 1,
        workers: int = 0,
        cache_dir: str,
    ):
        for name, value in (("seq_len", seq_len), ("batch_size", batch_size), ("epochs", epochs)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, it is {value}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, it is {seed}")
        if batch_size % process_count:
            raise ValueError(f"batch_size {batch_size} does not divide by the {process_count} processes")
        sources = {"data": Source(data)} if isinstance(data, str) else dict(sorted(data.items()))
        mixture.check(sources)
        self._parts = []
        for source in sources.values():
            tokens = token_cache.load(source.path, tokenizer, template, cache_dir, workers)
            kept = np.arange(len(tokens.lengths))
            if source.token_budget:
                kept = budgets.subset(tokens.lengths, source.token_budget, seed)
            self._parts.append(Part(tokens, kept, seq_len, seed, packing))
        self._counts = mixture.row_counts(list(sources.values()), self._parts)
        self._part, self._number = mixture.interleave(self._counts)
        self._seq_len, self._batch_size = seq_len, batch_size
        self._local_rows = batch_size // process_count
        self._first_row = process_index * self._local_rows
        self._workers = workers

        self.steps_per_epoch = -(-len(self._part) // batch_size)
        self.total_steps = epochs * self.steps_per_epoch
        each = [part.stats(rows) for part, rows in zip(self._parts, self._counts, strict=True)]
        self.stats = {key: sum(stats[key] for stats in each) for key in each[0]}
        for part, stats in zip(self._parts, each, strict=True):
            stats["epochs"] = stats["rows"] / part.rows
            stats["share"] = stats["pairs"] / self.stats["pairs"]
            stats["loss_share"] = stats["loss_tokens"] / self.stats["loss_tokens"]
        for stats in (self.stats, *each):
            stats["padding_share"] = 1 - stats["pairs"] / (stats["rows"] * seq_len)
        self.sources = dict(zip(sources, each, strict=True))
        content = [(part.tokens.folder.name, len(part.dialogues)) for part in self._parts]
        identity = [content, self._counts, seq_len, batch_size, seed, packing]
        self.fingerprint = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self.total_steps

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """This host's part of global batch `step`."""
        epoch, step = divmod(int(step), self.steps_per_epoch)
        shape = (self._local_rows, self._seq_len)
        batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "targets", "positions", "segment_ids")}
        batch["loss_mask"] = np.zeros(shape, np.float32)
        counting = np.arange(self._seq_len, dtype=np.int32)
        first = step * self._batch_size + self._first_row
        for row, index in enumerate(self._part[first : first + self._local_rows]):
            part = self._parts[index]
            ids, mask = part.tokens.ids, part.tokens.mask
            at = 0
            blocks = part.blocks(epoch * self._counts[index] + self._number[first + row])
            for segment, block in enumerate(blocks, 1):
                start, size = part.starts[block], part.sizes[block]
                here = (row, slice(at, at + size))
                batch["tokens"][here] = ids[start : start + size]
                batch["targets"][here] = ids[start + 1 : start + size + 1]
                batch["loss_mask"][here] = mask[start + 1 : start + size + 1]
                batch["positions"][here] = counting[:size]
                batch["segment_ids"][here] = segment
                at += size
        return batch

    def iterator(self, start_step: int = 0) -> "Batches":
        """The batches from `start_step` to the end of the run; starts at once wherever it starts."""
        return Batches(self, start_step)

    def read(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """A Grain iterator over the batches from `start_step`, reading ahead on threads or worker processes."""
        if not 0 <= start_step <= self.total_steps:
            raise ValueError(f"step {start_step} is outside of this run's {self.total_steps} steps")
        options = grain.ReadOptions(num_threads=1 if self._workers else 2, prefetch_buffer_size=PREFETCH)
        data = grain.MapDataset.source(self)[start_step:].to_iter_dataset(options)
        if self._workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain reads its own flags; outside of an absl program nobody parsed them
            workers = grain.multiprocessing.MultiprocessingOptions(self._workers, per_worker_buffer_size=PREFETCH)
            data = data.mp_prefetch(workers)
        return iter(data)


class Batches:
    """Iterator over a stream's batches. Its state is the number of the next step, whatever reads ahead."""

    def __init__(self, stream: Stream, start_step: int = 0):
        self._stream = stream
        self._close = lambda: None
        self._start(start_step)

    def _start(self, step: int) -> None:
        self._close()
        self._reader = [self._stream.read(step)]
        # Also runs at exit, early enough for Grain to stop its threads and processes without complaints.
        self._close = weakref.finalize(self, lambda reader: reader.pop().close(), self._reader)
        self._step = step

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        # Workers hand over shared memory; a copy of it frees that at once and leaves plain arrays.
        batch = {name: np.array(value) for name, value in next(self._reader[0]).items()}
        self._step += 1
        return batch

    def get_state(self) -> dict:
        """Small and JSON-able: the next step, and what the batches depend on."""
        return {"step": self._step, "stream": self._stream.fingerprint}

    def set_state(self, state: dict) -> None:
        """Goes on where `get_state` was called, in any process.

        Raises:
          ValueError: the state is of another stream (dialogues, budget, mixture, tokenizer, template,
            seq_len, batch_size, seed or packing).
        """
        if state["stream"] != self._stream.fingerprint:
            raise ValueError(
                "the data is not what the checkpoint was trained on (dialogues, token budget, mixture, tokenizer, chat "
                "template, seq_len, batch_size, seed or packing changed): restore them, or start a new workdir"
            )
        self._start(state["step"])
