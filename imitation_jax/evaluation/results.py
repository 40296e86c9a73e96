"""Result files: `eval/<model>/<task>.json`, one sample a line beside it, and how far an interrupted task had come.

A task appends every sample to `<task>.samples.jsonl.<digest of the settings>.partial` as it gets ready, so a start with
the same settings goes on where the last one was killed, and a start with others leaves that work alone.
"""

import json
import platform
import re
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from etils import epath

from imitation_jax.core import append_only
from imitation_jax.core.append_only import Lines
from imitation_jax.core.files import write_text
from imitation_jax.core.fingerprint import COMPARABLE, DATA, SAME, Keys, digest, flat
from imitation_jax.core.json_rows import line

Sample = dict[str, Any]
Result = dict[str, Any]

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "tokenizers", "jinja2", "rouge-score")


def safe_name(name: str) -> str:
    """`name` as a folder name on any file system."""
    return re.sub(r"[^\w.@+-]+", "_", name).strip("._") or "model"


def model_name(source: str) -> str:
    """What a model's results are filed under: the last part of its path, an Orbax step included."""
    kind, _, where = source.partition(":")
    last = where.rstrip("/").rsplit("/", 1)[-1]
    return safe_name(last.removesuffix(".gguf") if kind == "gguf" else last)


def versions() -> dict[str, str]:
    """Of Python and of the packages that a number can depend on."""
    versions = {"python": platform.python_version()}
    for package in (*PACKAGES, "imitation_jax"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def write_lines(path: epath.Path, rows: Iterable[Sample]) -> None:
    """JSON Lines, see `write_text`."""
    write_text(path, "".join(line(row) for row in rows))


def write_result(path: epath.Path, result: Result) -> None:
    """See `write_text`."""
    write_text(path, json.dumps(result, indent=2, allow_nan=False) + "\n")


def read_result(path: epath.Path) -> Result | None:
    """The result, or None where there is none.

    Raises:
      ValueError: the file is no result.
    """
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not a result file ({error}); delete it to compute it again") from None
    if not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
        raise ValueError(f"{path}: not a result file (no metrics); delete it to compute it again")
    return result


def is_current(kept: Result | None, keys: Keys, settings: Mapping[str, Any], *, whole: bool = True) -> bool:
    """Whether a kept result is what these settings would give: no setting that changes its numbers differs.

    Args:
      keys: of its settings, see `config.settings_keys`.
      settings: nested as a result's settings are, or flat.
      whole: False where these are not all settings, as a study knows them without reading data; then the others are not
        looked at, and data must be read from the same place.
    """
    if kept is None:
        return False
    recorded, wanted = dict(flat(kept["settings"])), dict(flat(json.loads(json.dumps(settings))))
    if whole:
        return not keys.differing(recorded, wanted)
    return not keys.differing({key: recorded[key] for key in recorded.keys() & wanted.keys()}, wanted, SAME | {DATA})


def differing_settings(one: Result, other: Result, keys: Keys) -> list[str]:
    """Names of the settings that keep two results' numbers from being compared; see `config.settings_keys`."""
    return list(keys.differing(one.get("settings", {}), other.get("settings", {}), COMPARABLE))


def samples_path(workdir: str, model: str, name: str, task: str) -> epath.Path:
    """The file of a result's samples; `name.json`, the result, lies beside it."""
    last = f"{name}.jsonl" if task == "answers" else f"{name}.samples.jsonl"
    return epath.Path(workdir).expanduser() / "eval" / model / last


def partial_path(final: epath.Path, fingerprint: str, cache_dir: Path) -> Path:
    """Where the samples of an unfinished task lie, see `Samples`."""
    if "://" in str(final):
        return cache_dir / f"{digest(str(final))}.{fingerprint}.partial"
    return Path(f"{final}.{fingerprint}.partial")


class Samples:
    """The samples of one task on one model, on disk as they come. `with` closes the file, and so gives its lock back.

    `rows` holds those that an earlier start with the same settings had finished, by id. `seconds` counts, over all
    starts, the time from `start` up to the last sample that each of them finished.
    """

    def __init__(self, final: epath.Path, fingerprint: str, cache_dir: Path):
        """Args:
          final: where the task's samples end up; while they come they lie beside it in `<final>.*.partial`.
          fingerprint: digest of all settings that change a sample.
          cache_dir: local folder of the partial file where `final` is in a bucket, which cannot be appended to.

        Raises:
          BlockingIOError: another process is at the same task with the same settings.
        """
        self.final = final
        self.rows: dict[str, Sample] = {}
        self.partial = partial_path(final, fingerprint, cache_dir)
        self._lines = Lines(self.partial)
        self._before = 0.0
        for _, row in append_only.read(self.partial):
            self.rows[row["sample"]["id"]], self._before = row["sample"], row["seconds"]
        self._start: float | None = None

    def __enter__(self) -> "Samples":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def start(self) -> None:
        """From now on the model is being asked."""
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """In which the model was asked: pauses between starts, and what came before `start`, left out."""
        return self._before + (time.monotonic() - self._start if self._start is not None else 0.0)

    def append(self, sample: Sample) -> None:
        """Keeps `sample` (its "id" is new) in memory and on disk."""
        self.rows[sample["id"]] = sample
        self._lines.append({"sample": sample, "seconds": round(self.seconds, 3)})

    def finish(self, ids: Iterable[str]) -> list[Sample]:
        """Writes the final file, in the order of `ids`, and returns its rows. `discard` ends the partial file."""
        rows = [self.rows[key] for key in ids]
        write_lines(self.final, rows)
        return rows

    def discard(self) -> None:
        """Deletes the partial file: call it when the result is on disk."""
        self.partial.unlink(missing_ok=True)
        self._lines.close()
