"""ARC, Easy and Challenge (Clark et al. 2018, arXiv 1803.05457): science questions for grade schools, without a text.

The prompt is lm-evaluation-harness's. Reads Hugging Face's and tfds' rows {"id", "question", "choices": {"text",
"label"}, "answerKey"}, and rows {"query", "choices", "gold"}.
"""

import functools

from imitation_jax.evaluation import choices
from imitation_jax.evaluation.task import Row, correct

DEFINITIONS = {"prompt": "Question: {question}\nAnswer:", **choices.DEFINITIONS}

NAMES = ("arc_easy", "arc_challenge")
KEYS = choices.KEYS | choices.SHOTS
ROWS = (Row("knowledge", "arc_easy", "accuracy", "ARC-Easy, %", sample_value=correct, order=30),)
FULL_SIZE = {"arc_easy": 2376, "arc_challenge": 1172}

NEEDS, PAIRED = choices.NEEDS, choices.PAIRED
ask, summarise, text = choices.ask, choices.summarise, choices.text


def parse(where: str, row: dict) -> dict:
    """See `choices.question`."""
    if "query" in row:
        return choices.worded(where, row)
    options, words = row.get("choices"), row.get("question")
    if not isinstance(options, dict) or not all(isinstance(options.get(key), list) for key in ("text", "label")):
        raise ValueError(f"{where}: needs lists 'text' and 'label' under 'choices'")
    if row.get("answerKey") not in options["label"]:
        raise ValueError(f"{where}: 'answerKey' {row.get('answerKey')!r} is none of the labels {options['label']}")
    gold = options["label"].index(row["answerKey"])
    return choices.question(where, words, f"Question: {words}\nAnswer:", options["text"], gold)


read = functools.partial(choices.read_items, parse=parse)
