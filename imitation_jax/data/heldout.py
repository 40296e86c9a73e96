"""Held-out evaluation prompts, as in the paper: English, not coding, and near no query of the training set by BLEU.

`select` writes a folder: prompts.jsonl, the chosen ones in the order of the input (`id`, `messages`, and `nearest`, the
training query that is nearest); rejected.jsonl, every other row with its reason; and selection.json, the counts.
"""

import collections
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.core import json_rows
from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.files import new_folder
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import categories, dialogues, sources
from imitation_jax.data.cleaning import language
from imitation_jax.data.input import token_cache
from imitation_jax.data.nearest import against
from imitation_jax.data.prompt_files import read_prompts


def get_config() -> ConfigDict:
    """What a config of `prepare` holds that selects prompts."""
    config = ConfigDict()
    # Comma-separated paths or patterns of files of prompts (`id` with `messages` or `instruction`; .txt: one a line).
    config.input = ""
    # What the models that are evaluated were trained on: comma-separated folders that prepare wrote, or dialogue files.
    config.training = ""
    # How many to select (the paper: 255), and the seed that draws them from all that fit.
    config.n = 255
    config.seed = 0
    # A prompt with a larger BLEU (percent) with any training query is too near.
    config.most_bleu = 20.0
    config.max_row_bytes = json_rows.MAX_BYTES
    config.language = language.get_config()
    # Prompts are shorter than the turns of dialogues.
    config.language.least_letters = 8
    return config


def select(config: ConfigDict, output: str) -> dict:
    """Selects `config.n` prompts, writes the folder `output`, and returns what is in its selection.json.

    A prompt of several user turns is looked at as a whole for its language, and turn by turn for coding and BLEU. The
    folder appears when it is whole, see `core.files.new_folder`.

    Raises:
      FileNotFoundError: a path that names no file.
      ValueError: `output` exists, a training set without a user turn, or fewer than `config.n` prompts that fit.
    """
    if config.n < 1:
        raise ValueError(f"config.n={config.n}: select at least one prompt")
    language.check(config.language)
    files = sources.input_files(config.input)
    with new_folder(output) as part:
        items, selection = _selected(files, config)
        _write(items, selection, part)
        fitting = selection["fitting"]
        if fitting < config.n:
            raise ValueError(
                f"only {fitting} of {len(items)} rows in {config.input} fit, {config.n} are wanted: give more prompts "
                f"or --config.n={fitting} (see {part / 'rejected.jsonl'})"
            )
    logging.info("%d rows -> %d fit, %d drawn: %s", len(items), fitting, config.n, output)
    return selection


def _selected(files: Sequence[str], config: ConfigDict) -> tuple[list[tuple[str, dict | Rejected]], dict]:
    """Every row of the files, chosen or set aside, and the counts."""
    training = _training(config.training)
    items = _candidates(files, config)
    places = [place for place, (_, item) in enumerate(items) if not isinstance(item, Rejected)]
    turns = [(place, text) for place in places for text in _asked(items[place][1])]
    logging.info("%d prompts against %d training queries", len(places), len(training))
    nearest = against([text for _, text in turns], list(training))
    ids = list(training.values())
    for (place, _), bleu, at in zip(turns, *nearest, strict=True):
        prompt = items[place][1]
        if bleu > prompt.setdefault("nearest", {"bleu": 0.0, "id": None})["bleu"]:
            prompt["nearest"] = {"bleu": float(bleu), "id": ids[at]}
    fitting = [place for place in places if items[place][1]["nearest"]["bleu"] <= config.most_bleu]
    fits = set(fitting)
    drawn = set(random.Random(config.seed).sample(fitting, min(config.n, len(fitting))))
    for place in set(places) - drawn:
        where, prompt = items[place]
        why = "near a training query: BLEU {bleu:.2f} with {id}".format_map(prompt["nearest"])
        why = "fits, but was not drawn" if place in fits else why
        items[place] = where, Rejected(where, prompt["id"], why, prompt)

    reasons = collections.Counter(
        item.reason.partition(": ")[0] for _, item in items if isinstance(item, Rejected)
    ).most_common()
    selection = {
        "input": files,
        "training": config.training,
        "training_queries": len(training),
        "rows": len(items),
        "selected": len(drawn),
        "fitting": len(fitting),
        "reasons": dict(reasons),
        "settings": {key: value for key, value in config.to_dict().items() if key not in ("input", "training")},
    }
    return items, selection


def _training(paths: str) -> dict[str, str]:
    """User turn -> id of the first dialogue that has it, of all training sets."""
    names = comma_list(paths)
    if not names:
        raise ValueError("config.training is empty: give --config.training=DATASET, the data that was trained on")
    queries: dict[str, str] = {}
    for name in names:
        before = len(queries)
        for _, dialogue in token_cache.read(name):
            if not isinstance(dialogue, Rejected):
                for text in _asked(dialogue):
                    queries.setdefault(text, dialogue["id"])
        if len(queries) == before:
            raise ValueError(f"config.training: {name} has no user turn; give a folder that prepare wrote")
    return queries


def _candidates(files: Sequence[str], config: ConfigDict) -> list[tuple[str, dict | Rejected]]:
    """Every row of the files, set aside where that is known without the training set."""
    first: dict[tuple[str, ...], str] = {}
    seen: set[str] = set()
    items = []
    for where, item in itertools.chain.from_iterable(read_prompts(path, config.max_row_bytes) for path in files):
        if isinstance(item, dict):
            item = dialogues.with_own_id(item, seen)
            if why := _unfit(item, first, config.language):
                item = Rejected(where, item["id"], why, item)
        items.append((where, item))
    return items


def _unfit(prompt: dict, first: dict[tuple[str, ...], str], settings: ConfigDict) -> str:
    """Why a prompt does not fit whatever the training set, or ""; notes in `first` the prompts that came."""
    texts = tuple(_asked(prompt))
    before = first.setdefault(texts, prompt["id"])
    if before != prompt["id"]:
        return f"came before: {before}"
    if any(map(categories.is_coding, texts)):
        return "coding"
    spoken = language.of_turn("\n".join(texts), settings)
    return "" if spoken == settings.keep else f"language: {spoken or 'tells none'}"


def _asked(dialogue: dict) -> Iterator[str]:
    return (message["content"] for message in dialogue["messages"] if message["role"] == "user")


def _write(items: Sequence[tuple[str, dict | Rejected]], selection: dict, folder: Path) -> None:
    with (
        open(folder / "prompts.jsonl", "w", encoding="utf-8") as good,
        open(folder / "rejected.jsonl", "w", encoding="utf-8") as bad,
    ):
        for _, item in items:
            if isinstance(item, Rejected):
                bad.write(item.line())
            else:
                good.write(json_rows.line(item))
    (folder / "selection.json").write_text(json.dumps(selection, indent=2) + "\n", encoding="utf-8")
