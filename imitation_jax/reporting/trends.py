"""Trends along a study's grid: how style and knowledge move with the data amount and the base model, and which of the
paper's claims that supports.

Changes are between the ends of a line, by pairs of the same questions as in `changes.change`; seeds are averaged.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from imitation_jax.evaluation.statistics import bonferroni
from imitation_jax.evaluation.task import Row
from imitation_jax.reporting.changes import Change, Pair, beyond, mean_change, not_excluded
from imitation_jax.reporting.findings import COARSE, NEGLIGIBLE
from imitation_jax.reporting.model_results import ROWS, Model
from imitation_jax.reporting.report_tables import Entry, Table
from imitation_jax.reporting.study_file import Cell, Study, budget

LISTED = 6  # changes in a sentence, at most
SPAN = "from the smallest to the largest budget measured (at 95% for all at once)"


@dataclasses.dataclass(frozen=True)
class Claim:
    """One of the paper's; `stands` as in `findings.Verdict`."""

    title: str
    stands: str
    sentence: str


@dataclasses.dataclass(frozen=True)
class Trend:
    """A row's change from `low` to `high` along `where`."""

    where: str
    low: str
    high: str
    local: bool
    change: Change


def with_data(study: Study, models: Mapping[str, Model]) -> list[Trend]:
    """From each line's smallest budget to its largest; of no line whose smallest runs ended within the warm-up, where
    more data is also a higher learning rate."""
    trends = []
    for line in study.lines:
        measured = [point for point in line.points if any(cell.name in models for cell in point)]
        if len(measured) < 2 or any(cell.warm_up for cell in measured[0]):
            continue
        low, high = measured[0], measured[-1]
        pairs = _pairs(high, low, models)
        for row in _headlines():
            if changed := mean_change(row, pairs):
                trends.append(Trend(study.title(line), budget(low), budget(high), line.data.local, changed))
    return trends


def with_size(study: Study, models: Mapping[str, Model]) -> list[Trend]:
    """From the smallest base to the largest: of the bases themselves, and of students of the largest common budget."""
    known = [base for base in study.bases if base.parameters]
    if len(known) < 2:
        return []
    small, large = known[0], known[-1]
    pairs: dict[tuple[str, bool], list[Pair]] = {}
    if small.name in models and large.name in models:
        pairs["base models", False] = [(models[large.name], models[small.name])]
    lines = {(line.base.name, study.recipe(line)): line for line in study.lines}
    for (name, recipe), line in lines.items():
        other = lines.get((large.name, recipe))
        if name == small.name and other:
            ours, theirs = ({point[0].tokens: point for point in each.points} for each in (line, other))
            by_budget = {tokens: _pairs(theirs[tokens], ours[tokens], models) for tokens in ours.keys() & theirs.keys()}
            if measured := [tokens for tokens, some in by_budget.items() if some]:
                tokens = max(measured, key=lambda asked: asked or math.inf)
                pairs[f"students of {recipe}, {budget(ours[tokens])}", line.data.local] = by_budget[tokens]
    return [
        Trend(where, small.label, large.label, local, changed)
        for (where, local), some in pairs.items()
        for row in _headlines()
        if (changed := mean_change(row, some))
    ]


def _headlines() -> list[Row]:
    return [row for row in ROWS if row.headline]


def _pairs(high: Sequence[Cell], low: Sequence[Cell], models: Mapping[str, Model]) -> list[Pair]:
    """Models of the same seed; without a common one, the first of both."""
    ours, theirs = ({cell.seed: models[cell.name] for cell in cells if cell.name in models} for cells in (high, low))
    common = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    return common or ([(next(iter(ours.values())), next(iter(theirs.values())))] if ours and theirs else [])


def table(name: str, title: str, trends: Sequence[Trend]) -> Table:
    """A line a trend, a column a measure; the entry's note says whether it is beyond the 95% interval."""
    places = list(dict.fromkeys((t.where, t.low, t.high) for t in trends))
    rows = [row for row in _headlines() if any(t.change.row is row for t in trends)]
    changes = {(t.where, t.low, t.high, t.change.row): t.change for t in trends}
    lines = [
        (f"{where}: {low} to {high}", tuple(_entry(changes.get((where, low, high, row))) for row in rows))
        for where, low, high in places
    ]
    heads = tuple(row.label for row in rows)
    note = (
        "Change ± 1.96 standard errors, by pairs of the same questions where both sample files are there. Each rose or "
        "fell by itself; what is said above holds for all measures at once, which asks for more."
    )
    return Table(name, title, note, heads, tuple(lines))


def _entry(changed: Change | None) -> Entry | None:
    if changed is None:
        return None
    sign = "+" if changed.value > 0 else ""
    low, high = changed.interval
    word = {1: "rose", -1: "fell", 0: "within error"}[changed.direction]
    return Entry(sign + changed.row.show(changed.value), f"{changed.row.show(low)} to {changed.row.show(high)}", word)


def claims(study: Study, models: Mapping[str, Model], data: Sequence[Trend], size: Sequence[Trend]) -> list[Claim]:
    """What the trends (`with_data` and `with_size`) say of the paper's claims about grids.

    How each student does against its base is `findings.verdict`'s.
    """
    broad = [trend for trend in data if not trend.local]
    return [_style(broad), _knowledge(broad), _base_or_data(broad, size), *_local(study, models)]


def _style(trends: Sequence[Trend]) -> Claim:
    title = "More imitation data brings the style nearer to the teacher's"
    style = [t for t in trends if t.change.row.kind == "style"]
    if not style:
        return Claim(title, "open", "No style measure was taken alike on two data amounts beyond the warm-up.")
    ups, downs = beyond([t.change for t in style])
    facts = f"Of {len(style)} changes {SPAN} {len(ups)} rose beyond error and {len(downs)} fell{_list(style)}."
    if 2 * len(ups) >= len(style) and not downs:
        return Claim(title, "supported", f"The numbers show it. {facts}")
    if ups and len(ups) >= len(downs):
        return Claim(title, "mixed", f"The numbers show it in part. {facts}")
    if downs:
        return Claim(title, "contradicted", f"The numbers speak against it. {facts}")
    return Claim(title, "open", f"The numbers do not show it. {facts}")


def _knowledge(trends: Sequence[Trend]) -> Claim:
    title = "More imitation data does not add knowledge"
    knowledge = [t for t in trends if t.change.row.kind == "knowledge"]
    if not knowledge:
        return Claim(title, "open", "No knowledge measure was taken alike on two data amounts beyond the warm-up.")
    changes = [t.change for t in knowledge]
    (risen, fallen), highest = beyond(changes), not_excluded(changes)
    listed = _list([t for t in knowledge if t.change in risen] or knowledge)
    facts = f"Of {len(knowledge)} changes {SPAN} {len(risen)} rose beyond error and {len(fallen)} fell{listed}."
    if risen:
        return Claim(title, "contradicted", f"Knowledge rose with the data. {facts}")
    if highest < NEGLIGIBLE:
        return Claim(title, "supported", f"The numbers show it. {facts}")
    coarse = f"a gain of up to {100 * highest:.0f} points is not excluded. {facts}"
    if highest > COARSE:
        return Claim(title, "open", f"The numbers are too coarse: {coarse}")
    return Claim(title, "agrees", f"The numbers agree with it, but {coarse}")


def _base_or_data(data: Sequence[Trend], size: Sequence[Trend]) -> Claim:
    title = "A better base model helps more than more imitation data"
    size = [t for t in size if not t.local]
    compared = [
        (grown, t)
        for t in data
        if t.change.row.kind in ("knowledge", "preference")
        for grown in size
        if grown.change.row is t.change.row and grown.where != "base models"
    ]
    if not compared:
        needs = "That takes two base models with students of the same data, and two data amounts of one base model."
        return Claim(title, "open", needs)
    z = bonferroni(len(compared))
    # Both changes have a model in common, so their errors go together: at worst they add up.
    gaps = [(a.change.value - b.change.value, a.change.stderr + b.change.stderr) for a, b in compared]
    ups, downs = sum(gap > z * error for gap, error in gaps), sum(gap < -z * error for gap, error in gaps)
    facts = (
        f"In {len(compared)} comparisons the base model's step brought more in {ups} and the data's in {downs}, "
        "beyond error; each from the smallest to the largest that was measured."
    )
    if downs:
        return Claim(title, "mixed" if ups else "contradicted", facts)
    return Claim(title, "supported" if 2 * ups >= len(compared) else "agrees" if ups else "open", facts)


def _local(study: Study, models: Mapping[str, Model]) -> list[Claim]:
    """Of each local data set: do its students know more of its own task than their base?"""
    claims = []
    for data in study.data:
        if not data.local:
            continue
        title = f"Local imitation works: {data.label}"
        changes: list[tuple[str, Change]] = []
        for line in study.lines:
            base = models.get(line.base.name)
            rows = [row for row in _headlines() if row.task in data.tasks and row.kind == "knowledge"]
            pairs = [(models[c.name], base) for c in line.points[-1] if base and c.name in models]
            if line.data is data:
                changes += [(study.title(line), changed) for row in rows if (changed := mean_change(row, pairs))]
        if not changes:
            what = ", ".join(data.tasks) or "its own task"
            words = f"Not measured alike on its students and on their base: {what}."
            claims.append(Claim(title, "open", words))
            continue
        own = [c for _, c in changes]
        risen, _ = beyond(own)
        facts = f"Largest budget minus base: {_joined(changes)}."
        stands = "supported" if len(risen) == len(changes) else "mixed" if risen else "contradicted"
        if not risen and not_excluded(own) > NEGLIGIBLE:
            stands, facts = "open", f"No gain beyond error, and none excluded. {facts}"
        claims.append(Claim(title, stands, facts))
    return claims


def _list(trends: Sequence[Trend]) -> str:
    """The changes in brackets where they are few; the page has a table of all."""
    joined = _joined([(t.where, t.change) for t in trends])
    return f" ({joined}; difference ± standard error)" if len(trends) <= LISTED else ""


def _joined(changes: Sequence[tuple[str, Change]]) -> str:
    """Each with where it was measured, if that is not the same for all."""
    several = len({where for where, _ in changes}) > 1
    return "; ".join(f"{where}, {change}" if several else str(change) for where, change in changes)
