"""How the processes of a run find each other and connect, before JAX does anything.

Process 0 listens on the coordinator's port until all have come, and then leaves the port to JAX. Each other process
keeps one connection to it.
"""

import contextlib
import json
import os
import socket
import threading
import time
import zlib
from typing import Any, NamedTuple

LOST = 76  # exit code: another process is missing, start all again
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
GREETING_BYTES = 4096


class Missing(OSError):
    """A process did not come."""

    exit_code = LOST


class Place(NamedTuple):
    """Where a process stands in its run.

    Attributes:
      address: HOST:PORT of process 0.
      devices: numbers of this process's devices; None for all of its host.
    """

    address: str
    count: int
    index: int
    devices: list[int] | None

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def name(self) -> str:
        return f"process {self.index} of {self.count} (host {socket.gethostname()}, pid {os.getpid()})"


def seconds(variable: str, default: int) -> int:
    """What an environment variable says.

    Raises:
      ValueError: no whole number from 1 on.
    """
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{variable}={text}: must be a whole number of seconds, 1 or more")
    return int(text)


def find_place(wait: int) -> Place | None:
    """From the environment, or the cluster that JAX detects; None for a process that is alone.

    Args:
      wait: seconds that a cluster may take to tell.

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
    found, devices = list(given.values()), None
    if None in found and found[1] != 1:
        # jax.distributed.initialize looks for it in the same way, but does not tell what it has found.
        from jax._src.clusters import ClusterEnv

        try:
            *found, devices = ClusterEnv.auto_detect_unset_distributed_params(*found, None, None, wait)
        except RuntimeError as error:  # a host whose name is not known yet, or metadata that do not come
            raise Missing(f"{error}; see whether all hosts of the run are there") from error
    address, count, index = found
    if count == 1 and not index or found == [None, None, None]:
        return None
    for variable, value in zip(given, found, strict=True):
        if value is None:
            said = " and ".join(f"{name}={text}" for name, text in given.items() if text is not None)
            raise ValueError(f"{variable} is not set, but {said}; several processes need all three")
    if index >= count:
        raise ValueError(f"{INDEX}={index}: must be less than {COUNT}={count}")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{ADDRESS}={address}: write HOST:PORT of process 0")
    # JAX reads this variable itself.
    return Place(address, count, index, None if os.environ.get("JAX_LOCAL_DEVICE_IDS") else devices)


def receive(here: Place, wait: int) -> tuple[list[str], dict[int, "Link"]]:
    """Process 0's part: takes the others in, for `wait` seconds. Returns all names, and the connections by number.

    Raises:
      OSError: the port is taken, or a process did not come (Missing); these say so to those who came.
      ValueError: two processes contradict each other.
    """
    deadline = time.monotonic() + wait
    names, links = {0: here.name}, {}

    def refuse(line: str, error: type[Exception], *more: Link) -> None:
        for link in (*links.values(), *more):
            with contextlib.suppress(OSError):
                link.send({"refused": line, "missing": error is Missing})
        raise error(line)

    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        server = socket.create_server(("", here.port), family=family, dualstack_ipv6=dual, backlog=here.count + 128)
    except OSError as error:
        raise OSError(
            f"{ADDRESS}={here.address}: port {here.port} cannot be had here ({error.strerror}); end what listens "
            "there, or choose another"
        ) from None
    with server:
        while len(names) < here.count:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                link = Link(server.accept()[0])
            except TimeoutError:
                numbers = ", ".join(str(number) for number in range(here.count) if number not in names)
                refuse(
                    f"process {numbers} of {here.count} did not come to process 0 at {here.address} within {wait} s; "
                    "see its log, and whether it can reach that port (IMITATION_JOIN_SECONDS waits longer)",
                    Missing,
                )
            try:
                greeting = link.first(5)
                number, name, count = greeting["process"], greeting["name"], greeting["count"]
            except (OSError, ValueError, KeyError, TypeError, zlib.error):
                link.socket.close()  # somebody who looks which ports are open
                continue
            if count != here.count:
                line = f"{name} and {here.name} were told different numbers; give all the same {COUNT}"
                refuse(line, ValueError, link)
            if number in links and links[number].ended():  # it was started again
                links.pop(number).socket.close()
                del names[number]
            if number in names:
                line = f"{name} is there a second time, beside {names[number]}; give each its own {INDEX}"
                refuse(line, ValueError, link)
            names[number], links[number] = name, link
    in_order = [names[number] for number in range(here.count)]
    for link in links.values():
        link.send({"names": in_order})
    return in_order, links


def visit(here: Place, wait: int) -> tuple[list[str], dict[int, "Link"]]:
    """The others' part; returns the same, with the one connection to process 0.

    Raises:
      OSError: process 0 was not found in `wait` seconds, or another process did not come (Missing).
      ValueError: two processes contradict each other.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            link = Link(socket.create_connection((here.host, here.port), max(0.01, deadline - time.monotonic())))
            link.send({"process": here.index, "count": here.count, "name": here.name})
            answer = link.first(wait + 5)  # process 0 may have begun to wait only now
            break
        except socket.gaierror as error:
            why = f"the name is not known ({error.strerror})"
        except TimeoutError:
            why = "no answer"
        except ConnectionRefusedError:
            why = "nothing listens there"
        except (OSError, ValueError, zlib.error):
            why = "what listens there is no process of a run"
        if time.monotonic() > deadline:
            raise Missing(
                f"process {here.index} of {here.count} waited {wait} s for process 0 at {here.address}: {why}; see its "
                f"log, {ADDRESS} here, and whether that port is open (IMITATION_JOIN_SECONDS waits longer)"
            )
        time.sleep(0.2)
    if "refused" in answer:
        raise (Missing if answer["missing"] else ValueError)(answer["refused"])
    return answer["names"], {0: link}


def wait_until_open(here: Place, wait: int) -> None:
    """Until somebody listens at the address again; JAX would look only once a second."""
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((here.host, here.port), 1):
            return
        time.sleep(0.02)


class Link:
    """A connection for JSON values: each compressed, after its length in 4 bytes. Length 0 is a sign of life.

    Attributes:
      parting: the other side has said that it will go.
    """

    def __init__(self, connection: socket.socket):
        self.socket, self.parting = connection, False
        self._sending, self._read = threading.Lock(), bytearray()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, value: Any) -> None:
        """Raises OSError where the connection has ended."""
        self.put(frame(value))

    def put(self, data: bytes, patience: float = -1) -> None:
        """Sends a `frame`. Does nothing where another is still being sent after `patience` seconds (-1: for ever)."""
        if self._sending.acquire(timeout=patience):
            try:
                self.socket.sendall(data)
            finally:
                self._sending.release()

    def beat(self) -> None:
        """Never waits: what is being sent meanwhile is a sign of life too."""
        if self._sending.acquire(blocking=False):
            with contextlib.suppress(OSError):  # who reads will find out
                self.socket.send(bytes(4), socket.MSG_DONTWAIT)
            self._sending.release()

    def values(self) -> list[Any]:
        """What has come, when something has.

        Raises:
          OSError: the connection has ended.
        """
        data = self.socket.recv(2**18)
        if not data:
            raise ConnectionResetError("ended")
        self._read += data
        found = []
        while len(self._read) >= 4 and len(self._read) >= 4 + (size := int.from_bytes(self._read[:4], "big")):
            if size:
                found.append(json.loads(zlib.decompress(self._read[4 : 4 + size])))
            del self._read[: 4 + size]
        return found

    def ended(self) -> bool:
        """Whether the other side is gone, where nothing is expected of it."""
        try:
            return not self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def first(self, patience: float) -> dict[str, Any]:
        """The first value, a short one, within `patience` seconds."""
        self.socket.settimeout(patience)
        while not (found := self.values()):
            if len(self._read) > GREETING_BYTES:
                raise ValueError("no greeting")
        self.socket.settimeout(None)
        return found[0]


def frame(value: Any) -> bytes:
    """A JSON-able value, arrays and sets included, as a `Link` carries it."""

    def plain(thing: Any) -> list:
        return thing.tolist() if hasattr(thing, "tolist") else list(thing)

    data = zlib.compress(json.dumps(value, default=plain).encode(), 1)
    return len(data).to_bytes(4, "big") + data
