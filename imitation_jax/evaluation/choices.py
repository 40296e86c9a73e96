"""Scored choices: which of a few continuations a model finds most likely. All tasks of that kind ask through this.

A question is a dict with "id", "question" (its bare words), "prompt" (how it is put to the model, shots left out),
"choices" (what is scored, each after one space), "gold" (the index of the right one) and "shots" (worked examples, each
a text that goes before); "header" goes before the shots where there is one.
"""

import functools
from array import array
from collections.abc import Callable, Iterable
from random import Random

import numpy as np
from ml_collections import ConfigDict
from scipy.special import softmax

from imitation_jax.core.fingerprint import DATA, Key, Keys
from imitation_jax.core.progress import progress
from imitation_jax.data.benchmark_rows import Rows, read_rows
from imitation_jax.evaluation import shots, statistics
from imitation_jax.evaluation.by_item import by_item
from imitation_jax.evaluation.config import CHAT, OF_MODEL
from imitation_jax.evaluation.prompts import Pair, encode_choices, with_shots_that_fit
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.task import AnyEngine, Needs
from imitation_jax.inference.requests import Score, ScoreRequest

DEFINITIONS = {
    "scored": "' ' + choice after the prompt; in chat the choice as the assistant's turn",
    "normalised": "log-likelihood per character of the choice",
    "confidence": "softmax over the choices' log-likelihoods",
}
NEEDS, PAIRED = Needs.MODEL, ("correct",)
BINS = Keys(calibration_bins=Key(15, "of equal width, for the calibration error"))
KEYS = OF_MODEL | CHAT | BINS | Keys(data=Key("", "file of the questions", DATA))
SHOTS = Keys(
    shots_data=Key("", "file of the worked examples", DATA),
    shots=Key(0, "worked examples before each question"),
    same_shots=Key(False, "one draw for all questions, which shares their work; lm-eval draws for each"),
    seed=Key(1234, "which shots are drawn; lm-eval's"),
)


def question(where: str, words: object, prompt: str, choices: object, gold: object) -> dict:
    """A question without id and shots.

    Args:
      where: its place, for messages.
      gold: an index, as an int or in digits.

    Raises:
      ValueError: naming the place and what is wrong there.
    """
    if not isinstance(words, str) or not words.strip():
        raise ValueError(f"{where}: its question is empty or no text")
    if not isinstance(choices, list) or len(choices) < 2:
        raise ValueError(f"{where}: needs a list of two or more texts to choose from")
    if not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"{where}: a choice is no text")
    index = int(gold) if isinstance(gold, str) and gold.isdecimal() else gold
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(choices):
        raise ValueError(f"{where}: the answer must be the index of a choice, 0 to {len(choices) - 1}, not {gold!r}")
    return {"question": words.strip(), "prompt": prompt, "choices": choices, "gold": index}


def worded(where: str, row: dict, ending: str = "\nAnswer:") -> dict:
    """`question` of a row {"query", "choices", "gold"}, whose query is worded as a prompt but for its ending."""
    query = row.get("query")
    if not isinstance(query, str):
        raise ValueError(f"{where}: needs a text under 'query'")
    return question(where, query.removeprefix("Question:"), query + ending, row.get("choices"), row.get("gold"))


def check(config: ConfigDict) -> None:
    """Checks the keys that all these tasks have.

    Raises:
      ValueError: one is out of range.
    """
    if config.get("shots", 0) < 0:
        raise ValueError(f"config.shots={config.shots}: must be 0 or more")
    if config.calibration_bins < 1:
        raise ValueError(f"config.calibration_bins={config.calibration_bins}: must be 1 or more")


def read_items(
    config: ConfigDict, parse: Callable[[str, dict], dict], read: Callable[[str], Rows] = read_rows, spare: int = 0
) -> list[dict]:
    """The questions of `config.data`, each with shots from `config.shots_data`.

    Shots are drawn by `config.seed` as lm-eval draws them: anew for each question in turn, or once for all where
    `config.same_shots` is set. A question is never among its own shots.

    Args:
      parse: from (place, row) to `question`; a row's own "id" is kept, else its index is the id.
      read: from a path to rows.
      spare: see `shots.draw`.

    Raises:
      FileNotFoundError, ValueError: one line with the place or the key.
    """

    check(config)
    items = shots.read_questions(config.data, parse, read)[: config.limit or None]
    count = config.get("shots", 0)
    if not count:
        return [{**item, "shots": []} for item in items]
    pool = shots.read_questions(config.shots_data, parse, read)
    spare = max(spare, config.shots_data == config.data)
    random = Random(config.seed)
    where = f"config.shots_data={config.shots_data!r}"

    def drawn(item: dict) -> list[dict]:
        return shots.draw(random, pool, count, spare, functools.partial(_same, item), where)

    if not config.same_shots:
        return [{**item, "shots": [_worked(shot) for shot in drawn(item)]} for item in items]
    # One more than all share, for the questions that are among them.
    common = random.sample(pool, min(count + 1, len(pool)))

    def shared(item: dict) -> list[dict]:
        others = [shot for shot in common if not _same(item, shot)][:count]
        return others if len(others) == count else drawn(item)

    return [{**item, "shots": [_worked(shot) for shot in shared(item)]} for item in items]


def _same(one: dict, other: dict) -> bool:
    return one["prompt"] == other["prompt"] and one["choices"] == other["choices"]


def _worked(shot: dict) -> str:
    return f"{shot['prompt']} {shot['choices'][shot['gold']]}\n\n"


def text(item: dict) -> str:
    """The question's own words: what contamination looks for in training data."""
    return "\n".join([item["question"], *item["choices"]])


def encoded(engine: AnyEngine, item: dict, config: ConfigDict) -> tuple[Sample, list[Pair]]:
    """The sample so far and the pairs of one question, with as many of its shots as fit the model's context.

    In the sample "shots" is how many those are; -1 where the question itself had to be cut.
    """
    header, ending = item.get("header", ""), item["prompt"]

    def encode(worked: Iterable[str]) -> list[Pair]:
        return encode_choices(engine, "".join([header, *worked, ending]), item["choices"], config.chat)

    # The last token of a choice is only scored, the model need not read it.
    pairs, fitting = with_shots_that_fit(item["shots"], encode, engine.config.max_position_embeddings + 1)
    sample = {key: item[key] for key in ("id", "subject", "choices", "gold") if key in item}
    prompt = "".join([header, *item["shots"][: max(0, fitting)], ending])
    return {**sample, "prompt": prompt, "shots": fitting}, pairs


def ask(engine: AnyEngine, items: list[dict], config: ConfigDict, on_sample: Callable[[Sample], None]) -> None:
    """Scores every choice of every question and hands on each question as soon as its last choice is scored.

    A sample has "prediction" and "prediction_normalised" (indices), "correct" and "correct_normalised", "logprobs"
    (summed, one a choice, in order) and "tokens" (of all choices, each with its context). Of equal choices the first
    wins.
    """
    drafts, requests = [], []
    for item in progress(items, desc="tokenising", unit="question"):
        sample, pairs = encoded(engine, item, config)
        drafts.append((sample, sum(len(context) + len(continuation) for context, continuation in pairs)))
        # As lists of Python's ints all contexts of MMLU would fill half a gigabyte.
        first = array("i", pairs[0][0])
        requests += [ScoreRequest(first if ids is pairs[0][0] else ids, continuation) for ids, continuation in pairs]

    def on_item(index: int, scores: list[Score]) -> None:
        sample, tokens = drafts[index]
        judged = judge(sample["choices"], sample["gold"], [score.logprob for score in scores])
        on_sample({**sample, **judged, "tokens": tokens})

    engine.score(requests, on_result=by_item([len(sample["choices"]) for sample, _ in drafts], on_item))


def judge(choices: list[str], gold: int, logprobs: list[float]) -> Sample:
    """The choice taken by sum and by sum per character (lm-eval's acc and acc_norm), and whether it is right."""
    best = int(np.argmax(logprobs))
    best_normalised = int(np.argmax(np.array(logprobs) / [max(1, len(choice)) for choice in choices]))
    return {
        "prediction": best,
        "correct": best == gold,
        "prediction_normalised": best_normalised,
        "correct_normalised": best_normalised == gold,
        "logprobs": [round(float(logprob), 6) for logprob in logprobs],
    }


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """Accuracy by summed log-likelihood and by that per character, calibration, and what guessing would give."""
    return {
        "metrics": {
            "accuracy": statistics.proportion([sample["correct"] for sample in samples]),
            "accuracy_normalised": statistics.proportion([sample["correct_normalised"] for sample in samples]),
            "calibration_error": calibration_error(samples, config.calibration_bins),
        },
        "chance": float(np.mean([1 / len(item["choices"]) for item in items])),
        "counts": counts(samples, items),
    }


def counts(samples: list[Sample], items: list[dict]) -> dict[str, int]:
    """What did not fit the model's context; `samples` and `items` stand in the same order."""
    dropped = [len(item["shots"]) - max(0, sample["shots"]) for sample, item in zip(samples, items, strict=True)]
    return {
        "questions_with_fewer_shots": sum(count > 0 for count in dropped),
        "shots_dropped": sum(dropped),
        "questions_cut": sum(sample["shots"] < 0 for sample in samples),
    }


def calibration_error(samples: list[Sample], bins: int) -> statistics.Estimate:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3) over bins of equal width.

    The mean over questions of |share right - mean confidence| of the bin that a question's confidence falls into; the
    error of it is bootstrapped over questions. It cannot be negative, so chance alone makes it larger than 0, the more
    the fewer questions a bin has.

    Args:
      samples: with "logprobs" and "correct"; the confidence is the largest share of a softmax over "logprobs".
      bins: (k / bins, (k + 1) / bins] for k from 0.
    """
    confidence = np.array([softmax(sample["logprobs"]).max() for sample in samples])
    correct = np.array([sample["correct"] for sample in samples], np.float64)
    places = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1)

    def error(rows: np.ndarray) -> float:
        return float(np.abs(np.bincount(rows[:, 0].astype(int), rows[:, 1])).sum() / len(rows))

    return statistics.bootstrap(error, np.stack([places, correct - confidence], axis=1))
