import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imitation_jax.data.input import budgets

lengths_of = st.lists(st.integers(2, 60), min_size=1, max_size=60).map(lambda some: np.array(some, np.int64))


@given(lengths_of, st.lists(st.integers(60, 4000), min_size=2, max_size=5), st.integers(0, 3))
def test_a_smaller_budget_s_dialogues_are_among_a_larger_one_s(lengths, amounts, seed):
    kept = [set(budgets.subset(lengths, amount, seed)) for amount in sorted(amounts)]
    assert all(few <= many for few, many in zip(kept, kept[1:], strict=False))


@given(lengths_of, st.integers(60, 4000), st.integers(0, 3))
def test_a_budget_is_kept_to_within_a_dialogue(lengths, budget, seed):
    kept = budgets.subset(lengths, budget, seed)
    used = lengths[kept].sum()
    assert used <= budget and list(kept) == sorted(set(kept))
    if len(kept) < len(lengths):
        # The one that comes next is what one more token at a time adds first; it did not fit.
        larger = next(b for b in range(budget, budget + 61) if len(budgets.subset(lengths, b, seed)) > len(kept))
        (following,) = set(budgets.subset(lengths, larger, seed)) - set(kept)
        assert used + lengths[following] == larger > budget
    else:
        assert list(kept) == list(range(len(lengths)))


def test_seeds_choose_differently():
    lengths = np.arange(2, 500)
    kept = [budgets.subset(lengths, 20_000, seed) for seed in range(5)]
    assert len({some.tobytes() for some in kept}) == 5
    assert all(abs(some.mean() - 249) < 60 for some in kept)  # from all over the dataset


def test_the_subset_of_a_seed_never_changes():
    # A study of last year must find the same dialogues with this year's numpy.
    kept = budgets.subset(np.arange(2, 500), 20_000, 7)
    assert hashlib.sha256(kept.astype("<i8").tobytes()).hexdigest()[:16] == "7659b169dad8ce27"


def test_a_budget_that_holds_nothing_is_one_clear_line():
    with pytest.raises(ValueError, match="^token_budget=30 holds not one dialogue: the first one of seed 4 has 50 tok"):
        budgets.subset(np.array([50, 50]), 30, 4)
