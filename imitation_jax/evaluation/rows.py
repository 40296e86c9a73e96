"""Rows of evaluation files. Unlike training data a benchmark is not read past its damage: that would be another one."""

from typing import Any

from etils import epath

from imitation_jax.data import rows


def read_lines(path: str) -> list[tuple[str, str]]:
    """("FILE:LINE", text) of every line of a text file that is not blank.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not UTF-8.
    """
    file = existing(path)
    lines = []
    for number, line in enumerate(file.read_bytes().removeprefix(rows.UTF8_BOM).split(b"\n"), 1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise ValueError(f"{path}:{number}: bytes that are not UTF-8") from None
        if text:
            lines.append((f"{path}:{number}", text))
    return lines


def read_rows(path: str) -> list[tuple[str, dict[str, Any]]]:
    """("FILE:LINE" or "FILE[INDEX]", object) of every row of a JSON Lines file or a JSON list, gzipped or not.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a row that cannot be read, or no rows at all.
    """
    existing(path)
    found = []
    for where, row in rows.read(path):
        if isinstance(row, rows.Rejected):
            raise ValueError(f"{where}: {row.reason}")
        found.append((where, row))
    if not found:
        raise ValueError(f"{path}: holds no rows")
    return found


def existing(path: str) -> epath.Path:
    """The path.

    Raises:
      FileNotFoundError: no file is there, or the path is empty.
    """
    file = epath.Path(path).expanduser() if path else None
    if file is None or not file.exists() or file.is_dir():
        raise FileNotFoundError(f"{path or '(no path given)'}: no such file")
    return file


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
