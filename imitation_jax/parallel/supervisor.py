"""The parent of a process that is one of several: it starts the command as a child, and explains how that ended.

JAX aborts a process that misses another one, with pages of C++. The parent passes signals on, holds back what JAX's
coordination service logs, and makes one line and exit code 76 of an abort. It does without jax.
"""

import collections
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any, BinaryIO, NamedTuple

LOST = 76  # exit code: another process is missing, start all again
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
JOIN, SILENCE, STALL = "IMITATION_JOIN_SECONDS", "IMITATION_LOST_SECONDS", "IMITATION_STALL_SECONDS"
DEFAULT_SECONDS = {JOIN: 45, SILENCE: 30, STALL: 1800}
CHILD = "IMITATION_CHILD"  # set by the parent: two file descriptors, of its stderr and for the names
AGAIN = "see its log. Start all again, they go on where they were"
# What C++ code logs, and which of it is about lost processes; lines without that head belong to the one before.
LOG_LINE = re.compile(rb"[IWEF]\d{4} \d\d:\d\d:\d\d")
SERVICE_LINE = re.compile(rb"\S+ \S+ +\d+ (coordination_\w+|preemption_\w+|client|service|grpc_\w+|add_port)\.(cc|h):")


class Process(NamedTuple):
    """One of the processes of a run.

    Attributes:
      address: HOST:PORT of process 0.
      devices: numbers of this process's devices; None for all of its host.
    """

    address: str
    count: int
    index: int
    devices: list[int] | None

    @property
    def place(self) -> tuple[str, int]:
        """Host and port of process 0."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


class Missing(OSError):
    """A process did not come."""

    exit_code = LOST


def find_process() -> Process | None:
    """From the environment, or the cluster that JAX detects; None for a process that is alone.

    Raises:
      ValueError: the environment says half of it, or nonsense.
      Missing: the cluster does not tell.
    """
    given: dict[str, Any] = {variable: os.environ.get(variable) or None for variable in (ADDRESS, COUNT, INDEX)}
    for variable in (COUNT, INDEX):
        if given[variable] is not None:
            if not given[variable].isdecimal():
                raise ValueError(f"{variable}={given[variable]}: must be a whole number")
            given[variable] = int(given[variable])
    address, count, index = given.values()
    devices = None
    if None in (address, count, index) and count != 1:
        # jax.distributed.initialize looks for it in the same way, but does not say whether there is any.
        from jax._src.clusters import ClusterEnv

        try:
            address, count, index, devices = ClusterEnv.auto_detect_unset_distributed_params(
                address, count, index, None, None, seconds(JOIN)
            )
        except RuntimeError as error:  # a host whose name is not known yet, or metadata that do not come
            raise Missing(f"{error}; see whether all hosts of the run are there") from error
    if count == 1 and not index or (address, count, index) == (None, None, None):
        return None
    for variable, value in zip(given, (address, count, index), strict=True):
        if value is None:
            said = " and ".join(f"{name}={text}" for name, text in given.items() if text is not None)
            raise ValueError(f"{variable} is not set, but {said}; several processes need all three")
    if index >= count:
        raise ValueError(f"{INDEX}={index}: must be less than {COUNT}={count}")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{ADDRESS}={address}: write HOST:PORT of process 0")
    # JAX reads this variable itself.
    return Process(address, count, index, None if os.environ.get("JAX_LOCAL_DEVICE_IDS") else devices)


def seconds(variable: str) -> int:
    """What an environment variable says, or its default; raises ValueError where that is no number from 1 on."""
    text = os.environ.get(variable) or str(DEFAULT_SECONDS[variable])
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{variable}={text}: must be a whole number of seconds, 1 or more")
    return int(text)


def supervise(process: Process) -> int:
    """Runs this command in a child process; its exit code, or LOST where JAX has aborted it.

    Raises:
      OSError: process 0's port is taken.
    """
    if process.index == 0:
        _check_port(process)
    place = {ADDRESS: process.address, COUNT: str(process.count), INDEX: str(process.index)}
    if process.devices is not None:
        place["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, process.devices))
    log: collections.deque[bytes] = collections.deque(maxlen=1000)
    with tempfile.TemporaryFile("w+") as names_file:
        descriptors = (os.dup(2), os.dup(names_file.fileno()))
        child = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env=os.environ | place | {CHILD: ",".join(map(str, descriptors))},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: child.send_signal(number))
        reader = threading.Thread(target=_pass_on, args=(child.stderr, log), daemon=True)
        reader.start()
        code = child.wait()
        reader.join(2)  # a worker of the child may live on, and hold the pipe
        names_file.seek(0)
        names = json.loads(names_file.read() or "[]")
    if code >= 0:
        return code
    said = b"".join(log).decode(errors="replace")
    line, known = _explain(said, process, names)
    if not line:
        sys.stderr.write(said)
        name = names[process.index] if names else f"process {process.index} of {process.count}"
        line, known = f"{name} was ended by {signal.Signals(-code).name}", 128 - code
    print(f"error: {line}", file=sys.stderr, flush=True)
    return known


def _check_port(process: Process) -> None:
    """Raises OSError where something listens at process 0's port, which JAX would die of."""
    port, dual = process.place[1], socket.has_dualstack_ipv6()
    try:
        family = socket.AF_INET6 if dual else socket.AF_INET
        socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
    except OSError as error:
        raise OSError(
            f"{ADDRESS}={process.address}: port {port} cannot be had here ({error.strerror}); end what listens there, "
            "or choose another"
        ) from None


def _pass_on(pipe: BinaryIO, log: collections.deque[bytes]) -> None:
    """Lets through what C++ code writes, but what it says about lost processes, which goes to `log`."""
    about_service = False
    for line in pipe:
        if LOG_LINE.match(line):
            about_service = bool(SERVICE_LINE.match(line))
        if about_service:
            log.append(line)
        else:
            sys.stderr.buffer.write(line)
            sys.stderr.flush()


def _explain(said: str, process: Process, names: list[str]) -> tuple[str, int]:
    """A line about what JAX's service ended the child with, and the exit code; ("", 0) where it did not.

    Args:
      said: what the service logged. It names processes by number, alone or as /job:jax_worker/replica:0/task:NUMBER.
      names: of all processes; empty where they had not met.
    """

    def listed(before: str) -> list[int]:
        lines = re.search(before + r"\n((?:\S*\d\n)+)", said)
        return sorted({int(number) for number in re.findall(r"\d+$", lines[1], re.MULTILINE)}) if lines else []

    others, wait = f"of {process.count}", seconds(JOIN)
    if "JAX distributed service detected fatal errors" not in said:
        return "", 0
    if again := re.search(r"(\d+) unexpectedly tried to connect", said):
        return f"{names[int(again[1])]} is lost: it was started a second time; {AGAIN}", LOST
    if lost := listed(r"\(stopped sending heartbeats\):"):
        who = ", ".join(names[index] if names else f"process {index} {others}" for index in lost)
        return f"{who} is lost: no heartbeat for {seconds(SILENCE)} s ({SILENCE}); {AGAIN}", LOST
    if names:
        who = names[0] if process.index else f"a process besides {names[0]}"
        return f"{who} is lost: its connection broke; {AGAIN}", LOST
    if missing := listed("timed out task names:"):
        return (
            f"process {', '.join(map(str, missing))} {others} did not come to process 0 at {process.address} within "
            f"{wait} s; see its log, and whether it can reach that port ({JOIN} waits longer)"
        ), LOST
    if "Unexpected task" in said:
        return f"process {process.index} {others}: process 0 has another number; give all the same {COUNT}", 1
    if "incarnation" in said:
        return f"process {process.index} {others} is there a second time; give each its own {INDEX}", 1
    if process.index:
        return (
            f"process {process.index} {others} waited {wait} s for process 0 at {process.address}: "
            f"{_reach(process)}; see its log, {ADDRESS} here, and whether that port is open ({JOIN} waits longer)"
        ), LOST
    return f"not all {process.count} processes came to process 0 at {process.address} within {wait} s", LOST


def _reach(process: Process) -> str:
    """What stands in the way of a connection to process 0."""
    try:
        socket.create_connection(process.place, 3).close()
        return "it waits for another one, or what listens there is no process of a run"
    except socket.gaierror as error:
        return f"the name is not known ({error.strerror})"
    except ConnectionRefusedError:
        return "nothing listens there"
    except OSError:
        return "no answer"
