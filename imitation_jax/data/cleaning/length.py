"""Drops dialogues that are too short or too long, in characters or tokens and in turns."""

import functools
from types import SimpleNamespace

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What a data config holds under `config.length`."""
    config = ConfigDict()
    # A tokenizer (folder or file): then tokens are counted, of all turns, else characters. 0 is no limit.
    config.tokenizer = ""
    config.least = 0
    config.most = 0
    config.least_turns = 0
    config.most_turns = 0
    return config


def make(settings: SimpleNamespace) -> functools.partial:
    """The step. Raises OSError or ValueError where the tokenizer cannot be read."""
    if settings.tokenizer:
        _tokenizer(settings.tokenizer)
    return functools.partial(_apply, settings=settings)


def _apply(dialogue: dict, settings: SimpleNamespace) -> dict | str:
    texts = [message["content"] for message in dialogue["messages"]]
    turns = sum(message["role"] != "system" for message in dialogue["messages"])
    if turns < settings.least_turns or 0 < settings.most_turns < turns:
        return f"{'few' if turns < settings.least_turns else 'many'} turns: {turns}"
    if not (settings.least or settings.most):
        return dialogue
    if settings.tokenizer:
        size, unit = sum(map(len, _tokenizer(settings.tokenizer).encode_batch(texts))), "tokens"
    else:
        size, unit = sum(map(len, texts)), "characters"
    if size < settings.least or 0 < settings.most < size:
        return f"too {'short' if size < settings.least else 'long'}: {size:,} {unit}"
    return dialogue


@functools.cache
def _tokenizer(path: str):
    from imitation_jax.tokenizers.tokenizer import load_tokenizer

    return load_tokenizer(path)
