"""Several datasets in one stream: how many rows each gives, and in which order they come.

Every row holds dialogues of one dataset, packed as if it were alone: another dataset beside it changes neither its rows
nor their order. What is exact:
- a dataset counted in epochs gives each of its dialogues exactly that often to an epoch of the mixture;
- a dataset with a share gives the (input, target) pairs that make up that share of an epoch, to within half a row; it
  goes through all its rows before any dialogue comes again, and then packs them anew;
- the datasets' rows alternate evenly: at every row of an epoch each dataset has had its proportion of the rows so far
  to within (datasets + 1) / 2 rows.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from imitation_jax.data.input import packing as pack
from imitation_jax.data.input.token_cache import Tokens


@dataclasses.dataclass(frozen=True)
class Source:
    """One dataset of a mixture.

    Attributes:
      path: what `token_cache.load` reads.
      epochs: how often each dialogue is seen in one epoch of the mixture.
      share: instead of that, the share of all (input, target) pairs that come from here; 0 counts in epochs.
      token_budget: keep so many of the dataset's tokens, see `budgets.subset`; 0 is all.
    """

    path: str
    epochs: int = 1
    share: float = 0.0
    token_budget: int = 0


class Part:
    """A dataset's rows, one pass over it after the other; each pass is packed and shuffled on its own.

    Args:
      tokens: the dataset.
      dialogues: indices of those that are used, ascending.
      seq_len, seed, packing: as `packing.plan` takes them.

    Attributes:
      starts, sizes: of each block (a piece of a dialogue), its first pair's place in `tokens.ids` and its pairs.
      rows, pairs: of one pass.
    """

    def __init__(self, tokens: Tokens, dialogues: np.ndarray, seq_len: int, seed: int, packing: bool):
        self.tokens, self.dialogues = tokens, dialogues
        self._lengths = tokens.lengths[dialogues]
        self._settings = seq_len, seed, packing
        self._plans: dict[int, pack.Plan] = {}
        blocks = pack.blocks(self._lengths, seq_len)
        self.starts = tokens.offsets[dialogues[blocks.dialogue]] + blocks.start
        self.sizes = blocks.size
        self.rows = self._plan(0).rows
        self.pairs = int(self.sizes.sum())

    def blocks(self, row: int) -> np.ndarray:
        """The blocks that lie side by side in a row; rows count through all passes."""
        number, row = divmod(int(row), self.rows)
        plan = self._plan(number)
        return plan.block[plan.offsets[row] : plan.offsets[row + 1]]

    def rows_with(self, pairs: float) -> int:
        """How many rows from the first on hold nearest to `pairs` pairs; at least one."""
        passes, rest = divmod(pairs, self.pairs)
        plan = self._plan(int(passes))
        filled = np.append(0, np.cumsum(np.add.reduceat(self.sizes[plan.block], plan.offsets[:-1])))
        return max(int(passes) * self.rows + int(np.argmin(np.abs(filled - rest))), 1)

    def stats(self, rows: int) -> dict[str, int]:
        """What of the dataset is used, what is left out and why, and what the first `rows` rows hold."""
        edges = np.stack([self.starts + 1, self.starts + self.sizes + 1], axis=1).ravel()
        # Loss-bearing targets of each block; every other piece lies between two blocks.
        loss = np.add.reduceat(self.tokens.mask[: edges[-1]], edges[:-1], dtype=np.int64)[::2]
        passes, rest = divmod(rows, self.rows)
        plan = self._plan(passes)
        last = plan.block[: plan.offsets[rest]]
        meta, kept = self.tokens.meta, int(self._lengths.sum())
        return {
            "dialogues": len(self._lengths),
            "tokens": kept,
            "over_budget": meta["dialogues"] - len(self._lengths),
            "over_budget_tokens": meta["tokens"] - kept,
            "texts": meta["texts"],
            "rejected": meta["rejected"],
            "rows": rows,
            "pairs": passes * self.pairs + int(self.sizes[last].sum()),
            "loss_tokens": passes * int(loss.sum()) + int(loss[last].sum()),
        }

    def _plan(self, number: int) -> pack.Plan:
        plans = self._plans
        if number not in plans:
            seq_len, seed, packing = self._settings
            plan = pack.plan(self._lengths, seq_len, seed, number, packing)
            # Threads read ahead into the next pass while others finish this one; two are enough.
            self._plans = plans = {old: plans[old] for old in plans if old == number - 1} | {number: plan}
        return plans[number]


def check(sources: Mapping[str, Source]) -> None:
    """Refuses a mixture that cannot be made, before anything is read.

    Raises:
      ValueError: naming the dataset (as the config names it), the key, its value and what would fit.
    """
    for name, source in sources.items():
        if not source.path:
            raise ValueError(f"{name}.path is empty; give --config.{name}.path=DIR_OR_JSONL")
        if source.epochs < 1:
            raise ValueError(f"{name}.epochs={source.epochs} must be 1 or more")
        if source.token_budget < 0:
            raise ValueError(f"{name}.token_budget={source.token_budget} must be 0 (all) or more")
        if not 0 <= source.share < 1:
            raise ValueError(f"{name}.share={source.share} must be 0 (counted in epochs) or more, and less than 1")
        if source.share and source.epochs > 1:
            raise ValueError(f"{name} has a share={source.share} and epochs={source.epochs}; leave one of them out")
    shares = sum(source.share for source in sources.values())
    if all(source.share for source in sources.values()):
        raise ValueError(
            f"{', '.join(sources)}: every dataset has a share; leave one's out, so that its epochs and token_budget "
            "decide how long the run is"
        )
    if shares >= 1:
        raise ValueError(f"{', '.join(sources)}: the shares sum to {shares:g}, which leaves nothing for the others")


def row_counts(sources: Sequence[Source], parts: Sequence[Part]) -> list[int]:
    """How many rows each dataset gives to an epoch."""
    counted = sum(source.epochs * part.pairs for source, part in zip(sources, parts, strict=True) if not source.share)
    total = counted / (1 - sum(source.share for source in sources))
    return [
        part.rows_with(source.share * total) if source.share else source.epochs * part.rows
        for source, part in zip(sources, parts, strict=True)
    ]


def interleave(rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Spreads each dataset's rows evenly over an epoch.

    Args:
      rows: how many of each dataset.

    Returns:
      (part, number), two int64 arrays over all rows: row r of the epoch is row number[r] of dataset part[r].
    """
    due = np.concatenate([(np.arange(count) + 0.5) / count for count in rows])
    order = np.argsort(due, kind="stable")
    part = np.repeat(np.arange(len(rows)), rows)
    number = np.concatenate([np.arange(count) for count in rows])
    return part[order], number[order]
