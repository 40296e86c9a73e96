"""Drops dialogues with an answer that ends in a loop."""

import functools
from types import SimpleNamespace

import numpy as np
from ml_collections import ConfigDict

from imitation_jax.data.cleaning import check_shares, phrases

WINDOW = 8  # bytes
END = 4_000  # characters of an answer that are looked at


def get_config() -> ConfigDict:
    """What a data config holds under `config.repetition`."""
    config = ConfigDict()
    # Of the runs of 8 bytes in the last 4,000 characters of an answer this share must be distinct: a loop has 1%, of
    # real answers 1 in 3,000 has less than 15%.
    config.least_distinct = 0.15
    config.least_characters = 400
    return config


def make(settings: SimpleNamespace) -> functools.partial:
    """The step. Raises ValueError where a setting cannot be."""
    check_shares("repetition", settings, "least_distinct")
    return functools.partial(_apply, settings=settings)


def _apply(dialogue: dict, settings: SimpleNamespace) -> dict | str:
    for text in phrases.answers(dialogue):
        if len(text) < settings.least_characters:
            continue
        raw = text[-END:].encode("utf-8", "surrogatepass")
        windows = np.sort(np.ndarray((len(raw) - WINDOW + 1,), "<u8", raw, strides=(1,)))
        distinct = (1 + np.count_nonzero(windows[1:] != windows[:-1])) / len(windows)
        if distinct < settings.least_distinct:
            return f"repetition: only {distinct:.1%} of an answer's end is not said before"
    return dialogue
