"""Scored choices: which of a few continuations a model finds most likely. MMLU and the fact quiz ask through this."""

from array import array
from collections.abc import Callable, Iterable

import numpy as np

from imitation_jax.evaluation.prompts import Pair
from imitation_jax.evaluation.results import Sample
from imitation_jax.inference.engine import Engine, Score, ScoreRequest


def score_choices(
    engine: Engine, items: Iterable[tuple[Sample, list[Pair]]], on_sample: Callable[[Sample], None]
) -> None:
    """Scores every choice of every item and hands on each item as soon as its last choice is scored.

    Args:
      items: (sample so far, with "choices" and "gold", the index of the right one; one pair a choice,
        all with the same context).
      on_sample: gets the sample with "prediction" and "prediction_normalised" (indices), "correct" and
        "correct_normalised", "logprobs" (summed, one a choice, in order), "tokens" (of the pairs, context included).
        Normalised is per UTF-8 byte of the choice. Of equal choices the first wins.
    """
    drafts, requests, places = [], [], []
    for index, (sample, pairs) in enumerate(items):
        drafts.append((sample, sum(len(context) + len(continuation) for context, continuation in pairs)))
        # As lists of Python's ints all contexts of MMLU would fill half a gigabyte.
        context = array("i", pairs[0][0])
        for choice, (_, continuation) in enumerate(pairs):
            requests.append(ScoreRequest(context, continuation))
            places.append((index, choice))
    logprobs: list[dict[int, float]] = [{} for _ in drafts]

    def collect(number: int, score: Score) -> None:
        index, choice = places[number]
        logprobs[index][choice] = score.logprob
        sample, tokens = drafts[index]
        choices = sample["choices"]
        if len(logprobs[index]) == len(choices):
            judged = judge(choices, sample["gold"], [logprobs[index][k] for k in range(len(choices))])
            on_sample({**sample, **judged, "tokens": tokens})

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
