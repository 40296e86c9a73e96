"""The questions of a file, and which of another file's are the worked examples before each of them."""

import re
from collections.abc import Callable, Sequence
from random import Random

from imitation_jax.data.benchmark_rows import Rows, read_rows, unique_ids

Question = dict
WORD = re.compile(r"[^\W_]+")


def words(text: str) -> str:
    """What makes two questions the same: their letters and digits, in lower case."""
    return " ".join(WORD.findall(text.lower()))


def read_questions(
    path: str, parse: Callable[[str, dict], Question], read: Callable[[str], Rows] = read_rows
) -> list[Question]:
    """parse(where, row) of every row, with its "id" (or what `parse` gives as that), else its number in the file.

    Raises:
      FileNotFoundError, ValueError: one line with the place.
    """
    rows = read(path)
    questions = []
    for index, (where, row) in enumerate(rows):
        own = row.get("id")
        questions.append({"id": str(index if own is None else own), **parse(where, row)})
    unique_ids([(where, question["id"]) for (where, _), question in zip(rows, questions, strict=True)])
    return questions


def draw(
    random: Random, pool: Sequence[Question], count: int, spare: int, is_own: Callable[[Question], bool], where: str
) -> list[Question]:
    """`count` questions out of the pool, as lm-eval's sampler draws them.

    Args:
      spare: how many more are drawn than are used. lm-eval draws one more where questions and examples come from one
        split, or the task names no split for examples.
      is_own: whether a question of the pool is the one that the examples are for; it is never among them.
      where: the key and its value, for messages.

    Raises:
      ValueError: too few in the pool.
    """
    if len(pool) < count + spare:
        raise ValueError(f"{where}: {len(pool)} questions can be examples, {count + spare} are needed")
    drawn = [question for question in random.sample(pool, count + spare) if not is_own(question)][:count]
    if len(drawn) == count:
        return drawn
    others = [question for question in pool if not is_own(question)]
    if len(others) < count:
        raise ValueError(f"{where}: {len(others)} questions are others than the one asked, {count} are needed")
    return random.sample(others, count)
