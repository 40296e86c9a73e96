"""Slurm: one array of jobs, a task each; started with sbatch from a machine whose folders all nodes see."""

import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from etils import epath

from imitation_jax.core.files import write_text
from imitation_jax.core.fingerprint import PLACE, Key, Keys, digest
from imitation_jax.studies import launchers
from imitation_jax.studies.jobs import Job
from imitation_jax.studies.layout import ROOT, Layout
from imitation_jax.studies.study_session import Stopped, StudySession, failure, shell_line

KEYS = Keys(flags=Key("", "of sbatch, space-separated, as --nodes=4 --gpus-per-node=8 --ntasks-per-node=8", PLACE))


def check(layout: Layout) -> None:
    """Nodes see what this machine sees."""


def run(session: StudySession, jobs: Sequence[Job]) -> None:
    """Submits the jobs as an array and waits for its end; an array that an earlier start submitted comes first.

    Raises:
      OSError: Slurm refuses the array.
      Stopped: SIGTERM or Ctrl-C came; the array goes on.
    """
    if not jobs:
        return
    if array := _queued(session):
        logging.info("Slurm job %s of an earlier start is still there", array)
        names = _submitted(session.here)
        _watch(session, array, names)
        jobs = [job for job in jobs if not session.status.done(job.name) and job.name not in names]
    if jobs:
        array = _submit(session, jobs)
        _watch(session, array, [job.name for job in jobs])


def _submit(session: StudySession, jobs: Sequence[Job]) -> str:
    """The number of the array."""
    here, folder = session.here, session.here / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    scripts = []
    for job in jobs:
        scripts.append(str(folder / f"{job.name}.sh"))
        Path(scripts[-1]).write_text(
            "\n".join(["#!/usr/bin/env bash", "set -eu", *map(shell_line, job.commands)]) + "\n"
        )
    task = folder / "array.sh"
    task.write_text(f'scripts=({shlex.join(scripts)})\nexec bash "${{scripts[$SLURM_ARRAY_TASK_ID]}}"\n')
    (here / "logs").mkdir(exist_ok=True)
    wanted = session.status.layout.config.slurm.flags
    flags = [*shlex.split(wanted), f"--array=0-{len(jobs) - 1}", f"--job-name={_array_name(session)}"]
    flags.append(f"--output={here}/logs/slurm-%A_%a.log")
    # Before sbatch: a kill right after it must not lose what the tasks are.
    write_text(_list(here), json.dumps({"jobs": [job.name for job in jobs]}) + "\n")
    answer = _slurm("sbatch", "--parsable", *flags, "launch/slurm.sh", "bash", str(task))
    if answer.returncode:
        raise OSError(f"sbatch: {' '.join(answer.stderr.split())} (config.slurm.flags={wanted})")
    array = answer.stdout.strip().partition(";")[0]
    logging.info("Slurm job %s: %d array tasks", array, len(jobs))
    return array


def _list(here: Path) -> epath.Path:
    """The file with the names of the jobs of the last array, by their tasks' numbers."""
    return epath.Path(here) / "jobs" / "slurm.json"


def _submitted(here: Path) -> list[str]:
    listed = json.loads(_list(here).read_text()) if _list(here).exists() else {}
    return listed.get("jobs") or listed.get("units") or []  # "units" before jobs were called so


def _array_name(session: StudySession) -> str:
    """Of the study's arrays; by it the next start finds one."""
    return f"study-{digest(session.status.layout.workdir)}"


def _slurm(*argv: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        raise OSError(f"--launcher=slurm: there is no {argv[0]} here; start study where jobs are submitted") from None


def _queued(session: StudySession) -> str:
    """The number of the study's array of which a task waits or runs, "" where there is none.

    It is asked for until Slurm answers: a busy controller does not mean that the array has ended.
    """
    said = ""
    while True:
        answer = _slurm("squeue", "--noheader", "--me", f"--name={_array_name(session)}", "--format=%F")
        if not answer.returncode:
            return next(iter(answer.stdout.split()), "")
        if not said:
            said = " ".join(answer.stderr.split()) or f"exit {answer.returncode}"
            logging.warning("squeue: %s; asking again every %g s", said, launchers.POLL_SECONDS)
        if session.pause(launchers.POLL_SECONDS):
            raise Stopped


def _watch(session: StudySession, array: str, names: Sequence[str]) -> None:
    """Until the array has ended; `names` are its tasks' jobs, of which the study may have lost some since."""
    status = session.status
    going_on = True
    while going_on:
        going_on = bool(_queued(session))  # asked before looking: what was written last is seen
        session.look(status.jobs[name] for name in names if name in status.jobs and not status.done(name))
        if going_on and session.pause(launchers.POLL_SECONDS):
            logging.info("Slurm job %s goes on; scancel %s ends it", array, array)
            raise Stopped
    for index, name in enumerate(names):
        if name in status.jobs and not status.done(name):
            session.fail(status.jobs[name], failure(session.here / "logs" / f"slurm-{array}_{index}.log", 1))
