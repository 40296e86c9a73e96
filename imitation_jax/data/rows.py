"""The rows of a JSON Lines file or a JSON list, gzipped or not, on disk or in a bucket, in bounded memory.

Damage stays local: a row that cannot be read (cut JSON, bytes that are not UTF-8, more than `max_bytes`) comes out as
a `Rejected` with its place and reason, and reading goes on behind it. A file that ends too early gives every whole row
and one `Rejected` for the rest.
"""

import dataclasses
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from etils import epath

MAX_BYTES = 8 * 2**20  # of one row; the longest real dialogues have about one
CHUNK = 2**20
MAX_REJECTED_CHARS = 50_000
UTF8_BOM = b"\xef\xbb\xbf"
TRAILING = "data after the end of the list"

STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
STRUCTURE = re.compile(rb'[^"\[\]{},]*+')


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A row that was set aside: where it stood (`file:line` or `file[index]`), its id if any, why, and the row.

    `step` is the step of the cleaning that did it; "" outside of it.
    """

    where: str
    id: Any
    reason: str
    row: Any
    row_bytes: int | None = None  # the whole row's size, where `row` is only its beginning
    step: str = ""

    def line(self) -> str:
        """This row's line of rejected.jsonl; a long row is cut to text, and `row_bytes` says how long it was."""
        row, row_bytes = self.row, self.row_bytes
        text = row if isinstance(row, str) else json.dumps(row)
        if len(text) > MAX_REJECTED_CHARS:
            row, row_bytes = text[:MAX_REJECTED_CHARS], row_bytes or len(text.encode("utf-8", "surrogatepass"))
        cut = {} if row_bytes is None else {"row_bytes": row_bytes}
        head = {"where": self.where, "id": self.id} | ({"step": self.step} if self.step else {})
        return json.dumps(head | {"reason": self.reason, "row": row, **cut}) + "\n"


def line(row: dict) -> str:
    """`row` as one line of a JSON Lines file, readable where UTF-8 can hold it (a lone surrogate stays escaped)."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(row)
    return text + "\n"


def read(path: str, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, dict | Rejected]]:
    """Yields (where, object or Rejected) for each row of the file, in order; blank lines are no rows.

    A file that begins with `[` is a JSON list unless it is named .jsonl; its rows are named `file[index]`.

    Args:
      path: a local path or a bucket's, .gz or not.
      max_bytes: a longer row is set aside without being held in memory.

    Raises:
      OSError: the file cannot be opened or read.
    """
    name = str(path)
    return _read(name, max_bytes, _parse, lists=not name.removesuffix(".gz").endswith(".jsonl"))


def read_lines(path: str, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, str | Rejected]]:
    """As `read`, for a text file: yields (where, line or Rejected) for each line that is not blank, stripped."""
    return _read(str(path), max_bytes, _decode, lists=False)


def _read(name: str, max_bytes: int, parse: Callable[[str, bytes], Any], lists: bool) -> Iterator[tuple[str, Any]]:
    zipped = name.endswith(".gz")
    damage = ""

    def chunks(file) -> Iterator[bytes]:
        nonlocal damage
        # read1 hands over what could be unpacked before the damage; read would throw it away.
        more = gzip.GzipFile(fileobj=file).read1 if zipped else file.read
        try:
            while chunk := more(CHUNK):
                yield chunk
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            damage = f"the file is cut off or damaged here: {error}"

    with epath.Path(name).open("rb") as file:
        rest = chunks(file)
        first = next(rest, b"").removeprefix(UTF8_BOM)
        is_list = lists and first.lstrip().startswith(b"[")
        split = _split_list if is_list else _split_lines
        head, size, place = bytearray(), 0, 0 if is_list else 1
        for piece, end in split(itertools.chain([first], rest)):
            size += len(piece)
            head += piece[: max_bytes + 1 - len(head)]
            if end is None:
                continue
            where = f"{name}[{place}]" if is_list else f"{name}:{place}"
            if end or damage:
                last = parse(where, bytes(head))
                if end != TRAILING and isinstance(last, dict):
                    yield where, last
                    where, head, size = f"{where} and on", bytearray(), 0
                yield where, Rejected(where, None, damage or end, *_text(head, size))
            elif size > max_bytes:
                yield where, Rejected(where, None, f"row of more than {max_bytes:,} bytes", *_text(head, size))
            elif head.strip():
                yield where, parse(where, bytes(head))
            head, size, place = bytearray(), 0, place + 1


def _split_lines(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, str | None]]:
    """Yields (piece, end): pieces of a row follow each other, the last has end "" (or what is wrong), others None."""
    for chunk in chunks:
        *lines, rest = chunk.split(b"\n")
        for text in lines:
            yield text, ""
        yield rest, None
    yield b"", ""


def _split_list(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, str | None]]:
    """As `_split_lines`, for the elements of a JSON list: finds their ends by brackets and strings, parses nothing."""
    depth, in_string, escaped, trailing = 0, False, False, False
    closed = False
    for chunk in chunks:
        begin = at = 0
        while at < len(chunk) and not closed:
            if escaped:
                escaped = False
                at += 1
            elif in_string:
                at = STRING.match(chunk, at).end()
                # What stops a string is its end, or a backslash whose other half is in the next chunk.
                escaped = chunk[at : at + 1] == b"\\"
                in_string = chunk[at : at + 1] != b'"'
                at += 1
            else:
                at = STRUCTURE.match(chunk, at).end()
                mark = chunk[at : at + 1]
                if mark in (b"]", b"}"):
                    depth -= 1
                    closed = depth <= 0
                if closed or (mark == b"," and depth == 1):
                    yield chunk[begin:at], ""
                    begin = at + 1
                if mark in (b"[", b"{"):
                    depth += 1
                    if depth == 1:
                        begin = at + 1
                in_string = mark == b'"'
                at += 1
        trailing = trailing or (closed and bool(chunk[begin:].strip()))
        yield chunk[begin:], None
    if closed:
        yield b"", TRAILING if trailing else ""
    else:
        yield b"", "the list is cut off here"


def _text(head: bytes, size: int) -> tuple[str, int | None]:
    """What of a row can be shown, and the row's whole size if that is not all."""
    shown = head[:MAX_REJECTED_CHARS]
    return shown.decode("utf-8", "backslashreplace"), None if len(shown) == size else size


def _decode(where: str, raw: bytes) -> str | Rejected:
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return Rejected(where, None, "bytes that are not UTF-8", *_text(raw, len(raw)))


def _parse(where: str, raw: bytes) -> dict | Rejected:
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        reason = "bytes that are not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg}"
    except (ValueError, RecursionError) as error:
        reason = f"not readable JSON: {str(error).splitlines()[0]}"
    else:
        if isinstance(value, dict):
            return value
        reason = "not a JSON object"
    return Rejected(where, None, reason, *_text(raw, len(raw)))
