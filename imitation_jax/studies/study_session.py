"""One start of a study: what it holds of its folder, and the commands that it starts there."""

import contextlib
import dataclasses
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from absl import logging
from etils import epath

from imitation_jax.core.files import Lock
from imitation_jax.studies.jobs import Command, Job
from imitation_jax.studies.layout import ROOT
from imitation_jax.studies.status import StudyStatus

TAIL = 10_000  # bytes of a log in which a command's error line is looked for
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


@dataclasses.dataclass
class StudySession:
    """What a launcher works with.

    Attributes:
      status: of all jobs; what a launcher reads again by `look`.
      here: local folder of logs and jobs' scripts; under Slurm all nodes see it.
      lock: what started commands inherit, see `exclusive`.
      show: called with the name of the job that is going on, as often as one likes.
      stopped: whether SIGTERM or Ctrl-C has come.
    """

    status: StudyStatus
    here: Path
    lock: int
    show: Callable[[str], None]
    stopped: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        for name in self.status.jobs:  # where a kill came before
            self._tidy(name)

    def look(self, jobs: Iterable[Job]) -> None:
        """Reads again how far these jobs are, and shows and writes that."""
        for job in jobs:
            self.status.look(job.name)
            self._tidy(job.name)
            if self.status.of_job[job.name].stage != "missing":
                self.show(job.name)
        self.status.write()

    def _tidy(self, name: str) -> None:
        """Takes away what `config.keep` does not keep of a finished cell's checkpoints."""
        layout = self.status.layout
        cell = next((cell for cell in layout.cells if cell.name == name), None)
        if not cell or not self.status.done(name) or layout.config.keep == "all":
            return
        folder = epath.Path(layout.run(cell)) / "checkpoints"
        whole = layout.config.keep == "nothing"
        for place in [folder] if whole else folder.glob("*/optimizer") if folder.exists() else []:
            if place.exists():
                place.rmtree()

    def fail(self, job: Job, why: str) -> None:
        """Notes that the job has failed; the others go on."""
        logging.error("%s failed: %s", job.name, why)
        self.status.failed[job.name] = why
        self.look([job])

    def log(self, job: Job) -> Path:
        """Where the output of the job's commands goes."""
        return self.here / "logs" / f"{job.name.replace(' ', '-')}.log"

    def start(self, command: list[str], log: Path) -> subprocess.Popen:
        """See `start`."""
        return start(command, log, self.lock)

    def pause(self, seconds: float) -> bool:
        """Waits; ends early and says so where SIGTERM or Ctrl-C has come."""
        end = time.monotonic() + seconds
        while not self.stopped() and (left := end - time.monotonic()) > 0:
            time.sleep(min(0.1, left))
        return self.stopped()


@contextlib.contextmanager
def exclusive(here: Path) -> Iterator[int]:
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


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGTERM or Ctrl-C has come."""
    came: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda got, _: came.append(got)) for number in numbers}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(command: list[str], log: Path, lock: int) -> subprocess.Popen:
    """The command as a process in the root of the repository, whose output is added to the log.

    It inherits the lock, and is told to end when this process is killed.
    """
    argv = [sys.executable if word == "PYTHON" else word for word in command]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    if sys.platform == "linux":
        argv = [sys.executable, "-I", "-S", "-c", ENDS_WITH_PARENT, str(os.getpid()), *argv]
    options = {"stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "cwd": ROOT, "env": environment}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        # A group of its own: Ctrl-C comes here alone, and a checkpoint is written before the end.
        return subprocess.Popen(argv, stdout=output, pass_fds=(lock,), process_group=0, **options)


def shell_line(command: Command) -> str:
    """The command for a shell in the root of the repository."""
    if callable(command):
        return f"# {getattr(command, 'func', command).__name__.strip('_')}, by study itself"
    return shlex.join("python" if word == "PYTHON" else word for word in command)


def failure(log: Path, code: int) -> str:
    """Why a command ended: its error line, else its exit code."""
    if not log.exists():
        return f"no log of it: {log}"
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.startswith("error: ")), "")
    return said.removeprefix("error: ") or f"exit {code}; see {log}"
