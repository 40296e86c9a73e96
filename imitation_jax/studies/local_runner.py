"""Does a study's jobs on this machine, one command at a time, each a process of its own with a log."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import logging

from imitation_jax.core.files import Lock
from imitation_jax.studies.jobs import Command, Job
from imitation_jax.studies.layout import ROOT
from imitation_jax.studies.status import StudyStatus

POLL_SECONDS = 0.5
TAIL = 10_000  # bytes of a log in which a command's last words are looked for
# Becomes the command that follows, told to end when its parent dies, whose number comes first (PR_SET_PDEATHSIG). No
# preexec_fn: that forks a process of many threads, as one that has imported jax is.
ENDS_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


class Stopped(Exception):
    """SIGTERM or Ctrl-C came; what was running here has been told, and has ended."""


@contextlib.contextmanager
def alone(here: Path) -> Iterator[int]:
    """Holds the folder for this study, and gives a lock that its commands inherit.

    Where a study is killed, its commands are told to end (on Linux) and may be writing a checkpoint still: the next
    start waits for them.

    Raises:
      ValueError: another study is at work in the folder.
    """
    try:
        own = Lock(here / "study.lock", "another study is at work there; wait, or stop it")
    except BlockingIOError as error:
        raise ValueError(f"--workdir={here}: {error}") from None
    with own, open(here / "commands.lock", "w") as commands:
        try:
            fcntl.flock(commands, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info("a command of an earlier start is still ending; waiting for it")
            fcntl.flock(commands, fcntl.LOCK_EX)
        yield commands.fileno()


def run(state: StudyStatus, todo: Sequence[Job], here: Path, lock: int, show: Callable[[str], None]) -> None:
    """Does what of `todo` is not done, in order; a job that fails is noted in `state.failed`, and the others go on.

    Args:
      here: local folder of the logs.
      lock: what the commands inherit, see `alone`.
      show: called with the name of the job that is going on, every half second, and at its end.

    Raises:
      Stopped: SIGTERM or Ctrl-C came.
    """
    with told_to_stop() as stopped:
        for job in todo:
            if state.done(job.name):
                continue
            if not (why := state.blocked(job)):
                state.running.add(job.name)
                why = _do(state, job, here, lock, show, stopped)
                state.running.discard(job.name)
            if why:
                logging.error("%s failed: %s", job.name, why)
                state.failed[job.name] = why
            state.look(job.name)
            state.write()
            show(job.name)


def _do(
    state: StudyStatus, job: Job, here: Path, lock: int, show: Callable[[str], None], stopped: Callable[[], bool]
) -> str:
    """Runs the job's commands; why it is not done then, or ""."""
    log = here / "logs" / f"{job.name.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    logging.info("%s: log %s", job.name, log)
    for command in job.commands:
        if callable(command):
            try:
                command()
            except (OSError, ValueError) as error:
                return str(error)
            continue
        with open(log, "ab") as output:
            process = start(command, output, lock)
        last = 0.0
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            if stopped():
                process.terminate()
                process.wait()
                raise Stopped
            if time.monotonic() - last > 4 * POLL_SECONDS:
                state.look(job.name)
                state.write()
                show(job.name)
                last = time.monotonic()
        if process.returncode:
            return last_words(log, process.returncode)
    state.look(job.name)
    return "" if state.done(job.name) else f"its commands ended, but not all results are there; see {log}"


def start(command: Command, output, lock: int) -> subprocess.Popen:
    """The command as a process in the root of the repository; it is told to end when this one is killed."""
    argv = [sys.executable if word == "PYTHON" else word for word in command]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    options = {"stdout": output, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "cwd": ROOT}
    # A group of its own: Ctrl-C comes here alone, and a checkpoint is written before the end.
    options |= {"env": environment, "pass_fds": (lock,), "process_group": 0}
    if sys.platform == "linux":
        argv = [sys.executable, "-I", "-S", "-c", ENDS_WITH_PARENT, str(os.getpid()), *argv]
    return subprocess.Popen(argv, **options)


def last_words(log: Path, code: int) -> str:
    """Why a command ended: its error line, else its exit code."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.startswith("error: ")), "")
    return said.removeprefix("error: ") or f"exit {code}; see {log}"


@contextlib.contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGTERM or Ctrl-C has come."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: came.append(got)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
