"""metrics.jsonl and TensorBoard events, one record a step, continued exactly after a restart."""

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from imitation_jax.core.files import write_text
from imitation_jax.parallel import distributed


class MetricsWriter:
    """Writes `metrics.jsonl` and `tensorboard/` of a workdir.

    Lines of steps after `start_step` are what a killed run wrote and this one will write again, so they go; so does a
    line that the kill cut in two. A bucket has no append: there `flush` uploads both files whole. Of several processes
    only the first one writes.

    Raises:
      OSError: from any method, when the files cannot be written.
    """

    def __init__(self, workdir: epath.Path, start_step: int):
        self._silent = distributed.process_index() > 0
        if self._silent:
            return
        self._workdir = workdir
        self._here = Path(tempfile.mkdtemp() if "://" in str(workdir) else workdir)
        with self._explained():
            lines = []
            if (workdir / "metrics.jsonl").exists():
                for line in (workdir / "metrics.jsonl").read_text().splitlines():
                    with contextlib.suppress(ValueError):
                        if json.loads(line)["step"] <= start_step:
                            lines.append(line + "\n")
            write_text(self._here / "metrics.jsonl", "".join(lines))
            self._lines = open(self._here / "metrics.jsonl", "a", buffering=1, encoding="utf-8")
            (self._here / "tensorboard").mkdir(exist_ok=True)
            # Written in this thread: tensorboardX's own SummaryWriter has one that dies of a full disk unnoticed, and
            # then blocks whoever writes next.
            self._events = EventsWriter(str(self._here / "tensorboard" / "events"), f".{start_step}")
            # Makes TensorBoard forget what earlier files say of later steps.
            start = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(step=start_step + 1, wall_time=time.time(), session_log=start))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends one record; numbers read back with the same bits, and what is not finite as null."""
        if self._silent:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self._explained():
            self._lines.write(json.dumps({"step": step, **finite}) + "\n")
            for name, value in values.items():
                event = Event(step=step, wall_time=time.time(), summary=summary.scalar(name, value))
                self._events.write_event(event)
            self._events.flush()  # whoever watches a long run sees each step

    def write_text(self, step: int, name: str, text: str) -> None:
        """A text for TensorBoard's text page."""
        if self._silent:
            return
        with self._explained():
            self._events.write_event(Event(step=step, wall_time=time.time(), summary=summary.text(name, text)))

    def flush(self) -> None:
        """Makes what is written so far safe."""
        if self._silent:
            return
        with self._explained():
            self._lines.flush()
            self._events.flush()
            if self._here != Path(self._workdir):
                for path in (self._here / "metrics.jsonl", *(self._here / "tensorboard").iterdir()):
                    target = self._workdir / path.relative_to(self._here)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    epath.Path(path).copy(target, overwrite=True)

    def close(self) -> None:
        """Flushes and closes both."""
        if self._silent:
            return
        self.flush()
        with self._explained():
            self._lines.close()
            self._events.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"{self._workdir}: metrics could not be written ({error.strerror or error}); free some space and start "
                "the same command again, it goes on from the newest whole checkpoint"
            ) from error
