"""Reads a study's `study.json`: which base, data set, budget, schedule and seed stand behind a model's name.

A line is all cells of one base, data set and schedule; along it the data amount grows. A budget's seeds are one point.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from imitation_jax.core.comma_list import comma_list
from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.statistics import Estimate
from imitation_jax.evaluation.task import Row
from imitation_jax.reporting.model_results import Model, read_lines


@dataclasses.dataclass(frozen=True)
class Base:
    """A model that students start from; `parameters` is 0 where that is not known, `note` a caveat about it."""

    name: str
    label: str
    parameters: float = 0.0
    note: str = ""


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What students are trained on; `tasks` are the result files of a local set's own task."""

    name: str
    label: str
    local: bool
    tasks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One student.

    Attributes:
      tokens: its budget, 0 for all that the data set has.
      trained_tokens: what it was trained on.
      warm_up: whether its training ended within the learning rate's warm-up.
    """

    name: str
    base: str
    data: str
    tokens: int = 0
    trained_tokens: int = 0
    schedule: str = ""
    seed: int = 0
    status: str = "missing"
    why: str = ""
    warm_up: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    """Cells that differ in data amount and seed alone: `points` has the seeds of each budget, smallest first."""

    base: Base
    data: DataSet
    schedule: str
    points: tuple[tuple[Cell, ...], ...]


@dataclasses.dataclass(frozen=True)
class Study:
    """See the module."""

    name: str
    bases: tuple[Base, ...]  # smallest first
    data: tuple[DataSet, ...]
    schedules: tuple[str, ...]
    teacher: str
    cells: tuple[Cell, ...]
    scale: float
    left_out: tuple[tuple[str, str], ...]  # what was not done, and why
    settings: dict  # of training, and of each schedule

    @property
    def lines(self) -> list[Line]:
        """Those with a cell, in the order of bases, data sets and schedules."""
        lines = []
        for base, data, schedule in itertools.product(self.bases, self.data, self.schedules):
            own = [c for c in self.cells if (c.base, c.data, c.schedule) == (base.name, data.name, schedule)]
            budgets = sorted({cell.tokens or math.inf for cell in own})
            points = tuple(tuple(c for c in own if (c.tokens or math.inf) == budget) for budget in budgets)
            if points:
                lines.append(Line(base, data, schedule, points))
        return lines

    def recipe(self, line: Line) -> str:
        """The data set, and the schedule where there are several."""
        return f"{line.data.label}, {line.schedule}" if len(self.schedules) > 1 else line.data.label

    def title(self, line: Line) -> str:
        """The base, where there are several, and the recipe."""
        return f"{line.base.label}, {self.recipe(line)}" if len(self.bases) > 1 else self.recipe(line)


def read_study(workdir: epath.Path) -> Study | None:
    """None where the workdir holds no study.

    Raises:
      ValueError: study.json is none.
    """
    path = workdir / "study.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        cells = tuple(
            _read(Cell, cell, warm_up=_ended_in_warm_up(workdir / "runs" / cell["name"])) for cell in content["cells"]
        )
        bases = [_read(Base, base, label=str(base.get("label") or base["name"])) for base in content["bases"]]
        about = {data["name"]: data for data in content.get("data") or []}
        names = dict.fromkeys([*about, *(cell.data for cell in cells)])
        study = Study(
            name=str(content.get("name") or "study"),
            bases=tuple(sorted(bases, key=lambda base: base.parameters)),
            data=tuple(_data_set(name, about.get(name, {})) for name in names),
            schedules=tuple(dict.fromkeys(cell.schedule for cell in cells)),
            teacher=content.get("teacher") or "",
            cells=cells,
            scale=float(content.get("scale") or 1),
            left_out=tuple((str(one["what"]), str(one["why"])) for one in content.get("left_out") or []),
            settings={key: content[key] for key in ("schedules", "train") if content.get(key)},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not what study writes ({error!r}); run study again") from None
    unknown = {cell.base for cell in cells} - {base.name for base in bases}
    if unknown:
        raise ValueError(f"{path}: cells of a base that is not listed: {', '.join(sorted(unknown))}; run study again")
    return study


def _read(kind: type, row: dict, **known: object) -> Any:
    """An instance of the dataclass from a row of the file; what is missing or null has its default."""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in known}
    given = {name: field.type(row[name]) for name, field in fields.items() if row.get(name) is not None}
    return kind(**given, **known)


def _ended_in_warm_up(run: epath.Path) -> bool:
    try:
        warm_up = json.loads((run / "config.json").read_text())["optimizer"]["warmup_steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    steps = [row["step"] for row in read_lines(run / "metrics.jsonl") if isinstance(row.get("step"), int)]
    return bool(steps) and max(steps) < warm_up


def _data_set(name: str, row: dict) -> DataSet:
    tasks = tuple(comma_list(row.get("task") or ""))
    return DataSet(name, str(row.get("label") or name), row.get("kind") == "local", tasks)


def amount(cells: Sequence[Cell]) -> float:
    """Tokens trained on, the seeds' mean; the budget where nothing has been trained; 0 where neither is known."""
    trained = [cell.trained_tokens for cell in cells if cell.trained_tokens]
    return sum(trained) / len(trained) if trained else cells[0].tokens


def short(number: float) -> str:
    """A number of tokens or parameters, as 0.3M or 7B; "all" for 0."""
    if not number:
        return "all"
    for least, unit, name in ((1e9, 1e9, "B"), (1e5, 1e6, "M"), (1e3, 1e3, "k")):
        if number >= least:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"


def budget(cells: Sequence[Cell]) -> str:
    """How a column is called: the budget asked for, or what "all" came to."""
    return short(cells[0].tokens or amount(cells))


def pooled(cells: Sequence[Cell], models: Mapping[str, Model], row: Row) -> Estimate | None:
    """The estimate over a point's seeds that have one, with "seeds"; None where none has. See `statistics.pooled`."""
    estimates = [e for cell in cells if cell.name in models and (e := models[cell.name].estimate(row))]
    return statistics.pooled(estimates) | {"seeds": len(estimates)} if estimates else None
