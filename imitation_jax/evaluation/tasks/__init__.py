"""The tasks: one file each.

To add one:
1. Write a module here that has what `evaluation/task.py` lists under `Task`; nothing else has to know of it.
2. Write configs/eval/NAME.py, which calls `evaluation.config.of_task` and whose docstring has the command.
3. Give its report rows as ROWS, if the report is to show it, and its keys as KEYS, each with default and effect.
4. configs/eval/all.py, and so a study's config.evaluations, have it by then; test it in tests/evaluation/test_NAME.py.
5. Run `evaluate --config=configs/eval/NAME.py`: results, tables, contamination and report take it from there.
"""

import functools
import importlib
import pkgutil

from imitation_jax.evaluation.task import KINDS, Row, Task


@functools.cache
def all_tasks() -> dict[str, Task]:
    """Every task by each of its names; read from this folder."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {name: module for module in modules for name in module.NAMES}


def report_rows() -> list[Row]:
    """The report's lines of all tasks, by kind and, within it, in the order that they ask for."""
    rows = [row for task in dict.fromkeys(all_tasks().values()) for row in task.ROWS]
    return sorted(rows, key=lambda row: (KINDS.index(row.kind), row.order))


def full_sizes() -> dict[str, int]:
    """How many items the published test sets have, by name of the result."""
    return {name: size for task in dict.fromkeys(all_tasks().values()) for name, size in task.FULL_SIZE.items()}
