"""Metrics of pairwise votes: win rate, ties, the biases of order and length, and the win rate at equal length.

A sample's "preference" is 1 if answer A is better, 0 if B is, .5 for a tie, or None where there is no vote; "why" says
why not. None is left out of every rate and counted. Rates are shares from 0 to 1.

- `win_rate`: the mean preference, so that a tie is half a win (AlpacaEval's definition).
- `flip_rate`: of the pairs with a verdict in both orders, the share where they name opposite winners.
- `first_shown_preferred`, `longer_preferred`: .5 would be no bias; ties count half. The first is over the pairs with a
  verdict in both orders, before contradictions are taken out, the second over votes on answers of different length.
- `win_rate_length_controlled`: the generalised linear model of "Length-Controlled AlpacaEval" (Dubois et al. 2024,
  arXiv 2404.04475) without its terms that need other models' verdicts: logit P(A is better) = a + b tanh(d / sd(d)),
  d = characters of A - characters of B, fitted to the votes by maximum likelihood; the rate is the prediction at d = 0,
  1 / (1 + exp(-a)). AlpacaEval's own adds a term for each instruction's difficulty, known for its 805 prompts alone,
  and draws b towards that of two gamed baselines. None where the likelihood has no maximum (all votes alike, or told
  apart by length).
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from imitation_jax.evaluation import statistics

Sample = dict[str, Any]
RESAMPLES = 2000


def complete(sample: Sample, a: str, b: str | None) -> Sample:
    """The sample with all keys that are not its own: what other tasks' samples have, lengths, and the models' names.

    Args:
      b: None where there is one answer alone.
    """
    ours, theirs = sample["output_a"], sample.get("output_b")
    lengths = None if ours is None or theirs is None else [len(ours), len(theirs)]
    of_b = {} if b is None else {"generator_b": b, "lengths": lengths}
    return {**sample, "gold": theirs, "prediction": ours, "correct": None, "generator_a": a, **of_b}


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """All metrics of pairwise votes, with counts, see the top of this module.

    Args:
      samples: rows with "preference", "why", "lengths" (characters of A's and B's answer, or None) and "verdicts", by
        order ("ab", "ba") what `verdicts.read` gave, as a dict.
    """
    votes = [sample for sample in samples if sample["preference"] is not None]
    preferences = [sample["preference"] for sample in votes]
    both = [pair for sample in samples if (pair := _in_both_orders(sample)) is not None]
    lengths = np.array(
        [(sample["preference"], sample["lengths"][0] - sample["lengths"][1]) for sample in votes if sample["lengths"]],
        np.float64,
    ).reshape(-1, 2)
    apart = lengths[lengths[:, 1] != 0]
    metrics = {
        "win_rate": statistics.share(preferences),
        "better": statistics.proportion([vote > 0.5 for vote in preferences]),
        "ties": statistics.proportion([vote == 0.5 for vote in preferences]),
        "worse": statistics.proportion([vote < 0.5 for vote in preferences]),
        "equal_or_better": statistics.proportion([vote >= 0.5 for vote in preferences]),
    }
    summary: dict[str, Any] = {"metrics": metrics}
    if both:
        metrics["flip_rate"] = statistics.proportion([ab == ba != 0.5 for ab, ba in both])
        metrics["first_shown_preferred"] = statistics.share([(ab + ba) / 2 for ab, ba in both])
    if len(lengths):
        metrics["longer_preferred"] = statistics.share(
            [vote if longer > 0 else 1 - vote for vote, longer in apart.tolist()]
        )
        metrics["win_rate_length_controlled"] = statistics.bootstrap(
            length_controlled, lengths, resamples=RESAMPLES, percentile=True
        )
        summary["length_model"] = dict(zip(("a", "b"), _finite(fit(lengths)), strict=True))
    if votes:
        summary["win_rate_bootstrap"] = list(statistics.paired_bootstrap(preferences))
    summary["counts"] = {
        "pairs": len(samples),
        "votes": len(votes),
        "no_vote": dict(sorted(Counter(sample["why"] for sample in samples if sample["preference"] is None).items())),
        "votes_without_lengths": len(votes) - len(lengths),
    }
    return summary


def length_controlled(rows: np.ndarray) -> float:
    """The win rate at equal length, nan where it is undefined.

    Args:
      rows: (n, 2) preferences and differences in length.
    """
    intercept, _ = fit(rows)
    return 1 / (1 + math.exp(-intercept)) if math.isfinite(intercept) else math.nan


def fit(rows: np.ndarray) -> tuple[float, float]:
    """(a, b) of the model at the top of this module, by maximum likelihood; nan where there is no maximum.

    Args:
      rows: (n, 2) preferences and differences in length.
    """
    none = math.nan, math.nan
    y_N, d_N = rows[:, 0], rows[:, 1]
    spread = d_N.std(ddof=1) if len(rows) > 1 else 0.0
    if not spread and d_N.any():
        return none  # one length, and not the one that is asked for
    if not spread:
        x_N2 = np.ones((len(rows), 1))  # no length differs: nothing to control for
    else:
        x_N2 = np.column_stack([np.ones(len(rows)), np.tanh(d_N / spread)])
    beta = statistics.logistic(x_N2, y_N)
    if beta is None:
        return none
    return float(beta[0]), float(beta[1]) if spread else 0.0


def _in_both_orders(sample: Sample) -> tuple[float, float] | None:
    """Whether the answer shown first was preferred, with A first and with B first."""
    first = [sample["verdicts"].get(order, {}).get("first") for order in ("ab", "ba")]
    return tuple(first) if None not in first else None


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
