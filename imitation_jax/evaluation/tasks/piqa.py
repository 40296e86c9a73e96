"""PIQA (Bisk et al. 2020, arXiv 1911.11641): which of two ways reaches a goal in the physical world.

The prompt is lm-evaluation-harness's. Reads rows {"goal", "sol1", "sol2", "label"}; the published files, whose labels
stand in `NAME-labels.lst` beside `NAME.jsonl`; and rows {"query", "choices", "gold"}.
"""

import functools

from etils import epath

from imitation_jax.data.benchmark_rows import Rows, read_lines, read_rows
from imitation_jax.evaluation import choices

DEFINITIONS = {"prompt": "Question: {goal}\nAnswer:", **choices.DEFINITIONS}

NAMES = ("piqa",)
KEYS = choices.KEYS | choices.SHOTS
ROWS, FULL_SIZE = (), {}

NEEDS, PAIRED = choices.NEEDS, choices.PAIRED
ask, summarise, text = choices.ask, choices.summarise, choices.text


def read_labelled(path: str) -> Rows:
    """See `benchmark_rows.read_rows`; with the labels of the file beside it where there is one.

    Raises:
      FileNotFoundError, ValueError: one line with the place, also where the two files differ in length.
    """
    rows = read_rows(path)
    labels_path = path.removesuffix(".jsonl") + "-labels.lst"
    if not path.endswith(".jsonl") or not epath.Path(labels_path).expanduser().exists():
        return rows
    labels = read_lines(labels_path)
    if len(labels) != len(rows):
        raise ValueError(f"{labels_path}: {len(labels)} labels for the {len(rows)} rows of {path}")
    return [(where, {**row, "label": label}) for (where, row), (_, label) in zip(rows, labels, strict=True)]


def parse(where: str, row: dict) -> dict:
    """See `choices.question`."""
    if "query" in row:
        return choices.worded(where, row)
    goal = row.get("goal")
    prompt = f"Question: {goal}\nAnswer:"
    return choices.question(where, goal, prompt, [row.get("sol1"), row.get("sol2")], row.get("label"))


read = functools.partial(choices.read_items, parse=parse, read=read_labelled, spare=1)
