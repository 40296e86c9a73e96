"""Drops dialogues with one of some phrases in an answer: refusals and moralising, by default."""

import functools
from types import SimpleNamespace

from ml_collections import ConfigDict

from imitation_jax.data.cleaning import phrases


def get_config() -> ConfigDict:
    """What a data config holds under `config.keywords`."""
    config = ConfigDict()
    # A file with a phrase a line; empty takes keywords.txt beside this module, the list of the lineage's "unfiltered"
    # sets.
    config.phrases = ""
    return config


def make(settings: SimpleNamespace) -> functools.partial:
    """The step. Raises OSError where the phrases cannot be read."""
    return functools.partial(_apply, keywords=phrases.load(settings.phrases, "keywords.txt"))


def _apply(dialogue: dict, keywords: tuple[str, ...]) -> dict | str:
    for text in phrases.answers(dialogue):
        if phrase := phrases.first_of(keywords, text):
            return f"keyword: {phrase}"
    return dialogue
