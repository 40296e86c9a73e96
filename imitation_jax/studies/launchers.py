"""Hands bases and cells to the launchers: a Slurm array, or one TPU slice for each; and watches what they write.

The script of a job holds its commands as they stand, for each of its processes. What was handed over goes on when the
study is killed; the next start watches it again.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from absl import logging
from etils import epath

from imitation_jax.core.files import cache_dir, write_text
from imitation_jax.core.fingerprint import digest
from imitation_jax.studies import local_runner
from imitation_jax.studies.jobs import Command, Job
from imitation_jax.studies.layout import ROOT, Layout, strings
from imitation_jax.studies.status import StudyStatus

POLL_SECONDS = float(os.environ.get("IMITATION_POLL", "30"))  # between two looks, as in launch/tpu.sh


def line(command: Command) -> str:
    """The command for a shell in the root of the repository."""
    if callable(command):
        return f"# {getattr(command, 'func', command).__name__.strip('_')}, by study itself"
    return shlex.join("python" if word == "PYTHON" else word for word in command)


def refuse_local(layout: Layout) -> None:
    """Refuses what TPU slices would not find: of this machine they have only what git knows.

    Raises:
      ValueError: a model, the public data or another file is on this machine alone; one line.
    """
    for name, base in layout.bases.items():
        if not re.match(r"orbax:\w+://", base.model):
            where = f"config.bases.{name}.model={base.model}"
            raise ValueError(f"--launcher=tpu: {where} must be orbax:gs://..., which `convert --to` writes")
    if layout.config.public and "://" not in layout.config.public:
        raise ValueError(f"--launcher=tpu: config.public={layout.config.public} must be in a bucket, or empty")
    for text in strings(layout.evaluations | {"train": layout.config.train.to_dict()}):
        if text.startswith(("/", "~")):
            raise ValueError(f"--launcher=tpu: {text} is on this machine alone; name it in a bucket")


def run(
    state: StudyStatus, todo: Sequence[Job], here: Path, lock: int, show: Callable[[str], None], launcher: str
) -> None:
    """Hands over what of `todo` is not done and waits for its end; what fails is noted in `state.failed`.

    Slices of what was done while no study watched are given back.

    Args:
      here: local folder, which under Slurm all nodes see.
      lock: what started commands inherit, see `local_runner.alone`.
      show: as in `local_runner.run`.
      launcher: slurm or tpu.

    Raises:
      ValueError: a base without a slice.
      OSError: Slurm refuses the jobs.
      Stopped: SIGTERM or Ctrl-C came; what was handed over goes on.
    """
    missing = []
    for job in (job for job in todo if not state.done(job.name)):
        if why := state.blocked(job):
            _fail(state, job, why, show)
        else:
            missing.append(job)
    with local_runner.told_to_stop() as stopped:
        if launcher == "tpu":
            over = [job for job in todo if state.done(job.name) and _has_slice(state.layout, job)]
            _on_slices(state, over + missing, here, lock, show, stopped)
        elif missing:
            if array := _queued(state, stopped):
                logging.info("Slurm job %s of an earlier start is still there", array)
                names = _submitted(here)
                _watch(state, array, names, here, show, stopped)
                missing = [job for job in missing if not state.done(job.name) and job.name not in names]
            if missing:
                array = _submit(state, missing, here)
                _watch(state, array, [job.name for job in missing], here, show, stopped)


def script(job: Job, here: Path) -> Path:
    """Writes `jobs/JOB.sh`, which does all of the job."""
    path = here / "jobs" / f"{job.name}.sh"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/usr/bin/env bash", "set -eu", *map(line, job.commands)]) + "\n")
    return path


# ----------------------------------------------------------------------------------------------------------------------
# Slurm
# ----------------------------------------------------------------------------------------------------------------------


def _submit(state: StudyStatus, todo: Sequence[Job], here: Path) -> str:
    """The number of the array's array."""
    scripts = [str(script(job, here)) for job in todo]
    array = here / "jobs" / "array.sh"
    array.write_text(f'scripts=({shlex.join(scripts)})\nexec bash "${{scripts[$SLURM_ARRAY_TASK_ID]}}"\n')
    (here / "logs").mkdir(exist_ok=True)
    flags = shlex.split(state.layout.config.slurm.flags)
    flags += [f"--array=0-{len(todo) - 1}", f"--output={here}/logs/slurm-%A_%a.log", f"--job-name={_job_name(state)}"]
    # Before sbatch: a kill right after it must not lose what the tasks are.
    write_text(_list(here), json.dumps({"units": [job.name for job in todo]}) + "\n")
    done = _slurm("sbatch", "--parsable", *flags, "launch/slurm.sh", "bash", str(array))
    if done.returncode:
        raise OSError(f"sbatch: {' '.join(done.stderr.split())} (config.slurm.flags={state.layout.config.slurm.flags})")
    array = done.stdout.strip().partition(";")[0]
    logging.info("Slurm job %s: %d array tasks", array, len(todo))
    return array


def _list(here: Path) -> epath.Path:
    """The file with the names of the jobs of the last array, by their tasks' numbers."""
    return epath.Path(here) / "jobs" / "slurm.json"


def _submitted(here: Path) -> list[str]:
    return json.loads(_list(here).read_text())["units"] if _list(here).exists() else []


def _job_name(state: StudyStatus) -> str:
    """Of the study's arrays; by it the next start finds one."""
    return f"study-{digest(state.layout.workdir)}"


def _slurm(*argv: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        raise OSError(f"--launcher=slurm: there is no {argv[0]} here; start study where jobs are submitted") from None


def _queued(state: StudyStatus, stopped: Callable[[], bool]) -> str:
    """The number of the study's array of which a task waits or runs, "" where there is none.

    It is asked for until Slurm answers: a busy controller does not mean that the array has ended.
    """
    said = ""
    while True:
        done = _slurm("squeue", "--noheader", "--me", f"--name={_job_name(state)}", "--format=%F")
        if not done.returncode:
            return next(iter(done.stdout.split()), "")
        if not said:
            said = " ".join(done.stderr.split()) or f"exit {done.returncode}"
            logging.warning("squeue: %s; asking again every %g s", said, POLL_SECONDS)
        if _stopped_while_waiting(stopped):
            raise local_runner.Stopped


def _watch(
    state: StudyStatus,
    array: str,
    names: Sequence[str],
    here: Path,
    show: Callable[[str], None],
    stopped: Callable[[], bool],
) -> None:
    """Until the array has ended; `names` are its tasks' jobs, of which the study may have lost some since."""
    there = True
    while there:
        there = bool(_queued(state, stopped))  # asked before looking: what was written last is seen
        _look(state, [state.jobs[name] for name in names if name in state.jobs], show)
        if there and _stopped_while_waiting(stopped):
            logging.info("Slurm job %s goes on; scancel %s ends it", array, array)
            raise local_runner.Stopped
    for index, name in enumerate(names):
        if name in state.jobs and not state.done(name):
            log = here / "logs" / f"slurm-{array}_{index}.log"
            why = local_runner.last_words(log, 1) if log.exists() else f"no log of it: {log}"
            _fail(state, state.jobs[name], why, show)


# ----------------------------------------------------------------------------------------------------------------------
# TPU slices
# ----------------------------------------------------------------------------------------------------------------------


def slice_name(workdir: str, job: str) -> str:
    """The job's slice, as Cloud TPU takes names; no other job and no other workdir has it."""
    legible = re.sub(r"[^a-z0-9]+", "-", job.lower()).strip("-")[:24].rstrip("-")
    return f"study-{legible}-{digest([workdir, job])[:8]}"


def _has_slice(layout: Layout, job: Job) -> bool:
    """Whether launch/cell.sh has not come to its end for the job, by the note that it goes by."""
    return (cache_dir() / "tpu" / f"{slice_name(layout.workdir, job.name)}.run").exists()


def _on_slice(state: StudyStatus, job: Job) -> list[str]:
    """The command line for the job: all of it or, where it is done, giving its slice back."""
    config = state.layout.config
    argv = ["bash", "launch/cell.sh", slice_name(state.layout.workdir, job.name)]
    if state.done(job.name):
        return argv
    name = next((cell.base for cell in state.layout.cells if cell.name == job.name), job.name)
    if not (wanted := config.tpu.slice or config.bases[name].topology):
        raise ValueError(f"config.tpu.slice is empty, and config.bases.{name} names no topology")
    shell = " && ".join(map(line, job.commands))
    return [*argv, wanted, *shlex.split(config.tpu.flags), "--", "bash", "-c", shell]


def _on_slices(
    state: StudyStatus,
    todo: Sequence[Job],
    here: Path,
    lock: int,
    show: Callable[[str], None],
    stopped: Callable[[], bool],
) -> None:
    waiting, going = [(job, _on_slice(state, job)) for job in todo], {}
    logs = {job.name: here / "logs" / f"{job.name}.log" for job in todo}
    while waiting or going:
        while waiting and len(going) < state.layout.config.tpu.at_once:
            job, argv = waiting.pop(0)
            logs[job.name].parent.mkdir(parents=True, exist_ok=True)
            with open(logs[job.name], "ab") as output:
                going[job.name] = job, local_runner.start(argv, output, lock)
        stop = _stopped_while_waiting(stopped)
        _look(state, [job for job, _ in going.values()], show)
        for name, (job, process) in list(going.items()):
            if stop:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            elif process.poll() is not None:
                del going[name]
                state.look(name)
                if not state.done(name):
                    _fail(state, job, local_runner.last_words(logs[name], process.returncode), show)
                elif _has_slice(state.layout, job):
                    logging.error(
                        "%s is done, but its slice was not given back (launch/tpu.sh delete %s); see %s",
                        name,
                        slice_name(state.layout.workdir, name),
                        logs[name],
                    )
        if stop:
            logging.info("the slices go on; launch/tpu.sh delete NAME gives one back")
            raise local_runner.Stopped


def _stopped_while_waiting(stopped: Callable[[], bool]) -> bool:
    end = time.monotonic() + POLL_SECONDS
    while not stopped() and time.monotonic() < end:
        time.sleep(0.1)
    return stopped()


def _look(state: StudyStatus, todo: Iterable[Job], show: Callable[[str], None]) -> None:
    for job in todo:
        if not state.done(job.name):
            state.look(job.name)
            if state.of_job[job.name].status != "missing":
                show(job.name)
    state.write()


def _fail(state: StudyStatus, job: Job, why: str, show: Callable[[str], None]) -> None:
    logging.error("%s failed: %s", job.name, why)
    state.failed[job.name] = why
    state.look(job.name)
    show(job.name)
