"""Lists of phrases, of which an answer may hold none."""

import functools
from collections.abc import Iterator, Sequence
from importlib import resources

from etils import epath


@functools.cache
def load(path: str, default: str) -> tuple[str, ...]:
    """The lines that are not empty and no comments, of the file at `path` or else of the one beside this module.

    Raises:
      OSError: no such file.
    """
    file = epath.Path(path) if path else resources.files("imitation_jax.data.cleaning") / default
    lines = map(str.strip, file.read_text(encoding="utf-8").splitlines())
    return tuple(line.casefold() for line in lines if line and not line.startswith("#"))


def answers(dialogue: dict) -> Iterator[str]:
    """What the model says in it."""
    return (message["content"] for message in dialogue["messages"] if message["role"] == "assistant")


def first_of(phrases: Sequence[str], text: str) -> str | None:
    """The first of the phrases that stands in the text, in whatever case."""
    text = text.replace("’", "'").casefold()
    return next((phrase for phrase in phrases if phrase in text), None)
