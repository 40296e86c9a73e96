"""Answers that were paid for or waited for, on disk: asked once, whatever is killed and started again in between."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any


class Cache:
    """JSON-able answers by JSON-able questions, in one SQLite file that several processes may share.

    An answer outlives a kill -9 as soon as `put` returns.
    """

    def __init__(self, path: str | Path):
        """Opens the file, or makes it.

        Raises:
          ValueError: something else than a cache is there.
          OSError: it cannot be written there.
        """
        create = "CREATE TABLE IF NOT EXISTS answers (question TEXT PRIMARY KEY, answer TEXT NOT NULL)"
        self._file = open_database(path, create, "cache of answers")

    def get(self, question: Any) -> Any:
        """The answer, None where there is none yet."""
        row = self._file.execute("SELECT answer FROM answers WHERE question = ?", (_key(question),)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, question: Any, answer: Any) -> None:
        """Keeps an answer other than None; an older one to the same question gives way."""
        self._file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (_key(question), json.dumps(answer)))

    def close(self) -> None:
        """The file can be removed after this."""
        self._file.close()


def _key(question: Any) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


def open_database(path: str | Path, create: str, what: str) -> sqlite3.Connection:
    """The SQLite file, made where there is none, in which every statement outlives a kill -9 once it has returned.

    Args:
      path: a file, or ":memory:".
      create: the statement that makes its table where there is none.
      what: what it is, for errors.

    Raises:
      ValueError: something else is there.
      OSError: it cannot be written there.
    """
    if path != ":memory:":
        path = Path(path).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Its own transaction for every statement.
        file = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        # Nothing to wait for the disk for: what the kernel has, a killed process does not take back.
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute(create)
    except sqlite3.OperationalError as error:
        raise OSError(f"{path}: cannot be opened as a {what} ({error})") from None
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path}: not a {what} ({error}); name another file") from None
    return file
