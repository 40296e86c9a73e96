"""Runs Python that nobody has read, such as a model wrote, and says whether it ran through.

A program gets namespaces of its own (no network, no other process in sight), a root that holds an interpreter, its
standard library and numpy, read-only, and an empty /tmp of a few megabytes; it is one process of one thread under
limits of time and memory, without privileges, and a seccomp filter refuses what such a program has no need of
(`inside.py`). Two kinds of sandbox build that: bubblewrap, and util-linux's unshare.

What this does not keep out: a program that takes its own interpreter apart to find the descriptors of its judge can
forge its verdict, not leave the sandbox.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from imitation_jax.sandbox import inside

KINDS = ("bwrap", "unshare")
PASSED, TIMED_OUT = "passed", "timed out"
START_SECONDS = 120  # for a machine with its hands full
PATIENCE = 20  # how many times its wall seconds a program may have to wait for a processor
REPORT_BYTES = 4096
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
ENVIRONMENT = {"HOME": "/tmp", "PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1"}
PROBE = """
import os, socket
assert sorted(os.listdir("/tmp")) == [] and not os.path.exists("/etc/passwd") and not os.path.exists("/proc/1")
with open("/tmp/probe", "w") as file:
    file.write("probe")
for attempt in (os.fork, socket.socket, lambda: open("/probe", "w"), lambda: os.execv("/bin/true", ["true"])):
    try:
        attempt()
    except OSError:
        continue
    raise AssertionError("the sandbox leaks")
"""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of one program. Processor time decides, so that a busy machine changes no verdict; wall time is for sleepers.

    Attributes:
      cpu_seconds: whole seconds of processor time.
      wall_seconds: after its start, without the time that it waited for a processor.
      memory_bytes: address space, and with it all memory that it can fill but /tmp.
      disk_bytes: of /tmp, which lies in memory.
      file_bytes: of one file, standard output and error together being one.
    """

    cpu_seconds: int = 3
    wall_seconds: float = 9.0
    memory_bytes: int = 1 << 30
    disk_bytes: int = 16 << 20
    file_bytes: int = 4 << 20


class Sandbox:
    """One kind of sandbox with its limits; `run` may be called from several threads at once.

    Attributes:
      kind: "bwrap" or "unshare".
      limits: of every program.
    """

    def __init__(self, kind: str, limits: Limits):
        """Raises OSError, saying why, where this machine cannot do it: a probe tries what it must not do."""
        self.kind, self.limits = kind, limits
        if sys.platform != "linux":
            raise OSError("only Linux has it")
        if platform.machine() not in inside.MACHINES:
            raise OSError(f"no system call numbers for {platform.machine()}")
        needed = {"bwrap": ["bwrap"], "unshare": ["setpriv", "unshare"]}[kind]
        if missing := [name for name in needed if not shutil.which(name)]:
            raise OSError(f"no {' and no '.join(missing)} on the PATH")
        self._command = _command(kind, limits)
        if (verdict := self.run([PROBE])) != PASSED:
            raise OSError(f"it does not isolate what runs in it ({verdict})")

    def run(self, sources: Sequence[str]) -> str:
        """Runs the sources one after another in one namespace, as `exec` does, in a fresh sandbox that ends with them.

        Returns:
          "passed" if all ran through, "timed out", or "failed: " and the reason in one line. Ending the process early,
          in whatever way, is no passing.

        Raises:
          OSError: the sandbox did not start, which says nothing about the program.
        """
        body = json.dumps(list(sources)).encode()
        token = secrets.token_hex(16).encode()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(self._command, env=ENVIRONMENT, cwd="/", bufsize=0, start_new_session=True, **pipes)
        with process:
            try:
                with _killed_after(START_SECONDS, process):
                    try:
                        _write(process.stdin.fileno(), b"%d\n" % len(body) + body + token)
                        process.stdin.close()
                    except BrokenPipeError:
                        pass
                    started = process.stdout.read(1) == b"R"
                if not started:
                    process.kill()
                    said = " ".join(process.stderr.read(REPORT_BYTES).decode(errors="replace").split())
                    raise OSError(f"the {self.kind} sandbox did not start ({said[-300:] or 'nothing said'})")
                with _killed_after(self.limits.wall_seconds, process) as expired:
                    report = b""
                    while len(report) < REPORT_BYTES and (more := process.stdout.read(REPORT_BYTES)):
                        report += more
                    if len(report) >= REPORT_BYTES:
                        process.kill()
                    status = process.wait()
            finally:
                process.kill()
        return _verdict(report, token, status, expired.is_set())


def find_sandbox(limits: Limits) -> Sandbox:
    """The first kind that works here.

    Raises:
      OSError: one line that says why none does.
    """
    reasons = []
    for kind in KINDS:
        try:
            return Sandbox(kind, limits)
        except OSError as error:
            reasons.append(f"{kind}: {error}")
    raise OSError(
        f"no sandbox to run code in ({'; '.join(reasons)}): install bubblewrap (apt-get install bubblewrap) on a Linux "
        "machine that allows user namespaces"
    )


def executable() -> str:
    """This interpreter, without the virtual environment around it."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def readable() -> tuple[list[str], list[str]]:
    """(paths that a bare interpreter needs, folders of packages): all of the machine's files that a program can see."""
    prefix = os.path.realpath(sys.base_prefix)
    library = [f"{os.path.realpath(sys.base_exec_prefix)}/lib", os.path.realpath(sysconfig.get_path("stdlib"))]
    wanted = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", f"{prefix}/lib", *library, executable()]
    packages = []
    if numpy := importlib.util.find_spec("numpy"):
        folder = Path(numpy.origin).parent
        packages.append(str(folder.parent))
        wanted += [str(folder), f"{folder}.libs"]
    paths: list[str] = []
    for path in wanted:
        if os.path.exists(path) and not any(path == held or path.startswith(f"{held}/") for held in paths):
            paths.append(path)
    return paths, packages


def _command(kind: str, limits: Limits) -> list[str]:
    paths, packages = readable()
    program = Path(inside.__file__).read_text(encoding="utf-8")
    root = [*paths, *(path for path in DEVICES if os.path.exists(path))] if kind == "unshare" else None
    settings = {"limits": dataclasses.asdict(limits), "packages": packages, "root": root}
    python = [executable(), "-s", "-S", "-P", "-B", "-c", program, json.dumps(settings)]
    if kind == "unshare":
        # Killed with whoever called it, and the first process of the namespace, and so all of them, with it.
        apart = ["--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"]
        die = ["setpriv", "--pdeathsig", "KILL", "unshare", *apart, "--fork", "--kill-child=KILL"]
        return [shutil.which(die[0]), *die[1:3], shutil.which(die[3]), *die[4:], *python]
    binds = [argument for path in paths for argument in ("--ro-bind", path, path)]
    devices = [argument for path in DEVICES for argument in ("--dev-bind-try", path, path)]
    temporary = ["--size", str(limits.disk_bytes), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
    apart = ["--unshare-all", "--unshare-user", "--die-with-parent", "--cap-drop", "ALL"]
    return [shutil.which("bwrap"), *apart, *binds, *devices, *temporary, *python]


@contextlib.contextmanager
def _killed_after(seconds: float, process: subprocess.Popen) -> Iterator[threading.Event]:
    """Kills the process if the block takes longer, and sets the event; waiting for a processor does not count."""
    done, expired = threading.Event(), threading.Event()
    end, before = time.monotonic() + seconds, _waited(process.pid)

    def left() -> float:
        waited = min(max(0.0, _waited(process.pid) - before), PATIENCE * seconds)
        return end + waited - time.monotonic()

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            wait = left()
            if wait <= 0:
                expired.set()
                process.kill()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield expired
    finally:
        done.set()
        watcher.join()


def _waited(pid: int) -> float:
    """Seconds that a process and its children, and theirs, were ready to run and had no processor."""
    try:
        nanoseconds = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, ValueError, IndexError):  # it has ended, or the kernel does not say
        return 0.0
    return nanoseconds / 1e9 + sum(_waited(int(child)) for child in children)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _verdict(report: bytes, token: bytes, status: int, expired: bool) -> str:
    if report == token:
        return PASSED
    number = status - 128 if status > 128 else -status
    if expired or number == signal.SIGXCPU:
        return TIMED_OUT
    if report.startswith(b"F"):
        return "failed: " + " ".join(report[1:].decode(errors="replace").split())[:300]
    if number in signal.valid_signals():
        return f"failed: killed by {signal.Signals(number).name}"
    return f"failed: ended with status {status} before its end was reached"
