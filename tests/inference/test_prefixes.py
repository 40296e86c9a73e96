import numpy as np
import pytest

from imitation_jax.inference.prefixes import order, plan


def run(sequences, wanted, capacity, rows):
    """Plays the steps with a list for a cache; checks what every token sees; returns the tokens computed."""
    cache, computed = {}, 0
    found = [set() for _ in sequences]
    for step in plan(sequences, wanted, capacity, rows):
        assert 0 < len(step.rows) <= rows
        for row in step.rows:
            count = len(row.tokens)
            assert count <= capacity
            computed += count
            sees = []
            for place in range(count):
                own = [row.tokens[j] for j in range(place + 1) if place < row.ends[j]]
                sees.append([*(cache[slot] for slot in range(row.seen[place])), *own])
                assert row.positions[place] == len(sees[-1]) - 1
            for part in row.parts:
                for position, place in enumerate(part.places, part.start):
                    assert sees[place] == sequences[part.sequence][: position + 1].tolist()
                    assert position not in found[part.sequence]
                    found[part.sequence].add(position)
        cache |= dict(enumerate(step.rows[0].tokens, step.slot))
    for sequence, first, positions in zip(sequences, wanted, found, strict=True):
        assert positions >= set(range(first, len(sequence)))
    return computed


def tree_size(sequences):
    return len({tuple(sequence[: n + 1]) for sequence in sequences for n in range(len(sequence))})


@pytest.mark.parametrize("seed", range(60))
def test_every_token_is_computed_once_and_sees_its_sequence(seed):
    rng = np.random.default_rng(seed)
    vocabulary, longest = rng.integers(1, 4), rng.integers(2, 30)
    drawn = {tuple(rng.integers(0, vocabulary, rng.integers(1, longest))) for _ in range(rng.integers(1, 40))}
    sequences = [np.array(ids, np.int32) for ids in drawn]
    sequences = [sequences[i] for i in order(sequences)]
    wanted = [int(rng.integers(0, len(sequence))) for sequence in sequences]
    assert run(sequences, wanted, int(rng.integers(1, 25)), int(rng.integers(1, 4))) == tree_size(sequences)


@pytest.mark.parametrize(
    "sequences",
    [
        [list(range(n)) for n in range(1, 150)],  # each the beginning of the next
        [[0] * n + [1] for n in range(150)],  # a branch at every token of a long path
        [[5] * 30 + [i] * 12 + [j] * 9 for i in range(6) for j in range(6)],  # branches of branches
        [[7]],
    ],
)
def test_trees_of_hard_shapes(sequences):
    sequences = [np.array(ids, np.int32) for ids in sequences]
    sequences = [sequences[i] for i in order(sequences)]
    assert run(sequences, [0] * len(sequences), 16, 2) == tree_size(sequences)


def test_rows_are_full():
    """57 subjects of examples and questions: at most one row in each is not full."""
    rng = np.random.default_rng(0)
    sequences = []
    for subject in range(57):
        examples = np.full(300, subject, np.int32)
        for _ in range(40):
            sequences.append(np.append(examples, rng.integers(0, 49_000, rng.integers(60, 180), np.int32)))
    sequences = [sequences[i] for i in order(sequences)]
    steps = list(plan(sequences, [len(sequence) - 1 for sequence in sequences], 1024))
    short = sum(len(row.tokens) < 900 for step in steps for row in step.rows if row.seen[0])
    assert short <= 57 and list(plan([], [], 1024)) == []
