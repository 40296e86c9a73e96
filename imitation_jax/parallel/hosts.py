"""Several processes that work as one: they tell each other things, miss each other, stop together, and part.

The connections of meeting.py stay. Through them process 0 says what it has decided, each process gives a sign of life
every second, and whatever ends one process ends all of them, with a line that names it. JAX is imported only where it
is used, as commands that never compute import this too.
"""

import contextlib
import ctypes
import json
import logging as std_logging
import os
import queue
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from absl import logging

from imitation_jax.core import command, progress
from imitation_jax.parallel.meeting import (
    ADDRESS,
    COUNT,
    INDEX,
    LOST,
    Link,
    Place,
    find_place,
    frame,
    receive,
    seconds,
    visit,
    wait_until_open,
)

HELP = f"""
Several processes, each started with the same command, work as one. They find each other on TPU slices, on GKE, under
Slurm and Open MPI. Elsewhere the environment says where: {ADDRESS} is HOST:PORT of process 0,
{COUNT} how many there are, {INDEX} which one this is, from 0 on. IMITATION_JOIN_SECONDS (50) is how
long the others are waited for at the start; without a sign of life for IMITATION_LOST_SECONDS (30) a process is lost.
What ends one ends all: exit {LOST} where one was lost or did not come, so that launchers start all again, else the exit
code of the one that failed.
"""
_group: "_Group | None" = None


def join() -> None:
    """Meets the other processes of the run, where there are any; to be called before anything touches a device.

    Raises:
      ValueError: the environment says half of it, or two processes contradict each other.
      OSError: the port is taken, or a process did not come.
    """
    global _group
    wait, silence = seconds("IMITATION_JOIN_SECONDS", 50), seconds("IMITATION_LOST_SECONDS", 30)
    here = find_place(wait)
    if here is None:
        return
    logging.info("%s: meeting the others at %s", here.name, here.address)
    names, links = visit(here, wait) if here.index else receive(here, wait)
    _group = _Group(here, names, links, silence, wait)
    command.at_end(_end)
    _delay_aborts()
    if here.index:
        logging.set_verbosity(logging.WARNING)
        form = std_logging.Formatter(f"%(asctime)s process {here.index}: %(message)s", "%H:%M:%S")
        logging.get_absl_handler().setFormatter(form)
        progress.quiet()
        wait_until_open(here, wait)
    import jax

    jax.distributed.initialize(
        here.address,
        here.count,
        here.index,
        local_device_ids=here.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=wait + 15,
        heartbeat_timeout_seconds=3600,  # ours are quicker, and say who it was
    )
    _group.up = True
    jax.devices()  # the processes tell each other theirs, now that all are here


def several() -> bool:
    """Whether there are other processes."""
    return _group is not None


def index() -> int:
    """This process's number; 0 where it is alone."""
    return _group.index if _group else 0


def tell(value: Any = None) -> Any:
    """What process 0 gives, on every process; JSON-able, arrays and sets included. The others wait for it."""
    if _group is None:
        return value
    if _group.index:
        return _group.told.get()
    _group.send({"tell": value})
    return value


def agree(what: str, mine: dict[str, Any]) -> None:
    """Goes on when all processes are here, and `mine` is the same on all.

    Raises:
      ValueError: naming what, the process, and the keys that differ from process 0's.
    """
    if _group is None:
        return
    mine = json.loads(json.dumps(mine))
    first = tell(mine)
    if differ := [key for key in sorted(first.keys() | mine.keys()) if first.get(key) != mine.get(key)]:
        values = ", ".join(f"{key} ({first.get(key)!r} there, {mine.get(key)!r} here)" for key in differ)
        raise ValueError(f"{what} of {_group.names[_group.index]} is not that of process 0: {values}")
    _group.meet()


def compile_together(step: Any, *arguments: Any) -> Any:
    """The jitted `step`, compiled for `arguments` by all processes before the first goes on.

    A collective gives up on processes that come to it half a minute after the first, and compilers take as they like.
    """
    if _group is None:
        return step
    if hasattr(step, "lower"):  # else it is compiled
        step = step.lower(*arguments).compile()
    _group.meet()
    return step


def catch_sigterm() -> Callable[[int], bool]:
    """From now on SIGTERM does not end the process.

    Returns:
      A function to be called after each step with its number: whether to save and stop now. All processes get True
      after the same step, whichever of them the signal came to.
    """
    if _group is None:
        received: list[bool] = []
        signal.signal(signal.SIGTERM, lambda *_: received.append(True))
        return lambda step: bool(received)
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point  # JAX catches the signal since `join`


def stop_on_sigterm() -> None:
    """SIGTERM to one process stops all at once, to be started again. A process that is alone dies of it anyway."""

    def stop(*_: object) -> None:
        print("error: stopped by SIGTERM; the same command goes on where it was", file=sys.stderr, flush=True)
        fail("was stopped by SIGTERM; the same command goes on where it was", command.PREEMPTED)
        os._exit(command.PREEMPTED)

    if _group is not None:
        signal.signal(signal.SIGTERM, stop)


def fail(what: str, code: int) -> None:
    """Ends the other processes: each says `what` about this one, and exits with `code`. The caller ends this one."""
    if _group is not None:
        _group.fail({"process": _group.index, "line": f"{_group.names[_group.index]} {what}", "code": code})


def blame(error: BaseException | None) -> None:
    """Does not return where JAX failed in this process because another one is lost or has failed."""
    while _group is not None and error is not None:
        # Out of memory is this process's own.
        if type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" not in str(error):
            _group.ended.wait(_group.silence + 5)
            return
        error = error.__cause__ or error.__context__


def leave() -> None:
    """The work is whole: waits until all are as far, and then processes that end are not missed."""
    if _group is not None:
        import jax

        jax.distributed.shutdown()
        _group.send({"part": True})


def _end(code: int, line: str, error: BaseException | None) -> None:
    if error is None:
        leave()
        return
    blame(error)
    fail(line, code)
    if code == 130:
        os._exit(code)  # the orderly way waits for the others


def _delay_aborts() -> None:
    """JAX aborts a process as soon as process 0 is gone. SIGABRT, number 6, calls sleep(6) first: time to say who."""
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


class _Group:
    """The processes of the run, as one of them sees them: process 0 all others, each other one process 0.

    Attributes:
      names: of all processes, for messages.
      silence: seconds without a sign of life after which a process is lost.
      told, here: what has come for `tell` and `agree`.
      ended: set when the others know of this process's own failure.
      up: whether JAX's part is there.
    """

    def __init__(self, here: Place, names: list[str], links: dict[int, Link], silence: int, wait: int):
        """Args:
        wait: seconds for JAX's part to come up.
        """
        self.index, self.address = here.index, here.address
        self.names, self.links, self.silence = names, links, silence
        self.told: queue.SimpleQueue = queue.SimpleQueue()
        self.here: queue.SimpleQueue = queue.SimpleQueue()
        self.ended = threading.Event()
        self.up = False
        self._wait = wait
        self._failing = False  # by itself: it says why, and not what others say
        self._failure: dict[str, Any] | None = None  # its own, not told yet
        self._verdict: dict[str, Any] | None = None  # what ends all
        threading.Thread(target=self._watch, name="hosts", daemon=True).start()

    def send(self, value: Any, patience: float = -1) -> None:
        """To all that this process is connected to."""
        data = frame(value)
        for link in self.links.values():
            with contextlib.suppress(OSError):  # the watch says who is gone, and ends this process
                link.put(data, patience)

    def meet(self) -> None:
        """Goes on when all processes are here."""
        if self.index:
            self.send({"here": True})
            self.told.get()
        else:
            for _ in self.links:
                self.here.get()
            self.send({"tell": None})

    def fail(self, failure: dict[str, Any]) -> None:
        """Returns when the others know, or cannot be told."""
        self._failing, self._failure = True, failure
        self.ended.wait(8)

    def _watch(self) -> None:
        ready = selectors.DefaultSelector()
        for number, link in self.links.items():
            ready.register(link.socket, selectors.EVENT_READ, number)
        # Counted in ticks of this thread, not by the clock: where all processes were asleep, none of them is lost.
        silent = dict.fromkeys(self.links, 0)
        tick, ticks, last_words = time.monotonic(), 0, 3
        while True:
            for key, _ in ready.select(max(0.0, tick - time.monotonic())):
                number, link = key.data, self.links[key.data]
                try:
                    for value in link.values():
                        self._hear(link, value)
                    silent[number] = 0
                except OSError:
                    ready.unregister(key.fileobj)
                    del silent[number]
                    if not link.parting:
                        self._lose(number, "its connection broke")
            if time.monotonic() < tick:
                continue
            tick, ticks = time.monotonic() + 1, ticks + 1
            for number in silent:
                self.links[number].beat()
                silent[number] += 1
                if silent[number] > self.silence:
                    self._lose(number, f"no sign of life for {self.silence} s (IMITATION_LOST_SECONDS)")
            if not self.up and ticks > self._wait:
                line = f"JAX's service on {self.address} did not come up; is a proxy or a firewall between the hosts?"
                self._end({"process": None, "line": line, "code": LOST})
            if self._failure:
                self._end(self._failure)
            if self._verdict and self.index == 0:
                # Process 0 goes last: with it goes JAX's service, whose end is an abort for the others.
                last_words -= 1
                if not silent or not last_words:
                    self._exit()

    def _hear(self, link: Link, value: dict[str, Any]) -> None:
        if "tell" in value:
            self.told.put(value["tell"])
        elif "here" in value:
            self.here.put(True)
        elif "part" in value:
            link.parting = True
        elif self.index == 0:
            self._end(value["end"])
        elif not self._verdict:
            self._verdict = value["end"]
            self._exit()

    def _lose(self, number: int, why: str) -> None:
        line = f"{self.names[number]} is lost: {why}; see its log. Start all again, they go on where they were"
        self._end({"process": None, "line": line, "code": LOST})

    def _end(self, verdict: dict[str, Any]) -> None:
        """Process 0 tells all the first verdict that there is; another process asks it to, if it can."""
        if self._verdict:
            return
        if self.index and verdict["process"] == self.index:
            self._failure = None
            self.send({"end": verdict}, 1)
            return
        self._verdict = verdict
        if self.index:
            self._exit()
        else:
            self.send({"end": verdict}, 1)  # whoever is still being told something may be the one that is lost

    def _exit(self) -> None:
        if self._failing:
            self.ended.set()  # who called `fail` goes on
            return
        sys.stdout.flush()
        print(f"error: {self._verdict['line']}", file=sys.stderr, flush=True)
        os._exit(self._verdict["code"])
