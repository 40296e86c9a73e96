"""Which piece of which dialogue stands in which row: blocks of at most `seq_len` pairs, rows packed by best fit.

A dialogue of n tokens has n - 1 (input, target) pairs. All functions are pure and depend on token lengths alone, so
every host and every restart finds the same plan without reading a token.
"""

from bisect import bisect_left, insort
from typing import NamedTuple

import numpy as np


class Blocks(NamedTuple):
    """Pieces of dialogues, in the order of the dialogues; three int64 arrays of one length.

    `dialogue` is the index of the dialogue, `start` the first pair in it, `size` the number of pairs.
    """

    dialogue: np.ndarray
    start: np.ndarray
    size: np.ndarray


class Plan(NamedTuple):
    """One epoch's rows: row r holds blocks `block[offsets[r]:offsets[r + 1]]` (int64), side by side."""

    block: np.ndarray
    offsets: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1


def blocks(lengths: np.ndarray, seq_len: int) -> Blocks:
    """Cuts dialogues of `lengths` tokens into blocks of `seq_len` pairs; a dialogue's last block may be shorter."""
    pairs = np.maximum(np.asarray(lengths, np.int64) - 1, 0)
    count = -(-pairs // seq_len)
    dialogue = np.repeat(np.arange(len(pairs)), count)
    start = (np.arange(len(dialogue)) - np.repeat(np.cumsum(count) - count, count)) * seq_len
    return Blocks(dialogue, start, np.minimum(pairs[dialogue] - start, seq_len))


def plan(lengths: np.ndarray, seq_len: int, seed: int, epoch: int, packing: bool = True) -> Plan:
    """Packs every block of one epoch into rows of `seq_len` pairs and shuffles the rows.

    Best-fit decreasing: blocks go in descending size, each into the fullest row that still holds it. Blocks of one
    size are interchangeable, so each epoch shuffles them among themselves and all epochs have the same number of
    rows. Rows with the same space left are handled together, so a million blocks take well under a second.

    Args:
      lengths: (dialogues,) tokens of each dialogue.
      seq_len: pairs that a row holds.
      seed: not negative; with `epoch` decides the shuffles.
      packing: False puts each block into a row of its own.
    """
    size = blocks(lengths, seq_len).size
    # Raw bits, unlike Generator.permutation, are promised to stay the same in every numpy version.
    random = np.random.PCG64([seed, epoch])
    block = np.argsort(random.random_raw(len(size)), kind="stable")
    if packing:
        block = block[np.argsort(-size[block], kind="stable")]
        row = best_fit(size[block], seq_len)
    else:
        row = np.arange(len(size))
    rows = int(row.max()) + 1 if len(row) else 0
    row = np.argsort(random.random_raw(rows), kind="stable")[row]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))])
    return Plan(block[np.argsort(row, kind="stable")], offsets)


def best_fit(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """The row of each item, int64; `sizes` descend and none is over `capacity`."""
    row_of = np.empty(len(sizes), np.int64)
    spaces: list[int] = []  # distinct spaces left in open rows, ascending
    open_rows: dict[int, list[np.ndarray]] = {}  # space left -> the rows that have it
    rows = done = 0

    def reopen(space: int, some: np.ndarray) -> None:
        if space and len(some):
            if space not in open_rows:
                insort(spaces, space)
            open_rows.setdefault(space, []).append(some)

    ends = np.append(np.flatnonzero(np.diff(sizes)) + 1, len(sizes)) if len(sizes) else []
    for end in map(int, ends):
        size = int(sizes[done])
        while done < end:
            at = bisect_left(spaces, size)
            space = spaces.pop(at) if at < len(spaces) else capacity
            # The fullest row that fits stays the fullest while it fits, so it takes all it can before the next one.
            each = space // size
            used = -(-(end - done) // each)
            if space in open_rows:
                chosen = np.concatenate(open_rows.pop(space))
            else:
                chosen = np.arange(rows, rows + used)
                rows += used
            used = min(used, len(chosen))
            taken = min(used * each, end - done)
            row_of[done : done + taken] = np.repeat(chosen[:used], each)[:taken]
            done += taken
            last = taken - (used - 1) * each
            reopen(space - each * size, chosen[: used - 1])
            reopen(space - last * size, chosen[used - 1 : used])
            reopen(space, chosen[used:])
    return row_of
