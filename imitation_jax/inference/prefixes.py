"""Prefix sharing: sequences as a tree of common beginnings, in steps that compute every token of the tree once.

One cache holds one path from the root at a time, a token's slot being its depth. The path follows the heaviest child
as long as what hangs below does not fit a row; the branches that fit are packed into rows by best fit, wherever on the
path they hang, and read the part of the cache that they continue. Branches that do not fit come after them, the deepest
first, each as a path that writes over the slots behind its fork.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from imitation_jax.data.input.packing import best_fit


class Part(NamedTuple):
    """Tokens of one sequence: those from position `start` on stand in the row at `places` (int32), in order."""

    sequence: int
    start: int
    places: np.ndarray


class Row(NamedTuple):
    """Tokens to compute, depth first; four int32 arrays of one length, as `hidden_branches` takes them, and whose."""

    tokens: np.ndarray
    positions: np.ndarray
    ends: np.ndarray
    seen: np.ndarray
    parts: list[Part]


class Step(NamedTuple):
    """Rows to run at a time. Slots of the cache from `slot` on are free: there the first row is kept."""

    rows: list[Row]
    slot: int


class _Branch(NamedTuple):
    """Sequences `low` to `high` - 1, which share their first `depth` tokens and have further ones."""

    low: int
    high: int
    depth: int


def order(sequences: Sequence[np.ndarray]) -> list[int]:
    """Indices in the order that `plan` needs."""
    keys = [sequence.astype(">i4").tobytes() for sequence in sequences]
    return sorted(range(len(sequences)), key=keys.__getitem__)


def plan(sequences: Sequence[np.ndarray], wanted: Sequence[int], capacity: int, rows: int = 1) -> Iterator[Step]:
    """The steps that compute every token of the tree.

    Args:
      sequences: int32 arrays in lexicographic order, see `order`; none is empty, no two are equal.
      wanted: the first position of each sequence whose Part is needed; there is a Part for all from there on.
      capacity: the most tokens of a row.
      rows: the most rows of a step.
    """
    if not sequences:
        return
    tree = _Tree(sequences, np.asarray(wanted))
    stack = [_Branch(0, len(sequences), 0)]
    while stack:
        branch = stack.pop()
        path, hanging = tree.follow(branch, capacity)
        for start in range(branch.depth, len(path), capacity):
            yield Step([tree.path_row(path[start : start + capacity], start, hanging)], start)
        # A sequence that ends on the path has nothing left.
        fit = [branch for branch in hanging if 0 < tree.size(branch) <= capacity]
        stack += sorted((b for b in hanging if tree.size(b) > capacity), key=lambda branch: branch.depth)
        fit.sort(key=lambda branch: -tree.size(branch))
        row_of = best_fit(np.array([tree.size(branch) for branch in fit], np.int64), capacity)
        packed: list[list[_Branch]] = [[] for _ in range(int(row_of.max(initial=-1)) + 1)]
        for branch, row in zip(fit, row_of, strict=True):
            packed[row].append(branch)
        for start in range(0, len(packed), rows):
            yield Step([tree.branch_row(branches) for branches in packed[start : start + rows]], len(path))


class _Tree:
    """The prefix tree of sorted sequences, kept as how many tokens each shares with the one before."""

    def __init__(self, sequences: Sequence[np.ndarray], wanted: np.ndarray):
        self.sequences, self.wanted = sequences, wanted
        self.lengths = np.array([len(sequence) for sequence in sequences], np.int64)
        self.shared = np.zeros(len(sequences), np.int64)  # with the sequence before
        for index in range(1, len(sequences)):
            before, here = sequences[index - 1], sequences[index]
            least = min(len(before), len(here))
            differs = before[:least] != here[:least]
            self.shared[index] = differs.argmax() if differs.any() else least
        self._sums = np.concatenate([[0], np.cumsum(self.lengths - self.shared)])

    def size(self, branch: _Branch) -> int:
        """Tokens of the branch below its depth."""
        others = self._sums[branch.high] - self._sums[branch.low + 1]
        return int(self.lengths[branch.low] - branch.depth + others)

    def follow(self, branch: _Branch, capacity: int) -> tuple[np.ndarray, list[_Branch]]:
        """The tokens from the root to where what hangs below fits a row, and the branches that hang on the way."""
        hanging = []
        while self.size(branch) > capacity:
            low, high, depth = branch
            if high - low == 1:
                branch = _Branch(low, high, depth + capacity)
                continue
            shared = self.shared[low + 1 : high]
            fork = int(shared.min())
            borders = [low, *(np.flatnonzero(shared == fork) + low + 1).tolist(), high]
            children = [_Branch(*pair, fork) for pair in zip(borders, borders[1:], strict=False)]
            heaviest = max(children, key=self.size)
            hanging += [child for child in children if child is not heaviest]
            branch = heaviest
        return self.sequences[branch.low][: branch.depth], [*hanging, branch]

    def path_row(self, tokens: np.ndarray, start: int, hanging: list[_Branch]) -> Row:
        """A piece of a path, from depth `start` on."""
        count = len(tokens)
        parts = []
        for branch in hanging:
            stop = min(branch.depth, start + count)
            for index in np.flatnonzero(self.wanted[branch.low : branch.high] < stop) if stop > start else ():
                parts.append(Part(branch.low + int(index), start, np.arange(stop - start, dtype=np.int32)))
        positions = np.arange(start, start + count, dtype=np.int32)
        return Row(tokens, positions, np.full(count, count, np.int32), np.full(count, start, np.int32), parts)

    def branch_row(self, branches: list[_Branch]) -> Row:
        """Branches side by side."""
        count = sum(self.size(branch) for branch in branches)
        tokens, positions, ends, seen = (np.empty(count, np.int32) for _ in range(4))
        place = np.empty(max(int(self.lengths[b.low : b.high].max()) for b in branches), np.int32)  # by depth
        parts, filled = [], 0
        for low, high, depth in branches:
            begin = filled
            for index in range(low, high):
                length = int(self.lengths[index])
                fork = depth if index == low else int(self.shared[index])
                if index > low:
                    ends[place[fork : self.lengths[index - 1]]] = filled
                new = slice(filled, filled + length - fork)
                tokens[new] = self.sequences[index][fork:]
                positions[new] = np.arange(fork, length)
                place[fork:length] = np.arange(new.start, new.stop)
                parts.append(Part(index, depth, place[depth:length].copy()))
                filled = new.stop
            ends[place[depth : self.lengths[high - 1]]] = filled
            seen[begin:filled] = depth
        return Row(tokens, positions, ends, seen, parts)
