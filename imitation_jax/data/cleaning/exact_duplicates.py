"""Drops dialogues that ask what an earlier one asked, word for word; see `queries` for what counts."""

from types import SimpleNamespace

from ml_collections import ConfigDict

from imitation_jax.data.cleaning import queries

COMPARES = True


def get_config() -> ConfigDict:
    """What a data config holds under `config.exact_duplicates`."""
    return ConfigDict()


def make(settings: SimpleNamespace) -> "ExactDuplicates":
    """The step."""
    del settings
    return ExactDuplicates()


class ExactDuplicates:
    """Called with one dialogue after the other, gives it back or says why not; holds a digest and an id of each."""

    def __init__(self):
        self._first: dict[bytes, str] = {}

    def __call__(self, dialogue: dict) -> dict | str:
        key = queries.digest(queries.query(dialogue))
        if key in self._first:
            return reason(self._first[key])
        self._first[key] = dialogue["id"]
        return dialogue


def reason(earlier: str) -> str:
    """Why a dialogue is dropped whose query equals that of the dialogue with the id `earlier`."""
    return f"exact duplicate: same query as {earlier}"
