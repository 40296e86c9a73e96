"""Does a study's jobs on this machine, one command at a time, each a process of its own with a log."""

import time
from collections.abc import Sequence

from absl import logging

from imitation_jax.studies.jobs import Job
from imitation_jax.studies.study_session import Stopped, StudySession, failure

POLL_SECONDS = 0.5
LOOK_SECONDS = 2.0  # between two readings of what a job has written


def run(session: StudySession, jobs: Sequence[Job]) -> None:
    """Does what of `jobs` is not done, in order; a job that fails is noted, and the others go on.

    Raises:
      Stopped: SIGTERM or Ctrl-C came.
    """
    status = session.status
    for job in jobs:
        if status.done(job.name):
            continue
        if not (why := status.blocked(job)):
            status.running.add(job.name)
            why = _do(session, job)
            status.running.discard(job.name)
        if why:
            session.fail(job, why)
        else:
            session.look([job])


def _do(session: StudySession, job: Job) -> str:
    """Runs the job's commands; why it is not done then, or ""."""
    log = session.log(job)
    logging.info("%s: log %s", job.name, log)
    for command in job.commands:
        if callable(command):
            try:
                command()
            except (OSError, ValueError) as error:
                return str(error)
            continue
        process = session.start(command, log)
        looked = 0.0
        while process.poll() is None:
            if session.pause(POLL_SECONDS):
                process.terminate()
                process.wait()
                raise Stopped
            if time.monotonic() - looked > LOOK_SECONDS:
                session.look([job])
                looked = time.monotonic()
        if process.returncode:
            return failure(log, process.returncode)
    session.status.look(job.name)
    return "" if session.status.done(job.name) else f"its commands ended, but not all results are there; see {log}"
