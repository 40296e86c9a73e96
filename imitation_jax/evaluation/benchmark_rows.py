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
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from etils import epath

from imitation_jax.core import json_rows

TFDS = re.compile(r"tfds:(?P<name>.+?):(?P<split>[^:/\[]+(\[[^\]]*\])?)")
READ_AT_ONCE = 256
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
    file = existing(path)
    lines = []
    for number, line in enumerate(file.read_bytes().removeprefix(json_rows.UTF8_BOM).split(b"\n"), 1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise ValueError(f"{path}:{number}: bytes that are not UTF-8") from None
        if text:
            lines.append((f"{path}:{number}", text))
    return lines


def read_rows(path: str) -> Rows:
    """("FILE:LINE", "FILE[INDEX]" or "tfds:NAME:SPLIT[INDEX]", row) of every row of data, see the top of this module.

    In a CSV file all values are texts. A tfds class label is its name, and None where the label is not known (-1).

    Raises:
      FileNotFoundError: no such file or dataset.
      ValueError: a row that cannot be read, or no rows at all.
    """
    if path.startswith("tfds:"):
        found = _read_tfds(path)
    elif path.removesuffix(".gz").endswith(".csv"):
        found = _read_csv_rows(path)
    else:
        existing(path)
        found = list(json_rows.read(path))
        for where, row in found:
            if isinstance(row, json_rows.Rejected):
                raise ValueError(f"{where}: {row.reason}")
    if not found:
        raise ValueError(f"{path}: holds no rows")
    return found


def read_csv(path: str) -> list[tuple[str, list[str]]]:
    """("FILE:LINE", values) of every row of a CSV file, the header too; LINE is where a row ends, blank rows are none.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not UTF-8, quotes that do not close, a row of another length than the first.
    """
    content = existing(path).read_bytes()
    try:
        text = (gzip.decompress(content) if str(path).endswith(".gz") else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: cut off or no gzip file ({error})") from None
    # Not strict, an open quote would swallow the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[tuple[str, list[str]]] = []
    try:
        for row in reader:
            if row and found and len(row) != len(found[0][1]):
                raise ValueError(f"{path}:{reader.line_num}: {len(row)} columns, expected {len(found[0][1])}")
            if row:
                found.append((f"{path}:{reader.line_num}", row))
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV: {error}") from None
    return found


def _read_csv_rows(path: str) -> Rows:
    (_, header), *found = read_csv(path) or [("", [])]
    if len(set(header)) < len(header) or not all(name.strip() for name in header):
        raise ValueError(f"{path}:1: the first line must name every column once, found {','.join(header)[:80]!r}")
    return [(where, dict(zip(header, row, strict=True))) for where, row in found]


def existing(path: str) -> epath.Path:
    """The path, recorded as read.

    Raises:
      FileNotFoundError: no file is there, or the path is empty.
    """
    file = epath.Path(path).expanduser() if path else None
    if file is None or not file.exists() or file.is_dir():
        raise FileNotFoundError(f"{path or '(no path given)'}: no such file")
    data = _recorded.get()
    if data is not None:
        digest = hashlib.sha256()
        with file.open("rb") as opened:
            while chunk := opened.read(json_rows.CHUNK):
                digest.update(chunk)
        data[str(path)] = {"sha256": digest.hexdigest(), "bytes": file.stat().length}
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


def _read_tfds(spec: str) -> Rows:
    parts = TFDS.fullmatch(spec)
    if parts is None:
        raise ValueError(f"{spec}: expected tfds:NAME[/CONFIG]:SPLIT or tfds:DIR:SPLIT, such as tfds:piqa:validation")
    folder = _tfds_folder(spec, parts["name"])
    if "://" not in str(folder):
        return _read_split(spec, folder, parts["split"])
    # ArrayRecord opens local files only.
    with tempfile.TemporaryDirectory() as local:
        for file in folder.iterdir():
            if "array_record" not in file.name or f"-{parts['split'].partition('[')[0]}." in file.name:
                file.copy(epath.Path(local) / file.name)
        return _read_split(spec, epath.Path(local), parts["split"])


def _read_split(spec: str, folder: epath.Path, split: str) -> Rows:
    import tensorflow_datasets as tfds  # takes seconds, and most data are files

    builder = tfds.builder_from_directory(folder)
    info, base = builder.info, split.partition("[")[0]
    if base not in info.splits:
        raise ValueError(f"{spec}: has no split {base!r}; there are {', '.join(info.splits)}")
    if info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        kind = info.file_format.value
        raise ValueError(f"{spec}: its files are {kind}; prepare it again with --file_format=array_record")
    try:
        source = builder.as_data_source(split=split)
    except ValueError as error:
        raise ValueError(f"{spec}: {str(error).splitlines()[0]}") from None
    found = []
    for begin in range(0, len(source), READ_AT_ONCE):
        some = source.__getitems__(range(begin, min(begin + READ_AT_ONCE, len(source))))
        for index, row in enumerate(some, begin):
            try:
                found.append((f"{spec}[{index}]", _plain(row, info.features)))
            except UnicodeDecodeError:
                raise ValueError(f"{spec}[{index}]: bytes that are not UTF-8") from None
    data = _recorded.get()
    if data is not None:
        # Its files are no fingerprint: prepared twice, the same examples give other bytes.
        digest = hashlib.sha256("".join(json.dumps(row, sort_keys=True) + "\n" for _, row in found).encode())
        data[spec] = {"sha256": digest.hexdigest(), "rows": len(found), "version": str(builder.version)}
    return found


def _tfds_folder(spec: str, name: str) -> epath.Path:
    """The folder of the newest prepared version."""
    elsewhere = "://" in name or name.startswith(("/", ".", "~"))
    root = epath.Path(name if elsewhere else os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    root = root if elsewhere else root / name
    if (root / "dataset_info.json").exists():
        return root
    versions = {
        tuple(map(int, path.parent.name.split("."))): path.parent
        for path in root.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    }
    if versions:
        return versions[max(versions)]
    if configs := sorted({path.parent.parent.name for path in root.glob("*/*/dataset_info.json")}):
        raise ValueError(f"{spec}: {root} holds several configs; add one of them to the name: {', '.join(configs)}")
    how = "name a folder with dataset_info.json"
    if not elsewhere:
        how = f"run `tfds build {name} --file_format=array_record`, or set TFDS_DATA_DIR to where it is"
    raise FileNotFoundError(f"{spec}: no prepared dataset in {root}; {how}")


def _plain(value: Any, feature: Any) -> Any:
    """What a JSON row would hold in place of a tfds example's value."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.FeaturesDict):
        return {key: _plain(value[key], feature[key]) for key in feature}
    if isinstance(feature, tfds.features.Sequence):
        inner = feature.feature
        if isinstance(inner, tfds.features.FeaturesDict):
            return {key: [_plain(each, inner[key]) for each in value[key]] for key in inner}
        return [_plain(each, inner) for each in value]
    if isinstance(feature, tfds.features.ClassLabel):
        return feature.int2str(int(value)) if value >= 0 else None
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.tolist() if hasattr(value, "tolist") else value
