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
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from etils import epath

MAX_BYTES = 8 * 2**20  # of one row; the longest real dialogues have about one
CHUNK = 2**20
MAX_REJECTED_CHARS = 50_000
UTF8_BOM = b"\xef\xbb\xbf"
MAX_DEPTH = 200  # of lists and objects in each other; what writes or sends a row recurses
TRAILING = "data after the end of the list"

QUOTE, COMMA, OPENS, CLOSES = b'"'[0], b","[0], b"[{", b"]}"
STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
STRUCTURE = re.compile(rb'[^"\[\]{},]*+')
OPENING = re.compile(rb'\s*+\{\s*+"[^"\\]{0,200}"\s*+:')
NOT_INSIDE = rb"(?<![:\[])(?<![:\[] )"


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

    A file that begins with `[` is a JSON list unless it is named .jsonl; its rows are named `file[index]`. Where a row
    of a list is so damaged that its end cannot be told, reading goes on at what begins as the rows before it did.

    Args:
      path: a local path or a bucket's, .gz or not.
      max_bytes: a longer row is set aside without being held in memory.

    Raises:
      OSError: the file cannot be opened or read.
    """
    name = str(path)
    with epath.Path(name).open("rb") as opened:
        file = _File(name, opened)
        head = file.more()
        if head.lstrip().startswith(b"[") and not name.removesuffix(".gz").endswith(".jsonl"):
            yield from _list_rows(file, bytearray(head.lstrip()[1:]), max_bytes, whole=True)
        else:
            yield from _line_rows(file, head, max_bytes, _parse)


def read_lines(path: str, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, str | Rejected]]:
    """As `read`, for a text file: yields (where, line or Rejected) for each line that is not blank, stripped."""
    with epath.Path(path).open("rb") as opened:
        file = _File(str(path), opened)
        yield from _line_rows(file, file.more(), max_bytes, _decode)


def read_inside(path: str, key: str, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, dict | Rejected]]:
    """As `read`, for a file that is one object and its rows the list under `key`.

    The first it yields is (path, what of the object stands before the list), {} if that cannot be read.
    """
    name, begin = str(path), re.compile(rb'"%b"\s*:\s*\[' % re.escape(key.encode()))
    with epath.Path(name).open("rb") as opened:
        file = _File(name, opened)
        head = bytearray()
        # A quote inside of a text is escaped: what looks like the key is one.
        while not (found := begin.search(head)) and len(head) <= max_bytes and (more := file.more()):
            head += more
        if not found:
            yield name, Rejected(name, None, file.damage or f"no list under '{key}'", *_text(head, len(head)))
            return
        before = _parse(name, bytes(head[: found.end()]) + b"]}")
        yield name, {} if isinstance(before, Rejected) else before
        yield from _list_rows(file, head[found.end() :], max_bytes, whole=False)


class _File:
    """Chunks of a file, unpacked where it is .gz; `damage` says what ended them too early."""

    def __init__(self, name: str, opened: BinaryIO):
        self.name, self.damage = name, ""
        # read1 hands over what could be unpacked before the damage; read would throw it away.
        self._read = gzip.GzipFile(fileobj=opened).read1 if name.endswith(".gz") else opened.read
        self._begun = False

    def more(self) -> bytes:
        """The next chunk; empty at the end."""
        try:
            chunk = b"" if self.damage else self._read(CHUNK)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.damage, chunk = f"the file is cut off or damaged here: {error}", b""
        begun, self._begun = self._begun, True
        return chunk if begun else chunk.removeprefix(UTF8_BOM)


def _line_rows(
    file: _File, chunk: bytes, max_bytes: int, parse: Callable[[str, bytes], Any]
) -> Iterator[tuple[str, Any]]:
    head, size, line = bytearray(), 0, 1
    while True:
        *ended, rest = chunk.split(b"\n") if chunk else (b"", b"")
        for piece in ended:
            size += len(piece)
            head += piece[: max_bytes + 1 - len(head)]
            where = f"{file.name}:{line}"
            if file.damage:
                yield from _last(where, parse(where, bytes(head)), file.damage, head, size)
            elif size > max_bytes:
                yield where, _too_long(where, max_bytes, head, size)
            elif head.strip():
                yield where, parse(where, bytes(head))
            head, size, line = bytearray(), 0, line + 1
        if not chunk:
            return
        size += len(rest)
        head += rest[: max_bytes + 1 - len(head)]
        chunk = file.more()


def _list_rows(file: _File, buffer: bytearray, max_bytes: int, whole: bool) -> Iterator[tuple[str, dict | Rejected]]:
    """Rows of a list; `buffer` begins inside of it. Behind it nothing may stand if it is the `whole` file."""
    openings, index = _Openings(), 0
    while True:
        where, scan = f"{file.name}[{index}]", _Scan()
        index += 1
        while (end := scan.end(buffer)) < 0 and len(buffer) <= max_bytes and (more := file.more()):
            buffer += more
        raw = bytes(buffer if end < 0 else buffer[:end])
        item = _parse(where, raw) if len(raw) <= max_bytes else None
        # A good row that the file ends with may have taken in those behind it.
        if isinstance(item, dict) and (end >= 0 or openings.next(raw) < 0):
            openings.learn(raw)
        elif (begin := openings.next(raw, buffer)) >= 0:
            # The row's end was damaged too: brackets and strings are no guide to it.
            yield where, _parse(where, raw[:begin].rstrip().removesuffix(b","))
            del buffer[:begin]
            continue
        size = len(raw)
        while end < 0 and (more := file.more()):
            size += len(more)
            del buffer[: scan.at]
            buffer += more
            scan.at = 0
            if (end := scan.end(buffer)) >= 0:
                size -= len(buffer) - end
        if end < 0:
            yield from _last(where, item, file.damage or "the list is cut off here", raw, size)
            return
        if raw.strip():
            yield where, _too_long(where, max_bytes, raw, size) if item is None else item
        if buffer[end : end + 1] == b",":
            del buffer[: end + 1]
            continue
        del buffer[:end]
        where = f"{file.name}[{index}]"
        while (begin := openings.next(buffer, buffer)) < 0 and len(buffer) <= max_bytes and (more := file.more()):
            buffer += more
        behind = bytes(buffer[1:] if begin < 0 else buffer[1:begin])
        size = len(behind)
        while begin < 0 and (more := file.more()):
            size += len(more)
        damaged = bool(raw.strip()) and not isinstance(item, dict)  # so that its end may stand there
        if begin >= 0 or file.damage or ((whole or damaged) and behind.strip()):
            reason = TRAILING if begin >= 0 else file.damage or TRAILING
            yield where, Rejected(where, None, reason, *_text(behind, size))
        if begin < 0:
            return
        del buffer[:begin]
        index += 1


class _Scan:
    """Finds where a row of a list ends by brackets and strings; parses nothing."""

    def __init__(self, at: int = 0):
        self.at = at  # what stands before it was looked at
        self._depth, self._in_string = 1, False

    def end(self, buffer: bytearray) -> int:
        """Where the row's "," or the list's end is, -1 if not in the buffer, which may grow behind `at`."""
        at, depth, inside, size = self.at, self._depth, self._in_string, len(buffer)
        while at < size:
            at = (STRING if inside else STRUCTURE).match(buffer, at).end()
            mark = buffer[at] if at < size else 0
            if inside:
                if mark != QUOTE:
                    break  # not all of the text is here, or only the first half of an escape
                inside = False
            elif mark == QUOTE:
                inside = True
            elif mark in OPENS:
                depth += 1
            elif mark:
                depth -= mark in CLOSES
                if depth == 0 or (depth == 1 and mark == COMMA):
                    self.at = at
                    return at
            at += mark > 0
        self.at, self._depth, self._in_string = at, depth, inside
        return -1


class _Openings:
    """How the rows of a list begin: bracket and first key, with the white space before it if that has line breaks."""

    MOST = 8
    TRIES = 1000

    def __init__(self):
        self._seen: dict[bytes, None] = {}
        self._pattern = re.compile(b"(?!)")

    def learn(self, row: bytes) -> None:
        """Takes over how a good row begins."""
        if found := OPENING.match(row):
            self._add(found[0])

    def next(self, damaged: bytes | bytearray, ahead: bytes | bytearray = b"") -> int:
        """Where behind the beginning of `damaged` something begins as rows do, -1 if nowhere.

        Args:
          ahead: `damaged` and what follows; looked at where no good row came before and this one's beginning is lost.
        """
        own = OPENING.match(damaged)
        if not self._seen and own:
            self._add(own[0])
        elif not self._seen:
            self._guess(ahead)
        found = self._pattern.search(damaged, own.end() if own else 0)
        return found.start() if found else -1

    def _guess(self, ahead: bytes | bytearray) -> None:
        """Of all objects that can be read in `ahead`, one of each opening, the longest is a row."""
        lengths: dict[bytes, int] = {}
        for found in itertools.islice(OPENING.finditer(ahead), self.TRIES):
            if found[0] not in lengths:
                begin = found.end() - len(found[0].lstrip())
                end = _Scan(begin).end(ahead)
                if end >= 0 and isinstance(_parse("", bytes(ahead[begin:end])), dict):
                    lengths[found[0]] = end - begin
        if lengths:
            self._add(max(lengths, key=lengths.get))

    def _add(self, opening: bytes) -> None:
        if opening in self._seen or len(self._seen) == self.MOST:
            return
        self._seen[opening] = None
        # Without line breaks an object inside of a row may look like one; what follows a key or a bracket is none.
        ways = (re.escape(o) if b"\n" in o else NOT_INSIDE + re.escape(o.lstrip()) for o in self._seen)
        self._pattern = re.compile(b"|".join(ways))


def _last(where: str, item: Any, damage: str, head: bytes, size: int) -> Iterator[tuple[str, Any]]:
    """What the file ends with, whole or not, and that it ends too early."""
    if isinstance(item, dict):
        yield where, item
        where, head, size = f"{where} and on", b"", 0
    yield where, Rejected(where, None, damage, *_text(head, size))


def _too_long(where: str, max_bytes: int, head: bytes, size: int) -> Rejected:
    return Rejected(where, None, f"row of more than {max_bytes:,} bytes", *_text(head, size))


def _text(head: bytes, size: int) -> tuple[str, int | None]:
    """What of a row can be shown, and the row's whole size if that is not all."""
    shown = head[:MAX_REJECTED_CHARS]
    return shown.decode("utf-8", "backslashreplace"), None if len(shown) == size else size


def _decode(where: str, raw: bytes) -> str | Rejected:
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return Rejected(where, None, "bytes that are not UTF-8", *_text(raw, len(raw)))


def _object(pairs: list[tuple[str, Any]]) -> dict:
    made = dict(pairs)
    if len(made) < len(pairs):
        # The last of them would win without a word; damage makes one row of two like this.
        raise ValueError("a key that stands twice in an object")
    return made


def _parse(where: str, raw: bytes) -> dict | Rejected:
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError:
        reason = "bytes that are not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg}"
    except (ValueError, RecursionError) as error:
        reason = f"not readable JSON: {str(error).splitlines()[0]}"
    else:
        if isinstance(value, dict) and not (_brackets(raw) > MAX_DEPTH and _is_deep(value)):
            return value
        reason = f"nested more than {MAX_DEPTH} deep" if isinstance(value, dict) else "not a JSON object"
    return Rejected(where, None, reason, *_text(raw, len(raw)))


def _brackets(raw: bytes) -> int:
    return raw.count(b"[") + raw.count(b"{")


def _is_deep(value: dict) -> bool:
    level: list = [value]
    for _ in range(MAX_DEPTH):
        inside = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in inside if isinstance(child, dict | list)]
    return bool(level)
