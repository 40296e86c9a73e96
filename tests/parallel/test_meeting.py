"""How processes find each other: in threads here, as nothing of it needs JAX."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from imitation_jax.parallel.meeting import Missing, Place, find_place, frame, receive, visit


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def meet(*places: Place, wait: int = 10) -> list:
    """What each of the processes gets, or the error that it ends with."""

    def one(place):
        try:
            return visit(place, wait) if place.index else receive(place, wait)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, places))


def test_all_know_all_names_and_can_talk(address):
    found = meet(*(Place(address, 3, index, None) for index in range(3)))
    names, links = found[0]
    assert [name.split(" (")[0] for name in names] == ["process 0 of 3", "process 1 of 3", "process 2 of 3"]
    assert all(other[0] == names for other in found) and sorted(links) == [1, 2]
    large = list(range(200_000))
    sender = threading.Thread(target=links[2].send, args=({"tell": large},))
    sender.start()
    links[1].beat()
    assert found[1][1][0].values() == []  # a sign of life is no value
    received = []
    while not received:
        received = found[2][1][0].values()
    sender.join()
    assert received == [{"tell": large}]
    links[1].socket.close()
    with pytest.raises(OSError):
        found[1][1][0].values()


def test_strangers_at_the_port_are_passed_over(address):
    host, port = address.split(":")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(receive, Place(address, 2, 0, None), 20)
        for words in (b"GET / HTTP/1.1\r\n\r\n", frame([1, 2]), frame({"process": 1}), b""):
            for _ in range(100):
                try:
                    with socket.create_connection((host, int(port)), 9) as stranger:
                        stranger.sendall(words)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
        second = pool.submit(visit, Place(address, 2, 1, None), 20)
        assert first.result()[0] == second.result()[0]


def test_who_does_not_come_is_named_to_all(address):
    found = meet(*(Place(address, 4, index, None) for index in (0, 2)), wait=1)
    assert all(isinstance(error, Missing) for error in found)
    for error in found:
        assert str(error).startswith(
            f"process 1, 3 of 4 did not come to process 0 at {address} within 1 s; see its log"
        )


@pytest.mark.parametrize(
    "wrong, why",
    [("{address}", "nothing listens there"), ("nowhere.invalid:1234", "the name is not known")],
)
def test_a_wrong_address_is_one_line(address, wrong, why):
    place = Place(wrong.format(address=address), 2, 1, None)
    with pytest.raises(
        Missing, match=rf"^process 1 of 2 waited 1 s for process 0 at \S+: {why}.*JAX_COORDINATOR_ADDRESS"
    ):
        visit(place, 1)


def test_another_server_at_the_address_is_one_line(address):
    host, port = address.split(":")
    with socket.create_server((host, int(port))) as server:

        def answer():
            while True:
                try:
                    server.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Missing, match="what listens there is no process of a run|no answer"):
            visit(Place(address, 2, 1, None), 1)
        with pytest.raises(OSError, match=rf"^JAX_COORDINATOR_ADDRESS=\S+: port {port} cannot be had here \(.*in use"):
            receive(Place(address, 2, 0, None), 1)
        server.shutdown(socket.SHUT_RDWR)


def test_two_with_one_number_are_told_so(address):
    found = meet(*(Place(address, 3, index, None) for index in (0, 1, 1)))
    assert all(isinstance(error, ValueError) for error in found)
    assert len({str(error) for error in found}) == 1 and "is there a second time" in str(found[0])


def test_two_that_were_told_different_numbers(address):
    found = meet(Place(address, 2, 0, None), Place(address, 3, 1, None))
    assert all(isinstance(error, ValueError) for error in found)
    assert "give all the same JAX_NUM_PROCESSES" in str(found[0]) and str(found[0]) == str(found[1])


def settings(monkeypatch, **given):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)


def test_a_machine_by_itself_is_one_process(monkeypatch):
    settings(monkeypatch)
    assert find_place(5) is None
    settings(monkeypatch, JAX_NUM_PROCESSES="1", JAX_PROCESS_ID="0", JAX_COORDINATOR_ADDRESS="x:1")
    assert find_place(5) is None


def test_a_place_by_hand(monkeypatch):
    settings(monkeypatch, JAX_NUM_PROCESSES="4", JAX_PROCESS_ID="3", JAX_COORDINATOR_ADDRESS="[::1]:1234")
    assert find_place(5) == Place("[::1]:1234", 4, 3, None) and find_place(5).port == 1234


def test_slurm_says_where_a_process_stands(monkeypatch):
    settings(
        monkeypatch,
        SLURM_JOB_ID="7",
        SLURM_STEP_NODELIST="node[03-05]",
        SLURM_NTASKS="6",
        SLURM_PROCID="4",
        SLURM_LOCALID="1",
    )
    place = find_place(5)
    assert place.address.startswith("node03:") and place[1:] == (6, 4, [1])
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "0,1")
    assert find_place(5).devices is None
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert find_place(5) is None


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
        find_place(5)


def test_a_process_that_was_started_again_takes_its_place(address):
    host, port = address.split(":")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(receive, Place(address, 3, 0, None), 20)
        while True:
            try:
                killed = socket.create_connection((host, int(port)), 1)
                break
            except OSError:
                time.sleep(0.02)
        killed.sendall(frame({"process": 1, "count": 3, "name": "killed"}))
        time.sleep(0.5)
        killed.close()
        second = pool.submit(visit, Place(address, 3, 1, None), 20)
        time.sleep(0.5)
        names, _ = visit(Place(address, 3, 2, None), 20)
        assert first.result()[0] == second.result()[0] == names and "killed" not in names
