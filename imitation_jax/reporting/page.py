"""The report: `report/index.html` in one file, `report/*.png` and `report/table.csv`, from a workdir's result files."""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from etils import epath
from markupsafe import Markup, escape

from imitation_jax.data.output import write_text
from imitation_jax.reporting import figures
from imitation_jax.reporting.findings import ROWS, Model, Row, read_lines, read_models, unfinished, verdict

TEMPLATE = Path(__file__).with_name("page.html")
EXAMPLES = 6
STANDS = {
    "supported": "Supports the paper",
    "agrees": "Agrees with the paper, not precise enough to prove it",
    "contradicted": "Speaks against the paper",
    "mixed": "Supports the paper in part",
    "open": "Cannot be said yet",
}


def write_report(workdir: str) -> tuple[str, str]:
    """Writes the report.

    Returns:
      The path of its page, and its table and verdicts as text for a terminal.

    Raises:
      FileNotFoundError: no results in the workdir.
      ValueError: a result file that cannot be read.
    """
    root = epath.Path(workdir).expanduser()
    models = read_models(root)
    rows = rows_to_show(models)
    folder = root / "report"
    folder.mkdir(parents=True, exist_ok=True)

    bases = [model for model in models if model.role == "base"]
    students = [model for model in models if model.role == "student"]
    drawn = {}
    for kind in ("style", "knowledge"):
        some = [row for row in rows if row.kind == kind and any(model.cell(row) for model in models)]
        if some:
            figures.write_png(figures.panels(models, some), folder / f"{kind}.png")
        drawn[kind] = [(row, svg(figures.panel(models, row))) for row in some]
    metrics = read_lines(root / "metrics.jsonl")
    curve = figures.curve(metrics)
    if curve:
        figures.write_png(curve, folder / "loss.png")

    verdicts = [verdict(student, bases[0]) for student in students] if len(bases) == 1 else []
    open_ = why_open(bases, students)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    html = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=root.resolve().name if "://" not in str(root) else root.name,
        models=models,
        rows=rows,
        verdicts=verdicts,
        stands=STANDS,
        why_open=open_,
        panels=drawn,
        curve=svg(curve) if curve else None,
        examples=examples(models),
        numbers=other_numbers(models),
        unfinished=unfinished(root),
        breakable=breakable,
        pretty=lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    )
    write_text(folder / "table.csv", table(models, rows))
    write_text(folder / "index.html", html)
    sentences = [open_] if open_ else [found.sentence for found in verdicts]
    text = "\n\n".join([text_table(models, rows), *sentences])
    return str(folder / "index.html"), text


def why_open(bases: Sequence[Model], students: Sequence[Model]) -> str:
    """Why no student can be judged, in plain words; empty where each has the one base to be compared with."""
    absent = [role for role, found in (("base", bases), ("student", students)) if not found]
    if absent:
        return (
            f"No model is marked as {' or as '.join(absent)}, so there is no before and after to compare "
            "(evaluate with --config.role=base and --config.role=student)."
        )
    if len(bases) > 1:
        names = ", ".join(model.name for model in bases)
        return (
            f"{len(bases)} models are base models ({names}), so no student is judged: keep the results of the one to "
            "compare with in eval/, and those of the others elsewhere."
        )
    return ""


def svg(figure: figures.Figure) -> Markup:
    """Matplotlib has escaped what stands in it."""
    return Markup(figures.svg(figure))


def breakable(name: str) -> Markup:
    """A model's name that may wrap after its punctuation."""
    return Markup(re.sub(r"([-_.@])", r"\1<wbr>", str(escape(name))))


def rows_to_show(models: Sequence[Model]) -> list[Row]:
    """Style and the fact quiz always, a further benchmark where some model has it."""
    measured = {task for model in models for task in model.results}
    return [row for row in ROWS if row.task in {"style", "facts"} | measured]


def table(models: Sequence[Model], rows: Sequence[Row]) -> str:
    """CSV: a line for each measure and model; what is missing has empty numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["kind", "task", "metric", "model", "role", "value", "stderr", "n"])
    for row in rows:
        for model in models:
            cell = model.cell(row) or {"value": "", "stderr": "", "n": ""}
            numbers = ["" if cell[key] is None else cell[key] for key in ("value", "stderr", "n")]
            writer.writerow([row.kind, row.task, row.metric, model.name, model.role, *numbers])
    return text.getvalue()


def text_table(models: Sequence[Model], rows: Sequence[Row]) -> str:
    """For a terminal: a line a measure, a column a model, value ± standard error."""
    lines = [["", *(model.name for model in models)]]
    for row in rows:
        cells = [model.cell(row) for model in models]
        errors = ["" if not cell or cell["stderr"] is None else f" ± {row.show(cell['stderr'])}" for cell in cells]
        values = [row.show(cell["value"]) if cell else "-" for cell in cells]
        lines.append([row.label, *map(str.__add__, values, errors)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join("  ".join(line) for line in padded)


def other_numbers(models: Sequence[Model]) -> list[tuple[str, str, str, dict]]:
    """(model, task, metric, estimate) of every metric that has no row in the table."""
    shown = {(row.task, row.metric) for row in ROWS}
    return [
        (model.name, task, metric, cell)
        for model in models
        for task, result in model.results.items()
        for metric, cell in result["metrics"].items()
        if (task, metric) not in shown
    ]


def examples(models: Sequence[Model]) -> list[dict]:
    """Up to `EXAMPLES` prompts that most models answered, spread over the file: {"prompt", "outputs", "reference"}.

    From the style samples, which hold the teacher's answer too; else from the answer files.
    """
    prompts: dict[str, dict] = {}
    for model in models:
        if "style" in model.results:
            answered = [
                (row.get("prompt"), row.get("prediction"), row.get("gold")) for row in model.samples("style").values()
            ]
        else:
            answered = [(row.get("instruction"), row.get("output"), None) for row in model.samples("answers").values()]
        for prompt, output, gold in answered:
            if isinstance(prompt, str) and isinstance(output, str):
                entry = prompts.setdefault(prompt, {"prompt": prompt, "outputs": {}, "reference": None})
                entry["outputs"][model.name] = output
                entry["reference"] = entry["reference"] or gold
    most = max((len(entry["outputs"]) for entry in prompts.values()), default=0)
    full = [entry for entry in prompts.values() if len(entry["outputs"]) == most]
    count = min(EXAMPLES, len(full))
    return [full[index * len(full) // count] for index in range(count)]
