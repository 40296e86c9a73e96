"""LAMBADA (Paperno et al. 2016, arXiv 1606.06031): the last word of a passage that only its whole context tells.

As in lm-evaluation-harness the word is everything behind the last space, and it is right where greedy decoding would
write all its tokens. Reads rows {"text"} (Hugging Face), {"passage"} (tfds) and {"context", "continuation"}.
"""

import math
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import DATA, Key, Keys
from imitation_jax.core.progress import progress
from imitation_jax.data.benchmark_rows import read_rows
from imitation_jax.evaluation import choices, statistics
from imitation_jax.evaluation.config import CHAT, OF_MODEL
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.task import AnyEngine, Needs
from imitation_jax.inference.requests import Score, ScoreRequest

DEFINITIONS = {
    "scored": "' ' + the last word after the passage; in chat the word as the assistant's turn",
    "perplexity": "exp of minus the mean log-likelihood of the words, all tokens of a word together",
}
NAMES, NEEDS, PAIRED = ("lambada",), Needs.MODEL, ("correct",)
KEYS = OF_MODEL | CHAT | Keys(data=Key("", "file of the passages", DATA))
ROWS, FULL_SIZE = (), {}


def read(config: ConfigDict) -> list[dict]:
    """The passages of `config.data`.

    Raises:
      FileNotFoundError, ValueError: one line with the place.
    """
    items = []
    for index, (where, row) in enumerate(read_rows(config.data)[: config.limit or None]):
        passage = row.get("text", row.get("passage"))
        if isinstance(passage, str):
            context, _, word = passage.rstrip("\n").rpartition(" ")
        else:
            context, word = row.get("context"), row.get("continuation")
        if not all(isinstance(part, str) and part.strip() for part in (context, word)):
            raise ValueError(f"{where}: needs a 'text' (or 'passage') of two words, or 'context' and 'continuation'")
        items.append({"id": str(index), "prompt": context, "choices": [word], "gold": word, "shots": []})
    return items


def text(item: dict) -> str:
    """The passage: what contamination looks for in training data."""
    return f"{item['prompt']} {item['gold']}"


def ask(engine: AnyEngine, items: list[dict], config: ConfigDict, on_sample: Callable[[Sample], None]) -> None:
    """Scores every last word; a sample's "prediction" is that word, or None where the model would write another."""
    drafts, requests = [], []
    for item in progress(items, desc="tokenising", unit="passage"):
        sample, [(context, word)] = choices.encoded(engine, item, config)
        drafts.append({**sample, "tokens": len(context) + len(word)})
        requests.append(ScoreRequest(context, word))

    def collect(index: int, score: Score) -> None:
        draft = drafts[index]
        prediction = draft["gold"] if score.greedy else None
        on_sample({**draft, "prediction": prediction, "correct": score.greedy, "logprobs": [round(score.logprob, 6)]})

    engine.score(requests, on_result=collect)


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """Accuracy, perplexity with its bootstrapped error, and how many passages had to be cut."""
    logprobs = np.array([sample["logprobs"][0] for sample in samples])
    return {
        "metrics": {
            "accuracy": statistics.proportion([sample["correct"] for sample in samples]),
            "perplexity": statistics.bootstrap(lambda rows: math.exp(-rows.mean()), logprobs),
        },
        "counts": {"passages_cut": choices.counts(samples, items)["questions_cut"]},
    }
