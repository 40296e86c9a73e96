"""Drops dialogues with an answer that is the service's error, such as its rate limit."""

import functools
from types import SimpleNamespace

from ml_collections import ConfigDict

from imitation_jax.data.cleaning import phrases


def get_config() -> ConfigDict:
    """What a data config holds under `config.error_replies`."""
    config = ConfigDict()
    # A file with a phrase a line; empty takes error_replies.txt beside this module.
    config.phrases = ""
    # A longer answer speaks about errors, it is none.
    config.most_characters = 300
    return config


def make(settings: SimpleNamespace) -> functools.partial:
    """The step. Raises OSError where the phrases cannot be read."""
    errors = phrases.load(settings.phrases, "error_replies.txt")
    return functools.partial(_apply, errors=errors, most_characters=settings.most_characters)


def _apply(dialogue: dict, errors: tuple[str, ...], most_characters: int) -> dict | str:
    for text in phrases.answers(dialogue):
        if len(text) <= most_characters and (phrase := phrases.first_of(errors, text)):
            return f"error reply: {phrase}"
    return dialogue
