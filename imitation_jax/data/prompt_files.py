"""Files of prompts: what a teacher is asked, what evaluation prompts are chosen from, what a student answers.

A row is JSON with `messages` (a dialogue, asked at its last user turn) or a text under `instruction`, `prompt` or
`text` (with alpaca's `input` after it), in JSON Lines or a JSON list; or a line of a text file (.txt). All may be .gz.
"""

import re
from collections.abc import Iterator

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues

TEXT_KEYS = ("instruction", "prompt", "text")
ID_KEYS = ("id", "question_id")


def is_text(path: str) -> bool:
    """Whether each line of the file is a prompt as it stands."""
    return str(path).removesuffix(".gz").endswith(".txt")


def read_prompts(path: str, max_bytes: int = json_rows.MAX_BYTES) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, {"id", "messages"} or Rejected) for each row of the file, in order, exactly one for each.

    `messages` is a dialogue that lacks only its last answer. A row without an id gets its place, `FILE:LINE` or
    `FILE[INDEX]` without folders. An id that came before gets "#2", "#3", ... and stands under `original_id`.

    Args:
      path: a local path or a bucket's.
      max_bytes: longer rows are set aside.

    Raises:
      OSError: the file cannot be opened or read.
    """
    seen: set[str] = set()
    read = json_rows.read_lines if is_text(path) else json_rows.read
    for where, row in read(path, max_bytes):
        if isinstance(row, Rejected):
            yield where, row
            continue
        given = {"text": row} if isinstance(row, str) else row
        key = next((key for key in ID_KEYS if key in given), "id")
        try:
            messages = messages_of(given)
            dialogues.check({"messages": [*messages, {"role": "assistant", "content": "its answer"}]})
        except ValueError as error:
            yield where, Rejected(where, given.get(key), str(error), row)
        else:
            prompt = {"id": dialogues.id_of(where, given.get(key)), "messages": messages}
            yield where, dialogues.with_own_id(prompt, seen)


def messages_of(row: dict) -> list[dict]:
    """What is asked: the messages up to and with the last user turn, or the text as one user turn.

    Raises:
      ValueError: in one line, what the row lacks.
    """
    if "messages" in row:
        return _up_to_last_user(row["messages"])
    text = next((row[key] for key in TEXT_KEYS if key in row), None)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"needs a text under {', '.join(TEXT_KEYS)}, or 'messages'")
    return [{"role": "user", "content": with_input(text, row.get("input"))}]


def with_input(instruction: str, about: object) -> str:
    """The instruction, and after an empty line what it is about, which alpaca's format keeps apart."""
    return f"{instruction}\n\n{about}" if isinstance(about, str) and about.strip() else instruction


def _up_to_last_user(messages: object) -> list[dict]:
    good = isinstance(messages, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    )
    if not good:
        raise ValueError("'messages' must be a list of objects with texts under 'role' and 'content'")
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        raise ValueError("'messages' holds no user turn to answer")
    return [{"role": m["role"], "content": m["content"]} for m in messages[: users[-1] + 1]]


def fill(template: str, **values: object) -> str:
    """The template with its {names} replaced; other braces stay.

    Raises:
      ValueError: a name is missing in it.
    """
    for name in values:
        if f"{{{name}}}" not in template:
            raise ValueError(f"config.prompt: must hold {{{name}}}")
    return re.sub("|".join(rf"\{{{name}\}}" for name in values), lambda match: str(values[match[0][1:-1]]), template)
