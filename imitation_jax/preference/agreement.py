"""The majority of several votes on an item, and how far raters agree with each other and with an LLM judge.

A vote says of the first answer that it is worse (-1), equal (0) or better (1) than the second one.
"""

from collections import Counter
from collections.abc import Sequence

import krippendorff
import numpy as np

from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.statistics import Estimate

VOTES = (-1, 0, 1)


def majority(votes: Sequence[int]) -> int:
    """What more than any other vote was cast; where two or three are level, equal."""
    first, *others = leading(votes)
    return 0 if others else first


def leading(votes: Sequence[int]) -> list[int]:
    """What was cast most often; more than one where some are level."""
    counts = Counter(votes)
    return [vote for vote, count in counts.items() if count == max(counts.values())]


def tally(votes: Sequence[Sequence[int]], values: Sequence[int] = VOTES) -> np.ndarray:
    """How often each of K values was given to each of N items: int (N, K)."""
    return np.array([[list(cast).count(value) for value in values] for cast in votes]).reshape(-1, len(values))


def alpha(counts_NK: np.ndarray, level: str) -> float:
    """Krippendorff's alpha: 1 - observed / expected disagreement; nan where all values are the same.

    Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011). Items with one value have no pair, and do not
    count.

    Args:
      counts_NK: see `tally`; the K values in ascending order, one unit apart.
      level: "nominal", "ordinal" or "interval": how far apart two values are.
    """
    counts_NK = np.asarray(counts_NK)
    counts_NK = counts_NK[counts_NK.sum(axis=1) > 1]
    if np.count_nonzero(counts_NK.sum(axis=0)) < 2:
        return float("nan")
    return float(krippendorff.alpha(value_counts=counts_NK, level_of_measurement=level))


def alpha_estimate(votes: Sequence[Sequence[int]], level: str = "ordinal") -> Estimate:
    """`alpha` of the votes on each item, with a bootstrap over the items as its error; n is the items with a pair."""
    counts_NK = tally([cast for cast in votes if len(cast) > 1])
    return statistics.bootstrap(lambda rows: alpha(rows, level), counts_NK)


def between_raters(votes: Sequence[Sequence[int]]) -> Estimate:
    """Share of pairs of raters of an item who cast the same vote, mean over the items that have a pair."""
    counts_NK = tally([cast for cast in votes if len(cast) > 1])
    cast_N = counts_NK.sum(axis=1)
    return statistics.share(((counts_NK * (counts_NK - 1)).sum(axis=1) / (cast_N * (cast_N - 1))).tolist())


def with_judge(human: Sequence[int], judge: Sequence[int]) -> dict[str, Estimate]:
    """The majority's vote beside the judge's on the same items.

    `judge_agreement` is the share of equal votes, `judge_agreement_decided` that among the items where neither said
    equal, `judge_alpha` Krippendorff's for the two.
    """
    both = list(zip(human, judge, strict=True))
    return {
        "judge_agreement": statistics.proportion([ours == theirs for ours, theirs in both]),
        "judge_agreement_decided": statistics.proportion([ours == theirs for ours, theirs in both if ours and theirs]),
        "judge_alpha": alpha_estimate(both),
    }
