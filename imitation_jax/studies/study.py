"""A study from its config to its report."""

import sys
from pathlib import Path

from absl import logging
from etils import epath
from ml_collections import ConfigDict
from rich.console import Console

from imitation_jax.core.files import cache_dir
from imitation_jax.core.fingerprint import digest
from imitation_jax.studies import launchers, live_table, local_runner
from imitation_jax.studies.jobs import Job, study_jobs
from imitation_jax.studies.layout import Layout, lay_out
from imitation_jax.studies.status import StudyStatus
from imitation_jax.studies.study_session import (
    Stopped,
    StudySession,
    exclusive,
    failure,
    shell_line,
    start,
    stop_signal,
)

WIDTH = 200  # of the table where no terminal has one


def plan(config: ConfigDict, workdir: str, scale: float) -> str:
    """The cells, what is left out, and the commands."""
    layout = lay_out(config, workdir, scale)
    lines = [f"{len(layout.cells)} cells, {sum(cell.tokens for cell in layout.cells):,} tokens of training in all"]
    lines += [f"left out: {what}: {why}" for what, why in layout.left_out.items()]
    for job in study_jobs(layout, _here(layout)):
        lines += ["", f"# {job.name}{' (done)' if job.done() else ''}", *map(shell_line, job.commands)]
    return "\n".join(lines)


def study(config: ConfigDict, workdir: str, scale: float, launcher: str) -> bool:
    """Does what is missing, and writes the report.

    Args:
      launcher: where bases and cells run: one of `launchers.names()`, or `launchers.HERE`.

    Returns:
      True when all of it is there, False when SIGTERM or Ctrl-C ended it.

    Raises:
      ValueError: a config, a launcher, or a workdir of another study; one line.
      OSError: jobs failed; the others are done, and the report is written.
    """
    layout = lay_out(config, workdir, scale)
    if launcher != launchers.HERE:
        launchers.load(launcher).check(layout)
    here = _here(layout)
    with exclusive(here) as lock:
        status = StudyStatus(layout, study_jobs(layout, here))
        for what, why in layout.left_out.items():
            logging.info("left out: %s: %s", what, why)
        status.write()
        try:
            with live_table.showing(status) as show, stop_signal() as stopped:
                _do(StudySession(status, here, lock, show, stopped), launcher)
        except Stopped:
            status.write()
            logging.info("stopped; the same command goes on from here")
            return False
        status.write()
        Console(width=None if sys.stdout.isatty() else WIDTH).print(live_table.status_table(status))
        _report(layout, here, lock)
    if status.failed:
        name, why = next(iter(status.failed.items()))
        raise OSError(f"{len(status.failed)} of {len(status.jobs)} jobs failed, the first one {name}: {why}")
    return True


def _do(session: StudySession, launcher: str) -> None:
    """All jobs; with a launcher those that compute go there, between what they need and what needs them."""
    status = session.status

    def of_kinds(*kinds: str) -> list[Job]:
        return [job for job in status.jobs.values() if job.kind in kinds]

    if launcher == launchers.HERE:
        local_runner.run(session, list(status.jobs.values()))
        return
    local_runner.run(session, of_kinds("fetch", "build"))
    able = []
    for job in of_kinds("base", "cell"):
        if why := status.blocked(job):
            session.fail(job, why)
        elif not status.done(job.name):
            able.append(job)
    launchers.load(launcher).run(session, able)
    local_runner.run(session, of_kinds("teacher", "judge"))


def _report(layout: Layout, here: Path, lock: int) -> None:
    """Made anew where something that it shows is newer."""
    workdir = epath.Path(layout.workdir)
    page = workdir / "report" / "index.html"
    shown = [workdir / "study.json", *workdir.glob("eval/*/*.json")]
    if page.exists() and page.stat().mtime >= max(path.stat().mtime for path in shown):
        logging.info("nothing is missing; report: %s", page)
        return
    log = here / "logs" / "report.log"
    log.unlink(missing_ok=True)
    command = ["PYTHON", "-m", "imitation_jax.report", f"--workdir={layout.workdir}"]
    if code := start(command, log, lock).wait():
        raise OSError(f"the report failed: {failure(log, code)}")
    logging.info("report: %s", page)


def _here(layout: Layout) -> Path:
    """Where logs, locks and builds lie: the workdir, or for a bucket's a folder of the cache."""
    if "://" in layout.workdir:
        return cache_dir() / "studies" / digest(layout.workdir)
    return Path(layout.workdir)
