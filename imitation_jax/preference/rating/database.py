"""The database of a rating, one SQLite file: items, raters, the tasks that each was shown, and every vote.

A task is an item shown to a rater, with the side on which each answer stands. A rater has at most one open task,
which a reload shows again. Every item goes to as many raters as it needs votes; the place of a task that was left
open is given away after a while, and a vote that comes later is kept too. Attention checks are items with a known vote.
Votes survive kill -9 and power cuts (write-ahead log, synced at every commit); several servers may share the file.
"""

import contextlib
import dataclasses
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

LEASE = 45 * 60  # seconds until the place of a task that was shown and never voted on goes to another rater
FORMAT = 1
SCHEMA = """
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE item (
  id TEXT PRIMARY KEY, instruction TEXT NOT NULL, a TEXT NOT NULL, b TEXT NOT NULL,
  expected INTEGER  -- the vote that an attention check asks for
);
CREATE TABLE rater (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, secret TEXT NOT NULL UNIQUE);
CREATE TABLE task (
  id TEXT PRIMARY KEY,
  item TEXT NOT NULL REFERENCES item, rater INTEGER NOT NULL REFERENCES rater,
  a_first INTEGER NOT NULL,
  shown REAL NOT NULL,  -- seconds since 1970
  vote INTEGER CHECK (vote IN (-1, 0, 1)),  -- a is worse, equal, better
  voted REAL,
  UNIQUE (item, rater)
);
CREATE INDEX task_of_rater ON task (rater, vote);
-- Raters who failed two attention checks and more than a third of all that they voted on.
CREATE VIEW careless AS
  SELECT rater FROM task JOIN item ON item.id = task.item WHERE expected IS NOT NULL AND vote IS NOT NULL
  GROUP BY rater HAVING sum(vote != expected) >= 2 AND 3 * sum(vote != expected) > count(*);
"""


@dataclasses.dataclass(frozen=True)
class Task:
    """What a rater sees: `first` and `second` are the two answers, `choice` 1, 2 or 3 where the rater has voted."""

    id: str
    instruction: str
    first: str
    second: str
    choice: int | None


@dataclasses.dataclass(frozen=True)
class Vote:
    """A vote with all that belongs to it, see the tables."""

    task: str
    item: str
    rater: str
    a_first: bool
    shown: float
    vote: int
    voted: float
    expected: int | None
    counts: bool  # whether the rater passed the attention checks


class Store:
    """An open file of ratings. Its methods may be called from any thread."""

    def __init__(self, path: str):
        """Opens the file, or makes an empty one, see `create`.

        Raises:
          ValueError: a file of something else, or one that is in a bucket.
          OSError: it cannot be opened.
        """
        if "://" in path:
            raise ValueError(f"--db={path}: must be a local file")
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._db.execute(f"PRAGMA {pragma}")
            names = {row["name"] for row in self._db.execute("SELECT name FROM sqlite_master")}
        except sqlite3.DatabaseError as error:
            kind = OSError if isinstance(error, sqlite3.OperationalError) else ValueError
            raise kind(f"--db={path}: cannot be used ({error}); name another file") from None
        if names and "setting" not in names:
            raise ValueError(f"--db={path}: a database of something else; name another file")

    def close(self) -> None:
        """The file is complete by itself then."""
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _read(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def settings(self) -> dict | None:
        """What `create` was given, or None where the file is new."""
        if not self._read("SELECT 1 FROM sqlite_master WHERE name = 'setting'"):
            return None
        with self._lock:
            return _settings(self._db)

    def create(self, items: Sequence[dict], settings: dict) -> None:
        """Fills a new file, whole or not at all.

        Args:
          items: see `with_checks`.
          settings: JSON-able; `ratings` is how many votes an item needs, every `check_every`-th task of a rater is an
            attention check (0 for none), `seed` draws the order of the items.
        """
        with self._transaction() as db:
            for statement in SCHEMA.split(";\n"):
                db.execute(statement)
            kept = {**settings, "format": FORMAT, "secret": secrets.token_hex(8)}
            db.executemany("INSERT INTO setting VALUES (?, ?)", [(key, json.dumps(kept[key])) for key in kept])
            db.executemany("INSERT INTO item VALUES (:id, :instruction, :a, :b, :expected)", items)

    def join(self, name: str, secret: str | None = None) -> str:
        """A new rater's secret.

        Args:
          secret: drawn by the rater, who may send it again where the answer got lost.

        Raises:
          ValueError: the name is taken.
        """
        rater = name, secret or secrets.token_urlsafe(18)
        with self._transaction() as db:
            db.execute("INSERT INTO rater (name, secret) VALUES (?, ?) ON CONFLICT DO NOTHING", rater)
            if not db.execute("SELECT 1 FROM rater WHERE (name, secret) = (?, ?)", rater).fetchone():
                raise ValueError(
                    "This name is taken. If it is yours, open your personal link; else choose another name."
                )
        return rater[1]

    def rater(self, secret: str) -> int | None:
        """The rater with that secret."""
        rows = self._read("SELECT id FROM rater WHERE secret = ?", secret)
        return rows[0]["id"] if rows else None

    def task(self, rater: int, now: float | None = None) -> tuple[Task | None, int, int]:
        """(the rater's open task or a new one, how many are voted on, how many more wait for this rater now).

        The task is None where nothing is left.
        """
        now = time.time() if now is None else now
        with self._transaction() as db:
            done = db.execute("SELECT count(*) FROM task WHERE rater = ? AND vote IS NOT NULL", (rater,)).fetchone()[0]
            settings = _settings(db)
            waiting = self._waiting(db, rater, settings["ratings"], now)
            left, checks = self._left(db, rater, len(waiting), done, settings["check_every"])
            row = db.execute("SELECT id FROM task WHERE rater = ? AND vote IS NULL", (rater,)).fetchone()
            if row:
                db.execute("UPDATE task SET shown = ? WHERE id = ? AND shown < ?", (now, row["id"], now - LEASE))
                return self._task(db, rater, row["id"]), done, left + 1
            if not waiting:
                return None, done, 0
            chosen = waiting[0]
            if checks and _is_check(settings, rater, done):
                chosen = Random(f"{settings['secret']} {rater} {done}").choice(checks)
            key = secrets.token_hex(12)
            values = (key, chosen, rater, secrets.randbelow(2), now)
            db.execute("INSERT INTO task (id, item, rater, a_first, shown) VALUES (?, ?, ?, ?, ?)", values)
            return self._task(db, rater, key), done, left

    def _waiting(self, db: sqlite3.Connection, rater: int, ratings: int, now: float) -> list[str]:
        """Ids of items that this rater has not seen and that need more votes; most votes first, drawn among equals."""
        query = """
            SELECT item.id, count(task.id) AS taken FROM item LEFT JOIN task ON task.item = item.id
              AND (vote IS NOT NULL AND task.rater NOT IN careless OR vote IS NULL AND shown > ?)
            WHERE expected IS NULL AND item.id NOT IN (SELECT item FROM task WHERE rater = ?)
            GROUP BY item.id HAVING taken < ? ORDER BY taken DESC, item.rowid
        """
        rows = db.execute(query, (now - LEASE, rater, ratings)).fetchall()
        most = [row["id"] for row in rows if row["taken"] == rows[0]["taken"]]
        Random(f"{rater} {len(rows)}").shuffle(most)
        return most + [row["id"] for row in rows[len(most) :]]

    def _left(self, db: sqlite3.Connection, rater: int, waiting: int, done: int, every: int) -> tuple[int, list[str]]:
        """How many tasks are left to give to this rater, checks among them; the checks that are new to the rater."""
        query = "SELECT id FROM item WHERE expected IS NOT NULL AND id NOT IN (SELECT item FROM task WHERE rater = ?)"
        checks = [row["id"] for row in db.execute(query, (rater,))]
        more = min(len(checks), waiting // (every - 1)) if every > 1 else 0
        return waiting + more, checks

    def _task(self, db: sqlite3.Connection, rater: int, key: str) -> Task | None:
        query = "SELECT task.*, instruction, a, b FROM task JOIN item ON item.id = item WHERE task.id = ? AND rater = ?"
        row = db.execute(query, (key, rater)).fetchone()
        if row is None:
            return None
        first, second = (row["a"], row["b"]) if row["a_first"] else (row["b"], row["a"])
        return Task(key, row["instruction"], first, second, choice_of(row["vote"], row["a_first"]))

    def shown(self, rater: int, key: str) -> Task | None:
        """A task that was given to this rater before; None where it was not."""
        with self._lock:
            return self._task(self._db, rater, key)

    def last(self, rater: int) -> str | None:
        """The task that this rater voted on last."""
        rows = self._read("SELECT id FROM task WHERE rater = ? AND vote IS NOT NULL ORDER BY shown DESC LIMIT 1", rater)
        return rows[0]["id"] if rows else None

    def vote(self, rater: int, key: str, choice: int, instead_of: int | None) -> bool | None:
        """Whether the vote stands now; None where the task is not this rater's.

        Sent twice it counts once, and it replaces only the vote that the rater knows to be there.

        Args:
          choice: 1, the first answer is better; 2, they are equal; 3, the second one is.
          instead_of: the choice that stood there, None where there was none.
        """
        with self._transaction() as db:
            query = "SELECT vote, a_first FROM task WHERE id = ? AND rater = ?"
            row = db.execute(query, (key, rater)).fetchone()
            if row is None:
                return None
            stands = choice_of(row["vote"], row["a_first"])
            if stands != choice and stands == instead_of:
                values = (vote_of(choice, row["a_first"]), time.time(), key)
                db.execute("UPDATE task SET vote = ?, voted = ? WHERE id = ?", values)
                stands = choice
            return stands == choice

    def add(self, votes: Sequence[dict]) -> tuple[int, int, int]:
        """Adds votes that were cast elsewhere, by raters known by name alone, and closes what they left open here.

        Args:
          votes: `task`, `item`, `rater` (the name), `a_first`, `shown`, `vote`, `voted`; of known items.

        Returns:
          How many are new, how many a rater had cast on that item before, how many have the id of another vote.
        """
        new = repeated = 0
        with self._transaction() as db:
            for vote in votes:
                db.execute(
                    "INSERT INTO rater (name, secret) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (vote["rater"], secrets.token_urlsafe(18)),
                )
                query = "SELECT vote FROM task JOIN rater ON rater.id = rater WHERE item = :item AND name = :rater"
                stands = db.execute(query, vote).fetchone()
                repeated += stands is not None and stands["vote"] is not None
                new += db.execute(
                    """
                    INSERT INTO task SELECT :task, :item, id, :a_first, :shown, :vote, :voted FROM rater
                    WHERE name = :rater
                    ON CONFLICT (item, rater) DO UPDATE SET a_first = :a_first, shown = :shown, vote = :vote,
                      voted = :voted WHERE vote IS NULL
                    ON CONFLICT DO NOTHING
                    """,
                    vote,
                ).rowcount
        return new, repeated, len(votes) - new - repeated

    def items(self) -> list[dict]:
        """All items with their checks, in the order of the files."""
        return [dict(row) for row in self._read("SELECT * FROM item ORDER BY rowid")]

    def votes(self) -> list[Vote]:
        """Every vote, in the order in which they were cast."""
        query = """
            SELECT task.id AS task, item, rater.name AS rater, a_first, shown, vote, voted, expected,
              rater.id NOT IN careless AS counts
            FROM task JOIN item ON item.id = item JOIN rater ON rater.id = rater
            WHERE vote IS NOT NULL ORDER BY voted, task.id
        """
        rows = [dict(row) for row in self._read(query)]
        return [Vote(**row | {"a_first": bool(row["a_first"]), "counts": bool(row["counts"])}) for row in rows]


def _settings(db: sqlite3.Connection) -> dict:
    return {row["key"]: json.loads(row["value"]) for row in db.execute("SELECT * FROM setting")}


def _is_check(settings: dict, rater: int, number: int) -> bool:
    """Whether the task is the one attention check in each `check_every` tasks of a rater, at a secret place in them."""
    every = settings["check_every"]
    if not every:
        return False
    block, place = divmod(number, every)
    return Random(f"{settings['secret']} {rater} {block} place").randrange(every) == place


def vote_of(choice: int, a_first: bool) -> int:
    """A choice among first (1), equal (2) and second (3) as a vote on the answer of the first file."""
    return (2 - choice) if a_first else (choice - 2)


def choice_of(vote: int | None, a_first: bool) -> int | None:
    """The inverse of `vote_of`."""
    return None if vote is None else (2 - vote) if a_first else (2 + vote)
