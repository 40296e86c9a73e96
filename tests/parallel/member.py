"""One of several processes that do what --do says: a command as far as parallel/distributed.py is concerned."""

import functools
import time

from imitation_jax.core import command
from imitation_jax.parallel import distributed

DO = command.define_string("do", None, "A function of this file.", required=True)
COMPILE = "/jax/core/compile/{}_duration"


def values():
    """All have what process 0 gives: whatever JSON can write, sets, arrays, and much of it."""
    import numpy as np

    first = {"array": np.arange(3), "set": {7}, "text": "lone \\ud800 surrogate", "much": list(range(400_000))}
    value = distributed.broadcast(first if distributed.process_index() == 0 else None)
    if distributed.process_index():
        assert value["array"] == [0, 1, 2] and value["set"] == [7] and value["text"] == first["text"]
        assert value["much"] == first["much"]
    for number in range(20):
        assert distributed.broadcast(number if distributed.process_index() == 0 else None) == number
    distributed.assert_equal("all that", {"a": 1, "b": [2, "c"]})


def programs():
    """Process 1 has a program with another constant."""
    import jax

    step = jax.jit(functools.partial(lambda x, by: x * by, by=1.0 + distributed.process_index()))
    distributed.compile_together(step, step, 3.0)


def stall():
    """Process 1 does not come to step 2."""
    distributed.heartbeat("step 1")
    if distributed.process_index() == 0:
        distributed.heartbeat("step 2")
    time.sleep(600)


def slow():
    """Process 1 compiles for longer than a step may take, and both are at rest for as long."""
    from jax import monitoring

    distributed.heartbeat("step 1")
    if distributed.process_index() == 1:
        monitoring.record_event_duration_secs(COMPILE.format("jaxpr_to_mlir_module"), 1.0)
        time.sleep(7)
        monitoring.record_event_duration_secs(COMPILE.format("backend_compile"), 7.0)
    distributed.broadcast()
    distributed.heartbeat("")
    time.sleep(7)


def wait():
    """Process 1 waits for process 0, which gives nothing."""
    distributed.stop_on_sigterm()
    print("waiting", flush=True)
    if distributed.process_index() == 0:
        time.sleep(600)
    distributed.broadcast()


def main() -> None:
    distributed.initialize()
    globals()[DO.value]()


if __name__ == "__main__":
    command.run(main)
