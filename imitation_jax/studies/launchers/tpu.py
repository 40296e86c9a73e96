"""Cloud TPU: a slice for each job, from its creation to its end, by launch/tpu_job.sh; the workdir is in a bucket."""

import os
import re
import shlex
import signal
from collections.abc import Sequence

from absl import logging

from imitation_jax.core.files import cache_dir
from imitation_jax.core.fingerprint import PLACE, Key, Keys, digest
from imitation_jax.studies import launchers
from imitation_jax.studies.jobs import Job
from imitation_jax.studies.layout import Layout, strings
from imitation_jax.studies.study_session import Stopped, StudySession, failure, shell_line

KEYS = Keys(
    slice=Key("", "as v5e:8x8; where empty the base's own", PLACE),
    flags=Key("", "of gcloud, space-separated, as --spot", PLACE),
    at_once=Key(4, "slices at a time", PLACE),
)


def check(layout: Layout) -> None:
    """Refuses what slices would not find: of this machine they have only what git knows.

    Raises:
      ValueError: the workdir, a model, the public data or another file is on this machine alone; one line.
    """
    if "://" not in layout.workdir:
        raise ValueError(f"--launcher=tpu: --workdir={layout.workdir} must be in a bucket, which the slices can see")
    for name, base in layout.bases.items():
        if not re.match(r"orbax:\w+://", base.model):
            where = f"config.bases.{name}.model={base.model}"
            raise ValueError(f"--launcher=tpu: {where} must be orbax:gs://..., which `convert --to` writes")
    if layout.config.public and "://" not in layout.config.public:
        raise ValueError(f"--launcher=tpu: config.public={layout.config.public} must be in a bucket, or empty")
    for text in strings(layout.evaluations | {"train": layout.config.train.to_dict()}):
        if text.startswith(("/", "~")):
            raise ValueError(f"--launcher=tpu: {text} is on this machine alone; name it in a bucket")


def run(session: StudySession, jobs: Sequence[Job]) -> None:
    """Runs each job on a slice of its own; slices of jobs that ended while no study watched are given back.

    Raises:
      ValueError: a base without a slice.
      Stopped: SIGTERM or Ctrl-C came; the slices go on.
    """
    status = session.status
    done = [job for job in status.jobs.values() if status.done(job.name) and _has_slice(status.layout, job)]
    waiting = [(job, _command(session, job)) for job in [*done, *jobs]]
    running = {}
    while waiting or running:
        while waiting and len(running) < status.layout.config.tpu.at_once:
            job, argv = waiting.pop(0)
            running[job.name] = job, session.start(argv, session.log(job))
        stop = session.pause(launchers.POLL_SECONDS)
        session.look(job for job, _ in running.values() if not status.done(job.name))
        for name, (job, process) in list(running.items()):
            if stop:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            elif process.poll() is not None:
                del running[name]
                _ended(session, job, process.returncode)
        if stop:
            logging.info("the slices go on; launch/tpu.sh delete NAME gives one back")
            raise Stopped


def slice_name(workdir: str, job: str) -> str:
    """The job's slice, as Cloud TPU takes names; no other job and no other workdir has it."""
    legible = re.sub(r"[^a-z0-9]+", "-", job.lower()).strip("-")[:24].rstrip("-")
    return f"study-{legible}-{digest([workdir, job])[:8]}"


def _has_slice(layout: Layout, job: Job) -> bool:
    """Whether launch/tpu_job.sh has not come to its end for the job, by the note that it goes by."""
    return (cache_dir() / "tpu" / f"{slice_name(layout.workdir, job.name)}.run").exists()


def _command(session: StudySession, job: Job) -> list[str]:
    """The command line for the job: all of it or, where it is done, giving its slice back."""
    layout = session.status.layout
    argv = ["bash", "launch/tpu_job.sh", slice_name(layout.workdir, job.name)]
    if session.status.done(job.name):
        return argv
    base = next((cell.base for cell in layout.cells if cell.name == job.name), job.name)
    if not (wanted := layout.config.tpu.slice or layout.config.bases[base].topology):
        raise ValueError(f"config.tpu.slice is empty, and config.bases.{base} names no topology")
    shell = " && ".join(map(shell_line, job.commands))
    return [*argv, wanted, *shlex.split(layout.config.tpu.flags), "--", "bash", "-c", shell]


def _ended(session: StudySession, job: Job, code: int) -> None:
    """What has become of a job whose script has ended."""
    status, log = session.status, session.log(job)
    status.look(job.name)
    name = slice_name(status.layout.workdir, job.name)
    if not status.done(job.name):
        session.fail(job, failure(log, code))
    elif _has_slice(status.layout, job):
        given_back = f"launch/tpu.sh delete {name}"
        logging.error("%s is done, but its slice was not given back (%s); see %s", job.name, given_back, log)
