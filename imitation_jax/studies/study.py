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
from imitation_jax.studies.jobs import study_jobs
from imitation_jax.studies.layout import Layout, lay_out
from imitation_jax.studies.status import StudyStatus

LAUNCHERS = ("here", "slurm", "tpu")
WIDTH = 200  # of the table where no terminal has one


def plan(config: ConfigDict, workdir: str, scale: float) -> str:
    """The cells, what is left out, and the commands."""
    found = lay_out(config, workdir, scale)
    lines = [f"{len(found.cells)} cells, {sum(cell.tokens for cell in found.cells):,} tokens of training in all"]
    lines += [f"left out: {what}: {why}" for what, why in found.left_out.items()]
    for job in study_jobs(found, _here(found)):
        lines += ["", f"# {job.name}{' (done)' if job.done() else ''}", *map(launchers.line, job.commands)]
    return "\n".join(lines)


def study(config: ConfigDict, workdir: str, scale: float, launcher: str) -> bool:
    """Does what is missing, and writes the report.

    Returns:
      True when all of it is there, False when SIGTERM or Ctrl-C ended it.

    Raises:
      ValueError: a config, or a workdir of another study; one line.
      OSError: jobs failed; the others are done, and the report is written.
    """
    found = lay_out(config, workdir, scale)
    if launcher == "tpu":
        if "://" not in found.workdir:
            raise ValueError(f"--launcher=tpu: --workdir={workdir} must be in a bucket, which the slices can see")
        launchers.refuse_local(found)
    here = _here(found)
    with local_runner.alone(here) as lock:
        state = StudyStatus(found, study_jobs(found, here))
        for what, why in found.left_out.items():
            logging.info("left out: %s: %s", what, why)
        state.write()
        todo = list(state.jobs.values())
        try:
            with live_table.showing(state) as shown:

                def show(name: str) -> None:
                    shown(name)
                    _tidy(state, name)

                if launcher == "here":
                    local_runner.run(state, todo, here, lock, show)
                else:
                    far = [job for job in todo if job.kind in ("base", "cell")]
                    near = [job for job in todo if job.kind in ("fetch", "build")]
                    local_runner.run(state, near, here, lock, show)
                    launchers.run(state, far, here, lock, show, launcher)
                    local_runner.run(state, [job for job in todo if job.kind in ("teacher", "judge")], here, lock, show)
        except local_runner.Stopped:
            state.write()
            logging.info("stopped; the same command goes on from here")
            return False
        for name in state.jobs:  # a kill may have come before
            _tidy(state, name)
        state.write()
        Console(width=None if sys.stdout.isatty() else WIDTH).print(live_table.table(state))
        _report(found, here, lock)
    if state.failed:
        name, why = next(iter(state.failed.items()))
        raise OSError(f"{len(state.failed)} of {len(todo)} jobs failed, the first one {name}: {why}")
    return True


def _report(found: Layout, here: Path, lock: int) -> None:
    """Made anew where something that it shows is newer."""
    page = epath.Path(found.workdir) / "report" / "index.html"
    shown = [epath.Path(found.workdir) / "study.json", *epath.Path(found.workdir).glob("eval/*/*.json")]
    if page.exists() and page.stat().mtime >= max(path.stat().mtime for path in shown):
        logging.info("nothing is missing; report: %s", page)
        return
    command = ["PYTHON", "-m", "imitation_jax.report", f"--workdir={found.workdir}"]
    log = here / "logs" / "report.log"
    log.parent.mkdir(exist_ok=True)
    with open(log, "wb") as output:
        code = local_runner.start(command, output, lock).wait()
    if code:
        raise OSError(f"the report failed: {local_runner.last_words(log, code)}")
    logging.info("report: %s", page)


def _tidy(state: StudyStatus, name: str) -> None:
    """Takes away what `config.keep` does not keep of a finished cell's checkpoints."""
    cell = next((cell for cell in state.layout.cells if cell.name == name), None)
    keep = state.layout.config.keep
    if not cell or not state.done(name) or keep == "all":
        return
    folder = epath.Path(state.layout.run(cell)) / "checkpoints"
    for place in [folder] if keep == "nothing" else folder.glob("*/optimizer") if folder.exists() else []:
        if place.exists():
            place.rmtree()


def _here(found: Layout) -> Path:
    """Where logs, locks and builds lie: the workdir, or for a bucket's a folder of the cache."""
    if "://" in found.workdir:
        return cache_dir() / "studies" / digest(found.workdir)
    return Path(found.workdir)
