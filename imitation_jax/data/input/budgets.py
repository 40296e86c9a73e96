"""Nested subsets of a dataset by token budget: what a study of the amount of data trains on."""

import numpy as np


def subset(lengths: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """Which dialogues a budget keeps: int64 indices, ascending.

    The seed puts all dialogues in an order; kept is the longest beginning of it that holds at most `budget` tokens.
    So nothing is over budget, what is missing is less than the next dialogue's tokens, and a smaller budget's
    dialogues are the beginning of a larger one's. A budget that holds everything changes nothing.

    Args:
      lengths: (dialogues,) tokens of each dialogue.
      budget: in tokens.
      seed: not negative.

    Raises:
      ValueError: the first dialogue is longer than the budget.
    """
    # Raw bits, unlike Generator.permutation, are promised to stay the same in every numpy version. The third number
    # sets this order apart from the epochs' shuffles, [seed, epoch].
    order = np.argsort(np.random.PCG64([seed, 0, 1]).random_raw(len(lengths)), kind="stable")
    kept = int(np.searchsorted(np.cumsum(lengths[order]), budget, side="right"))
    if not kept:
        raise ValueError(
            f"token_budget={budget} holds not one dialogue: the first one of seed {seed} has {lengths[order[0]]} tokens"
        )
    return np.sort(order[:kept])
