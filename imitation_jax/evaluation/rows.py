"""Rows of evaluation files: JSON Lines or a JSON list, gzip or not, every error with file and line."""

import gzip
import json
from pathlib import Path
from typing import Any


def read_lines(path: str) -> list[tuple[str, str]]:
    """("FILE:LINE", text) of every line that is not blank.

    Raises:
      FileNotFoundError: no such file, or no path given.
      ValueError: not UTF-8, or a damaged gzip file.
    """
    if not path or not Path(path).expanduser().is_file():
        raise FileNotFoundError(f"{path or '(no path given)'}: no such file")
    file = Path(path).expanduser()
    lines = []
    try:
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as stream:
            for number, line in enumerate(stream, 1):
                where = f"{path}:{number}"
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    lines.append((where, text))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 at byte {error.start} of the line") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged gzip file ({error})") from None
    return lines


def read_rows(path: str) -> list[tuple[str, dict[str, Any]]]:
    """("FILE:LINE", row) of every object; in a JSON list the place is "FILE[INDEX]".

    Raises:
      FileNotFoundError, ValueError: see `read_lines`; a line that is no JSON object, or no rows at all.
    """
    lines = read_lines(path)
    if lines and lines[0][1].lstrip().startswith("["):
        try:
            values = json.loads("\n".join(text for _, text in lines))
        except ValueError as error:
            raise ValueError(f"{path}: a JSON list that cannot be read ({error})") from None
        rows = [(f"{path}[{index}]", value) for index, value in enumerate(values)]
    else:
        rows = []
        for where, text in lines:
            try:
                rows.append((where, json.loads(text)))
            except ValueError as error:
                raise ValueError(f"{where}: not JSON ({error})") from None
    for where, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object, found {type(row).__name__}")
    if not rows:
        raise ValueError(f"{path}: holds no rows")
    return rows


def unique_ids(rows: list[tuple[str, str]]) -> None:
    """Checks ("FILE:LINE", id) pairs.

    Raises:
      ValueError: naming both places of an id that comes twice.
    """
    seen: dict[str, str] = {}
    for where, key in rows:
        if key in seen:
            raise ValueError(f"{where}: id {key!r} stands already at {seen[key]}; make ids unique")
        seen[key] = where
