"""TL;DR summaries (the paper's local imitation task): one greedy summary a passage, against a written one, by ROUGE.

Rows hold the passage under `document` (XSum), `article` (CNN/DailyMail), `content` (Webis-TLDR-17), `prompt`
(OpenAI's and TRL's TL;DR sets) or `passage`, and the summary under `summary`, `highlights`, `label` or `completion`.
What such a `prompt` asks for itself (TL;DR: at its end, an instruction before it) is taken off, and an end-of-text mark
off the summary, so that `config.prompt`, with {passage} in it, alone decides what is asked.

ROUGE (Lin 2004) is the F-measure of the package rouge-score, words stemmed: rouge1, rouge2, rougeL over the whole text,
and rougeLsum, line by line, which is the ROUGE-L that papers give for CNN/DailyMail.
"""

import functools
import re
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import DATA, Key, Keys
from imitation_jax.data.passages import ASKS_AFTER, ASKS_BEFORE, PASSAGE_KEYS, passage_of
from imitation_jax.evaluation import generations, shots, statistics
from imitation_jax.evaluation.config import CHAT, OF_MODEL
from imitation_jax.evaluation.prompts import encode_prompt
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.task import AnyEngine, Needs

SUMMARY_KEYS = ("summary", "highlights", "label", "completion")
END_OF_TEXT = re.compile(r"<\|endoftext\|>\s*\Z")
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
DEFINITIONS = {
    "rouge": "rouge-score's F-measure, Porter stemmer",
    "taken_off": [ASKS_BEFORE.pattern, ASKS_AFTER.pattern, END_OF_TEXT.pattern],
    "too_long": "the passage's end is cut off",
    "words": "split at white space",
}
NAMES, NEEDS, PAIRED = ("tldr",), Needs.MODEL, ROUGE
KEYS = (
    OF_MODEL
    | CHAT
    | Keys(
        data=Key("", "file of passages and summaries", DATA),
        prompt=Key("{passage}\n\nTL;DR:", "what is asked, with {passage} in it"),
        stop=Key("\n\n", "ends a summary beside the end of the model's turn; nothing for none"),
        max_new_tokens=Key(128, "of a summary"),
    )
)
ROWS, FULL_SIZE = (), {}


def parse(where: str, row: dict) -> dict:
    """One row.

    Raises:
      ValueError: naming the place and what is wrong there.
    """
    passage_key, gold_key = (_key_of(where, row, keys) for keys in (PASSAGE_KEYS, SUMMARY_KEYS))
    passage, gold = passage_of(row, passage_key), END_OF_TEXT.sub("", row[gold_key]).strip()
    if not passage or not gold:
        key = passage_key if gold else gold_key
        raise ValueError(f"{where}: {key!r} holds nothing but an instruction or an end mark")
    return {"passage": passage, "gold": gold}


def _key_of(where: str, row: dict, keys: Sequence[str]) -> str:
    key = next((key for key in keys if key in row), None)
    if key is None:
        raise ValueError(f"{where}: needs a text under {' or '.join(keys)}")
    generations.field(where, row, key)
    return key


def read(config: ConfigDict) -> list[dict]:
    """The passages of `config.data`.

    Raises:
      FileNotFoundError, ValueError: one line with the place or the key.
    """
    if config.prompt.count("{passage}") != 1:
        raise ValueError(f"config.prompt={config.prompt!r}: must hold {{passage}} once")
    if config.max_new_tokens < 1:
        raise ValueError("config.max_new_tokens must be 1 or more")
    return shots.read_questions(config.data, parse)[: config.limit or None]


def text(item: dict) -> str:
    """The passage."""
    return item["passage"]


def fit(engine: AnyEngine, item: dict, config: ConfigDict) -> dict:
    """The item with its "header", "body" and "cut", how many of the passage's last characters do not fit the model."""
    limit, passage = generations.room(engine, config), item["passage"]
    while True:
        body = config.prompt.replace("{passage}", passage)
        excess = len(encode_prompt(engine, body, config.chat)) - limit
        if excess <= 0 or not passage:
            return {**item, "header": "", "shots": [], "body": body, "cut": len(item["passage"]) - len(passage)}
        ids, offsets = engine.tokenizer.encode_with_offsets(passage)
        passage = passage[: offsets[max(0, len(ids) - excess)][0]].rstrip()


def ask(engine: AnyEngine, items: list[dict], config: ConfigDict, on_sample: Callable[[Sample], None]) -> None:
    """Greedy summaries."""
    fitted = [fit(engine, item, config) for item in items]
    stop = (config.stop,) if config.stop else ()

    def judge(item: dict, text: str) -> Sample:
        prediction = text.strip()
        return {
            "prediction": prediction,
            "correct": None,
            **rouge(prediction, item["gold"]),
            "words": len(prediction.split()),
            "cut": item["cut"],
        }

    generations.answer(engine, fitted, config, on_sample, stop=stop, judge=judge)


def rouge(prediction: str, gold: str) -> dict[str, float]:
    """ROUGE's F-measures, 0 to 1."""
    return {name: score.fmeasure for name, score in _scorer().score(gold, prediction).items()}


@functools.cache
def _scorer():
    from rouge_score.rouge_scorer import RougeScorer  # takes a second, and other tasks do without

    return RougeScorer(ROUGE, use_stemmer=True)


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """ROUGE and lengths."""
    return {
        "metrics": {
            **{name: statistics.mean([sample[name] for sample in samples]) for name in ROUGE},
            "words": statistics.mean([sample["words"] for sample in samples]),
            "words_reference": statistics.mean([len(sample["gold"].split()) for sample in samples]),
        },
        "counts": {
            "passages_cut": sum(sample["cut"] > 0 for sample in samples),
            "answers_not_stopped": sum(sample["finish_reason"] == "length" for sample in samples),
            "answers_empty": sum(not sample["prediction"] for sample in samples),
        },
    }
