"""Raw data by their formats, one file each; the files that a config names, and one stream of all their dialogues.

To add one:
1. Write NAME.py here with `read(paths, max_bytes)`, which yields (where, dialogue or Rejected) for every row, in order.
2. Where a row gives dialogues by itself `dialogues.converted` does all but that: places, ids, checks, rejects.
3. Write configs/data/NAME.py, which calls `prepare.get_config("NAME")` and names the steps.
4. What `read` notes in a dialogue that it changed is counted by the card if `prepare.NOTES` has it.
5. Test it in tests/data/sources/test_NAME.py, and against damage in test_readers_fuzz.py there.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

from etils import epath
from ml_collections import ConfigDict

from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues

WILDCARDS = "*?["


def all_formats() -> dict[str, ModuleType]:
    """Every format's module by its name; read from this folder, where a format is what has `read`."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "read")}


def files_of(config: ConfigDict) -> dict[str, list[str]]:
    """Format -> files: those of `config.input`, which are of `config.format`, or those of each in `config.inputs`.

    Raises:
      FileNotFoundError, ValueError: one that names no file, an empty one, an unknown format.
    """
    # (key that names the format, key of the paths, format, paths)
    given = [(f"config.inputs.{name}",) * 2 + (name, paths) for name, paths in config.get("inputs", {}).items()]
    given = given or [("config.format", "config.input", config.format, config.input)]
    known = all_formats()
    for format_key, _, name, _ in given:
        if name not in known:
            raise ValueError(f"{format_key}: there is no format {name!r}; there are {', '.join(known)}")
    return {name: input_files(paths, key) for _, key, name, paths in given}


def read(files: Mapping[str, Sequence[str]], max_bytes: int) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, dialogue or Rejected) for each row of the files, format by format; no id comes twice."""
    formats, seen = all_formats(), set()
    for name, paths in files.items():
        rows = formats[name].read(paths, max_bytes)
        if len(files) == 1:  # whose ids are different already
            yield from rows
        else:
            for where, item in rows:
                yield where, item if isinstance(item, Rejected) else dialogues.with_own_id(item, seen)


def input_files(paths: str, key: str = "config.input") -> list[str]:
    """The files that comma-separated paths and patterns name, each pattern's in sorted order; `key` holds them."""
    names = []
    for given in comma_list(paths):
        files = [given] if epath.Path(given).exists() else _matches(given)
        if not files:
            raise FileNotFoundError(f"{key}: no file {given}")
        if folders := [file for file in files if epath.Path(file).is_dir()]:
            raise ValueError(f"{key}: {folders[0]} is a folder; name its files, for example {folders[0]}/*.json")
        names += files
    if not names:
        raise ValueError(f"{key} is empty: give --{key}=PATH[,PATH...]")
    return names


def _matches(pattern: str) -> list[str]:
    parts = epath.Path(pattern).parts
    at = next((i for i, part in enumerate(parts) if any(mark in part for mark in WILDCARDS)), None)
    if at is None:
        return []
    return sorted(map(str, epath.Path(*parts[:at]).glob("/".join(parts[at:]))))
