"""The raw data by their formats: the files that a config names, and one stream of all their rows."""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

from etils import epath

from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues
from imitation_jax.data.sources import alpaca, discord, hc3, messages, sharegpt

FORMATS: dict[str, ModuleType] = {
    "sharegpt": sharegpt,
    "hc3": hc3,
    "discord": discord,
    "alpaca": alpaca,
    "messages": messages,
}
WILDCARDS = "*?["


def read(files: Mapping[str, Sequence[str]], max_bytes: int) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) for each row of the files, format by format; no id comes twice."""
    if len(files) == 1:
        ((name, paths),) = files.items()
        yield from FORMATS[name].read(paths, max_bytes)
        return
    seen: set[str] = set()
    for name, paths in files.items():
        for where, item in FORMATS[name].read(paths, max_bytes):
            yield where, item if isinstance(item, Rejected) else dialogues.with_own_id(item, seen)


def input_files(paths: str, key: str = "config.input") -> list[str]:
    """The files that comma-separated paths and patterns name, each pattern's in sorted order; `key` holds them."""
    found = []
    for given in comma_list(paths):
        files = [given] if epath.Path(given).exists() else _matches(given)
        if not files:
            raise FileNotFoundError(f"{key}: no file {given}")
        if folders := [file for file in files if epath.Path(file).is_dir()]:
            raise ValueError(f"{key}: {folders[0]} is a folder; name its files, for example {folders[0]}/*.json")
        found += files
    if not found:
        raise ValueError(f"{key} is empty: give --{key}=PATH[,PATH...]")
    return found


def _matches(pattern: str) -> list[str]:
    parts = epath.Path(pattern).parts
    at = next((i for i, part in enumerate(parts) if any(mark in part for mark in WILDCARDS)), None)
    if at is None:
        return []
    return sorted(map(str, epath.Path(*parts[:at]).glob("/".join(parts[at:]))))
