"""Tables of the report: Table 1, Table 2 and what else is set in rows, as the page, LaTeX and a terminal show them."""

import dataclasses
from collections.abc import Mapping, Sequence

from imitation_jax.core.text_table import text_table
from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.task import Row
from imitation_jax.reporting.model_results import ROWS, Model
from imitation_jax.reporting.study_file import Study, budget, pooled

LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\N{MINUS SIGN}": "$-$"}
LATEX |= {character: f"\\{character}" for character in "&%$#_{}"} | {"<": r"\textless{}", ">": r"\textgreater{}"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A number as it is shown, with its 95% interval and what else is to be said."""

    text: str
    span: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """`rows` are (label, an entry a column), None where the number is missing."""

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry | None, ...]], ...]


def entry(row: Row, estimate: Mapping | None, *notes: str) -> Entry | None:
    """A metric's estimate with its interval, n and `notes`; None where it is missing or undefined."""
    if estimate is None or estimate["value"] is None:
        return None
    span = statistics.interval(estimate)
    seeds = f"{estimate['seeds']} seeds" if estimate.get("seeds", 1) > 1 else ""
    said = [*notes, f"n = {estimate['n']:,}", seeds]
    return Entry(
        row.show(estimate["value"]),
        f"{row.show(span[0])} to {row.show(span[1])}" if span else "no interval",
        ", ".join(filter(None, said)),
    )


def row_of(task: str) -> Row | None:
    """The row that stands for a task's knowledge."""
    return next((row for row in ROWS if row.task == task and row.kind == "knowledge"), None)


def table_1(study: Study, models: Mapping[str, Model]) -> list[Table]:
    """A line a base, a column a data set at its largest budget: Natural Questions, and each local task."""
    tasks = dict.fromkeys(["nq", *(task for data in study.data for task in data.tasks)])
    recipes = list(dict.fromkeys(study.recipe(line) for line in study.lines))
    tables = []
    for row in filter(None, map(row_of, tasks)):
        lines = []
        for base in study.bases:
            own = models.get(base.name)
            last = {study.recipe(line): line.points[-1] for line in study.lines if line.base is base}
            numbers = [
                entry(row, pooled(last[recipe], models, row), f"{budget(last[recipe])} tokens")
                if recipe in last
                else None
                for recipe in recipes
            ]
            lines.append((base.label, (entry(row, own and own.estimate(row)), *numbers)))
        teacher = models.get(study.teacher)
        if teacher and teacher.estimate(row):
            lines.append((teacher.name, (entry(row, teacher.estimate(row)), *[Entry("")] * len(recipes))))
        name = "table_1" if row.task == "nq" else f"table_1_{row.task}"
        title = f"{row.label}, by imitation data"
        tables.append(Table(name, title, "Each data set at its largest budget.", ("base", *recipes), tuple(lines)))
    return tables


def table_2(study: Study, models: Mapping[str, Model]) -> list[Table]:
    """Of each line a table: the style's measures by data amount, between the base and the teacher's second sample."""
    rows = [row for row in ROWS if row.kind == "style"]
    tables = []
    for number, line in enumerate(study.lines, 1):
        base, teacher = models.get(line.base.name), models.get(study.teacher)
        columns = (line.base.label, *(budget(point) for point in line.points), "teacher, second sample")
        lines = []
        for row in rows:
            between = [entry(row, pooled(point, models, row)) for point in line.points]
            ends = [entry(row, model and model.estimate(row)) for model in (base, teacher)]
            lines.append((row.label, (ends[0], *between, ends[1])))
        title = f"Style by data amount: {study.title(line)}"
        tables.append(lifted(Table(f"table_2_{number}", title, "", columns, tuple(lines))))
    return tables


def lifted(table: Table) -> Table:
    """What all entries of a line, else of a column, note alike, said once in its label."""
    rows = [_lifted(label, entries) for label, entries in table.rows]
    columns = [_lifted(label, [entries[k] for _, entries in rows]) for k, label in enumerate(table.columns)]
    lines = tuple((label, tuple(own[n] for _, own in columns)) for n, (label, _) in enumerate(rows))
    return dataclasses.replace(table, columns=tuple(label for label, _ in columns), rows=lines)


def _lifted(label: str, entries: Sequence[Entry | None]) -> tuple[str, list[Entry | None]]:
    notes = {each.note for each in entries if each}
    if len(notes) != 1 or not all(notes) or sum(map(bool, entries)) < 2:
        return label, list(entries)
    return f"{label} ({notes.pop()})", [each and dataclasses.replace(each, note="") for each in entries]


def by_model(name: str, title: str, note: str, models: Sequence[Model], rows: Sequence[Row]) -> Table:
    """A line a model, a column a measure."""
    lines = [(model.name, tuple(entry(row, model.estimate(row)) for row in rows)) for model in models]
    return lifted(Table(name, title, note, tuple(row.label for row in rows), tuple(lines)))


def by_measure(name: str, title: str, note: str, models: Sequence[Model], rows: Sequence[Row]) -> Table:
    """A line a measure, a column a model."""
    lines = [(row.label, tuple(entry(row, model.estimate(row)) for model in models)) for row in rows]
    return Table(name, title, note, tuple(model.name for model in models), tuple(lines))


def latex(tables: Sequence[Table]) -> str:
    """`table` environments with booktabs' rules, to be put into a paper by \\input."""
    return "\n".join(map(_latex, tables))


def _latex(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"    {' & '.join(cells)} \\\\"

    def number(entry: Entry | None) -> str:
        if entry is None:
            return r"\textit{missing}"
        return _escaped(entry.text) + (rf" {{\scriptsize ({_escaped(entry.span)})}}" if entry.span else "")

    body = [line([_escaped(label), *map(number, entries)]) for label, entries in table.rows]
    head = line(["", *map(_escaped, table.columns)])
    caption = _escaped(f"{table.title}. {table.note}".strip())
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \label{{tab:{table.name}}}",
            rf"  \begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"    \toprule",
            head,
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def text(table: Table) -> str:
    """For a terminal: what the table is about, then its lines, columns aligned."""
    shown = [["-" if e is None else f"{e.text} ({e.span})" if e.span else e.text for e in row] for _, row in table.rows]
    lines = [[label, *cells] for (label, _), cells in zip(table.rows, shown, strict=True)]
    return f"{table.title}\n{text_table([['', *table.columns], *lines])}"
