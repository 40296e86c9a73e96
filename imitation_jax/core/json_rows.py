"""The rows of a JSON Lines file or a JSON list, gzipped or not, on disk or in a bucket, in bounded memory.

A row that cannot be used comes out as a `Rejected` with its place and reason, or with `strict` ends the reading with
that as the error. Lines are read whatever is wrong with others. A list is read up to where it is no JSON: what stands
behind is one `Rejected`. A file that ends too early gives every whole row and one `Rejected` for the rest.
"""

import codecs
import contextlib
import dataclasses
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from etils import epath

MAX_BYTES = 8 * 2**20  # of one row; the longest real dialogues have about one
CHUNK = 2**20
MAX_REJECTED_CHARS = 50_000
UTF8_BOM = b"\xef\xbb\xbf"
MAX_DEPTH = 200  # of lists and objects in each other; what writes or sends a row recurses

SPACE = re.compile(r"[ \t\n\r]*")
MARKS = re.compile(r'\\.|["\[\]{},]', re.DOTALL)
LONE = re.compile("[\ud800-\udfff]")  # in a decoded text: a byte that is not UTF-8
LITERAL = 10  # characters: a value that the text ends in may be cut so near its end, the longest being -Infinity
CUT = "the list is cut off here"
NOT_UTF8 = "bytes that are not UTF-8"
TRAILING = "data after the end of the list"


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


Row = tuple[str, dict | Rejected]


def line(row: dict) -> str:
    """`row` as one line of a JSON Lines file, readable where UTF-8 can hold it (a lone surrogate stays escaped)."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(row)
    return text + "\n"


def read(path: str, max_bytes: int = MAX_BYTES, strict: bool = False) -> Iterator[Row]:
    """Yields (where, object or Rejected) for each row of the file, in order; blank lines are no rows.

    A file that begins with `[` is a JSON list unless it is named .jsonl; its rows are named `file[index]`.

    Args:
      path: a local path or a bucket's, .gz or not.
      max_bytes: a longer row is set aside without being held in memory.
      strict: what would be set aside is an error.

    Raises:
      OSError: the file cannot be opened or read.
      ValueError: `strict` and a row that cannot be used, naming it.
    """
    with _open(path) as file:
        if file.peek().lstrip().startswith(b"[") and not str(path).removesuffix(".gz").endswith(".jsonl"):
            text = _Text(file)
            text.go_to_next()
            text.at += 1
            yield from _checked(_list_rows(str(path), text, max_bytes, whole=True), strict)
        else:
            yield from _checked(_line_rows(str(path), file, max_bytes, _parse), strict)


def read_lines(path: str, max_bytes: int = MAX_BYTES, strict: bool = False) -> Iterator[tuple[str, str | Rejected]]:
    """As `read`, for a text file: yields (where, line or Rejected) for each line that is not blank, stripped."""
    with _open(path) as file:
        yield from _checked(_line_rows(str(path), file, max_bytes, _decode), strict)


def read_inside(path: str, key: str, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
    """As `read`, for a file that is one object and its rows the list under `key`.

    The first it yields is (path, what of the object stands before the list), {} if that cannot be read.
    """
    name, begin = str(path), re.compile(rf'"{re.escape(key)}"\s*:\s*\[')
    with _open(path) as file:
        text = _Text(file)
        # A quote inside of a text is escaped: what looks like the key is one.
        while not (match := begin.search(text.text)) and len(text.text) <= max_bytes and text.more(max_bytes):
            pass
        if not match:
            yield name, _rejected(name, file.raw.damage or f"no list under '{key}'", [text.text])
            return
        text.at = match.end()
        before = _parse(name, text.text[: text.at] + "]}")
        yield name, {} if isinstance(before, Rejected) else before
        yield from _list_rows(name, text, max_bytes, whole=False)


class _Unpacked(io.RawIOBase):
    """A file's bytes, unpacked where it is .gz; `damage` says what ended them too early."""

    def __init__(self, name: str, opened: io.IOBase):
        self.damage = ""
        # read1 hands over what could be unpacked before the damage; read would throw it away.
        self._read = gzip.GzipFile(fileobj=opened).read1 if name.endswith(".gz") else opened.read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        try:
            chunk = b"" if self.damage else self._read(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.damage, chunk = f"the file is cut off or damaged here: {error}", b""
        buffer[: len(chunk)] = chunk
        return len(chunk)


@contextlib.contextmanager
def _open(path: str) -> Iterator[io.BufferedReader]:
    with epath.Path(path).expanduser().open("rb") as opened:
        file = io.BufferedReader(_Unpacked(str(path), opened), 2**18)
        if file.peek().startswith(UTF8_BOM):
            file.read(len(UTF8_BOM))
        yield file


def _checked(rows: Iterator[tuple[str, Any]], strict: bool) -> Iterator[tuple[str, Any]]:
    for where, row in rows:
        if strict and isinstance(row, Rejected):
            raise ValueError(f"{where}: {row.reason}")
        yield where, row


def _line_rows(
    name: str, file: io.BufferedReader, max_bytes: int, parse: Callable[[str, str], Any]
) -> Iterator[tuple[str, Any]]:
    number, piece = 0, b"\n"
    while piece:
        number += 1
        where = f"{name}:{number}"
        piece = file.readline(max_bytes + 1)
        text, further = piece.removesuffix(b"\n").decode("utf-8", "surrogateescape"), 0
        is_long = len(piece.removesuffix(b"\n")) > max_bytes
        while piece and not piece.endswith(b"\n"):
            piece = file.readline(CHUNK)
            further += len(piece.removesuffix(b"\n"))
        if is_long:
            item = _rejected(where, f"row of more than {max_bytes:,} bytes", [text], further)
        else:
            item = parse(where, text) if text.strip() else None
        damage = "" if piece else file.raw.damage
        if item is not None and not (damage and isinstance(item, Rejected)):
            yield where, item
            where, text, further = f"{where} and on", "", 0
        if damage:
            yield where, _rejected(where, damage, [text], further)


class _Text:
    """A file as text of which some is held, `text` from `at` on; bytes that are not UTF-8 are lone surrogates in it."""

    def __init__(self, file: io.BufferedReader):
        self.file, self.text, self.at = file, "", 0
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode

    def more(self, most: int) -> bool:
        """Reads on, up to as much again as is held but not far over `most`; False at the end of the file."""
        held = self.text[self.at :]
        raw = self.file.read(max(CHUNK, min(len(held), most - len(held))))
        self.text, self.at = held + self._decode(raw, final=not raw), 0
        return bool(raw)

    def go_to_next(self) -> str:
        """Goes to the next character that is no white space and returns it; "" at the end."""
        while True:
            self.at = SPACE.match(self.text, self.at).end()
            if self.at < len(self.text) or not self.more(0):
                return self.text[self.at : self.at + 1]

    def pieces(self) -> Iterator[str]:
        """All that is left of the file."""
        more = True
        while more or self.at < len(self.text):
            yield self.text[self.at :]
            self.at = len(self.text)
            more = self.more(0)

    def pieces_of_value(self) -> Iterator[str]:
        """The value that begins here, whose end is found by brackets and strings alone."""
        depth, inside, more = 0, False, True
        while more:
            begin = last = self.at
            for mark in MARKS.finditer(self.text, begin):
                last, char = mark.end(), mark[0]
                if char == '"':
                    inside = not inside
                elif inside or char[0] == "\\":
                    continue
                elif char in "[{":
                    depth += 1
                elif depth:
                    depth -= char in "]}"
                else:
                    self.at = mark.start()
                    yield self.text[begin : self.at]
                    return
            # The first half of an escape waits for the other one.
            self.at = len(self.text) - (last < len(self.text) and self.text.endswith("\\"))
            yield self.text[begin : self.at]
            more = self.more(0)


def _list_rows(name: str, text: _Text, max_bytes: int, whole: bool) -> Iterator[Row]:
    """Rows of a list inside of which `text` stands. Behind it nothing may follow if it is the `whole` file."""
    index, lost, mark = 0, "", text.go_to_next()
    while mark != "]" and not lost:
        where = f"{name}[{index}]"
        item, lost = _next_row(where, text, max_bytes)
        if item is not None:
            yield where, item
            index, mark = index + 1, text.go_to_next()
            if mark == ",":
                text.at += 1
                mark = text.go_to_next()
            elif mark != "]":
                lost = "not JSON: Expecting ',' delimiter" if mark else CUT
    if not lost:
        text.at += 1
        text.go_to_next()
    where = f"{name}[{index}]"
    last = _rejected(where, lost or TRAILING, text.pieces())
    damage = text.file.raw.damage if lost in ("", CUT) else ""
    if damage or lost or (whole and last.row):
        yield where, dataclasses.replace(last, reason=damage or last.reason)


def _next_row(where: str, text: _Text, max_bytes: int) -> tuple[dict | Rejected | None, str]:
    """The row that begins at `text.at`, which moves behind it, or why the list cannot be read on."""
    while True:
        try:
            value, end = DECODER.raw_decode(text.text, text.at)
            if isinstance(value, dict) or end < len(text.text):
                row = _row(where, value, text.text[text.at : end], max_bytes)
                text.at = end
                return row, ""
        except json.JSONDecodeError as error:
            if error.pos < len(text.text) - LITERAL and not error.msg.startswith("Unterminated string"):
                return None, f"not JSON: {error.msg}; the list is not read on"
        except (ValueError, RecursionError) as error:  # brackets and strings are as they should be
            return _rejected(where, f"not readable JSON: {error}", text.pieces_of_value()), ""
        if len(text.text) - text.at > max_bytes:
            return _rejected(where, f"row of more than {max_bytes:,} bytes", text.pieces_of_value()), ""
        if not text.more(max_bytes):
            return None, CUT


def _parse(where: str, text: str) -> dict | Rejected:
    try:
        return _row(where, DECODER.decode(text), text)
    except json.JSONDecodeError as error:
        return _rejected(where, f"not JSON: {error.msg}", [text])
    except (ValueError, RecursionError) as error:
        return _rejected(where, f"not readable JSON: {error}", [text])


def _decode(where: str, text: str) -> str | Rejected:
    return text.strip() if _is_utf8(text) else _rejected(where, NOT_UTF8, [text])


def _row(where: str, value: Any, text: str, max_bytes: int = sys.maxsize) -> dict | Rejected:
    """`value` if it can be used, of which `text` is the JSON."""
    if not _is_utf8(text):
        return _rejected(where, NOT_UTF8, [text])
    if len(text) > max_bytes or (not text.isascii() and len(text.encode()) > max_bytes):
        return _rejected(where, f"row of more than {max_bytes:,} bytes", [text])
    if not isinstance(value, dict):
        return _rejected(where, "not a JSON object", [text])
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        return _rejected(where, f"nested more than {MAX_DEPTH} deep", [text])
    return value


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(_depth, inside), default=0)


def _object(pairs: list[tuple[str, Any]]) -> dict:
    made = dict(pairs)
    if len(made) < len(pairs):
        # The last of them would win without a word; damage makes one row of two like this.
        raise ValueError("a key that stands twice in an object")
    return made


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _is_utf8(text: str) -> bool:
    return text.isascii() or not LONE.search(text)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _rejected(where: str, reason: str, pieces: Iterable[str], further: int = 0) -> Rejected:
    """With as much of the row's text as can be shown; `further` bytes of it are not in `pieces`."""
    shown, size = "", further
    for piece in pieces:
        shown += piece[: MAX_REJECTED_CHARS - len(shown)]
        size += len(_bytes(piece))
    raw = _bytes(shown)[:MAX_REJECTED_CHARS]
    return Rejected(where, None, reason, raw.decode("utf-8", "backslashreplace"), None if len(raw) == size else size)
