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
