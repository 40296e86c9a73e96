"""Each model's results as the report reads them: which model is what, and the number of every row of the tables."""

import dataclasses
import json

from etils import epath

from imitation_jax.core.fingerprint import Keys
from imitation_jax.evaluation.config import RECORDED, settings_keys
from imitation_jax.evaluation.results import Result, Sample, differing_settings, read_result
from imitation_jax.evaluation.statistics import Estimate
from imitation_jax.evaluation.task import KINDS, Row
from imitation_jax.evaluation.tasks import all_tasks, report_rows
from imitation_jax.preference import report_rows as preference
from imitation_jax.preference.config import KEYS_OF_RESULTS

ROLE_ORDER = {"base": 0, "": 1, "student": 1, "teacher": 2}
ROWS = tuple(sorted([*report_rows(), *preference.ROWS], key=lambda row: (KINDS.index(row.kind), row.order)))


@dataclasses.dataclass
class Model:
    """A folder under `eval/`."""

    name: str
    role: str
    results: dict[str, Result]
    folder: epath.Path
    _scores: dict[Row, dict[str, float | None]] = dataclasses.field(default_factory=dict, repr=False)

    def scores(self, row: Row) -> dict[str, float | None]:
        """Each sample's part in the row's number, by id: read once, as the sample files are large."""
        if row not in self._scores:
            self._scores[row] = {key: row.sample_value(sample) for key, sample in self.samples(row.task).items()}
        return self._scores[row]

    def samples(self, task: str) -> dict[str, Sample]:
        """The task's samples by id; none where the file is missing or damaged."""
        path = self.folder / ("answers.jsonl" if task == "answers" else f"{task}.samples.jsonl")
        return {str(row.get("id")): row for row in read_lines(path)}

    def estimate(self, row: Row) -> Estimate | None:
        """The row's number, or None where it is missing or undefined."""
        estimate = self.results.get(row.task, {"metrics": {}})["metrics"].get(row.metric)
        return estimate if estimate and estimate["value"] is not None else None


def not_comparable(row: Row, one: Model, other: Model) -> list[str] | None:
    """Names of the settings that keep the row's two numbers from being compared; None where one was not measured."""
    results = [model.results.get(row.task) for model in (one, other)]
    return differing_settings(*results, _keys(results[0])) if all(results) else None


def _keys(result: Result) -> Keys:
    """What each of a result's settings changes."""
    task = all_tasks().get(result["settings"].get("task", result["task"]))
    return settings_keys(task) if task else KEYS_OF_RESULTS.get(result["task"], RECORDED)


def read_lines(path: epath.Path) -> list[dict]:
    """The JSON objects of a JSON Lines file; none where there is no file. A last line cut by a kill is left out.

    Raises:
      ValueError: another line is no object: numbers made without it would be of other items.
    """
    rows = []
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines):
            raise ValueError(f"{path}:{number}: no JSON object; the file is damaged, make it again")
    return rows


def read_models(workdir: epath.Path) -> list[Model]:
    """Every folder under `eval/` that holds a result: base models first, teachers last.

    Raises:
      FileNotFoundError: there is none.
      ValueError: a result file that cannot be read.
    """
    root = workdir / "eval"
    by_model: dict[str, dict[str, Result]] = {}
    for path in sorted(root.glob("*/*.json"), key=str) if root.exists() else []:
        by_model.setdefault(path.parent.name, {})[path.stem] = {"settings": {}} | read_result(path)
    if not by_model:
        raise FileNotFoundError(f"{root}: no results there; run evaluate with this workdir first")
    models = [Model(name, _role(results), results, root / name) for name, results in by_model.items()]
    return sorted(models, key=lambda model: ROLE_ORDER[model.role])


def _role(results: dict[str, Result]) -> str:
    """What evaluate was told, else a guess: an Orbax run is a student, other weights are a base; the teacher's second
    sample is compared with the teacher's first."""
    for result in results.values():
        if result.get("role") in ("base", "student", "teacher"):
            return result["role"]
    sources = [str(result["settings"].get("model") or "") for result in results.values()]
    if any(source.startswith("orbax:") for source in sources):
        return "student"
    if any(sources):
        return "base"
    return "teacher" if all(result.get("reference") == result.get("model") for result in results.values()) else ""


def unfinished(workdir: epath.Path) -> list[str]:
    """Tasks that were started and have not come to an end: their partial sample files."""
    partials = (workdir / "eval").glob("*/*.partial") if (workdir / "eval").exists() else []
    return sorted({f"{path.parent.name}/{path.name.split('.')[0]}" for path in partials})
