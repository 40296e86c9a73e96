"""The steps that clean dialogues, one file each, and the run through them.

To add one:
1. Write NAME.py here with `get_config()`, the keys under config.NAME, and `make(settings)`, which refuses settings that
   cannot be (ValueError) and returns a function: from a dialogue to the same, a changed one, or why it is dropped.
2. That reason is a phrase, then ": " and details if there are any; the data card counts the phrases.
3. Where dialogues are compared with earlier ones say COMPARES = True; to run it on Beam too, add how to beam.COMPARED.
4. Name it in `config.steps` of the configs in configs/data/ that want it.
5. Test it in tests/data/cleaning/test_NAME.py.
"""

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

from ml_collections import ConfigDict

from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.json_rows import Rejected

# What the readers set aside: rows that cannot be read, what is no dialogue of alternating roles, turns without text.
READERS = ("readable", "structure", "empty_turns")
EMPTY_TURN = re.compile(r"no messages|empty \w+ turn")


class Step(NamedTuple):
    """A step with its settings; `apply` gives back a dialogue, changed or not, or the reason why it is dropped."""

    name: str
    apply: Callable[[dict], dict | str]
    settings: SimpleNamespace
    compares: bool  # it looks at earlier dialogues too


class Cleaned(NamedTuple):
    """What became of a row: a dialogue or why it was dropped, and the steps that changed it before."""

    item: dict | Rejected
    changed: tuple[str, ...] = ()


def all_steps() -> dict[str, ModuleType]:
    """Every step's module by its name; read from this folder, where a step is what has `make`."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "make")}


def get_config() -> ConfigDict:
    """What a data config holds for its steps: `config.steps`, in order, and a section for each step's settings."""
    return ConfigDict({"steps": ""} | {name: module.get_config() for name, module in all_steps().items()})


def steps(config: ConfigDict) -> list[Step]:
    """What `config.steps` names, with their settings.

    Raises:
      ValueError, OSError: an unknown one, one twice, a setting that cannot be, or a file that cannot be read.
    """
    known, names = all_steps(), comma_list(config.steps)
    for number, name in enumerate(names):
        if name not in known:
            raise ValueError(f"config.steps: there is no step {name!r}; there are {', '.join(known)}")
        if name in names[:number]:
            raise ValueError(f"config.steps: {name} stands there twice")
    settings = {name: SimpleNamespace(**config[name].to_dict()) for name in names}
    return [
        Step(name, known[name].make(settings[name]), settings[name], getattr(known[name], "COMPARES", False))
        for name in names
    ]


def run(rows: Iterable[tuple[str, dict | Rejected]], steps: Sequence[Step]) -> Iterator[Cleaned]:
    """What becomes of each row as the sources give them, in order."""
    for where, item in rows:
        yield clean(where, item, steps)


def clean(where: str, item: dict | Rejected, steps: Iterable[Step]) -> Cleaned:
    """Takes a row through steps, until one drops it: the next ones do not look at it any more."""
    if isinstance(item, Rejected):
        return Cleaned(dataclasses.replace(item, step=_reader_step(item)))
    changed = []
    for step in steps:
        result = step.apply(item)
        if isinstance(result, str):
            return Cleaned(Rejected(where, item["id"], result, item, step=step.name), tuple(changed))
        if result is not item:
            changed.append(step.name)
        item = result
    return Cleaned(item, tuple(changed))


def _reader_step(item: Rejected) -> str:
    if not isinstance(item.row, dict):
        return READERS[0]
    return READERS[2] if EMPTY_TURN.match(item.reason) else READERS[1]


def check_shares(name: str, settings: SimpleNamespace, *keys: str) -> None:
    """Raises ValueError where one of the settings of the step `name` is no share."""
    for key in keys:
        if not 0 <= getattr(settings, key) <= 1:
            raise ValueError(f"config.{name}.{key}={getattr(settings, key)} must be between 0 and 1")
