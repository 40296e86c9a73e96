"""Dumps -> a folder of clean dialogues: dialogues.jsonl, rejected.jsonl, card/card.json and a tfds dataset."""

import collections
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from imitation_jax.data import builder, rows, sharegpt
from imitation_jax.data.rows import Rejected
from imitation_jax.progress import progress

WILDCARDS = "*?["


def prepare(config: ConfigDict, output: str) -> dict:
    """Reads `config.input`, sets aside what cannot be trained on, writes `output`, and returns its card.

    Every row of the input is in dialogues.jsonl or in rejected.jsonl. The folder appears when it is whole: what a
    killed run left, or one that kept no dialogue, lies in `output`.tmp, and the next run clears it.

    Args:
      config: `input` (comma-separated paths or patterns) and `max_row_bytes`.
      output: local folder that does not exist yet.

    Raises:
      FileNotFoundError: a path or pattern of `config.input` names no file.
      ValueError: `output` exists, or no dialogue is left.
    """
    paths = input_files(config.input)
    folder = Path(output)
    if "://" in str(output):
        raise ValueError(f"--output={output}: give a local folder; copy it to the bucket when it is whole")
    if folder.exists():
        raise ValueError(f"--output={output} exists: delete it, or give another folder")
    part = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(part, ignore_errors=True)
    (part / "card").mkdir(parents=True)
    card = _write_dialogues(sharegpt.read(paths, config.max_row_bytes), part)
    card = {"input": paths} | card
    if not card["dialogues"]:
        if not card["rows"]:
            shutil.rmtree(part)
            raise ValueError(f"no row in {config.input}: it is empty")
        reason, count = next(iter(card["reasons"].items()))
        raise ValueError(
            f"no dialogue left of {config.input}: all {card['rows']} rows were rejected, {count} of them because of: "
            f"{reason} (see {part / 'rejected.jsonl'})"
        )
    (part / "card" / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def accepted() -> Iterable[dict]:
        with open(part / "dialogues.jsonl", encoding="utf-8") as file:
            yield from progress(map(json.loads, file), total=card["dialogues"], desc="writing tfds", unit="dialogue")

    builder.build(accepted, part / "tfds")
    os.rename(part, folder)
    logging.info("%d rows -> %d dialogues, %d rejected: %s", card["rows"], card["dialogues"], card["rejected"], folder)
    return card


def input_files(paths: str) -> list[str]:
    """The files that comma-separated paths and patterns name, each pattern's in sorted order."""
    found = []
    for given in filter(None, (path.strip() for path in paths.split(","))):
        files = [given] if epath.Path(given).exists() else _matches(given)
        if not files:
            raise FileNotFoundError(f"config.input: no file {given}")
        if folders := [file for file in files if epath.Path(file).is_dir()]:
            raise ValueError(f"config.input: {folders[0]} is a folder; name its files, for example {folders[0]}/*.json")
        found += files
    if not found:
        raise ValueError("config.input is empty: give --config.input=PATH[,PATH...]")
    return found


def _matches(pattern: str) -> list[str]:
    parts = epath.Path(pattern).parts
    at = next((i for i, part in enumerate(parts) if any(mark in part for mark in WILDCARDS)), None)
    if at is None:
        return []
    return sorted(map(str, epath.Path(*parts[:at]).glob("/".join(parts[at:]))))


def _write_dialogues(read: Iterable[tuple[str, dict | Rejected]], folder: Path) -> dict:
    """Writes dialogues.jsonl and rejected.jsonl, and counts what the card tells."""
    reasons, roles, turns, characters = (collections.Counter() for _ in range(4))
    kept = leading = renamed = 0
    with (
        open(folder / "dialogues.jsonl", "w", encoding="utf-8") as good,
        open(folder / "rejected.jsonl", "w", encoding="utf-8") as bad,
    ):
        for _, item in progress(read, desc="preparing", unit="row"):
            if isinstance(item, Rejected):
                reasons[item.reason] += 1
                bad.write(item.line())
                continue
            good.write(rows.line(item))
            kept += 1
            leading += "leading_turn_dropped" in item
            renamed += "original_id" in item
            roles.update(message["role"] for message in item["messages"])
            turns[len(item["messages"])] += 1
            # Bins are powers of two, named by the first number that is in the next one.
            characters[1 << sum(len(message["content"]) for message in item["messages"]).bit_length()] += 1
    rejected = reasons.total()
    return {
        "rows": kept + rejected,
        "dialogues": kept,
        "rejected": rejected,
        "reasons": dict(reasons.most_common()),
        "leading_turns_dropped": leading,
        "repeated_ids_renamed": renamed,
        "funnel": [{"step": "read", "rows": kept + rejected}, {"step": "structure", "rows": kept}],
        "turns": dict(roles.most_common()),
        "histogram_turns_per_dialogue": {str(key): turns[key] for key in sorted(turns)},
        "histogram_characters_below": {str(key): characters[key] for key in sorted(characters)},
    }
