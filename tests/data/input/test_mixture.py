import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imitation_jax.data.input import mixture
from imitation_jax.data.input.mixture import Source


@given(st.lists(st.integers(1, 200), min_size=1, max_size=6))
def test_rows_alternate_evenly_at_every_row(rows):
    part, number = mixture.interleave(rows)
    assert len(part) == len(number) == sum(rows)
    for index, count in enumerate(rows):
        mine = part == index
        assert list(number[mine]) == list(range(count))  # each row once, in its order
        proportion = np.arange(1, len(part) + 1) * count / len(part)
        assert np.abs(np.cumsum(mine) - proportion).max() <= (len(rows) + 1) / 2


def test_one_dataset_keeps_its_order():
    part, number = mixture.interleave([5])
    assert (part.tolist(), number.tolist()) == ([0] * 5, [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    "sources, message",
    [
        ({"a": Source("")}, "a.path is empty"),
        ({"a": Source("x", epochs=0)}, "a.epochs=0 must be 1 or more"),
        ({"a": Source("x", token_budget=-1)}, "a.token_budget=-1 must be 0 .all. or more"),
        ({"a": Source("x"), "b": Source("y", share=1.0)}, "b.share=1.0 must be 0 .* less than 1"),
        ({"a": Source("x"), "b": Source("y", share=-0.1)}, "b.share=-0.1 must be 0"),
        ({"a": Source("x"), "b": Source("y", epochs=2, share=0.1)}, "b has a share=0.1 and epochs=2; leave one"),
        (
            {"a": Source("x", share=0.5), "b": Source("y", share=0.5)},
            "a, b: every dataset has a share; leave one's out",
        ),
        (
            {"a": Source("x"), "b": Source("y", share=0.5), "c": Source("z", share=0.5)},
            "the shares sum to 1, which leaves nothing for the others",
        ),
    ],
)
def test_a_mixture_that_cannot_be_made_is_one_clear_line(sources, message):
    with pytest.raises(ValueError, match=message) as error:
        mixture.check(sources)
    assert "\n" not in str(error.value)
