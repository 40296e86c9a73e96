"""Alpaca-style files: rows with `instruction`, `input` and `output` -> dialogues of one question and one answer."""

from collections.abc import Iterable, Iterator

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues
from imitation_jax.data.prompt_files import with_input

KEYS = ("id", "source", "messages", "instruction", "input", "output")


def read(paths: Iterable[str], max_bytes: int = json_rows.MAX_BYTES) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) for each row of the files, in order, exactly one for each.

    The user's turn is the instruction and, after an empty line, the input if there is one.

    Args:
      paths: JSON lists or JSON Lines, gzipped or not.
      max_bytes: longer rows are set aside.
    """
    return dialogues.converted(paths, _dialogues, max_bytes)


def _dialogues(where: str, row: dict) -> list[dict]:
    for key in ("instruction", "output"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise ValueError(f"no text under '{key}'")
    if not isinstance(row.get("input", ""), str | None):
        raise ValueError("an 'input' that is not text")
    messages = [
        {"role": "user", "content": with_input(row["instruction"], row.get("input"))},
        {"role": "assistant", "content": row["output"]},
    ]
    source = row["source"] if isinstance(row.get("source"), str) else "alpaca"
    dialogue = {"id": dialogues.id_of(where, row.get("id")), "source": source, "messages": messages}
    return [dialogue | {key: value for key, value in row.items() if key not in KEYS}]
