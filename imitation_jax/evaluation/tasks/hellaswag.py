"""HellaSwag (Zellers et al. 2019, arXiv 1905.07830): which of four endings goes on with a description of an event.

Contexts and endings are cleaned as lm-evaluation-harness cleans them. Reads the published rows {"activity_label",
"ctx_a", "ctx_b", "endings", "label"}, tfds' rows, which have `context` in place of the two parts, and rows {"query",
"choices", "gold"}.
"""

import functools
import re

from imitation_jax.evaluation import choices

BRACKETS = re.compile(r"\[.*?\]")
DEFINITIONS = {
    "prompt": "{activity_label}: {ctx_a} {ctx_b with a capital}; of tfds {activity_label}: {context}, letters kept",
    "cleaned": "stripped, ' [title]' to '. ', [...] left out, double spaces to single ones",
    **choices.DEFINITIONS,
}

NAMES = ("hellaswag",)
KEYS = choices.KEYS | choices.SHOTS
ROWS, FULL_SIZE = (), {}

NEEDS, PAIRED = choices.NEEDS, choices.PAIRED
ask, summarise, text = choices.ask, choices.summarise, choices.text


def clean(words: str) -> str:
    """Without the marks that WikiHow's pages left behind."""
    return BRACKETS.sub("", words.strip().replace(" [title]", ". ")).replace("  ", " ")


def parse(where: str, row: dict) -> dict:
    """See `choices.question`."""
    if "query" in row:
        return choices.worded(where, row, ending="")
    keys = ("activity_label", "context") if "context" in row else ("activity_label", "ctx_a", "ctx_b")
    label, *context = (row.get(key) for key in keys)
    endings = row.get("endings")
    if not all(isinstance(part, str) for part in (label, *context)):
        raise ValueError(f"{where}: needs texts under {', '.join(keys)}")
    if not isinstance(endings, list) or not all(isinstance(ending, str) for ending in endings):
        raise ValueError(f"{where}: needs a list of texts under 'endings'")
    if len(context) == 2:
        context[1] = context[1].capitalize()
    prompt = clean(f"{label}: {' '.join(context)}")
    return choices.question(where, prompt, prompt, [clean(ending) for ending in endings], row.get("label"))


read = functools.partial(choices.read_items, parse=parse, spare=1)
