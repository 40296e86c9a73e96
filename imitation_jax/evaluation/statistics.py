"""Means, their errors and intervals, and whether two models differ: what every task reports beside its numbers."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm
from scipy.stats import t as students_t

# {"value", "stderr", "n"}, of a share of whole hits also "hits", of what has bounds "interval"; None where undefined.
Estimate = dict[str, Any]
Interval = tuple[float, float]  # 95%

Z = 1.96  # two-sided 95% of a normal distribution


def estimate(value: float, stderr: float, n: int) -> Estimate:
    """The three numbers of a metric; what is not finite becomes None, which JSON can hold."""
    return {
        "value": float(value) if math.isfinite(value) else None,
        "stderr": float(stderr) if math.isfinite(stderr) else None,
        "n": int(n),
    }


def mean(values: Sequence[float]) -> Estimate:
    """Sample mean with the standard error s / sqrt(n), s with n - 1 in its denominator (as lm-eval reports it)."""
    n = len(values)
    if n == 0:
        return estimate(math.nan, math.nan, 0)
    value = float(np.mean(values))
    return estimate(value, float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan, n)


def proportion(hits: Sequence[bool]) -> Estimate:
    """Share of true with the standard error sqrt(p (1 - p) / (n - 1)).

    At 0 of n and n of n that formula says 0, which no finite sample can know; there the standard error is the one of
    Agresti and Coull's adjusted share, (hits + 2) / (n + 4) (The American Statistician 52, 1998).
    """
    n, k = len(hits), int(sum(hits))
    if n == 0:
        return estimate(math.nan, math.nan, 0)
    if 0 < k < n:
        return mean([float(hit) for hit in hits]) | {"hits": k}
    adjusted = (k + 2) / (n + 4)
    return estimate(k / n, math.sqrt(adjusted * (1 - adjusted) / (n + 4)), n) | {"hits": k}


def share(values: Sequence[float]) -> Estimate:
    """Mean of numbers from 0 to 1, with an interval that keeps to these bounds.

    Without an interval where all are ties: what does not vary does not tell how far it would go.
    """
    if all(value in (0, 1) for value in values):
        return proportion([value == 1 for value in values])
    if len(set(values)) == 1:
        return mean(values) | {"stderr": None}
    return mean(values) | {"interval": list(paired_bootstrap(values))}


def macro(groups: Sequence[Estimate]) -> Estimate:
    """Unweighted mean of independent estimates; variances add. `n` counts the items of all groups."""
    k = len(groups)
    if k == 0:
        return estimate(math.nan, math.nan, 0)
    value = sum(group["value"] for group in groups) / k
    errors = [math.nan if group["stderr"] is None else group["stderr"] for group in groups]
    return estimate(value, math.sqrt(sum(error**2 for error in errors)) / k, sum(group["n"] for group in groups))


def interval(metric: Estimate) -> Interval | None:
    """95%: Wilson's score interval (JASA 22, 1927) of a share, else its own, value +- 1.96 standard errors, or None."""
    if "hits" in metric:
        return tuple(binomtest(metric["hits"], metric["n"]).proportion_ci(method="wilson"))
    if "interval" in metric:
        return tuple(metric["interval"])
    if metric["value"] is None or metric["stderr"] is None:
        return None
    return metric["value"] - Z * metric["stderr"], metric["value"] + Z * metric["stderr"]


def difference(
    ours: Estimate, theirs: Estimate, pairs: Iterable[tuple[float | None, float | None]] = ()
) -> tuple[float, float, bool] | None:
    """(ours minus theirs, its standard error, whether by pairs), or None where an error is missing.

    Args:
      pairs: both scores of each item, where they are of the same items; None is no score. Where no pair differs, the
        two standard errors count, as of independent items.
    """
    paired = mean([a - b for a, b in pairs if a is not None and b is not None])
    if paired["value"] and paired["stderr"]:
        return paired["value"], paired["stderr"], True
    if ours["stderr"] is None or theirs["stderr"] is None:
        return None
    return ours["value"] - theirs["value"], math.hypot(ours["stderr"], theirs["stderr"]), False


def bonferroni(count: int) -> float:
    """How many standard errors each of `count` differences must go beyond, so that all of them hold together at 95%."""
    return float(norm.ppf(1 - 0.025 / max(count, 1)))


def over_runs(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """(mean, standard error) of several runs' numbers that answer the same questions, two or more.

    The questions' share of the error does not shrink with the runs, so the variance is the mean of `errors` squared
    plus the runs' own: that of their mean, widened so that 1.96 of its roots are as far as Student's t with so few
    degrees of freedom goes: of two runs 12.7 standard errors, of three 4.3.
    """
    n = len(values)
    widening = float(students_t.ppf(0.975, n - 1)) / Z
    between = widening**2 * float(np.var(values, ddof=1)) / n
    within = sum(error**2 for error in errors) / len(errors) if errors else math.nan
    return sum(values) / n, math.sqrt(within + between)


def pooled(estimates: Sequence[Estimate]) -> Estimate:
    """The estimate over runs that answer the same questions, see `over_runs`; of a single one, that one."""
    if len(estimates) == 1:
        return estimates[0]
    errors = [each["stderr"] for each in estimates if each["stderr"] is not None]
    whole = estimate(*over_runs([each["value"] for each in estimates], errors), estimates[0]["n"])
    if all("hits" in each for each in estimates) and (span := interval(whole)):
        whole["interval"] = [max(span[0], 0.0), min(span[1], 1.0)]  # a share lies within
    return whole


def paired_bootstrap(differences: Sequence[float], *, resamples: int = 10000, seed: int = 0) -> Interval:
    """95% percentile interval of the mean of per-item differences over resampled items (Koehn, EMNLP 2004).

    Args:
      differences: one an item, at least one.
    """
    values, counts = np.unique(np.asarray(differences, np.float64), return_counts=True)
    n = len(differences)
    # How often each value is drawn in a resample of n items.
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    low, high = np.quantile(drawn @ values / n, (0.025, 0.975))
    return float(low), float(high)


def mcnemar(won: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test (Psychometrika 12, 1947) that two models are alone in being right as often.

    Args:
      won, lost: how many items only the first, only the second model got right.
    """
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    rows: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
    percentile: bool = False,
) -> Estimate:
    """`statistic(rows)` with the standard deviation of it over resampled rows (Efron 1979) as the standard error.

    Resamples where the statistic is undefined (a constant column) are left out; with more than a tenth of them
    undefined the standard error is None.

    Args:
      statistic: from (n, ...) rows to a number.
      rows: (n, ...), the independent observations along the first axis.
      percentile: the interval holds 95% of the draws, and so keeps to the bounds of the statistic.
    """
    rng = np.random.default_rng(seed)
    n = len(rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = statistic(rows) if n else math.nan
        draws = [statistic(rows[rng.integers(0, n, n)]) for _ in range(resamples)] if n > 1 else []
    draws = [draw for draw in draws if math.isfinite(draw)]
    enough = len(draws) >= 0.9 * resamples
    whole = estimate(value, float(np.std(draws, ddof=1)) if enough else math.nan, n)
    return whole | {"interval": np.quantile(draws, (0.025, 0.975)).tolist()} if percentile and enough else whole


def pearson(rows: np.ndarray) -> float:
    """Correlation of the two columns of (n, 2) rows; nan where one of them is constant."""
    centred = rows - rows.mean(axis=0)
    covariance = centred.T @ centred
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def logistic(x_NK: np.ndarray, y_N: np.ndarray, *, steps: int = 50) -> np.ndarray | None:
    """Maximum likelihood of logit P(y) = x beta by Newton's method: beta (K), or None where there is no maximum.

    Args:
      y_N: from 0 to 1; what lies between counts as so much of either.
      steps: fewer than ten are needed where there is a maximum.
    """
    beta_K = np.zeros(x_NK.shape[1])
    for _ in range(steps):
        p_N = 1 / (1 + np.exp(-x_NK @ beta_K))
        hessian_KK = (x_NK * (p_N * (1 - p_N))[:, None]).T @ x_NK
        try:
            step_K = np.linalg.solve(hessian_KK, x_NK.T @ (y_N - p_N))
        except np.linalg.LinAlgError:
            return None
        beta_K = beta_K + step_K
        # Beyond that a chance differs from 0 or 1 by less than a millionth of a millionth: there is no maximum.
        if not np.abs(beta_K).max() < 30:
            return None
        if np.abs(step_K).max() < 1e-10:
            return beta_K
    return None
