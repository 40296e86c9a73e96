"""Figures of a study: a measure against the data amount and against the base model's size, as the paper draws them.

Bands and whiskers are 95% intervals. Base models are dotted lines, the teacher a green one; a cross on the floor is a
point that is missing.
"""

import dataclasses
import functools
import math
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.task import Row
from imitation_jax.reporting import figures
from imitation_jax.reporting.model_results import ROWS, Model
from imitation_jax.reporting.study_file import Line, Study, amount, budget, pooled, short

MARKERS, DASHES = "os^Dvp", ("-", (0, (6, 2)), (0, (5, 1, 1, 1)), (0, (3, 1)))


@dataclasses.dataclass(frozen=True)
class Look:
    """How a line is drawn: its colour, dash and marker."""

    label: str
    colour: str
    dash: object
    marker: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """`across` is "data" or "size"."""

    row: Row
    across: str

    @property
    def title(self) -> str:
        by = "data amount" if self.across == "data" else "base model"
        return f"{self.row.label.removesuffix(', %')} by {by}" + ", %" * self.row.label.endswith(", %")


def plan(study: Study, models: Sequence[Model]) -> list[tuple[str, str, list[Panel]]]:
    """(name, title, panels) of the paper's figures; no panel where nobody measured its row, or for the
    base model's size where there are no two."""
    axes = ("data", "size") if sum(base.parameters > 0 for base in study.bases) > 1 else ("data",)
    measured = [row for row in ROWS if row.headline and any(model.estimate(row) for model in models)]

    def of(kind: str, *tasks: str) -> list[Row]:
        return [row for row in measured if row.kind == kind and (not tasks or row.task in tasks)]

    rated = of("preference", "human") or of("preference", "judge")
    both = [Panel(row, across) for row in of("knowledge") for across in axes]
    return [
        ("figure1", "Figure 1: preference and knowledge", [
            *(Panel(row, "data") for row in [*rated, *of("knowledge", "nq")]),
            *(Panel(row, "size") for row in rated if "size" in axes),
        ]),
        ("figure3", "Figure 3: an LLM judge's rating", [
            Panel(row, across) for row in of("preference", "judge") for across in axes
        ]),
        ("figure4", "Figure 4: knowledge", both),
        ("figure5", "Figure 5: toxicity", [
            Panel(row, across) for row in of("toxicity") for across in axes
        ]),
        ("style", "Style (the paper's Table 2 as curves)", [Panel(row, "data") for row in of("style")]),
    ]  # fmt: skip


def looks(study: Study) -> dict[tuple[str, str], Look]:
    """By (base, recipe): a colour a base, where there is one alone a recipe; a marker and a dash a recipe."""
    recipes = list(dict.fromkeys(map(study.recipe, study.lines)))
    bases = [base.name for base in study.bases]
    by_line = {}
    for line in study.lines:
        recipe = recipes.index(study.recipe(line))
        colour = figures.SERIES[(bases.index(line.base.name) if len(bases) > 1 else recipe) % len(figures.SERIES)]
        look = Look(study.title(line), colour, DASHES[recipe % len(DASHES)], MARKERS[recipe % len(MARKERS)])
        by_line[line.base.name, study.recipe(line)] = look
    return by_line


def legend(study: Study) -> list[Look]:
    """What a reader needs: a colour a base and, in ink, a dash and marker a recipe; of one base its recipes alone."""
    lines = list(looks(study).items())
    if len(study.bases) == 1:
        return [look for _, look in lines]
    colours = {base: look.colour for (base, _), look in lines}
    bases = [Look(base.label, colours[base.name], "-", "") for base in study.bases if base.name in colours]
    return [
        *bases,
        *(dataclasses.replace(look, label=recipe, colour=figures.INK) for recipe, look in _by_recipe(study).items()),
    ]


def _by_recipe(study: Study) -> dict[str, Look]:
    return {recipe: look for (_, recipe), look in looks(study).items()}


def draw(study: Study, models: Mapping[str, Model], panel: Panel) -> Figure:
    """One panel by itself; its legend is the page's."""
    return figures.single(4.2, 2.9, lambda axes: _axes(axes, study, models, panel))


def together(study: Study, models: Mapping[str, Model], panels: Sequence[Panel]) -> Figure:
    """All panels in one figure, two beside each other, with a legend."""

    def titled(axes: Axes, panel: Panel) -> None:
        _axes(axes, study, models, panel)
        axes.set_title(textwrap.fill(panel.title, 44), loc="left", fontsize=10, color=figures.INK)

    height = 3.0 * ((len(panels) + 1) // 2) + 0.24 * len(study.lines) / 2 + 0.3
    figure = figures.in_pairs(height, [functools.partial(titled, panel=panel) for panel in panels])
    with matplotlib.rc_context(figures.STYLE):
        handles = [
            Line2D([], [], color=look.colour, ls=look.dash, marker=look.marker, ms=4, label=look.label)
            for look in legend(study)
        ]
        handles.append(Line2D([], [], color=figures.FAINT, ls=":", label="base model"))
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, labelcolor=figures.INK)
    return figure


def _axes(axes: Axes, study: Study, models: Mapping[str, Model], panel: Panel) -> None:
    row = panel.row
    if panel.across == "data":
        ticks = _against_data(axes, study, models, row)
        axes.set_xlabel("tokens trained on")
    else:
        ticks = _against_size(axes, study, models, row)
        axes.set_xlabel("parameters of the base model")
    teacher = models.get(study.teacher)
    if teacher and (estimate := teacher.estimate(row)):
        _across(axes, row, "teacher", estimate["value"], figures.ROLE_COLOURS["teacher"], lw=1.2)
    results = [model.results[row.task] for model in models.values() if row.task in model.results]
    if chances := [result["chance"] for result in results if "chance" in result]:
        _across(axes, row, "guessing", chances[0], figures.FAINT, lw=0.9, ls=(0, (3, 2)))
    if ticks:
        _log_axis(axes, ticks)
    figures.plain(axes)
    axes.tick_params(length=2.5)


def _across(axes: Axes, row: Row, label: str, value: float, colour: str, **line: object) -> None:
    """A line across the panel with its name at the right end."""
    axes.axhline(value * row.scale, color=colour, **line)
    place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
    axes.text(0.995, value * row.scale, label, fontsize=7.5, color=colour, **place)


def _against_data(axes: Axes, study: Study, models: Mapping[str, Model], row: Row) -> dict[float, str]:
    look_of, ticks = looks(study), {}
    drawn = set()
    for line in study.lines:
        look = look_of[line.base.name, study.recipe(line)]
        base = models.get(line.base.name)
        if line.base.name not in drawn and base and (estimate := base.estimate(row)):
            drawn.add(line.base.name)
            colour = look.colour if len(study.bases) > 1 else figures.ROLE_COLOURS["base"]
            axes.axhline(estimate["value"] * row.scale, color=colour, ls=":", lw=1.5)
            axes.axhspan(*_span(row, estimate), color=colour, alpha=0.07, lw=0)
        known = [point for point in line.points if amount(point)]
        ticks |= {amount(point): budget(point) for point in known}
        points = [(amount(point), pooled(point, models, row)) for point in known]
        _curve(axes, row, look, points, 0.13 if len(study.lines) < 5 else 0.06)
    return ticks


def _against_size(axes: Axes, study: Study, models: Mapping[str, Model], row: Row) -> dict[float, str]:
    bases = [base for base in study.bases if base.parameters]
    own = [(base.parameters, models[base.name].estimate(row)) for base in bases if base.name in models]
    known = [(x, estimate) for x, estimate in own if estimate]
    if known:
        values = [estimate["value"] * row.scale for _, estimate in known]
        line = {"color": figures.FAINT, "ls": ":", "lw": 1.5, "marker": "x", "ms": 4, "elinewidth": 0.9}
        axes.errorbar([x for x, _ in known], values, yerr=_whiskers(row, known), **line)
    for recipe, look in _by_recipe(study).items():
        lines = [line for line in study.lines if study.recipe(line) == recipe and line.base.parameters]
        if lines:
            points = [
                (line.base.parameters, pooled(point, models, row)) for line in lines if (point := _largest(lines, line))
            ]
            _curve(axes, row, dataclasses.replace(look, colour=figures.INK), points, 0)
    return {base.parameters: short(base.parameters) for base in bases}


def _largest(lines: Sequence[Line], line: Line) -> tuple | None:
    """The line's point of the largest budget that every line has; None where there is no common one."""
    common = set.intersection(*({point[0].tokens for point in each.points} for each in lines))
    if not common:
        return None
    most = max(common, key=lambda tokens: tokens or math.inf)
    return next(point for point in line.points if point[0].tokens == most)


def _curve(axes: Axes, row: Row, look: Look, points: Sequence[tuple[float, dict | None]], band: float) -> None:
    """`band` is how dark it is; at 0 the points have whiskers instead."""
    colour = look.colour
    known = [(x, estimate) for x, estimate in points if estimate]
    for x in (x for x, estimate in points if not estimate):
        axes.plot([x], [0.02], marker="x", ms=6, color=colour, transform=axes.get_xaxis_transform(), clip_on=False)
    if not known:
        return
    xs, ys = [x for x, _ in known], [estimate["value"] * row.scale for _, estimate in known]
    axes.plot(xs, ys, color=colour, ls=look.dash, lw=1.7, marker=look.marker, ms=4.5)
    if len(known) > 1 and band:
        spans = [_span(row, estimate) for _, estimate in known]
        axes.fill_between(xs, [low for low, _ in spans], [high for _, high in spans], color=colour, alpha=band, lw=0)
    else:
        axes.errorbar(xs, ys, yerr=_whiskers(row, known), color=colour, ls="none", capsize=2.5, lw=1)


def _span(row: Row, estimate: dict) -> tuple[float, float]:
    low, high = statistics.interval(estimate) or (estimate["value"], estimate["value"])
    return low * row.scale, high * row.scale


def _whiskers(row: Row, known: Sequence[tuple[float, dict]]) -> list[list[float]]:
    spans = [(estimate["value"] * row.scale, *_span(row, estimate)) for _, estimate in known]
    return [[max(value - low, 0) for value, low, _ in spans], [max(high - value, 0) for value, _, high in spans]]


def _log_axis(axes: Axes, ticks: Mapping[float, str]) -> None:
    """Labels at the points themselves, as far as there is room."""
    axes.set_xscale("log")
    places = sorted(ticks)
    low, high = math.log(places[0]), math.log(places[-1])
    pad = 0.08 * (high - low) or math.log(2)
    axes.set_xlim(math.exp(low - pad), math.exp(high + pad))
    kept: list[float] = []
    for place in places:
        if not kept or math.log(place / kept[-1]) > 0.13 * (high - low):
            kept.append(place)
    axes.set_xticks(kept, [ticks[place] for place in kept])
    axes.set_xticks([], minor=True)


def curves(study: Study, losses: Mapping[str, Sequence[tuple[float, float]]]) -> Figure | None:
    """Training losses over the loss-bearing tokens seen, a line a cell; None without any."""
    if not losses:
        return None
    look_of = looks(study)

    def draw(axes: Axes) -> None:
        for line in study.lines:
            look = look_of[line.base.name, study.recipe(line)]
            for cell in (cell for point in line.points for cell in point if cell.name in losses):
                xs, ys = zip(*losses[cell.name], strict=True)
                axes.plot(xs, figures.smooth(ys, len(ys) // 25), color=look.colour, ls=look.dash, lw=1.2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda place, _: short(place))
        axes.set_xticks([], minor=True)
        axes.set_xlabel("loss-bearing tokens seen")
        figures.plain(axes)

    return figures.single(6.4, 3.0, draw)
