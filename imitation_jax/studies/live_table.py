"""The live table of a study: bases and cells, progress, time left and first numbers; log lines without a terminal."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from absl import logging
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from imitation_jax.studies.status import JobStatus, StudyStatus

SECONDS_BETWEEN_LINES = 30.0
STYLES = {"done": "green", "failed": "bold red", "training": "yellow", "evaluating": "yellow", "missing": "dim"}


def status_table(status: StudyStatus) -> Table:
    """All bases and cells, and how long it will take; a number is the first of its result's metrics."""
    tasks = list(dict.fromkeys(task for one in status.of_job.values() for task in one.results))
    tasks = [task for task in tasks if task != "answers"]  # texts, which have no number worth a column
    table = Table(title=title(status), title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in ("", "tokens", "status", *tasks):
        table.add_column(name, justify="left" if name in ("", "status") else "right")
    for name, job in status.jobs.items():
        if job.kind in ("base", "teacher", "cell"):
            one = status.of_job[name]
            numbers = [_number(one.numbers.get(task)) for task in tasks]
            tokens = f"{one.trained_tokens:,}" if one.trained_tokens else ""
            table.add_row(name, tokens, stage(one), *numbers, style=STYLES[one.stage])
    return table


def stage(one: JobStatus) -> str:
    """A job's stage, and how much of it is done where that is known."""
    return f"{one.stage} {one.share:.0%}" if one.stage in ("training", "evaluating") and one.share else one.stage


def title(status: StudyStatus) -> str:
    """How many are done, and how long the others will take."""
    shown = [job.name for job in status.jobs.values() if job.kind in ("base", "teacher", "cell")]
    done = sum(status.done(name) for name in shown)
    seconds = status.seconds_left() if done < len(shown) else 0
    left = "" if done == len(shown) else ", time left unknown" if seconds is None else f", about {_time(seconds)} left"
    failed = f", {len(status.failed)} failed" if status.failed else ""
    return f"{status.layout.name}: {done} of {len(shown)} done{failed}{left}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _time(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


@contextlib.contextmanager
def showing(status: StudyStatus) -> Iterator[Callable[[str], None]]:
    """Gives a function to call with the name of the job that is going on, as often as one likes."""
    if sys.stderr.isatty():
        before = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # log lines would tear the table
        try:
            with Live(status_table(status), console=Console(stderr=True), auto_refresh=False, transient=True) as live:
                yield lambda name: live.update(status_table(status), refresh=True)
        finally:
            logging.set_verbosity(before)
        return
    last, ended = time.monotonic(), ""

    def show(name: str) -> None:
        nonlocal last, ended
        one = status.of_job[name]
        new = one.stage in ("done", "failed") and ended != name + one.stage
        if new or time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last, ended = time.monotonic(), name + one.stage
            numbers = [f"{task} {_number(value)}" for task, value in one.numbers.items() if task != "answers"]
            said = [f"{name}: {stage(one)}", ", ".join(numbers), title(status)]
            logging.info("%s", "; ".join(filter(None, said)))

    yield show
