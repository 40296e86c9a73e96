"""The dialogue file: JSON Lines, `{"id", "source", "messages": [{"role", "content"}, ...]}`, further keys untouched."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator

from imitation_jax.core import json_rows
from imitation_jax.core.json_rows import Rejected

ROLES = ("system", "user", "assistant")
PLACE = re.compile(r"(:\d+|\[\d+\])( and on)?\Z")


def check(dialogue: dict) -> None:
    """Raises ValueError with a one-line reason unless `dialogue` can be trained on.

    A dialogue is an optional system message, then user and assistant in turn, beginning with the user and holding at
    least one assistant turn. It may end with the user: nothing is learnt there, but nothing is wrong either.
    """
    messages = dialogue.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("no messages")
    roles = []
    for message in messages:
        if not isinstance(message, dict):
            raise ValueError("a message that is not an object")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise ValueError(f'unknown role "{shown(role)}"' if role is not None else "a message without a role")
        if not isinstance(content, str):
            raise ValueError("content that is not text")
        if not content.strip():
            raise ValueError(f"empty {role} turn")
        try:
            content.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("content with half a surrogate pair, which UTF-8 cannot hold") from None
        roles.append(role)
    if "system" in roles[1:]:
        raise ValueError("a system message that is not the first")
    turns = [role for role in roles if role != "system"]
    for role, following in zip(turns, turns[1:], strict=False):
        if role == following:
            raise ValueError(f"two {role} turns in a row")
    if "assistant" not in turns:
        raise ValueError("no assistant turn")
    if turns[0] != "user":
        raise ValueError("starts with an assistant turn")


def shown(value: object) -> str:
    """The beginning of a value, for a message of one line."""
    return " ".join(str(value)[:40].split())


def accepted(where: str, dialogue: dict) -> dict | Rejected:
    """`dialogue` if it passes `check`, else the same set aside with the reason."""
    try:
        check(dialogue)
    except ValueError as error:
        return Rejected(where, dialogue.get("id"), str(error), dialogue)
    return dialogue


def id_of(where: str, given: object) -> str:
    """The id a row gives itself, else its place without folders."""
    return str(given) if isinstance(given, str | int) and given != "" else where.rsplit("/", 1)[-1]


def named(where: str, row: dict) -> dict:
    """`row` with an id, else its place, and a source, else its file's name, both without folders."""
    source = row["source"] if isinstance(row.get("source"), str) else PLACE.sub("", where.rsplit("/", 1)[-1])
    return {"id": None, "source": None} | row | {"id": id_of(where, row.get("id")), "source": source}


def with_own_id(dialogue: dict, seen: set[str]) -> dict:
    """`dialogue` with an id that is not in `seen` yet (and is then): a new one's old id stays as `original_id`."""
    given = dialogue["id"]
    if given not in seen:
        seen.add(given)
        return dialogue
    # Some dumps give every row the same id: its next number is looked for in steps that double, then halve.
    taken, free = 1, 2
    while f"{given}#{free}" in seen:
        taken, free = free, 2 * free
    while free - taken > 1:
        middle = (taken + free) // 2
        taken, free = (middle, free) if f"{given}#{middle}" in seen else (taken, middle)
    own = f"{given}#{free}"
    seen.add(own)
    return {"id": own, "original_id": given} | {key: dialogue[key] for key in dialogue if key != "id"}


def converted(
    paths: Iterable[str], convert: Callable[[str, dict], Iterable[dict]], max_bytes: int
) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) for what `convert` makes of each row of the files, in order.

    Rows are known by their place, as dumps repeat ids: see `with_own_id`. What is set aside is the row as it stands.

    Args:
      convert: from a row's place and the row to its dialogues, one or more, which need not be good ones; raises
        ValueError with a one-line reason where the row cannot give any.
    """
    seen: set[str] = set()
    for path in paths:
        for where, row in json_rows.read(path, max_bytes):
            if isinstance(row, Rejected):
                yield where, row
                continue
            try:
                made = list(convert(where, row))
            except ValueError as error:
                yield where, Rejected(where, row.get("id"), str(error), row)
                continue
            for dialogue in made:
                item = accepted(where, dialogue)
                if isinstance(item, Rejected):
                    given = row.get("id") if len(made) == 1 else item.id
                    yield where, dataclasses.replace(item, id=given, row=row)
                else:
                    yield where, with_own_id(item, seen)


def read(path: str, max_bytes: int = json_rows.MAX_BYTES) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) for each row of a dialogue file, in order.

    A row without `id` or `source`, as other trainers accept it, gets its place and the file's name.
    """
    for where, row in json_rows.read(path, max_bytes):
        yield where, accepted(where, named(where, row)) if isinstance(row, dict) else row
