"""Rows of evaluation files. Unlike training data a benchmark is not read past its damage: that would be another one.

Where a task names data it takes a JSON Lines file, a JSON list, a CSV file with a header (each gzipped or not), or a
prepared tfds dataset: `tfds:NAME[/CONFIG]:SPLIT` under $TFDS_DATA_DIR (default ~/tensorflow_datasets), `tfds:DIR:SPLIT`
anywhere else, a bucket too. What was read inside `with recording() as data` stands in `data` with its checksum.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from etils import epath

from imitation_jax.core import json_rows
from imitation_jax.core.files import existing
from imitation_jax.data import tfds_rows

Rows = list[tuple[str, dict[str, Any]]]
Data = dict[str, dict[str, str | int]]

_recorded: ContextVar[Data | None] = ContextVar("recorded", default=None)


@contextlib.contextmanager
def recording() -> Iterator[Data]:
    """Gives a dict that fills with what is read inside, one entry a file: {path: {"sha256", "bytes"}}.

    Of a tfds split it is {"sha256", "rows", "version"}, the hash over its rows as JSON Lines with sorted keys.
    """
    data: Data = {}
    token = _recorded.set(data)
    try:
        yield data
    finally:
        _recorded.reset(token)


def read_lines(path: str) -> list[tuple[str, str]]:
    """("FILE:LINE", text) of every line of a text file that is not blank.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not UTF-8.
    """
    recorded(path)
    return list(json_rows.read_lines(path, strict=True))


def read_rows(path: str) -> Rows:
    """("FILE:LINE", "FILE[INDEX]" or "tfds:NAME:SPLIT[INDEX]", row) of every row of data, see the top of this module.

    In a CSV file all values are texts. A tfds class label is its name, and None where the label is not known (-1).

    Raises:
      FileNotFoundError: no such file or dataset.
      ValueError: a row that cannot be read, or no rows at all.
    """
    if path.startswith("tfds:"):
        rows, about = tfds_rows.read(path)
        _record(path, about)
    elif path.removesuffix(".gz").endswith(".csv"):
        rows = _read_csv_rows(path)
    else:
        recorded(path)
        rows = list(json_rows.read(path, strict=True))
    if not rows:
        raise ValueError(f"{path}: holds no rows")
    return rows


def read_csv(path: str) -> list[tuple[str, list[str]]]:
    """("FILE:LINE", values) of every row of a CSV file, the header too; LINE is where a row ends, blank rows are none.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not UTF-8, quotes that do not close, a row of another length than the first.
    """
    content = recorded(path).read_bytes()
    try:
        text = (gzip.decompress(content) if str(path).endswith(".gz") else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: cut off or no gzip file ({error})") from None
    # Not strict, an open quote would swallow the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[str, list[str]]] = []
    try:
        for row in reader:
            if row and rows and len(row) != len(rows[0][1]):
                raise ValueError(f"{path}:{reader.line_num}: {len(row)} columns, expected {len(rows[0][1])}")
            if row:
                rows.append((f"{path}:{reader.line_num}", row))
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV: {error}") from None
    return rows


def _read_csv_rows(path: str) -> Rows:
    (_, header), *rows = read_csv(path) or [("", [])]
    if len(set(header)) < len(header) or not all(name.strip() for name in header):
        raise ValueError(f"{path}:1: the first line must name every column once, found {','.join(header)[:80]!r}")
    return [(where, dict(zip(header, row, strict=True))) for where, row in rows]


def recorded(path: str) -> epath.Path:
    """The file's path, recorded as read.

    Raises:
      FileNotFoundError: no file is there, or the path is empty.
    """
    file = epath.Path(existing(path))
    if _recorded.get() is not None:
        with file.open("rb") as opened:
            _record(
                str(path), {"sha256": hashlib.file_digest(opened, "sha256").hexdigest(), "bytes": file.stat().length}
            )
    return file


def _record(name: str, about: dict[str, str | int]) -> None:
    if (data := _recorded.get()) is not None:
        data[name] = about


def unique_ids(places: list[tuple[str, str]]) -> None:
    """Checks ("FILE:LINE", id) pairs.

    Raises:
      ValueError: naming both places of an id that comes twice.
    """
    seen: dict[str, str] = {}
    for where, key in places:
        if key in seen:
            raise ValueError(f"{where}: id {key!r} stands already at {seen[key]}; make ids unique")
        seen[key] = where
