"""Closed-book quiz: the context is the question alone, and the model scores each choice as its continuation.

Reads rows {"id", "question", "choices", "answer": index}; rows with `query` (already worded as a prompt's first line)
and `gold` are read too.
"""

import functools

from imitation_jax.evaluation import choices
from imitation_jax.evaluation.task import Row, correct

DEFINITIONS = {"prompt": "Question: {question}\nAnswer:", **choices.DEFINITIONS}

NAMES = ("facts",)
KEYS = choices.KEYS
ROWS = (
    Row("knowledge", "facts", "accuracy", "Fact quiz, %", sample_value=correct, order=10),
    Row("knowledge", "facts", "accuracy_normalised", "Fact quiz, per character, %", headline=False, order=10),
)
FULL_SIZE = {}

NEEDS, PAIRED = choices.NEEDS, choices.PAIRED
ask, summarise, text = choices.ask, choices.summarise, choices.text


def parse(where: str, row: dict) -> dict:
    """See `choices.question`."""
    if "query" in row and "question" not in row:
        return choices.worded(where, row)
    words = row.get("question")
    question = choices.question(where, words, f"Question: {words}\nAnswer:", row.get("choices"), row.get("answer"))
    if not all(choice.strip() for choice in question["choices"]):
        raise ValueError(f"{where}: a choice is empty")
    return question


read = functools.partial(choices.read_items, parse=parse)
