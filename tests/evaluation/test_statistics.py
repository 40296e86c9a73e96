import math

import numpy as np
import pytest
from scipy import stats

from imitation_jax.evaluation import statistics


def test_mean_is_the_textbooks():
    values = [0.1, 0.4, 0.4, 0.9]
    found = statistics.mean(values)
    assert found["value"] == pytest.approx(0.45)
    assert found["stderr"] == pytest.approx(stats.sem(values))
    assert found["n"] == 4


def test_one_value_has_no_error_and_none_has_no_mean():
    assert statistics.mean([3.0]) == {"value": 3.0, "stderr": None, "n": 1}
    assert statistics.mean([]) == {"value": None, "stderr": None, "n": 0}
    assert statistics.proportion([]) == {"value": None, "stderr": None, "n": 0}


def test_proportion_has_an_error_at_its_ends():
    assert statistics.proportion([True, False, False, True])["stderr"] == pytest.approx(math.sqrt(0.25 / 3))
    for hits in ([False] * 40, [True] * 40):
        found = statistics.proportion(hits)
        assert found["value"] == float(hits[0])
        assert 0.02 < found["stderr"] < 0.05
    # smaller samples know less
    assert statistics.proportion([False] * 5)["stderr"] > statistics.proportion([False] * 50)["stderr"]


def test_macro_weighs_groups_alike_and_adds_variances():
    groups = [statistics.estimate(0.2, 0.03, 10), statistics.estimate(0.6, 0.04, 1000)]
    found = statistics.macro(groups)
    assert found["value"] == pytest.approx(0.4)
    assert found["stderr"] == pytest.approx(0.025)
    assert found["n"] == 1010


def test_bootstrap_agrees_with_the_closed_form_and_repeats():
    rows = np.random.default_rng(1).normal(size=(400, 1))
    found = statistics.bootstrap(lambda sample: float(sample.mean()), rows)
    assert found["stderr"] == pytest.approx(stats.sem(rows[:, 0]), rel=0.1)
    assert found == statistics.bootstrap(lambda sample: float(sample.mean()), rows)


def test_pearson_is_scipys_and_undefined_for_a_constant():
    rows = np.random.default_rng(2).normal(size=(50, 2))
    assert statistics.pearson(rows) == pytest.approx(stats.pearsonr(rows[:, 0], rows[:, 1]).statistic)
    constant = np.stack([np.ones(20), np.arange(20.0)], axis=1)
    assert statistics.bootstrap(statistics.pearson, constant) == {"value": None, "stderr": None, "n": 20}


def test_intervals_are_wilsons_for_shares_and_normal_for_means():
    hits = [True] * 7 + [False] * 43
    low, high = statistics.interval(statistics.proportion(hits))
    # Wilson 1927 by hand
    z, p, n = stats.norm.ppf(0.975), 7 / 50, 50
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert low == pytest.approx((middle - half) / (1 + z**2 / n))
    assert high == pytest.approx((middle + half) / (1 + z**2 / n))
    low, high = statistics.interval(statistics.proportion([False] * 20))
    assert low == 0 and 0.15 < high < 0.17
    assert statistics.interval(statistics.estimate(0.5, 0.1, 9)) == pytest.approx((0.304, 0.696))
    assert statistics.interval(statistics.mean([1.0])) is None
    assert statistics.interval(statistics.proportion([])) is None


def test_paired_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(300):
        low, high = statistics.paired_bootstrap(rng.normal(0.3, 1.0, 60), resamples=500)
        inside += low <= 0.3 <= high
    assert 0.90 < inside / 300 < 0.98
    differences = rng.choice([-1.0, 0.0, 1.0], 200)
    expected = stats.bootstrap((differences,), np.mean, method="percentile", n_resamples=10000, rng=rng)
    assert statistics.paired_bootstrap(differences) == pytest.approx(tuple(expected.confidence_interval), abs=0.011)
    assert statistics.paired_bootstrap([0.5, 0.5]) == (0.5, 0.5)


def test_mcnemar_is_the_exact_binomial():
    assert statistics.mcnemar(0, 0) == 1.0
    assert statistics.mcnemar(5, 5) == 1.0
    assert statistics.mcnemar(0, 6) == pytest.approx(2 * 0.5**6)
    assert statistics.mcnemar(9, 2) == statistics.mcnemar(2, 9) == pytest.approx(2 * (1 + 11 + 55) / 2**11)


def test_differences_are_by_pairs_where_some_differ():
    half, more = statistics.proportion([True, False] * 50), statistics.proportion([True] * 53 + [False] * 47)
    pairs = [(float(k < 53), float(k < 50)) for k in range(100)]
    value, stderr, paired = statistics.difference(more, half, pairs)
    assert paired and value == pytest.approx(0.03) and stderr == pytest.approx((0.03 * 0.97 / 99) ** 0.5)
    value, stderr, paired = statistics.difference(more, half, [(1.0, 1.0), (None, 0.0)])
    assert not paired and value == pytest.approx(0.03)
    assert stderr == pytest.approx((half["stderr"] ** 2 + more["stderr"] ** 2) ** 0.5)
    assert statistics.difference(more, half | {"stderr": None}) is None


def test_runs_with_other_seeds_do_not_narrow_the_questions_error():
    mean, stderr = statistics.over_runs([0.1, 0.2, 0.3], [0.03, 0.03, 0.03])
    assert mean == pytest.approx(0.2)
    assert stderr == pytest.approx((0.03**2 + (4.302653 / 1.96) ** 2 * 0.01 / 3) ** 0.5)
    assert statistics.over_runs([0.2, 0.2], [0.03, 0.05])[1] == pytest.approx(((0.03**2 + 0.05**2) / 2) ** 0.5)
    assert statistics.pooled([{"value": 0.2, "stderr": 0.1, "n": 5}]) == {"value": 0.2, "stderr": 0.1, "n": 5}


@pytest.mark.parametrize("count, z", [(0, 1.959964), (1, 1.959964), (5, 2.575829)])
def test_intervals_that_hold_together_are_wider(count, z):
    assert statistics.bonferroni(count) == pytest.approx(z)
