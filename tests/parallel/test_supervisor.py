"""What the parent of one of several processes knows of its run, and what it makes of JAX's words about its end."""

import io
import socket
from collections import deque

import pytest

from imitation_jax.parallel import supervisor
from imitation_jax.parallel.supervisor import LOST, Process, find_process

FATAL = "F1128 21:27:19.062877   24724 client.h:86] Terminating process because the JAX distributed service detected "
FATAL += "fatal errors. This most likely indicates that another task died. absl::Status: "
NAMES = [f"process {index} of 4 (host h{index}, pid {index}{index})" for index in range(4)]


def settings(monkeypatch, **given):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)


def test_a_machine_by_itself_is_one_process(monkeypatch):
    settings(monkeypatch)
    assert find_process() is None
    settings(monkeypatch, JAX_NUM_PROCESSES="1", JAX_PROCESS_ID="0", JAX_COORDINATOR_ADDRESS="x:1")
    assert find_process() is None


def test_a_place_by_hand(monkeypatch):
    settings(monkeypatch, JAX_NUM_PROCESSES="4", JAX_PROCESS_ID="3", JAX_COORDINATOR_ADDRESS="[::1]:1234")
    assert find_process() == Process("[::1]:1234", 4, 3, None) and find_process().place == ("::1", 1234)


def test_slurm_says_where_a_process_stands(monkeypatch):
    settings(
        monkeypatch,
        SLURM_JOB_ID="7",
        SLURM_STEP_NODELIST="node[03-05]",
        SLURM_NTASKS="6",
        SLURM_PROCID="4",
        SLURM_LOCALID="1",
    )
    place = find_process()
    assert place.address.startswith("node03:") and place[1:] == (6, 4, [1])
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "0,1")
    assert find_process().devices is None
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert find_process() is None


@pytest.mark.parametrize(
    "given, message",
    [
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_COORDINATOR_ADDRESS is not set, but JAX_NUM_PROCESSES=2"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_PROCESS_ID": "0"},
            "JAX_NUM_PROCESSES is not set, but JAX_COORDINATOR_ADDRESS=a:1 and JAX_PROCESS_ID=0",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "JAX_PROCESS_ID=2: must be less than JAX_NUM_PROCESSES=2",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"},
            "JAX_COORDINATOR_ADDRESS=a: write HOST:PORT of process 0",
        ),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two: must be a whole number"),
    ],
)
def test_half_a_place_says_what_is_missing(monkeypatch, given, message):
    settings(monkeypatch, **given)
    with pytest.raises(ValueError, match=message):
        find_process()


@pytest.mark.parametrize(
    "index, names, said, line, code",
    [
        (
            0,
            NAMES,
            "The following tasks are unhealthy (stopped sending heartbeats):\n1\n3\nThe tasks have crashed.",
            "process 1 of 4 (host h1, pid 11), process 3 of 4 (host h3, pid 33) is lost: no heartbeat for 30 s",
            LOST,
        ),
        (
            2,
            NAMES,
            "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n"
            "/job:jax_worker/replica:0/task:1\nThe tasks have crashed.",
            "process 1 of 4 (host h1, pid 11) is lost: no heartbeat for 30 s (IMITATION_LOST_SECONDS); see its log",
            LOST,
        ),
        (
            2,
            NAMES,
            "UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task was preempted",
            "process 0 of 4 (host h0, pid 00) is lost: its connection broke",
            LOST,
        ),
        (
            0,
            NAMES,
            "ABORTED: 1 unexpectedly tried to connect with a different incarnation. It has likely restarted.",
            "process 1 of 4 (host h1, pid 11) is lost: it was started a second time",
            LOST,
        ),
        (
            2,
            [],
            "DEADLINE_EXCEEDED: The first task at the barrier: 0. Some timed out task names:\n1\n3\n\n",
            "process 1, 3 of 4 did not come to process 0 at 127.0.0.1:1 within 45 s; see its log",
            LOST,
        ),
        (
            1,
            [],
            "INVALID_ARGUMENT: Unexpected task registered with task=1",
            "process 1 of 4: process 0 has another number; give all the same JAX_NUM_PROCESSES",
            1,
        ),
        (
            1,
            [],
            "ALREADY_EXISTS: Aborted connect attempt as there is a request from a newer incarnation.",
            "process 1 of 4 is there a second time; give each its own JAX_PROCESS_ID",
            1,
        ),
        (
            1,
            [],
            "DEADLINE_EXCEEDED: Deadline Exceeded",
            "process 1 of 4 waited 45 s for process 0 at 127.0.0.1:1: nothing listens there; see its log",
            LOST,
        ),
    ],
)
def test_what_jax_says_of_lost_processes_becomes_a_line(index, names, said, line, code):
    got = supervisor._explain(FATAL + said, Process("127.0.0.1:1", 4, index, None), names)
    assert got[0].startswith(line) and got[1] == code and "\n" not in got[0]


def test_another_abort_is_not_explained():
    said = "F1128 21:27:19.062877   24724 allocator.cc:86] Check failed: out of memory\n"
    assert supervisor._explain(said, Process("127.0.0.1:1", 4, 1, None), NAMES) == ("", 0)


def test_what_the_service_logs_is_held_back_and_the_rest_passes(capfdbinary):
    other = [b"a worker's line\n", b"W1128 21:27:19.062194   24713 memory.cc:1] low\n", b"\xff more of it\n"]
    service = [b"E1128 21:27:19.062194   24713 coordination_service.cc:1518] [86] tasks are unhealthy:\n", b"1\n"]
    held = deque()
    supervisor._pass_on(io.BytesIO(b"".join(other[:1] + service + other[1:] + service)), held)
    assert list(held) == service * 2 and capfdbinary.readouterr().err == b"".join(other)


def test_a_taken_port_is_one_line():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=rf"^JAX_COORDINATOR_ADDRESS=\S+: port {port} cannot be had here \(.*in use"):
            supervisor._check_port(Process(f"127.0.0.1:{port}", 2, 0, None))


def test_an_unknown_name_of_process_0_is_said():
    assert supervisor._reach(Process("nowhere.invalid:1234", 2, 1, None)).startswith("the name is not known")
