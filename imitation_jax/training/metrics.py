"""metrics.jsonl and TensorBoard events, one record a step, continued exactly after a restart."""

import json
import os
from typing import Any

from etils import epath
from tensorboardX import SummaryWriter


class MetricsWriter:
    """Writes `metrics.jsonl` and `tensorboard/` of a workdir.

    Lines of steps after `start_step` are what a killed run wrote and this one will write again, so they go; so does a
    line that the kill cut in two.
    """

    def __init__(self, workdir: epath.Path, start_step: int):
        self._path = workdir / "metrics.jsonl"
        self._lines = []
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= start_step:
                        self._lines.append(line)
                except (ValueError, KeyError):
                    continue
        self._local = isinstance(self._path, os.PathLike) and "://" not in str(self._path)
        if self._local:
            temporary = self._path.with_name(self._path.name + ".tmp")
            temporary.write_text("".join(line + "\n" for line in self._lines))
            temporary.replace(self._path)
            self._file = open(self._path, "a", buffering=1, encoding="utf-8")
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1, write_to_disk=True)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends one record; numbers are written so that reading them back gives the same bits."""
        line = json.dumps({"step": step, **values})
        if self._local:
            self._file.write(line + "\n")
        else:
            self._lines.append(line)
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    def write_text(self, step: int, name: str, text: str) -> None:
        """A text for TensorBoard's text page."""
        self._tensorboard.add_text(name, text, step)

    def flush(self) -> None:
        """Makes what is written so far safe; a bucket has no append, so there the whole file is written."""
        if not self._local:
            self._path.write_text("".join(line + "\n" for line in self._lines))
        self._tensorboard.flush()

    def close(self) -> None:
        """Flushes and closes both."""
        self.flush()
        if self._local:
            self._file.close()
        self._tensorboard.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
