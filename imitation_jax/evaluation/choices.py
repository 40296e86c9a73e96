"""Scored choices: which of a few continuations a model finds most likely. MMLU and the fact quiz ask through this."""

from collections.abc import Callable, Iterable

import numpy as np

from imitation_jax.evaluation.prompts import Pair
from imitation_jax.evaluation.results import Sample
from imitation_jax.inference.engine import Engine, Score, ScoreRequest

# Context tokens handed to the engine in one call: enough to batch well, and all of MMLU's would fill half a gigabyte.
TOKENS_AT_ONCE = 2_000_000


def score_choices(
    engine: Engine, items: Iterable[tuple[Sample, list[Pair]]], on_sample: Callable[[Sample], None]
) -> None:
    """Scores every choice of every item and hands on each item as soon as its last choice is scored.

    Args:
      items: (sample so far, with "choices" and "gold", the index of the right one; one pair a choice).
      on_sample: gets the sample with "prediction" and "prediction_normalised" (indices), "correct" and
        "correct_normalised", "logprobs" (summed, one a choice, in order), "tokens" (of the pairs, context included).
        Normalised is per UTF-8 byte of the choice. Of equal choices the first wins.
    """
    batch, tokens = [], 0
    for sample, pairs in items:
        batch.append((sample, pairs))
        tokens += len(pairs[0][0])
        if tokens >= TOKENS_AT_ONCE:
            _score_batch(engine, batch, on_sample)
            batch, tokens = [], 0
    _score_batch(engine, batch, on_sample)


def _score_batch(engine: Engine, items: list[tuple[Sample, list[Pair]]], on_sample: Callable[[Sample], None]) -> None:
    requests, places = [], []
    for index, (_, pairs) in enumerate(items):
        for choice, (context, continuation) in enumerate(pairs):
            requests.append(ScoreRequest(context, continuation))
            places.append((index, choice))
    scores: list[dict[int, Score]] = [{} for _ in items]

    def collect(number: int, score: Score) -> None:
        index, choice = places[number]
        scores[index][choice] = score
        sample, pairs = items[index]
        if len(scores[index]) == len(pairs):
            logprobs = [scores[index][k].logprob for k in range(len(pairs))]
            tokens = sum(len(context) + len(continuation) for context, continuation in pairs)
            on_sample({**sample, **judge(sample["choices"], sample["gold"], logprobs), "tokens": tokens})
            scores[index] = {}

    engine.score(requests, on_result=collect)


def judge(choices: list[str], gold: int, logprobs: list[float]) -> Sample:
    """The choice taken by sum and by sum per byte, and whether it is the right one."""
    best = int(np.argmax(logprobs))
    lengths = [max(1, len(choice.encode())) for choice in choices]
    best_normalised = int(np.argmax(np.array(logprobs) / lengths))
    return {
        "prediction": best,
        "correct": best == gold,
        "prediction_normalised": best_normalised,
        "correct_normalised": best_normalised == gold,
        "logprobs": [round(float(logprob), 6) for logprob in logprobs],
    }
