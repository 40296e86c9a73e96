"""What real processes share, and what ends them together; see member.py for what they do."""

import signal
import time
from pathlib import Path

import pytest

from imitation_jax.core.command import PREEMPTED
from imitation_jax.parallel import distributed
from imitation_jax.parallel.supervisor import LOST


@pytest.fixture
def members(together):
    """`members("values")` starts two processes that do a function of member.py; a step may take 3 s."""
    program = str(Path(__file__).with_name("member.py"))
    return lambda do: together([program, f"--do={do}"], 2, variables={"IMITATION_STALL_SECONDS": "3"})


def test_a_process_that_is_alone_goes_on():
    distributed.assert_equal("nothing", {"a": 1})
    distributed.heartbeat("step 1")
    assert distributed.broadcast([1]) == [1] and distributed.process_index() == 0 and not distributed.several()
    assert distributed.compile_together("step", "jitted") == "step"


def test_all_have_what_process_0_gives(members):
    two = members("values")
    assert two.ended(120) == [0, 0], two


@pytest.mark.slow
def test_processes_with_different_programs_are_refused(members):
    two = members("programs")
    assert two.ended(120) == [1, 1], two
    assert two.error(1).startswith(f"the program of {two.name(1)} is not that of process 0: lowered text ('"), two
    assert two.error(0) == f"{two.name(1)} failed: {two.error(1)}"


@pytest.mark.slow
def test_a_process_that_ends_no_step_is_named(members):
    two = members("stall")
    assert two.ended(120) == [LOST, LOST], two
    line = f"{two.name(1)}: alive, but not past step 1 for 3 s (IMITATION_STALL_SECONDS); see its log"
    assert all(two.error(index).startswith(line) for index in range(2)), two


@pytest.mark.slow
def test_compiling_and_rest_are_no_stalls(members):
    two = members("slow")
    assert two.ended(120) == [0, 0], two


@pytest.mark.slow
def test_sigterm_ends_a_process_that_waits(members):
    two = members("wait")
    while two.said(1).count("waiting\n") == 0:
        assert two.processes[1].poll() is None, two
        time.sleep(0.1)
    two.processes[1].send_signal(signal.SIGTERM)
    assert two.ended(60) == [PREEMPTED, PREEMPTED], two
    assert two.error(0).startswith(f"{two.name(1)} was stopped by SIGTERM")
    assert two.error(1).startswith("stopped by SIGTERM")
