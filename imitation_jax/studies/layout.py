"""What a study consists of: its builds, bases, cells and evaluations, and what of it cannot be run, with the reason."""

import dataclasses
import graphlib
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from imitation_jax.core.comma_list import comma_list
from imitation_jax.evaluation.results import safe_name

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("prepare", "toxicity", "questions")
KEPT = ("all", "weights", "nothing")
ALL = 0  # tokens of a cell that trains on the whole data set


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run of a grid: `asked` tokens at scale 1, `tokens` at the study's scale."""

    name: str
    base: str
    data: str
    asked: int
    tokens: int
    schedule: str
    seed: int


@dataclasses.dataclass
class Layout:
    """What a config and a scale come to; every path in it is absolute, or from the root of the repository."""

    config: ConfigDict
    workdir: str
    scale: float
    builds: dict[str, ConfigDict]
    cells: list[Cell]
    evaluations: dict[str, dict[str, Any]]
    left_out: dict[str, str]

    @property
    def name(self) -> str:
        """As the report calls the study."""
        return self.config.name

    @property
    def bases(self) -> dict[str, ConfigDict]:
        """The base models that a cell starts from."""
        return {cell.base: self.config.bases[cell.base] for cell in self.cells}

    def output(self, build: str) -> str:
        """The path of what the build writes."""
        return f"{self.workdir}/data/{build}{self.config.builds[build].suffix}"

    def run(self, cell: Cell) -> str:
        """The workdir of the cell's training."""
        return f"{self.workdir}/runs/{cell.name}"


def from_root(path: str) -> str:
    """The path as the commands, which run in the root of the repository, understand it."""
    return path if "://" in path else str(ROOT / path)


def lay_out(config: ConfigDict, workdir: str, scale: float) -> Layout:
    """The study at that scale in that folder.

    Raises:
      ValueError: a scale or a key that makes no sense, or no cell that can be run.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"--scale={scale} must lie above 0 and be at most 1")
    config = config.copy_and_resolve_references()
    if not config.public:
        config.update(config.without_public)
    elif not epath.Path(config.public).is_dir():
        raise ValueError(f"config.public={_absolute(config.public)}: no such folder")
    else:
        config.public = _absolute(config.public)
    if config.keep not in KEPT:
        raise ValueError(f"config.keep={config.keep!r} is none of {', '.join(KEPT)}")
    left_out: dict[str, str] = {}
    builds = _builds(config, left_out)
    evaluations = _evaluations(config, left_out)
    cells = _cells(config, scale, left_out)
    if not evaluations:
        raise ValueError(f"config.evaluations: none can be run ({next(iter(left_out.values()), 'there is none')})")
    if not config.judge.flags.model:
        left_out["judge"] = "config.judge.flags.model is empty: no LLM judge was named"
    elif "answers" not in evaluations:
        left_out["judge"] = "needs the answers, which are left out"
    workdir = _absolute(workdir)
    config = ConfigDict(_whole(config.to_dict(), workdir), sort_keys=False)
    limited = {name: _scaled(config.evaluations[name].to_dict(), scale, config.least_rows) for name in evaluations}
    return Layout(config, workdir, scale, {name: config.builds[name] for name in builds}, cells, limited, left_out)


def _absolute(folder: str) -> str:
    return folder.rstrip("/") if "://" in folder else str(Path(folder).expanduser().resolve())


def _whole(tree: Any, workdir: str, public: str | None = None) -> Any:
    """With the folders in the place of `WORKDIR/` and `PUBLIC/`."""
    if isinstance(tree, dict):
        public = tree["public"] if public is None else public
        return {key: _whole(value, workdir, public) for key, value in tree.items()}
    if not isinstance(tree, str):
        return tree
    tree = tree.replace("WORKDIR/", f"{workdir}/")
    return tree.replace("PUBLIC/", f"{public}/") if public else tree


# ----------------------------------------------------------------------------------------------------------------------
# Builds and evaluations, whose paths begin with WORKDIR/ and PUBLIC/ still
# ----------------------------------------------------------------------------------------------------------------------


def _builds(config: ConfigDict, left_out: dict[str, str]) -> list[str]:
    """The builds that can be made, each after those that it needs; the others are noted in `left_out`."""
    after = {name: _builds_of(build.flags.to_dict()) for name, build in config.builds.items()}
    for name in sorted(set().union(*after.values(), _builds_of(config.evaluations.to_dict()))):
        if name not in config.builds:
            raise ValueError(f"WORKDIR/data/{name} is used, and there is no config.builds.{name}")
    builds = []
    for name in graphlib.TopologicalSorter(after).static_order():
        build = config.builds[name]
        if build.command not in COMMANDS:
            raise ValueError(f"config.builds.{name}.command={build.command!r} is none of {', '.join(COMMANDS)}")
        if why := _why_not(build.flags.to_dict(), config.public, left_out):
            left_out[f"data {name}"] = why
        else:
            builds.append(name)
    return builds


def _evaluations(config: ConfigDict, left_out: dict[str, str]) -> list[str]:
    """The evaluations that can be run; the others are noted in `left_out`."""
    able = []
    for name, keys in config.evaluations.items():
        if why := _why_not(keys.to_dict(), config.public, left_out):
            left_out[name] = why
        else:
            able.append(name)
    if "style" in able and "answers" not in able:
        left_out["style"] = "needs the answers, which are left out"
        able.remove("style")
    return able


def strings(tree: Any) -> Iterator[str]:
    """All texts in nested dicts."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from strings(value)
    elif isinstance(tree, str):
        yield tree


def _paths(keys: Mapping[str, Any]) -> Iterator[str]:
    return (path for text in strings(keys) for path in text.split(","))


def _builds_of(keys: Mapping[str, Any]) -> set[str]:
    """The builds that these keys name the output of."""
    own = (path.removeprefix("WORKDIR/data/") for path in _paths(keys) if path.startswith("WORKDIR/data/"))
    return {path.partition("/")[0].partition(".")[0] for path in own}


def _why_not(keys: Mapping[str, Any], public: str, left_out: Mapping[str, str]) -> str | None:
    """Why what has these keys cannot be made: a public file is missing, or a build is left out."""
    for path in _paths(keys):
        if path.startswith("PUBLIC/"):
            path = path.removeprefix("PUBLIC/")
            if not public:
                return f"{path} is public data, and config.public is empty"
            if not epath.Path(f"{public}/{path}").exists():
                return f"{public}/{path}: no such file"
    builds = (f"data {build}" for build in sorted(_builds_of(keys)))
    return next((left_out[build] for build in builds if build in left_out), None)


# ----------------------------------------------------------------------------------------------------------------------
# Cells
# ----------------------------------------------------------------------------------------------------------------------


def _cells(config: ConfigDict, scale: float, left_out: dict[str, str]) -> list[Cell]:
    """The cells of all grids, each once; those without data are noted in `left_out`."""
    cells: dict[str, Cell] = {}
    for name, grid in config.grids.items():
        for cell in _cells_of(f"config.grids.{name}", grid, config, scale):
            if f"data {cell.data}" in left_out:
                left_out[cell.name] = f"no data: {left_out[f'data {cell.data}']}"
            elif cells.setdefault(cell.name, cell) != cell:
                raise ValueError(
                    f"config.grids.{name}: two cells are called {cell.name}; give config.bases.{cell.base}.prefix, or "
                    "the data sets and schedules, names that tell them apart"
                )
    if not cells:
        raise ValueError(f"config.grids: no cell can be run ({next(iter(left_out.values()), 'there is no grid')})")
    for key, names in (("bases", {c.base for c in cells.values()}), ("builds", {c.data for c in cells.values()})):
        labels = sorted(config[key][name].label for name in names)
        if twice := next((label for label, after in itertools.pairwise(labels) if label == after), None):
            raise ValueError(f"config.{key}: two have the label {twice!r}, by which the report knows them")
    # By data set and from few tokens to many, so that the first numbers come soon.
    return sorted(cells.values(), key=lambda cell: (cell.tokens == ALL, cell.tokens))


def _cells_of(where: str, grid: ConfigDict, config: ConfigDict, scale: float) -> Iterator[Cell]:
    for key, what in (("bases", "bases"), ("data", "builds"), ("schedules", "schedules")):
        for name in comma_list(grid[key]):
            if name not in config[what]:
                raise ValueError(f"{where}.{key}: {name!r} is none of config.{what}: {', '.join(config[what])}")
    budgets = {
        data: scaled_budgets(_budgets(data, config), scale, config.least_tokens) for data in comma_list(grid.data)
    }
    for base, data, asked, schedule, seed in itertools.product(
        comma_list(grid.bases),
        budgets,
        _tokens(where, grid.tokens),
        comma_list(grid.schedules),
        map(int, comma_list(grid.seeds)),
    ):
        tokens = budgets[data][asked]
        amount = "all" if asked == ALL else short(tokens)
        name = f"{config.bases[base].prefix or base}-{data}-{amount}-{schedule}" + (f"-s{seed}" if seed else "")
        yield Cell(safe_name(name), base, data, asked, tokens, schedule, seed)


def _budgets(data: str, config: ConfigDict) -> set[int]:
    """All that any grid asks of the data set."""
    grids = ((f"config.grids.{name}", grid) for name, grid in config.grids.items())
    return {tokens for where, grid in grids if data in comma_list(grid.data) for tokens in _tokens(where, grid.tokens)}


def scaled_budgets(budgets: set[int], scale: float, least: int) -> dict[int, int]:
    """Asked -> trained on. However small the scale, each holds `least` tokens more than the next smaller one."""
    scaled, last = {}, 0
    for tokens in sorted(budgets - {ALL}):
        last = tokens if scale == 1 else min(tokens, max(round(tokens * scale), last + least))
        scaled[tokens] = last
    return scaled | {ALL: ALL}


def short(tokens: int) -> str:
    """As names have it: 20000000 is 20m, 15000 is 15k, 1550 is 1550."""
    for unit, letter in ((10**6, "m"), (10**3, "k")):
        for digits in (0, 1):
            number = tokens / unit
            if number >= 1 and round(number, digits) == number:
                return f"{number:.{digits}f}{letter}"
    return str(tokens)


def _tokens(where: str, listed: str) -> list[int]:
    try:
        return [ALL if text == "all" else int(text.replace("_", "")) for text in comma_list(listed)]
    except ValueError:
        raise ValueError(f"{where}.tokens={listed!r}: must be whole numbers, or all, with commas") from None


def _scaled(keys: dict[str, Any], scale: float, least: int) -> dict[str, Any]:
    limit = keys.get("limit", 0)
    return keys | {"limit": max(round(limit * scale), min(least, limit))} if limit else keys
