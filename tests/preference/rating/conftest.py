"""Two small answer files, ratings of them, and raters who vote by a rule."""

import json
from pathlib import Path
from random import Random

import pytest

from imitation_jax.preference.rating import items
from imitation_jax.preference.rating.database import Store, choice_of

SETTINGS = {"ratings": 3, "check_every": 0, "seed": 0, "guidelines": ""}


@pytest.fixture
def write_answers(tmp_path):
    """`write_answers(12)` is the paths of two answer files to as many instructions."""

    def write(count: int, outputs=None) -> tuple[Path, Path]:
        paths = []
        for side, generator in (("a", "student"), ("b", "teacher")):
            path = tmp_path / f"{side}.jsonl"
            rows = [
                {
                    "id": f"i{number}",
                    "instruction": f"Instruction {number}?",
                    "output": outputs[number][side == "b"] if outputs else f"answer {number} of the {generator}",
                    "generator": generator,
                }
                for number in range(count)
            ]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            paths.append(path)
        return tuple(paths)

    return write


@pytest.fixture
def open_store(tmp_path, write_answers):
    """`open_store(12, ratings=3)` is a new Store of as many pairs."""
    opened = []

    def open_(count: int = 12, name: str = "ratings.db", outputs=None, **settings) -> Store:
        paths = map(str, write_answers(count, outputs))
        opened.append(items.open_store(str(tmp_path / name), *paths, {**SETTINGS, **settings}))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def rate():
    """`rate(store, "ann", rule)` lets a rater vote until nothing is left; `rule(item id, expected)` is the vote."""

    def rate_(store: Store, name: str, rule=None, most: int = 10**6) -> int:
        rater, random = store.rater(store.join(name)), Random(name)
        known = {item["id"]: item for item in store.items()}
        for done in range(most):
            task, _, _ = store.task(rater)
            if task is None:
                return done
            row = store._read("SELECT item, a_first FROM task WHERE id = ?", task.id)[0]
            expected = known[row["item"]]["expected"]
            vote = rule(row["item"], expected) if rule else random.choice((-1, 0, 1))
            assert store.vote(rater, task.id, choice_of(vote, row["a_first"]), None)
        return most

    return rate_
