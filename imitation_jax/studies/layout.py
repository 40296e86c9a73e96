"""A study's layout: its paths, builds, bases and cells, and what of it cannot be run, with the reason."""

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
    """One training run: `asked` tokens at scale 1, `tokens` at the study's scale."""

    name: str
    base: str
    data: str
    asked: int
    tokens: int
    schedule: str
    seed: int


@dataclasses.dataclass
class Layout:
    """What a config and a scale come to; every path in it is whole."""

    name: str
    config: ConfigDict
    workdir: str
    scale: float
    builds: dict[str, ConfigDict]
    cells: list[Cell]
    evaluations: dict[str, dict[str, Any]]
    left_out: dict[str, str]

    @property
    def bases(self) -> dict[str, ConfigDict]:
        """Those that a cell starts from."""
        return {cell.base: self.config.bases[cell.base] for cell in self.cells}

    def output(self, build: str) -> str:
        """What the build writes."""
        return f"{self.workdir}/data/{build}{self.config.builds[build].suffix}"

    def run(self, cell: Cell) -> str:
        """The workdir of its training."""
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
    if config.public:
        config.public = _absolute(config.public)
        if not epath.Path(config.public).is_dir():
            raise ValueError(f"config.public={config.public}: no such folder")
    else:
        config.update(config.without_public)
    if config.keep not in KEPT:
        raise ValueError(f"config.keep={config.keep!r} is none of {', '.join(KEPT)}")
    workdir = _absolute(workdir)
    folders = {"WORKDIR/": f"{workdir}/"}
    if config.public:
        folders["PUBLIC/"] = f"{config.public}/"
    missing = dict(_missing(config))
    config = ConfigDict(_whole(config.to_dict(), folders), sort_keys=False)

    builds: dict[str, ConfigDict] = {}
    left_out: dict[str, str] = {}
    for name in sorted(_builds_of({**config.builds.to_dict(), **config.evaluations.to_dict()}, workdir)):
        if name not in config.builds:
            raise ValueError(f"WORKDIR/data/{name} is used, and there is no config.builds.{name}")
    after = {name: _builds_of(build.flags.to_dict(), workdir) for name, build in config.builds.items()}
    for name in graphlib.TopologicalSorter(after).static_order():
        build = config.builds[name]
        if build.command not in COMMANDS:
            raise ValueError(f"config.builds.{name}.command={build.command!r} is none of {', '.join(COMMANDS)}")
        if why := _why_not(build.flags.to_dict(), workdir, left_out, missing):
            left_out[f"data {name}"] = why
        else:
            builds[name] = build
    evaluations = {}
    for name, keys in config.evaluations.items():
        if why := _why_not(keys.to_dict(), workdir, left_out, missing):
            left_out[name] = why
        else:
            evaluations[name] = _scaled(keys.to_dict(), scale, config.least_rows)
    if "style" in evaluations and "answers" not in evaluations:
        left_out["style"] = "needs the answers, which are left out"
        del evaluations["style"]
    cells: dict[str, Cell] = {}
    for name, grid in config.grids.items():
        for cell in _cells(f"config.grids.{name}", grid, config, scale):
            if f"data {cell.data}" in left_out:
                left_out[cell.name] = f"no data: {left_out[f'data {cell.data}']}"
            elif cells.setdefault(cell.name, cell) != cell:
                raise ValueError(
                    f"config.grids.{name}: two cells are called {cell.name}; give config.bases.{cell.base}.prefix, or "
                    "the data sets and schedules, names that tell them apart"
                )
    if not cells:
        raise ValueError(f"config.grids: no cell can be run ({next(iter(left_out.values()), 'there is no grid')})")
    for what, named, used in (
        ("bases", config.bases, {cell.base for cell in cells.values()}),
        ("builds", config.builds, {cell.data for cell in cells.values()}),
    ):
        labels = sorted(named[name].label for name in used)
        if twice := next((label for label, after in itertools.pairwise(labels) if label == after), None):
            raise ValueError(f"config.{what}: two have the label {twice!r}, by which the report knows them")
    if not evaluations:
        raise ValueError(f"config.evaluations: none can be run ({next(iter(left_out.values()), 'there is none')})")
    if not config.judge.flags.model:
        left_out["judge"] = "config.judge.flags.model is empty: no LLM judge was named"
    elif "answers" not in evaluations:
        left_out["judge"] = "needs the answers, which are left out"
    # By data set and from few tokens to many, so that the first numbers come soon.
    ordered = sorted(cells.values(), key=lambda cell: (cell.tokens == ALL, cell.tokens))
    return Layout(config.name, config, workdir, scale, builds, ordered, evaluations, left_out)


def _absolute(folder: str) -> str:
    return folder.rstrip("/") if "://" in folder else str(Path(folder).expanduser().resolve())


def _cells(where: str, grid: ConfigDict, config: ConfigDict, scale: float) -> Iterator[Cell]:
    named = {"bases": config.bases, "data": config.builds, "schedules": config.schedules}
    for key, there in named.items():
        for name in comma_list(grid[key]):
            if name not in there:
                what = "builds" if key == "data" else key
                raise ValueError(f"{where}.{key}: {name!r} is none of config.{what}: {', '.join(there)}")
    for base in comma_list(grid.bases):
        for data in comma_list(grid.data):
            budgets = scaled_budgets(_budgets(data, config), scale, config.least_tokens)
            for asked in _tokens(where, grid.tokens):
                for schedule in comma_list(grid.schedules):
                    for seed in map(int, comma_list(grid.seeds)):
                        prefix = config.bases[base].prefix or base
                        amount = "all" if asked == ALL else short(budgets[asked])
                        name = safe_name(f"{prefix}-{data}-{amount}-{schedule}" + (f"-s{seed}" if seed else ""))
                        yield Cell(name, base, data, asked, budgets[asked], schedule, seed)


def _budgets(data: str, config: ConfigDict) -> set[int]:
    """All that any grid asks of the data set."""
    grids = ((f"config.grids.{name}", grid) for name, grid in config.grids.items())
    return {tokens for where, grid in grids if data in comma_list(grid.data) for tokens in _tokens(where, grid.tokens)}


def scaled_budgets(budgets: set[int], scale: float, least: int) -> dict[int, int]:
    """Asked -> trained on. However small the scale, each holds `least` tokens more than the next smaller one."""
    found, last = {}, 0
    for tokens in sorted(budgets - {ALL}):
        last = tokens if scale == 1 else min(tokens, max(round(tokens * scale), last + least))
        found[tokens] = last
    return found | {ALL: ALL}


def short(tokens: int) -> str:
    """As names have it: 20000000 is 20m, 15000 is 15k, 1550 is 1550."""
    for size, letter in ((10**6, "m"), (10**3, "k")):
        for digits in (0, 1):
            number = tokens / size
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


def _whole(tree: Any, folders: Mapping[str, str]) -> Any:
    if isinstance(tree, dict):
        return {key: _whole(value, folders) for key, value in tree.items()}
    if isinstance(tree, str):
        for short_form, folder in folders.items():
            tree = tree.replace(short_form, folder)
    return tree


def strings(tree: Any) -> Iterator[str]:
    """All texts in nested dicts."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from strings(value)
    elif isinstance(tree, str):
        yield tree


def _missing(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """Public paths that are not there, as they are whole -> why."""
    for text in strings(config.to_dict()):
        for path in text.split(","):
            if path.startswith("PUBLIC/"):
                whole = f"{config.public}/{path.removeprefix('PUBLIC/')}" if config.public else path
                if not config.public:
                    yield whole, f"{path.removeprefix('PUBLIC/')} is public data, and config.public is empty"
                elif not epath.Path(whole).exists():
                    yield whole, f"{whole}: no such file"


def _why_not(keys: dict[str, Any], workdir: str, left_out: Mapping[str, str], missing: Mapping[str, str]) -> str | None:
    """Why what has these keys cannot be made: a public file is missing, or a build is left out."""
    for text in strings(keys):
        for path in text.split(","):
            if path in missing:
                return missing[path]
    builds = (f"data {build}" for build in sorted(_builds_of(keys, workdir)))
    return next((left_out[build] for build in builds if build in left_out), None)


def _builds_of(keys: Mapping[str, Any], workdir: str) -> set[str]:
    """The builds that these keys name the output of."""
    folder = f"{workdir}/data/"
    paths = (path for text in strings(keys) for path in text.split(",") if path.startswith(folder))
    return {path.removeprefix(folder).partition("/")[0].partition(".")[0] for path in paths}
