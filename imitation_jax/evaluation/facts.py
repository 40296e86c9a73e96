"""Closed-book quiz: the context is the question alone, and the model scores each choice as its continuation.

Reads JSONL rows {"id", "question", "choices", "answer": index}; rows with `query` (already worded as a prompt's first
line) and `gold`, as ARC-Easy and PIQA are distributed for this kind of scoring, are read too.
"""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.choices import score_choices
from imitation_jax.evaluation.prompts import cut_to_fit, encode_choices
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.rows import read_rows, unique_ids
from imitation_jax.inference.engine import Engine

DEFINITIONS = {"context": "Question: {question}\nAnswer:", "normalised": "log-likelihood per UTF-8 byte of the choice"}


def item_of(where: str, row: dict, index: int) -> dict:
    """One question.

    Raises:
      ValueError: naming the place and what is wrong there.
    """
    question, choices = row.get("question"), row.get("choices")
    context = f"Question: {question}" if question is not None else row.get("query")
    gold = row.get("answer", row.get("gold"))
    if not isinstance(context, str) or not context.strip():
        raise ValueError(f"{where}: needs a text under 'question' (or 'query')")
    if not isinstance(choices, list) or len(choices) < 2:
        raise ValueError(f"{where}: needs a list of two or more texts under 'choices'")
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise ValueError(f"{where}: a choice is empty or no text")
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise ValueError(f"{where}: 'answer' must be the index of a choice, 0 to {len(choices) - 1}, not {gold!r}")
    return {"id": str(row.get("id", index)), "prompt": f"{context}\nAnswer:", "choices": choices, "gold": gold}


def read(config: ConfigDict) -> list[dict]:
    """The questions of `config.data`.

    Raises:
      FileNotFoundError, ValueError: one line with the place.
    """
    rows = read_rows(config.data)
    items = [item_of(where, row, index) for index, (where, row) in enumerate(rows)]
    unique_ids([(where, item["id"]) for (where, _), item in zip(rows, items, strict=True)])
    return items[: config.limit or None]


def ask(engine: Engine, items: list[dict], config: ConfigDict, on_sample: Callable[[Sample], None]) -> None:
    """Scores all choices of all questions."""
    limit = engine.config.max_position_embeddings

    def encoded(item: dict) -> tuple[Sample, list]:
        pairs, cut = cut_to_fit(encode_choices(engine, item["prompt"], item["choices"], config.chat), limit)
        return {**item, "cut": cut}, pairs

    score_choices(engine, (encoded(item) for item in items), on_sample)


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """Accuracy by summed log-likelihood and by log-likelihood per byte, and what guessing would give."""
    return {
        "metrics": {
            "accuracy": statistics.proportion([sample["correct"] for sample in samples]),
            "accuracy_normalised": statistics.proportion([sample["correct_normalised"] for sample in samples]),
        },
        "chance": float(np.mean([1 / len(item["choices"]) for item in items])),
        "counts": {"questions_cut": sum(sample["cut"] for sample in samples)},
    }
