"""Majorities and Krippendorff's alpha, beside the published example and the definition."""

import math

import numpy as np
import pytest

from imitation_jax.evaluation import statistics
from imitation_jax.preference import agreement

# Krippendorff 2011, section C: four observers, twelve units, None where an observer was absent.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
UNITS = [[value for value in unit if value is not None] for unit in zip(*OBSERVERS, strict=True)]


@pytest.mark.parametrize("level, published", [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorff_s_worked_example(level, published):
    assert round(agreement.alpha(agreement.tally(UNITS, range(1, 6)), level), 3) == published


def test_alpha_of_two_observers_as_worked_by_hand():
    """The same source, section A: binary data, o_01 = 4, n_0 = 14, n_1 = 6 of n = 20."""
    meg = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    owen = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    counts = agreement.tally(list(zip(meg, owen, strict=True)), (0, 1))
    assert math.isclose(agreement.alpha(counts, "nominal"), 1 - 19 * 4 / (14 * 6), rel_tol=1e-12)
    assert round(agreement.alpha(counts, "nominal"), 3) == 0.095


def by_definition(votes, level):
    """1 - D_o / D_e over all pairs of values, one by one (the same source, equations 1 to 4)."""
    units = [cast for cast in votes if len(cast) > 1]
    values = [vote for cast in units for vote in cast]
    counts = {vote: values.count(vote) for vote in (-1, 0, 1)}

    def distance(one, other):
        low, high = sorted((one, other))
        between = sum(counts[vote] for vote in range(low, high + 1)) - (counts[one] + counts[other]) / 2
        return {"nominal": one != other, "ordinal": between**2, "interval": (one - other) ** 2}[level]

    observed = sum(sum(distance(i, j) for i in cast for j in cast) / (len(cast) - 1) for cast in units)
    return 1 - (len(values) - 1) * observed / sum(distance(i, j) for i in values for j in values)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_of_raters_who_miss_items_is_that_of_the_definition(level):
    rng = np.random.default_rng(0)
    for _ in range(60):
        raters, items = int(rng.integers(2, 8)), int(rng.integers(3, 40))
        votes = [rng.integers(-1, 2, int(rng.integers(0, raters + 1))).tolist() for _ in range(items)]
        if len({vote for cast in votes if len(cast) > 1 for vote in cast}) < 2:
            continue
        assert abs(agreement.alpha(agreement.tally(votes), level) - by_definition(votes, level)) < 1e-9


def test_alpha_without_any_disagreement_to_expect_is_undefined():
    assert math.isnan(agreement.alpha(agreement.tally([[1, 1, 1]] * 5), "ordinal"))
    assert agreement.alpha_estimate([[1, 1, 1]] * 5)["value"] is None
    assert agreement.alpha_estimate([])["value"] is None


def test_alpha_s_interval_holds_the_truth_in_most_samples():
    """Raters who copy one another at a known rate: alpha of very many items lies in 90% of intervals of 120 items."""

    def votes(rng, items):
        truth = rng.integers(-1, 2, (items, 1))
        return np.where(rng.random((items, 3)) < 0.6, truth, rng.integers(-1, 2, (items, 3)))

    whole = agreement.alpha(agreement.tally(votes(np.random.default_rng(0), 100_000).tolist()), "ordinal")
    inside = 0
    for seed in range(1, 31):
        low, high = statistics.interval(agreement.alpha_estimate(votes(np.random.default_rng(seed), 120).tolist()))
        inside += low < whole < high
    assert inside >= 26


@pytest.mark.parametrize(
    "votes, wanted",
    [([1, 1, -1], 1), ([-1, 0, -1], -1), ([1, 0, -1], 0), ([1, -1], 0), ([1], 1), ([1, 1, -1, -1], 0), ([0, 0, 1], 0)],
)
def test_the_majority_is_equal_where_no_vote_leads(votes, wanted):
    assert agreement.majority(votes) == wanted


def test_raters_and_judge_counted_by_hand():
    assert agreement.between_raters([[1, 1, 1], [1, 1, 0], [1, 0, -1], [0]])["value"] == pytest.approx(4 / 9)
    found = agreement.with_judge([1, 1, 0, -1, -1], [1, 0, 0, -1, 1])
    assert found["judge_agreement"]["value"] == 0.6 and found["judge_agreement"]["n"] == 5
    assert found["judge_agreement_decided"]["hits"] == 2 and found["judge_agreement_decided"]["n"] == 3
    assert found["judge_alpha"]["value"] == pytest.approx(
        agreement.alpha([[0, 0, 2], [0, 1, 1], [0, 2, 0], [2, 0, 0], [1, 0, 1]], "ordinal")
    )
