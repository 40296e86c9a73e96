"""JSON Lines files that only grow, and lose nothing to a kill -9."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from imitation_jax.core import json_rows
from imitation_jax.core.files import Lock

TAIL = 2**16


def beside(output: str, ending: str) -> Path:
    """The file of that ending next to OUTPUT.jsonl."""
    path = Path(output).expanduser()
    return path.with_name(path.name.removesuffix(".jsonl") + ending)


def read(path: str | Path) -> Iterator[tuple[int, dict]]:
    """Yields (offset in bytes, row) of each whole line; blank lines are none, nor is a last one that was cut off.

    Without the file there are no rows.

    Raises:
      ValueError: a line that is no JSON object, naming it.
    """
    path = Path(path).expanduser()
    if not path.exists():
        return
    with open(path, "rb") as file:
        offset = 0
        for number, line in enumerate(file, 1):
            row = _parsed(line)
            if row is None and line.endswith(b"\n") and line.strip():
                raise ValueError(f"{path}:{number}: not a JSON object; name another file, or take that line out")
            if row is not None:
                yield offset, row
            offset += len(line)


class Lines:
    """A file to append to, of one process at a time; a last line that was cut off is taken away at the start."""

    def __init__(self, path: str | Path):
        """Opens the file, or makes it.

        Raises:
          ValueError: it is in a bucket.
          BlockingIOError: another process writes to it.
          OSError: it cannot be written there.
        """
        if "://" in str(path):
            raise ValueError(f"{path}: must be a local file, nothing can be appended to others")
        self.path = Path(path).expanduser()
        self._lock = Lock(f"{self.path}.lock", f"{path}: another process writes to it; wait for its end, or stop it")
        try:
            self._file = open(self.path, "a+b", buffering=0)
        except OSError:
            self._lock.release()
            raise
        self._repair()

    def append(self, row: dict) -> int:
        """Returns where the row stands, in bytes, when it does; of a row that cannot be written nothing stays.

        Raises:
          OSError: no room.
        """
        offset = self._file.seek(0, os.SEEK_END)
        data = memoryview(json_rows.line(row).encode())
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(offset)
            raise
        return offset

    def sync(self) -> None:
        """All rows so far survive a power cut too, once this has returned."""
        os.fsync(self._file.fileno())

    def at(self, offset: int) -> dict:
        """The row that stands there."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            return json.loads(file.readline())

    def close(self) -> None:
        """Another process may write to the file; an empty one is removed."""
        if not self._file.closed and not self._file.seek(0, os.SEEK_END):
            self.path.unlink(missing_ok=True)
        self._file.close()
        self._lock.release()

    def _repair(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        begin, tail = size, b""
        while begin and b"\n" not in tail:
            begin = max(0, begin - TAIL)
            self._file.seek(begin)
            tail = self._file.read(size - begin)
        last = tail.rpartition(b"\n")[2]
        if not last:
            return
        if _parsed(last) is not None:  # only its line's end is missing
            self._file.write(b"\n")
            return
        logging.warning("%s: the last line was cut off (%d bytes) and is taken away", self.path, len(last))
        self._file.truncate(size - len(last))


def _parsed(line: bytes) -> dict | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
