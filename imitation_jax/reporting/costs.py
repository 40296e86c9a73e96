"""What the numbers cost: hours as the result files tell them, energy and dollars by an assumption that the page states.

Arithmetic is 6 parameters a token of training and 2 a token of evaluation (Kaplan et al. 2020, arXiv 2001.08361).
"""

import dataclasses
from collections.abc import Sequence

from etils import epath

from imitation_jax.reporting import figures
from imitation_jax.reporting.model_results import Model, read_lines
from imitation_jax.reporting.study_file import Study

OTHERS = ("judge", "tone", "human")  # another machine's time, or people's
LEAST = 2  # seconds that are worth a line
STEP = "seconds"  # of a step; the wait for the next batch is within


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one model: hours, tokens trained on or passed through in evaluation, and operations; 0 where not known."""

    name: str
    training_hours: float
    training_tokens: int
    evaluation_hours: float
    evaluation_tokens: int
    operations: float


def costs(root: epath.Path, study: Study | None, models: Sequence[Model]) -> list[Cost]:
    """A line a model or run that took measurable time."""
    cells = {cell.name: cell for cell in study.cells} if study else {}
    sizes = {base.name: base.parameters for base in study.bases} if study else {}
    listed = []
    by_name = {model.name: model for model in models}
    students = [model.name for model in models if model.role == "student"]
    for name in dict.fromkeys([*by_name, *cells]):
        cell = cells.get(name)
        # without a study there is one run, and its metrics lie in the workdir itself
        run = root / "runs" / name if cell else root if [name] == students else None
        steps = {row["step"]: row for row in read_lines(run / "metrics.jsonl") if "step" in row} if run else {}
        training = sum(row[STEP] for row in steps.values() if figures.number(row.get(STEP)))
        tokens = cell.trained_tokens if cell else sum(int(row.get("loss_tokens") or 0) for row in steps.values())
        own = by_name[name].results if name in by_name else {}
        results = [result for task, result in own.items() if task not in OTHERS]
        evaluation = sum(result.get("seconds") or 0 for result in results)
        asked = sum(result.get("tokens") or 0 for result in results)
        operations = sizes.get(cell.base if cell else name, 0) * (6 * (cell.trained_tokens if cell else 0) + 2 * asked)
        if training + evaluation >= LEAST:
            listed.append(Cost(name, training / 3600, tokens, evaluation / 3600, asked, operations))
    return listed


def losses(root: epath.Path, study: Study) -> dict[str, list[tuple[float, float]]]:
    """Of each cell with a run: (loss-bearing tokens seen, loss) a step."""
    by_cell = {}
    for cell in study.cells:
        seen, points = 0.0, []
        for row in read_lines(root / "runs" / cell.name / "metrics.jsonl"):
            if figures.number(row.get("loss")):
                seen += row.get("loss_tokens") or 0
                points.append((seen or len(points) + 1, row["loss"]))
        if points:
            by_cell[cell.name] = points
    return by_cell
