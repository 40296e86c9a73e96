"""Differences between two models on a row of the tables, and which of them are beyond error."""

import dataclasses
from collections.abc import Sequence

from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.statistics import Interval, Z, bonferroni
from imitation_jax.evaluation.task import Row
from imitation_jax.reporting.model_results import Model, not_comparable

Pair = tuple[Model, Model]


@dataclasses.dataclass(frozen=True)
class Change:
    """One model minus another on one row; `stderr` is of the difference."""

    row: Row
    value: float
    stderr: float
    paired: bool

    @property
    def interval(self) -> Interval:
        """95%, of this change by itself."""
        return self.value - Z * self.stderr, self.value + Z * self.stderr

    @property
    def direction(self) -> int:
        """1 or -1 beyond the 95% interval, 0 within it."""
        low, high = self.interval
        return int(low > 0) - int(high < 0)

    def __str__(self) -> str:
        sign = "+" if self.value > 0 else ""
        return f"{self.row.label.removesuffix(', %')} {sign}{self.row.show(self.value)} ± {self.row.show(self.stderr)}"


def change(row: Row, one: Model, other: Model) -> Change | None:
    """The difference, by pairs where both models have a sample for the same ids, else from the two standard errors.

    None where a number or its error is missing.
    """
    ours, theirs = one.estimate(row), other.estimate(row)
    if ours is None or theirs is None:
        return None
    pairs = []
    if row.sample_value:
        left, right = one.scores(row), other.scores(row)
        pairs = [(left[key], right[key]) for key in left] if left.keys() == right.keys() else []
    difference = statistics.difference(ours, theirs, pairs)
    return Change(row, *difference) if difference else None


def mean_change(row: Row, pairs: Sequence[Pair]) -> Change | None:
    """Of the pairs that can be compared, one a seed; the error is the questions' plus the seeds' own."""
    comparable = [pair for pair in pairs if not_comparable(row, *pair) == []]
    changes = [changed for pair in comparable if (changed := change(row, *pair))]
    if len(changes) < 2:
        return changes[0] if changes else None
    value, stderr = statistics.over_runs([c.value for c in changes], [c.stderr for c in changes])
    return Change(row, value, stderr, all(c.paired for c in changes))


def beyond(changes: Sequence[Change]) -> tuple[list[Change], list[Change]]:
    """Those that rose and those that fell, at 95% over all of them."""
    z = bonferroni(len(changes))
    return [c for c in changes if c.value > z * c.stderr], [c for c in changes if c.value < -z * c.stderr]


def not_excluded(changes: Sequence[Change]) -> float:
    """The largest rise of any that the intervals leave, at 95% over all of them."""
    z = bonferroni(len(changes))
    return max(c.value + z * c.stderr for c in changes)
