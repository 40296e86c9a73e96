"""Figures: one small panel a measure, and the training curve. As SVG they take the page's colours, as PNG their own."""

import functools
import io
import re
import textwrap
from collections.abc import Callable, Sequence

import matplotlib
from etils import epath
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from imitation_jax.evaluation.task import Row
from imitation_jax.reporting.model_results import Model

# CSS variable of the page -> the colour that stands for it in a figure, and that PNG files show.
INK, FAINT, PAPER = "#1c2024", "#8b939c", "#fffefd"
ROLE_COLOURS = {"base": "#8795a6", "": "#b28a2e", "student": "#2f6fdb", "teacher": "#2b9a66"}
# Of lines: one a base model, or one a data set where there is a single base.
SERIES = ("#3069c9", "#c8641b", "#2a8f63", "#a2478f", "#8a7a1f", "#4b9fb5", "#8d5a3b")
VARIABLES = {INK: "ink", FAINT: "faint", PAPER: "paper"} | {
    colour: f"role-{role or 'other'}" for role, colour in ROLE_COLOURS.items()
}
VARIABLES |= {colour: f"series-{number}" for number, colour in enumerate(SERIES)}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "svg.hashsalt": "imitation_jax",
}


def figure_of(width: float, height: float) -> Figure:
    """An empty figure, in inches, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def svg(figure: Figure) -> str:
    """An `<svg>` element that scales to its container and takes its colours from the page's CSS variables."""
    with matplotlib.rc_context(STYLE):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: (?:[\w.]+ )?([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def write(figure: Figure, folder: epath.Path, name: str) -> None:
    """`name`.png with 200 dots an inch, and `name`.svg; both in the light colours."""
    with matplotlib.rc_context(STYLE):
        for kind, options in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, **options)
            (folder / f"{name}.{kind}").write_bytes(buffer.getvalue())
            figure.set_layout_engine("none")  # it has found every place, and takes its time


def single(width: float, height: float, draw: Callable[[Axes], None]) -> Figure:
    """A figure, in inches, of what `draw` draws."""
    with matplotlib.rc_context(STYLE):
        figure = figure_of(width, height)
        draw(figure.subplots())
    return figure


def in_pairs(height: float, drawings: Sequence[Callable[[Axes], None]]) -> Figure:
    """A figure of several, two beside each other."""
    with matplotlib.rc_context(STYLE):
        figure = figure_of(8.4, height)
        places = figure.subplots((len(drawings) + 1) // 2, 2, squeeze=False).flat
        for axes, draw in zip(places, drawings, strict=False):
            draw(axes)
        for axes in places[len(drawings) :]:
            axes.set_axis_off()
    return figure


def panel(models: Sequence[Model], row: Row) -> Figure:
    """One measure: a bar a model, base first, with whiskers of one standard error."""
    return single(3.6, 0.62 + 0.3 * len(models), lambda axes: _bars(axes, models, row))


def panels(models: Sequence[Model], rows: Sequence[Row]) -> Figure:
    """All of `rows` in one figure, two beside each other."""

    def titled(axes: Axes, row: Row) -> None:
        _bars(axes, models, row)
        guessing = any("chance" in model.results.get(row.task, {}) for model in models)
        label = textwrap.fill(row.label, 42)
        axes.set_title(label, loc="left", fontsize=10, color=INK, pad=16 if guessing else 6)

    height = (len(rows) + 1) // 2 * (0.95 + 0.32 * len(models))
    return in_pairs(height, [functools.partial(titled, row=row) for row in rows])


def _bars(axes: Axes, models: Sequence[Model], row: Row) -> None:
    estimates = [model.estimate(row) for model in models]
    chances = [model.results[row.task]["chance"] for model in models if "chance" in model.results.get(row.task, {})]
    ends = [(e["value"] - (e["stderr"] or 0), e["value"] + (e["stderr"] or 0)) for e in estimates if e]
    low, high = (
        min([0.0, *(low for low, _ in ends)]),
        max([*(high for _, high in ends or [(0.0, 1.0)]), *chances, 1e-9]),
    )
    span = (high - low) * row.scale
    for place, (model, estimate) in enumerate(zip(models, estimates, strict=True)):
        if estimate is None:
            axes.text(0, place, "  missing", va="center", color=FAINT, style="italic")
            continue
        value, error = estimate["value"] * row.scale, (estimate["stderr"] or 0) * row.scale
        axes.barh(place, value, height=0.62, color=ROLE_COLOURS[model.role])
        if error:
            axes.errorbar(value, place, xerr=error, color=INK, capsize=2.5, lw=1)
        axes.text(max(value + error, 0) + 0.02 * span, place, row.show(estimate["value"]), va="center", color=INK)
    if chances:
        axes.axvline(chances[0] * row.scale, color=FAINT, lw=1, ls=(0, (3, 2)))
        axes.text(chances[0] * row.scale, -0.62, "guessing", ha="center", va="bottom", color=FAINT, fontsize=7.5)
    axes.set_yticks(range(len(models)), [shorten(model.name) for model in models])
    axes.set_ylim(len(models) - 0.5, -0.55)
    axes.set_xlim(low * row.scale, low * row.scale + span * 1.2)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.locator_params(axis="x", nbins=5)


def shorten(name: str) -> str:
    """A model's name where there is little room."""
    return name if len(name) <= 18 else f"{name[:10]}…{name[-7:]}"


def curve(metrics: Sequence[dict]) -> Figure | None:
    """Training loss over steps; None without at least two finite points."""
    points = [(row["step"], row["loss"]) for row in metrics if number(row.get("step")) and number(row.get("loss"))]
    if len(points) < 2:
        return None
    held_out = [row for row in metrics if number(row.get("step")) and number(row.get("validation_loss"))]

    def draw(axes: Axes) -> None:
        steps, losses = zip(*points, strict=True)
        faint = len(points) > 40
        axes.plot(steps, losses, color=ROLE_COLOURS["student"], lw=0.8 if faint else 1.6, alpha=0.35 if faint else 1)
        if faint:
            axes.plot(steps, smooth(losses, len(points) // 25), color=ROLE_COLOURS["student"], lw=1.8)
        if held_out:
            validation = [row["validation_loss"] for row in held_out]
            axes.plot([row["step"] for row in held_out], validation, color=INK, lw=1.2, marker="o", ms=3)
            last = (held_out[-1]["step"], validation[-1])
            axes.annotate("validation", last, (-4, 6), textcoords="offset points", ha="right")
        axes.set_xlabel("step")
        axes.set_title("Loss a loss-bearing token", loc="left", fontsize=10, color=INK)
        plain(axes)

    return single(5.0, 2.5, draw)


def plain(axes: Axes) -> None:
    """Two spines, faint numbers, and faint lines across."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelcolor=FAINT)
    axes.grid(axis="y", color=FAINT, alpha=0.25, lw=0.6)


def number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Mean over a window of 2 width + 1 points, shorter at the ends."""
    return [
        sum(window) / len(window)
        for window in (values[max(0, index - width) : index + width + 1] for index in range(len(values)))
    ]
