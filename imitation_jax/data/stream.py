"""Packed training batches as a pure function of (dataset, seed, step), read with Grain.

Shapes: B rows of this host's share of a global batch, S = seq_len positions.
"""

import hashlib
import weakref
from collections.abc import Iterator

import grain
import numpy as np
from absl import flags

from imitation_jax.data import packing as pack
from imitation_jax.data import tokens

PREFETCH = 4  # batches that are ready before they are asked for


class Stream:
    """All batches of a run, by number: `stream[step]` is a random access, `iterator(step)` reads ahead.

    A batch is a dict of numpy arrays (B, S):
      tokens int32, targets int32 (the next token of the same dialogue), loss_mask float32 (1 where the target is
      loss-bearing), positions int32 (from 0 in each segment), segment_ids int32 (1.. within a row, 0 = padding).
    A dialogue longer than `seq_len` goes on in further blocks, each a segment of its own. An epoch ends exactly: its
    last batch is filled up with rows of padding.

    Args:
      path: what `tokens.load` reads.
      tokenizer, template: render and tokenise; see `tokens.load`.
      seq_len: (input, target) pairs in a row.
      batch_size: rows in a global batch, all hosts together.
      seed: decides packing and order, with the epoch.
      epochs: how often every dialogue is seen.
      packing: False gives each block a row of its own.
      process_index, process_count: this host gets rows [index * B, (index + 1) * B) of each global batch.
      workers: processes that tokenise and assemble batches; 0 does it on threads. Changes no batch.
      cache_dir: local folder for the token cache.

    Attributes:
      steps_per_epoch, total_steps: in global batches.
      stats: dialogues, tokens, loss_tokens, rejected, rows (of an epoch), padding_share (of those rows' positions).

    Raises:
      ValueError: a size that does not fit, or no dialogue left.
      FileNotFoundError: nothing at `path`.
    """

    def __init__(
        self,
        path: str,
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
        self._tokens = tokens.load(path, tokenizer, template, cache_dir, workers)
        self._blocks = pack.blocks(self._tokens.lengths, seq_len)
        self._starts = self._tokens.offsets[self._blocks.dialogue] + self._blocks.start
        self._plans: dict[int, pack.Plan] = {}
        self._seq_len, self._batch_size, self._seed, self._packing = seq_len, batch_size, seed, packing
        self._local_rows = batch_size // process_count
        self._first_row = process_index * self._local_rows
        self._workers = workers

        row_count = self._plan(0).rows
        self.steps_per_epoch = -(-row_count // batch_size)
        self.total_steps = epochs * self.steps_per_epoch
        meta = self._tokens.meta
        self.stats = {name: meta[name] for name in ("dialogues", "tokens", "loss_tokens", "rejected")}
        self.stats |= {"rows": row_count, "padding_share": 1 - int(self._blocks.size.sum()) / (row_count * seq_len)}
        identity = [self._tokens.folder.name, seq_len, batch_size, seed, packing]
        self.fingerprint = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self.total_steps

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """This host's part of global batch `step`."""
        epoch, step = divmod(int(step), self.steps_per_epoch)
        plan = self._plan(epoch)
        shape = (self._local_rows, self._seq_len)
        batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "targets", "positions", "segment_ids")}
        batch["loss_mask"] = np.zeros(shape, np.float32)
        first = step * self._batch_size + self._first_row
        counting = np.arange(self._seq_len, dtype=np.int32)
        ids, mask = self._tokens.ids, self._tokens.mask
        for row in range(first, min(first + self._local_rows, plan.rows)):
            at = 0
            for segment, block in enumerate(plan.block[plan.offsets[row] : plan.offsets[row + 1]], 1):
                start, size = self._starts[block], self._blocks.size[block]
                here = (row - first, slice(at, at + size))
                batch["tokens"][here] = ids[start : start + size]
                batch["targets"][here] = ids[start + 1 : start + size + 1]
                batch["loss_mask"][here] = mask[start + 1 : start + size + 1]
                batch["positions"][here] = counting[:size]
                batch["segment_ids"][here] = segment
                at += size
        return batch

    def _plan(self, epoch: int) -> pack.Plan:
        plans = self._plans
        if epoch not in plans:
            plan = pack.plan(self._tokens.lengths, self._seq_len, self._seed, epoch, self._packing)
            # Threads read ahead into the next epoch while others finish this one; two are enough.
            self._plans = plans = {old: plans[old] for old in plans if old == epoch - 1} | {epoch: plan}
        return plans[epoch]

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
          ValueError: the state is of another stream (dialogues, tokenizer, template, seq_len, batch_size, seed).
        """
        if state["stream"] != self._stream.fingerprint:
            raise ValueError(
                "the data is not what the checkpoint was trained on (dialogues, tokenizer, chat template, seq_len, "
                "batch_size, seed or packing changed): restore them, or start a new workdir"
            )
        self._start(state["step"])
