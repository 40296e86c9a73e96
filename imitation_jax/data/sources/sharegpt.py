"""ShareGPT dumps: rows with `conversations` (or `items`, `messages`) of turns `{"from", "value"}` -> dialogues."""

from collections.abc import Iterable, Iterator

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues
from imitation_jax.data.sources.web_markdown import to_markdown

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "system": "system",
}
TURNS = ("conversations", "items", "messages")
COUNTS = {"html": "html_turns", "artefacts": "artefact_turns"}
OWN_KEYS = (
    "id",
    "source",
    "messages",
    "leading_turn_dropped",
    *COUNTS.values(),
)  # a row's own would overwrite what is made here


def read(paths: Iterable[str], max_bytes: int = json_rows.MAX_BYTES) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) for each row of the dumps, in order, exactly one for each.

    Dumps repeat ids, so a row is known by its place: the second dialogue with an id gets one of its own and keeps
    the dump's under `original_id`. A dialogue whose first turn is the model's (the later part of a thread that the
    dump split) loses that turn, as in the lineage's cleaning, and says so under `leading_turn_dropped`. Turns of HTML
    become markdown and the page's artefacts go, see `web_markdown.to_markdown`; `html_turns` and `artefact_turns` say
    how many turns changed, if any.

    Args:
      paths: JSON lists or JSON Lines, gzipped or not.
      max_bytes: longer rows are set aside.
    """
    return dialogues.converted(paths, lambda where, row: [_dialogue(where, row)], max_bytes)


def _dialogue(where: str, row: dict) -> dict:
    """`row` with the dialogue file's keys, roles and nothing else changed; not checked."""
    key = next((key for key in TURNS if key in row), None)
    turns = row.get(key) if key else None
    messages = [_message(turn) for turn in turns] if isinstance(turns, list) else []
    dialogue = {"id": dialogues.id_of(where, row.get("id"))}
    dialogue["source"] = row["source"] if isinstance(row.get("source"), str) else "sharegpt"
    dialogue["messages"] = messages
    first = 1 if messages and _role(messages[0]) == "system" else 0
    if _role(messages[first] if len(messages) > first else None) == "assistant":
        del messages[first]
        dialogue["leading_turn_dropped"] = True
    whole = [message for message in messages if isinstance(message, dict)]
    texts, changed = to_markdown([(message["role"], message["content"]) for message in whole])
    for message, text in zip(whole, texts, strict=True):
        message["content"] = text
    dialogue |= {COUNTS[name]: count for name, count in changed.items()}
    return dialogue | {name: value for name, value in row.items() if name not in (key, *OWN_KEYS)}


def _message(turn) -> dict:
    if not isinstance(turn, dict):
        return turn
    role = turn.get("from", turn.get("role"))
    message = {"role": ROLES.get(role, role) if isinstance(role, str) else role}
    message["content"] = turn.get("value", turn.get("content"))
    return message | {name: value for name, value in turn.items() if name not in ("from", "role", "value", "content")}


def _role(message) -> str | None:
    return message.get("role") if isinstance(message, dict) else None
