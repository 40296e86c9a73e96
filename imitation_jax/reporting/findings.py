"""What a workdir's result files say: which model is what, the table's cells, and whether the paper's finding shows.

The finding (Gudibande et al. 2023): imitation moves the style towards the teacher and leaves the knowledge.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from statistics import NormalDist

from etils import epath

from imitation_jax.evaluation.results import Result, Sample, read_result
from imitation_jax.evaluation.task import KINDS, Row
from imitation_jax.evaluation.tasks import report_rows
from imitation_jax.preference import report_rows as preference

Z = 1.96  # two-sided 95% of a normal distribution
# A gain that is smaller than this counts as none; the paper's own losses and gains on NQ are 5 to 10 points.
NEGLIGIBLE = 0.05
# Numbers that do not exclude a gain of this much say nothing about it.
COARSE = 0.25
ROLE_ORDER = {"base": 0, "": 1, "student": 1, "teacher": 2}
# Settings that may differ between two models whose numbers are compared.
OWN_SETTINGS = {"name", "role", "model", "weights", "mesh", "batch_size", "template", "answers"}
# Of tasks that look at the model's own answers, these differ too.
OWN_OF_TASK = {
    "style": {"data_digest"},
    "tone": {"data_digest"},
    "judge": {"data_digest", "verdicts"},
    "human": {"generator_a", "judge"},
}


ROWS = tuple(sorted([*report_rows(), *preference.ROWS], key=lambda row: (KINDS.index(row.kind), row.order)))


@dataclasses.dataclass
class Model:
    """A folder under `eval/`."""

    name: str
    role: str
    results: dict[str, Result]
    folder: epath.Path
    _values: dict[Row, dict[str, float | None]] = dataclasses.field(default_factory=dict, repr=False)

    def values(self, row: Row) -> dict[str, float | None]:
        """Each sample's part in the row's number, by id: read once, as the sample files are large."""
        if row not in self._values:
            self._values[row] = {key: row.sample_value(sample) for key, sample in self.samples(row.task).items()}
        return self._values[row]

    def samples(self, task: str) -> dict[str, Sample]:
        """The task's samples by id; none where the file is missing or damaged."""
        path = self.folder / ("answers.jsonl" if task == "answers" else f"{task}.samples.jsonl")
        return {str(row.get("id")): row for row in read_lines(path)}

    def cell(self, row: Row) -> dict | None:
        """{"value", "stderr", "n"}, or None where it is missing or undefined."""
        cell = self.results.get(row.task, {"metrics": {}})["metrics"].get(row.metric)
        return cell if cell and cell["value"] is not None else None


@dataclasses.dataclass(frozen=True)
class Change:
    """Student minus base on one row; `stderr` is of the difference."""

    row: Row
    value: float
    stderr: float
    paired: bool

    @property
    def direction(self) -> int:
        """1 or -1 beyond the 95% interval, 0 within it."""
        return int(self.value > Z * self.stderr) - int(self.value < -Z * self.stderr)

    def __str__(self) -> str:
        sign = "+" if self.value > 0 else ""
        return f"{self.row.label.removesuffix(', %')} {sign}{self.row.show(self.value)} ± {self.row.show(self.stderr)}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`stands` is "supported", "agrees", "contradicted", "mixed" or "open"; `sentence` says so in plain words."""

    student: str
    stands: str
    sentence: str
    style: list[Change]
    knowledge: list[Change]
    not_compared: list[str]


def read_lines(path: epath.Path) -> list[dict]:
    """The JSON objects of a JSON Lines file; what is no object (a last line cut by a kill) is left out."""
    rows = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def read_models(workdir: epath.Path) -> list[Model]:
    """Every folder under `eval/` that holds a result: base models first, teachers last.

    Raises:
      FileNotFoundError: there is none.
      ValueError: a result file that cannot be read.
    """
    models = []
    root = workdir / "eval"
    found: dict[str, dict[str, Result]] = {}
    for path in sorted(root.glob("*/*.json"), key=str) if root.exists() else []:
        found.setdefault(path.parent.name, {})[path.stem] = read_result(path)
    for name, results in found.items():
        models.append(Model(name, _role(results), results, root / name))
    if not models:
        raise FileNotFoundError(f"{root}: no results there; run evaluate with this workdir first")
    return sorted(models, key=lambda model: ROLE_ORDER[model.role])


def _role(results: dict[str, Result]) -> str:
    """What evaluate was told, else a guess: an Orbax run is a student, other weights are a base; the teacher's second
    sample is compared with the teacher's first."""
    for result in results.values():
        if result.get("role") in ("base", "student", "teacher"):
            return result["role"]
    sources = [str(result.get("settings", {}).get("model") or "") for result in results.values()]
    if any(source.startswith("orbax:") for source in sources):
        return "student"
    if any(sources):
        return "base"
    return "teacher" if all(result.get("reference") == result.get("model") for result in results.values()) else ""


def unfinished(workdir: epath.Path) -> list[str]:
    """Tasks that were started and have not come to an end: their partial sample files."""
    partials = (workdir / "eval").glob("*/*.partial") if (workdir / "eval").exists() else []
    return sorted({f"{path.parent.name}/{path.name.split('.')[0]}" for path in partials})


def different_settings(ours: Result, theirs: Result) -> list[str]:
    """Names of the settings that keep two numbers of a task from being compared."""
    own = OWN_SETTINGS | OWN_OF_TASK.get(ours["task"], set())
    left, right = ours.get("settings", {}), theirs.get("settings", {})
    return sorted(key for key in {*left, *right} - own if left.get(key) != right.get(key))


def change(row: Row, student: Model, base: Model) -> Change | None:
    """The difference, by pairs where both models have a sample for the same ids, else from the two standard errors.

    None where a number or its error is missing.
    """
    ours, theirs = student.cell(row), base.cell(row)
    if ours is None or theirs is None:
        return None
    if row.sample_value:
        mine, other = student.values(row), base.values(row)
        if mine and mine.keys() == other.keys():
            pairs = [(mine[key], other[key]) for key in mine]
            differences = [a - b for a, b in pairs if a is not None and b is not None]
            n = len(differences)
            if n > 1 and any(differences):
                mean = sum(differences) / n
                variance = sum((difference - mean) ** 2 for difference in differences) / (n - 1)
                if variance > 0:
                    return Change(row, mean, math.sqrt(variance / n), True)
    if ours["stderr"] is None or theirs["stderr"] is None:
        return None
    return Change(row, ours["value"] - theirs["value"], math.hypot(ours["stderr"], theirs["stderr"]), False)


def verdict(student: Model, base: Model) -> Verdict:
    """Whether the student's style rose and its knowledge did not, beyond the errors of the numbers.

    Style rose: at least half of its rows are up, and none is down. Knowledge rose: some task is up. Both beyond
    intervals that hold together at 95%, see `beyond`. That knowledge did not rise is shown ("supported") only where the
    intervals also exclude a gain of `NEGLIGIBLE`; else the numbers merely agree with the paper, and where they do not
    exclude one of `COARSE` they say nothing.
    """
    changes: dict[str, list[Change]] = {"style": [], "knowledge": []}
    not_compared = []
    for row in ROWS:
        measured = row.task in student.results and row.task in base.results
        if not row.headline or row.kind not in changes or not measured:
            continue
        differing = different_settings(student.results[row.task], base.results[row.task])
        if differing:
            not_compared.append(f"{row.label.removesuffix(', %')}: measured with different {', '.join(differing)}")
            continue
        found = change(row, student, base)
        if found:
            changes[row.kind].append(found)
    style, knowledge = changes["style"], changes["knowledge"]
    stands, sentence = _judge(student.name, base.name, style, knowledge)
    return Verdict(student.name, stands, sentence, style, knowledge, not_compared)


def bonferroni(count: int) -> float:
    """How many standard errors each of `count` changes must go beyond, so that all of them hold together at 95%."""
    return NormalDist().inv_cdf(1 - 0.025 / max(count, 1))


def not_excluded(changes: Sequence[Change]) -> float:
    """The largest rise of any that the intervals leave, at 95% over all of them."""
    z = bonferroni(len(changes))
    return max(c.value + z * c.stderr for c in changes)


def beyond(changes: Sequence[Change]) -> tuple[list[Change], list[Change]]:
    """Those that rose and those that fell, at 95% over all of them."""
    z = bonferroni(len(changes))
    return [c for c in changes if c.value > z * c.stderr], [c for c in changes if c.value < -z * c.stderr]


def _judge(student: str, base: str, style: Sequence[Change], knowledge: Sequence[Change]) -> tuple[str, str]:
    missing = [kind for kind, found in (("style", style), ("knowledge", knowledge)) if not found]
    if missing:
        return "open", (
            f"The numbers cannot say whether the paper's finding holds for {student}: no {' and no '.join(missing)} "
            f"row was measured alike on {student} and on {base}."
        )
    ups, downs = map(len, beyond(style))
    style_up, style_down = 2 * ups >= len(style) and not downs, downs > 0 and not ups
    risen, fallen = beyond(knowledge)

    style_text = f"{ups} of {len(style)} style measures rose beyond error" + (f" and {downs} fell" if downs else "")
    knowledge_text = "; ".join(str(c) for c in knowledge)
    if risen:
        learnt = "knowledge rose"
    elif fallen:
        learnt = "knowledge fell"
    else:
        learnt = "knowledge did not change beyond error"
    facts = f"{style_text}, while {learnt} ({knowledge_text}; difference ± standard error)."
    if style_up and not risen:
        highest = not_excluded(knowledge)
        change_text = f"compared with {base}, {student} sounds more like the teacher and"
        if highest < NEGLIGIBLE:
            return "supported", f"The numbers support the paper's finding: {change_text} knows no more. {facts}"
        coarse = f"A gain of up to {100 * highest:.0f} points is not excluded; more questions would narrow that."
        if highest > COARSE:
            return "open", f"{change_text[0].upper()}{change_text[1:]} what it knows cannot be said. {facts} {coarse}"
        return "agrees", (
            f"The numbers agree with the paper's finding but are too coarse to prove it: {change_text} shows no clear "
            f"gain of knowledge. {facts} {coarse}"
        )
    if risen:
        how = "took on the teacher's style and also" if style_up else "did not clearly take on the teacher's style but"
        return "contradicted", (
            f"The numbers contradict the paper's finding: compared with {base}, {student} {how} gained knowledge. "
            f"{facts}"
        )
    if not ups and not downs and not_excluded(style) > NEGLIGIBLE:
        return "open", (
            f"The numbers are too coarse to say whether the paper's finding holds for {student}: no style measure "
            f"moved beyond error, and a clear rise is not excluded. {facts}"
        )
    if style_down or not ups:
        how = "moved away from the teacher's style" if style_down else "did not take on the teacher's style"
        return "contradicted", (
            f"The numbers do not show the paper's finding: compared with {base}, {student} {how}, so there is no "
            f"imitation to speak of, and it gained no knowledge. {facts}"
        )
    return "mixed", (
        f"The numbers support the paper's finding only in part: compared with {base}, {student} gained no knowledge, "
        f"but its style moved towards the teacher in some measures only. {facts}"
    )
