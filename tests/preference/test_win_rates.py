import math

import numpy as np
import pytest
from scipy.stats import binom

from imitation_jax.evaluation import statistics
from imitation_jax.preference import win_rates


def sample(preference, lengths=None, ab=None, ba=None, why=None):
    said = {order: {"first": first} for order, first in (("ab", ab), ("ba", ba)) if first is not None}
    return {"preference": preference, "lengths": lengths, "verdicts": said, "why": why}


def simulated(n, seed=0, a=0.3, b=1.2):
    """Votes of a judge who likes length, some of them halves."""
    rng = np.random.default_rng(seed)
    d_N = rng.normal(100, 400, n).round()
    p_N = 1 / (1 + np.exp(-a - b * np.tanh(d_N / d_N.std(ddof=1))))
    y_N = (rng.random(n) < p_N).astype(float)
    y_N[rng.random(n) < 0.2] = 0.5
    return np.column_stack([y_N, d_N])


def test_a_tie_is_half_a_win_and_no_vote_is_counted():
    votes = [sample(1.0), sample(1.0), sample(0.5), sample(0.0), sample(None, why="refused")]
    found = win_rates.summarise(votes)
    values = {key: metric["value"] for key, metric in found["metrics"].items()}
    assert values == {"win_rate": 0.625, "better": 0.5, "ties": 0.25, "worse": 0.25, "equal_or_better": 0.75}
    assert found["counts"] == {"pairs": 5, "votes": 4, "no_vote": {"refused": 1}, "votes_without_lengths": 4}


def test_flips_and_the_preference_for_the_first_place():
    """Of four pairs with both verdicts one is turned by the order, towards the answer shown first."""
    samples = [
        sample(1.0, ab=1.0, ba=0.0),
        sample(0.0, ab=0.0, ba=1.0),
        sample(0.5, ab=0.5, ba=0.5),
        sample(None, ab=1.0, ba=1.0, why="the orders contradict each other"),
        sample(None, ab=1.0, why="refused"),
    ]
    metrics = win_rates.summarise(samples)["metrics"]
    assert metrics["flip_rate"]["value"] == 0.25 and metrics["flip_rate"]["n"] == 4
    assert metrics["first_shown_preferred"]["value"] == (0.5 + 0.5 + 0.5 + 1) / 4


def test_the_preference_for_the_longer_answer():
    samples = [sample(1.0, [9, 5]), sample(0.0, [5, 9]), sample(0.5, [9, 5]), sample(1.0, [5, 9]), sample(1.0, [5, 5])]
    longer = win_rates.summarise(samples)["metrics"]["longer_preferred"]
    assert (longer["value"], longer["n"]) == (0.625, 4)


@pytest.mark.parametrize("n, seed", [(40, 1), (805, 2)])
def test_the_length_model_is_scikit_learns_logistic_regression(n, seed):
    """Fitted as AlpacaEval does: each vote twice, as won and as lost, weighted by its share."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    rows = simulated(n, seed)
    y_N, d_N = rows.T
    x_N2 = np.column_stack([np.ones(n), np.tanh(d_N / d_N.std(ddof=1))])
    model = linear_model.LogisticRegression(
        C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=1000
    )
    model.fit(np.vstack([x_N2, x_N2]), np.repeat([1, 0], n), sample_weight=np.concatenate([y_N, 1 - y_N]))
    assert win_rates.fit(rows) == pytest.approx(model.coef_[0], abs=1e-6)
    rate = model.predict_proba([[1.0, 0.0]])[0, 1]
    assert win_rates.length_controlled(rows) == pytest.approx(rate, abs=1e-6)


def test_the_length_model_by_hand():
    """Two lengths and two shares determine a and b: 3 of 4 and 1 of 4, at -d and d."""
    rows = np.array([[1, -5], [1, -5], [1, -5], [0, -5], [1, 5], [0, 5], [0, 5], [0, 5]], float)
    a, b = win_rates.fit(rows)
    assert a == pytest.approx(0, abs=1e-9)
    assert b * math.tanh(5 / rows[:, 1].std(ddof=1)) == pytest.approx(-math.log(3), abs=1e-9)
    assert win_rates.length_controlled(rows) == pytest.approx(0.5)


def test_without_a_difference_in_length_there_is_nothing_to_control_for():
    assert win_rates.length_controlled(np.array([[1, 0], [1, 0], [0, 0.0]])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("rows", [[[1, 5], [0, 5], [1, 5]], [[0.5, -3]]])
def test_where_one_answer_is_always_as_much_longer_nothing_is_known_of_equal_length(rows):
    assert math.isnan(win_rates.length_controlled(np.array(rows, float)))


def test_no_interval_leaves_the_range_of_a_share():
    rows = [(1.0, d) for d in (-5, 5) * 5] + [(0.0, 1), (0.5, -1), (0.5, 1)]
    metrics = win_rates.summarise([sample(vote, [100 + d, 100]) for vote, d in rows])["metrics"]
    for key in ("win_rate", "win_rate_length_controlled"):
        found = metrics[key]
        low, high = statistics.interval(found)
        assert found["value"] + 1.96 * found["stderr"] > 1
        assert 0 <= low < found["value"] < high <= 1


@pytest.mark.parametrize("votes", [[[1, 5], [1, -5], [1, 9]], [[1, 5], [1, 9], [0, -5], [0, -9]]])
def test_where_the_likelihood_has_no_maximum_the_rate_is_undefined(votes):
    found = win_rates.summarise([sample(float(vote), [10 + d, 10]) for vote, d in votes])
    assert found["metrics"]["win_rate_length_controlled"]["value"] is None
    assert found["length_model"] == {"a": None, "b": None}


def test_length_control_takes_out_what_length_gives():
    """A judge who goes by length alone: half of the votes at equal length, whoever writes more."""
    rows = simulated(4000, 3, a=0.0, b=2.0)
    assert rows[:, 0].mean() > 0.55
    assert win_rates.length_controlled(rows) == pytest.approx(0.5, abs=0.03)


def test_the_bootstraps_interval_is_the_binomials():
    """Of 0s and 1s the resampled mean is binomial; no quantile of nine is so close to another that draws matter."""
    found = win_rates.summarise([sample(float(vote)) for vote in [1] * 5 + [0] * 4])["win_rate_bootstrap"]
    for probability in (0.025, 0.975):
        around = binom.cdf(binom.ppf(probability, 9, 5 / 9) - np.array([0, 1]), 9, 5 / 9)
        assert np.abs(around - probability).min() > 0.01  # six standard errors of 10,000 draws
    assert found == pytest.approx([binom.ppf(q, 9, 5 / 9) / 9 for q in (0.025, 0.975)], abs=1e-6)


def test_the_interval_of_whole_votes_is_wilsons_and_of_others_a_bootstraps():
    whole = statistics.share([1.0] * 10)
    assert statistics.interval(whole)[0] == pytest.approx(0.7224672)
    halves = statistics.share([1.0, 0.5, 0.0, 1.0])
    assert statistics.interval(halves) == statistics.paired_bootstrap([1.0, 0.5, 0.0, 1.0])
    assert halves["stderr"] == pytest.approx(np.std([1, 0.5, 0, 1], ddof=1) / 2)


def test_ties_alone_have_no_interval():
    found = statistics.share([0.5, 0.5, 0.5])
    assert found["value"] == 0.5 and statistics.interval(found) is None
