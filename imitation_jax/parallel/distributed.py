"""Runs a command as several processes that work as one, on JAX's coordination service.

`initialize` joins them. From then on process 0 can `broadcast` values, all can `assert_equal` what they hold, and
whatever ends one process ends all of them within a minute, with one line that names it. All of it goes through the
key-value store of the service, which lives in process 0: name/INDEX, broadcast/NUMBER, heartbeat/INDEX, and end.

JAX aborts a process that misses another one. So the command runs in a child process of itself: the parent passes
signals on, holds back what the service logs, and makes one line and exit code 76 of an abort. A process that is alone
has no child. JAX is imported only where it is used, as the parent does without.
"""

import collections
import contextlib
import importlib.metadata
import json
import logging as std_logging
import os
import platform
import signal
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from absl import logging

import imitation_jax
from imitation_jax.core import command, progress
from imitation_jax.core.fingerprint import digest
from imitation_jax.parallel.supervisor import AGAIN, CHILD, JOIN, LOST, SILENCE, STALL, find_process, seconds, supervise

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers")
FOREVER_MS = 2**40
HELP = """
Several processes, each started with the same command, work as one. They find each other on TPU slices, on GKE, under
Slurm and Open MPI. Elsewhere the environment says where: JAX_COORDINATOR_ADDRESS is HOST:PORT of process 0,
JAX_NUM_PROCESSES how many there are, JAX_PROCESS_ID which one this is, from 0 on. IMITATION_JOIN_SECONDS (45) is how
long the others are waited for at the start; without a heartbeat for IMITATION_LOST_SECONDS (30) a process is lost, and
so is one that is alive but ends no step for IMITATION_STALL_SECONDS (1800), compiling and restoring not counted. What
ends one ends all: exit 76 where one was lost or did not come, so that launchers start all again, else the exit code of
the one that failed.
"""
_connection: "_Connection | None" = None


def initialize() -> None:
    """Joins the other processes of the run, where there are any; to be called before anything touches a device.

    With several processes it returns in a child process; the parent exits as the child does.

    Raises:
      ValueError: the environment says half of it, or the processes run different code.
      OSError: the port is taken.
    """
    if CHILD in os.environ:
        _connect()
    elif process := find_process():
        sys.exit(supervise(process))


def several() -> bool:
    """Whether there are other processes."""
    return _connection is not None


def process_index() -> int:
    """0 where the process is alone. Unlike jax.process_index it looks for no devices."""
    return _connection.index if _connection else 0


def broadcast(value: Any = None) -> Any:
    """What process 0 gives, on every process, when all are here; JSON-able, arrays and sets included."""
    return _connection.broadcast(value) if _connection else value


def assert_equal(what: str, mine: dict[str, Any]) -> None:
    """Goes on when all processes are here, and `mine` is the same on all.

    Raises:
      ValueError: naming what, the process, and the keys that differ from process 0's.
    """
    if _connection is None:
        return
    mine = json.loads(json.dumps(mine))
    first = broadcast(mine)
    if differ := [key for key in sorted(first.keys() | mine.keys()) if first.get(key) != mine.get(key)]:
        values = ", ".join(f"{key} ({first.get(key)!r} there, {mine.get(key)!r} here)" for key in differ[:9])
        more = f", and {len(differ) - 9} more" if len(differ) > 9 else ""
        raise ValueError(f"{what} of {_connection.name} is not that of process 0: {values}{more}")
    _connection.barrier()


def compile_together(step: Any, jitted: Any, *arguments: Any) -> Any:
    """`step` when all processes have the same program and have compiled it.

    A collective gives up on processes that come to it half a minute after the first, and compilers take as they like.

    Args:
      step: `jitted`, which is compiled here, or an executable of it.
      jitted: what `arguments` are lowered with; its text must be the same on all processes.

    Raises:
      ValueError: the programs differ.
    """
    if _connection is None:
        return step
    lowered = jitted.lower(*arguments)
    assert_equal("the program", {"lowered text": digest(lowered.as_text())})
    if step is jitted:
        step = lowered.compile()
    _connection.barrier()
    return step


def heartbeat(doing: str) -> None:
    """Says that this process goes on; `doing` names the next piece of work, as "step 3".

    Every process must call this the same number of times. One that says nothing more for STALL seconds while others do,
    or all of them, ends the run. Compiling does not count, nor does anything after an empty `doing`.
    """
    if _connection:
        _connection.beats += 1
        _connection.doing, _connection.compiling = doing, False


def catch_sigterm() -> Callable[[int], bool]:
    """From now on SIGTERM does not end the process.

    Returns:
      A function to be called after each step with its number: whether to save and stop now. All processes get True
      after the same step, whichever of them the signal came to.
    """
    if _connection is None:
        received: list[bool] = []
        signal.signal(signal.SIGTERM, lambda *_: received.append(True))
        return lambda step: bool(received)
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point  # JAX catches the signal since `initialize`


def stop_on_sigterm() -> None:
    """SIGTERM to one process stops all at once, to be started again. A process that is alone dies of it anyway."""
    why = "stopped by SIGTERM; the same command goes on where it was"

    def stop(*_: object) -> None:
        print(f"error: {why}", file=sys.stderr, flush=True)
        _connection.fail(f"was {why}", command.PREEMPTED)
        os._exit(command.PREEMPTED)

    if _connection:
        signal.signal(signal.SIGTERM, stop)


def _connect() -> None:
    """Joins the other processes, and becomes part of the run."""
    global _connection
    stderr, names_file = map(int, os.environ.pop(CHILD).split(","))
    # Descriptor 2 is a pipe to the parent, for what C++ code writes.
    sys.stderr = os.fdopen(stderr, "w", buffering=1, errors="backslashreplace")
    logging.get_absl_handler().python_handler.stream = sys.stderr
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, _interrupt)
    process = find_process()
    wait, silence, stall = seconds(JOIN), seconds(SILENCE), seconds(STALL)
    name = f"process {process.index} of {process.count} (host {socket.gethostname()}, pid {os.getpid()})"
    logging.info("%s: waiting for the others at %s", name, process.address)
    if process.index:
        logging.set_verbosity(logging.WARNING)
        form = std_logging.Formatter(f"%(asctime)s process {process.index}: %(message)s", "%H:%M:%S")
        logging.get_absl_handler().setFormatter(form)
        progress.quiet()
    import jax

    # Private: the client of the coordination service; and the service, as it names who is missing only when it has a
    # time limit of its own, which `initialize` cannot give it.
    from jax._src import distributed as jax_distributed

    service = jax_distributed._jax.get_distributed_runtime_service
    jax_distributed._jax.get_distributed_runtime_service = partial(service, cluster_register_timeout=wait)
    jax.distributed.initialize(
        process.address,
        process.count,
        process.index,
        local_device_ids=process.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=wait,
        heartbeat_timeout_seconds=silence,
    )
    client = jax_distributed.global_state.client
    client.key_value_set(f"name/{process.index}", name)
    names = [client.blocking_key_value_get(f"name/{index}", wait * 1000) for index in range(process.count)]
    with os.fdopen(names_file, "w") as file:
        json.dump(names, file)
    _connection = _Connection(client, process.index, names, silence, stall)
    command.at_end(_connection.end)
    assert_equal("the code", _code())
    jax.devices()  # the processes exchange theirs, now that all are here


def _end_with_parent() -> None:
    os.read(0, 1)  # the parent holds the other end, and never writes
    os.kill(os.getpid(), signal.SIGKILL)


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal it comes twice: from the parent too
    raise KeyboardInterrupt


def _code() -> dict[str, str]:
    """What makes a process compute what it computes: versions, and our sources' digests."""
    code = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            code[package] = importlib.metadata.version(package)
    root = Path(imitation_jax.__file__).parent
    return code | {str(path.relative_to(root.parent)): digest(path.read_text()) for path in root.rglob("*.py")}


class _Connection:
    """This process's connection to the coordination service, and through it to the others."""

    def __init__(self, client: Any, index: int, names: list[str], silence: int, stall: int):
        from jax import monitoring

        self.client, self.index, self.names = client, index, names
        self.name = names[index]
        self.beats, self.doing, self.compiling = 0, "", False  # see `heartbeat`
        self._silence, self._stall = silence, stall
        self._numbers = collections.Counter()  # of barriers and broadcasts so far
        self._waiting = ThreadPoolExecutor(1)
        self._whole = False
        self._failing = False  # by itself: it says why, and not what others say
        monitoring.register_event_duration_secs_listener(self._hear_compiler)
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._watcher.start()

    def barrier(self) -> None:
        """Goes on when all processes are here."""
        self._numbers["barrier"] += 1
        self._wait(self.client.wait_at_barrier, f"barrier/{self._numbers['barrier']}")

    def broadcast(self, value: Any) -> Any:
        self._numbers["broadcast"] += 1
        key = f"broadcast/{self._numbers['broadcast']}"
        if self.index == 0:
            text = json.dumps(value, default=lambda thing: thing.tolist() if hasattr(thing, "tolist") else list(thing))
            self.client.key_value_set_bytes(key, zlib.compress(text.encode(), 1))
        else:
            value = json.loads(zlib.decompress(self._wait(self.client.blocking_key_value_get_bytes, key)))
        self.barrier()
        if self.index == 0:
            self.client.key_value_delete(key)
        return value

    def _wait(self, call: Callable, key: str) -> Any:
        # While C++ code waits, its thread can handle no signal, and the main thread must.
        return self._waiting.submit(call, key, FOREVER_MS).result()

    def end(self, code: int, line: str, error: BaseException | None) -> None:
        """What this process ends with, by itself: its work is whole, or `error`; returns when the others know."""
        if error is None:
            import jax

            jax.distributed.shutdown()  # waits until all are as far; then processes that end are not missed
            self._whole = True
            self._watcher.join(9)  # in C++ code it would not survive the interpreter's end
            return
        self._wait_for_blame(error)
        self.fail(line, code)
        if code == 130:
            os._exit(code)  # the orderly way waits for the others

    def fail(self, what: str, code: int) -> None:
        """Ends the other processes: each says `what` about this one and exits with `code`; the caller ends this one."""
        self._failing = True
        self._end_all(f"{self.name} {what}", code)
        self._leave()

    def _wait_for_blame(self, error: BaseException | None) -> None:
        """Does not return where JAX failed in this process because another one is lost or has failed."""
        while error is not None:
            # Out of memory is this process's own.
            if type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" not in str(error):
                time.sleep(self._silence + 15)
                return
            error = error.__cause__ or error.__context__

    def _hear_compiler(self, event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            self.compiling = True
        elif event == "/jax/core/compile/backend_compile_duration":
            self.compiling = False

    def _watch(self) -> None:
        """Sends this process's heartbeats, and ends it when one of the processes says so."""
        sent, seen, since = None, None, time.monotonic()
        while not self._whole:
            try:
                beat = [self.beats, self.doing, bool(self.doing) and not self.compiling]
                if beat != sent:
                    self.client.key_value_set(f"heartbeat/{self.index}", json.dumps(beat), allow_overwrite=True)
                    sent = beat
                if self.index == 0:
                    beats = dict(self.client.key_value_dir_get("heartbeat/"))
                    if beats != seen:
                        seen, since = beats, time.monotonic()
                    elif time.monotonic() - since > self._stall:
                        self._blame_slowest(beats)
                ending = json.loads(self.client.blocking_key_value_get("end", 1000))
            except Exception as error:
                if "DEADLINE_EXCEEDED" in str(error):
                    continue
                return  # process 0 is gone, whereupon JAX aborts this one, or all part
            if self._failing:
                return
            print(f"error: {ending['line']}", file=sys.stderr, flush=True)
            self._leave()
            os._exit(ending["code"])

    def _blame_slowest(self, beats: dict[str, str]) -> None:
        """Ends all processes where those that are furthest behind are expected to go on."""
        by_index = {int(key.rpartition("/")[2]): json.loads(beat) for key, beat in beats.items()}
        least = min(count for count, _, _ in by_index.values())
        behind = {index: beat for index, beat in sorted(by_index.items()) if beat[0] == least}
        if all(expected for _, _, expected in behind.values()):
            names, doing = ", ".join(self.names[index] for index in behind), next(iter(behind.values()))[1]
            self._end_all(f"{names}: alive, but not past {doing} for {self._stall} s ({STALL}); {AGAIN}", LOST)

    def _end_all(self, line: str, code: int) -> None:
        """The first one that says so is heard."""
        with contextlib.suppress(Exception):
            self.client.key_value_set("end", json.dumps({"line": line, "code": code}))

    def _leave(self) -> None:
        """Process 0 goes last, or after 8 s: with it goes the service, whose end is an abort for the others."""
        with contextlib.suppress(Exception):
            self.client.key_value_set(f"left/{self.index}", "")
            for _ in range(80):
                if self.index or len(self.client.key_value_dir_get("left/")) == len(self.names):
                    return
                time.sleep(0.1)
