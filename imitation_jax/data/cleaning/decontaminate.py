"""Drops dialogues that hold 13 words in a row of an evaluation item, or the whole of one of 8 to 12 words."""

import functools
from types import SimpleNamespace

from ml_collections import ConfigDict

from imitation_jax.data import evaluation_items, ngrams


def get_config() -> ConfigDict:
    """What a data config holds under `config.decontaminate`."""
    config = ConfigDict()
    # Evaluation data, comma-separated: JSON Lines, JSON lists, CSV with a header, tfds:NAME:SPLIT.
    config.files = ""
    # An item's text is what it holds under these keys.
    config.text_keys = (
        "prompt,instruction,question,query,problem,context,passage,text,choices,choice0,choice1,choice2,choice3"
    )
    return config


def make(settings: SimpleNamespace) -> functools.partial:
    """The step.

    Raises:
      FileNotFoundError, ValueError: no such file, or an item without a text.
    """
    if not settings.files:
        raise ValueError("config.decontaminate.files is empty: give the evaluation data, or leave out the step")
    return functools.partial(_apply, items=_Items(evaluation_items.texts_of_files(settings.files, settings.text_keys)))


def _apply(dialogue: dict, items: "_Items") -> dict | str:
    hits = items.index.find(ngrams.turns(dialogue))
    return f"evaluation item: {items.names[hits[0].items[0]]}" if hits else dialogue


class _Items:
    """The evaluation items by the names that rejects call them; each process indexes them when it first looks."""

    def __init__(self, texts: dict[str, str]):
        self.names, self._texts = list(texts), texts

    @functools.cached_property
    def index(self) -> ngrams.Ngrams:
        return ngrams.Ngrams(self._texts.values())

    def __reduce__(self):
        return _Items, (self._texts,)
