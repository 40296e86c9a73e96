"""The dialogue file: JSON Lines, `{"id", "source", "messages": [{"role", "content"}, ...]}`, further keys untouched."""

from collections.abc import Iterator

from imitation_jax.data import rows
from imitation_jax.data.rows import Rejected

ROLES = ("system", "user", "assistant")


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
            raise ValueError(f'unknown role "{str(role)[:40]}"' if role is not None else "a message without a role")
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


def accepted(where: str, dialogue: dict) -> dict | Rejected:
    """`dialogue` if it passes `check`, else the same set aside with the reason."""
    try:
        check(dialogue)
    except ValueError as error:
        return Rejected(where, dialogue.get("id"), str(error), dialogue)
    return dialogue


def read(path: str, max_bytes: int = rows.MAX_BYTES) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) for each row of a dialogue file, in order.

    A row without `id` or `source`, as other trainers accept it, gets its place and the file's name.
    """
    name = str(path).rstrip("/").rsplit("/", 1)[-1]
    for where, row in rows.read(path, max_bytes):
        if isinstance(row, dict):
            row = accepted(where, {"id": f"{name}{where[len(str(path)) :]}", "source": name} | row)
        yield where, row
