"""The report: `report/index.html` in one file, figures as PNG and SVG, table.csv and tables.tex, from result files.

A workdir with `study.json` gets the grid's tables and figures, any other one a column a model.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from etils import epath
from markupsafe import Markup, escape

from imitation_jax.core.files import write_text
from imitation_jax.core.text_table import text_table
from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.task import KINDS, Row
from imitation_jax.reporting import cards, costs, figures, highlight, paper, provenance, report_tables, scaling, trends
from imitation_jax.reporting.caveats import caveats, why_missing
from imitation_jax.reporting.findings import Verdict, verdict
from imitation_jax.reporting.model_results import ROWS, Model, read_lines, read_models, unfinished
from imitation_jax.reporting.study_file import Study, budget, read_study, short

FOLDER = Path(__file__).parent
EXAMPLES = 6
SIDE_BY_SIDE = 8  # answers to one prompt, at most
STANDS = {
    "supported": "Supports the paper",
    "agrees": "Agrees with the paper, not precise enough to prove it",
    "contradicted": "Speaks against the paper",
    "mixed": "Supports the paper in part",
    "open": "Cannot be said yet",
}


def write_report(workdir: str, watts: float = 100.0, price: float = 0.0, shareable: bool = False) -> tuple[str, str]:
    """Writes the report.

    Args:
      watts: what the machine is assumed to draw while it computes.
      price: dollars of its hour; 0 leaves dollars out.
      shareable: leaves out prompts and answers, and the folders of paths.

    Returns:
      The path of its page, and its tables and verdicts as text for a terminal.

    Raises:
      FileNotFoundError: no results in the workdir, and no study.
      ValueError: a result file or study.json that cannot be read.
    """
    root = epath.Path(workdir).expanduser()
    study = read_study(root)
    begun = study is None or ((root / "eval").exists() and any((root / "eval").glob("*/*.json")))
    models = read_models(root) if begun else []
    if study:
        order = [*(base.name for base in study.bases), *(cell.name for cell in study.cells)]
        models.sort(key=lambda model: order.index(model.name) if model.name in order else len(order))
    rows = rows_to_show(models)
    folder = root / "report"
    folder.mkdir(parents=True, exist_ok=True)
    shown = _study(root, folder, study, models) if study else _plain(root, folder, models, rows)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    html = environment.get_template("study.html" if study else "plain.html").render(
        **shown,
        title=root.resolve().name if "://" not in str(root) else root.name,
        models=models,
        rows=rows,
        kinds=[kind for kind in KINDS if any(row.kind == kind for row in rows)],
        stands=STANDS,
        caveats=caveats(study, models),
        examples=[] if shareable else examples(_side_by_side(study, models)),
        shareable=shareable,
        clean=provenance.without_folders if shareable else str,
        preference=_kind(models, "preference"),
        toxicity=_kind(models, "toxicity"),
        contamination=cards.contamination(models),
        data_cards=cards.data_cards(root, {data.name: data.label for data in study.data} if study else {}),
        costs=costs.costs(root, study, models),
        watts=watts,
        price=price,
        numbers=other_numbers(models),
        provenance=provenance.tasks(models),
        unfinished=unfinished(root),
        breakable=breakable,
        short=short,
        show_setting=lambda value: provenance.shown(value, shareable),
        highlighted=highlight.highlighted,
        features=highlight.features,
        interval=statistics.interval,
    )
    write_text(folder / "table.csv", table(models, rows, study))
    write_text(folder / "tables.tex", report_tables.latex(shown["latex"]))
    write_text(folder / "index.html", html)
    return str(folder / "index.html"), shown["text"]


# ----------------------------------------------------------------------------------------------------------------------
# A workdir without a study
# ----------------------------------------------------------------------------------------------------------------------


def _plain(root: epath.Path, folder: epath.Path, models: Sequence[Model], rows: Sequence[Row]) -> dict:
    """What the page of a few models needs: a panel a measure, verdicts of the students against the one base."""
    bases = [model for model in models if model.role == "base"]
    students = [model for model in models if model.role == "student"]
    drawn = {}
    for kind in KINDS:
        some = [row for row in rows if row.kind == kind and any(model.estimate(row) for model in models)]
        if some:
            figures.write(figures.panels(models, some), folder, kind)
        drawn[kind] = [(row, svg(figures.panel(models, row))) for row in some]
    curve = figures.curve(read_lines(root / "metrics.jsonl"))
    if curve:
        figures.write(curve, folder, "loss")
    verdicts = [verdict(student, bases[0]) for student in students] if len(bases) == 1 else []
    open_ = why_open(bases, students)
    sentences = [open_] if open_ else [each.sentence for each in verdicts]
    return {
        "verdicts": verdicts,
        "why_open": open_,
        "panels": drawn,
        "curve": svg(curve) if curve else None,
        "papers": [paper.TABLE_2] * any("style" in model.results for model in models),
        "latex": [report_tables.by_measure("numbers", "Measures by model", "", models, rows)],
        "text": "\n\n".join([terminal_table(models, rows), *sentences]),
    }


def why_open(bases: Sequence[Model], students: Sequence[Model]) -> str:
    """Why no student can be judged, in plain words; empty where each has the one base to be compared with."""
    absent = [role for role, some in (("base", bases), ("student", students)) if not some]
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


# ----------------------------------------------------------------------------------------------------------------------
# A study
# ----------------------------------------------------------------------------------------------------------------------


def _study(root: epath.Path, folder: epath.Path, study: Study, models: Sequence[Model]) -> dict:
    """What the page of a grid needs: the paper's tables and figures, what they support, every cell's state."""
    by_name = {model.name: model for model in models}
    drawn = []
    for name, title, panels in scaling.plan(study, models):
        if panels:
            figures.write(scaling.together(study, by_name, panels), folder, name)
        pictures = [(panel.title, svg(scaling.draw(study, by_name, panel))) for panel in panels]
        drawn.append({"name": name, "title": title, "shape": paper.SHAPES[name], "panels": pictures})
    curve = scaling.curves(study, costs.losses(root, study))
    if curve:
        figures.write(curve, folder, "loss")
    first, second = report_tables.table_1(study, by_name), report_tables.table_2(study, by_name)
    by_data, by_size = trends.with_data(study, by_name), trends.with_size(study, by_name)
    tables = [
        trends.table("trend_data", "From the smallest to the largest data amount", by_data),
        trends.table("trend_size", "From the smallest to the largest base model", by_size),
    ]
    tables = [table for table in tables if table.rows]
    claims = trends.claims(study, by_name, by_data, by_size)
    return {
        "study": study,
        "claims": claims,
        "verdicts": student_verdicts(study, by_name),
        "trends": tables,
        "table_1": first,
        "table_2": second,
        "papers": (paper.TABLE_1, paper.TABLE_2),
        "figures": drawn,
        "looks": [(look, f"var(--{figures.VARIABLES[look.colour]})") for look in scaling.legend(study)],
        "sizes": sum(base.parameters > 0 for base in study.bases),
        "curve": svg(curve) if curve else None,
        "cells": [(cell, budget([cell]), why_missing(cell)) for cell in study.cells],
        "every": [each for kind in ("style", "knowledge") if (each := _kind(models, kind))],
        "latex": [*first, *second, *tables],
        "text": "\n\n".join(
            [
                *map(report_tables.text, [*first, *second]),
                *(f"{STANDS[c.stands]}: {c.title}. {c.sentence}" for c in claims),
            ]
        ),
    }


def student_verdicts(study: Study, models: dict[str, Model]) -> list[tuple[str, Verdict]]:
    """Of each line of a broad data set the largest budget that was measured, against its base: (title, verdict)."""
    verdicts = []
    for line in study.lines:
        measured = [cell for point in line.points for cell in point[:1] if cell.name in models]
        if measured and line.base.name in models and not line.data.local:
            title = f"{study.title(line)}, {budget([measured[-1]])} tokens, against its base"
            verdicts.append((title, verdict(models[measured[-1].name], models[line.base.name])))
    return verdicts


def _kind(models: Sequence[Model], kind: str) -> report_tables.Table | None:
    rows = [row for row in ROWS if row.kind == kind and any(model.estimate(row) for model in models)]
    some = [model for model in models if any(model.estimate(row) for row in rows)]
    settings = [model.results[row.task]["settings"] for model in some for row in rows if row.task in model.results]
    opponents = sorted({str(each["opponent"]) for each in settings if each.get("opponent")})
    note = f"Against {', '.join(opponents)}." if kind == "preference" and opponents else ""
    return report_tables.by_model(kind, f"{kind.capitalize()} by model", note, some, rows) if rows else None


def _side_by_side(study: Study | None, models: Sequence[Model]) -> Sequence[Model]:
    """Whose answers are shown: all; of a study the bases, the ends of its lines and the teacher, as many as fit."""
    if study is None:
        return models
    bases = [base.name for base in study.bases]
    largest = [line.points[-1][0].name for line in study.lines]
    smallest = [line.points[0][0].name for line in study.lines]
    chosen = list(dict.fromkeys([study.teacher, *bases, *largest, *smallest]))
    measured = {model.name for model in models}
    chosen = [name for name in chosen if name in measured][:SIDE_BY_SIDE]
    return [model for model in models if model.name in chosen]


# ----------------------------------------------------------------------------------------------------------------------
# Parts
# ----------------------------------------------------------------------------------------------------------------------


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


def table(models: Sequence[Model], rows: Sequence[Row], study: Study | None = None) -> str:
    """CSV: a line for each measure and model, with the 95% interval; what is missing has empty numbers.

    Of a study also each cell's place in the grid, and cells without a result.
    """
    cells = {cell.name: cell for cell in study.cells} if study else {}
    by_name = {model.name: model for model in models}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    place = ("base", "data", "tokens", "trained_tokens", "schedule", "seed", "status") if study else ()
    head = ["kind", "task", "metric", "model", "role", "value", "stderr", "n", "low", "high"]
    writer.writerow(head + [key.replace("trained_tokens", "trained") for key in place])
    for row in rows:
        for name in dict.fromkeys([*by_name, *cells]):
            model = by_name.get(name)
            estimate = model.estimate(row) if model else None
            span = statistics.interval(estimate) if estimate else None
            numbers = [estimate[key] if estimate else None for key in ("value", "stderr", "n")] + list(span or ("", ""))
            where = [getattr(cells.get(name), key, "") for key in place]
            role = model.role if model else "student"
            writer.writerow([row.kind, row.task, row.metric, name, role, *numbers, *where])
    return text.getvalue()


def terminal_table(models: Sequence[Model], rows: Sequence[Row]) -> str:
    """For a terminal: a line a measure, a column a model, value ± standard error."""

    def shown(row: Row, model: Model) -> str:
        if (estimate := model.estimate(row)) is None:
            return "-"
        error = "" if estimate["stderr"] is None else f" ± {row.show(estimate['stderr'])}"
        return row.show(estimate["value"]) + error

    lines = [[row.label, *(shown(row, model) for model in models)] for row in rows]
    return text_table([["", *(model.name for model in models)], *lines])


def other_numbers(models: Sequence[Model]) -> list[tuple[str, str, str, dict]]:
    """(model, task, metric, estimate) of every metric that has no row in the table."""
    shown = {(row.task, row.metric) for row in ROWS}
    return [
        (model.name, task, metric, estimate)
        for model in models
        for task, result in model.results.items()
        for metric, estimate in result["metrics"].items()
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
