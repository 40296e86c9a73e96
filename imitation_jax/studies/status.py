"""How far each job of a study is, read from the files that its commands have written; and `study.json`."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from imitation_jax.core.files import write_text
from imitation_jax.evaluation.results import Result
from imitation_jax.studies import done
from imitation_jax.studies.jobs import Job
from imitation_jax.studies.layout import ALL, Cell, Layout

START_SECONDS = 20  # of a command that loads a model, for the time left


@dataclasses.dataclass
class JobStatus:
    """How far a job is; `trained_*`, `results` and `*_left` are of a base, a cell or the teacher."""

    stage: str = "missing"  # then making, or training and evaluating; in the end done or failed
    why: str = ""  # it failed
    share: float = 0.0  # of the training or evaluating that is going on; 0 where it is not known
    trained_tokens: int = 0
    loss_tokens: int = 0
    train_seconds: float = 0.0
    results: dict[str, Result] = dataclasses.field(default_factory=dict)
    tokens_left: int = 0  # to train on
    samples_left: int = 0  # to evaluate

    @property
    def numbers(self) -> dict[str, float | None]:
        """Task -> its first metric."""
        return {task: next(iter(result["metrics"].values()))["value"] for task, result in self.results.items()}


class StudyStatus:
    """How far every job is; `look` reads again what a job has written."""

    def __init__(self, layout: Layout, jobs: Iterable[Job]):
        self.layout = layout
        self.jobs = {job.name: job for job in jobs}
        self.failed: dict[str, str] = {}
        self.running: set[str] = set()
        self.of_job: dict[str, JobStatus] = {}
        self._cells = {cell.name: cell for cell in layout.cells}
        self._sizes: dict[str, int] = {}  # task -> samples, from whatever result there is
        self._done: set[str] = set()
        for name in self.jobs:
            self.look(name)

    def look(self, name: str) -> None:
        """Reads again how far the job is."""
        job = self.jobs[name]
        if name not in self._done and job.done():
            self._done.add(name)
            self.failed.pop(name, None)
        if job.kind in ("fetch", "build", "judge"):
            status = JobStatus("making" if name in self.running else "missing")
        else:
            status = self._of_model(job)
        if self.done(name):
            status.stage, status.share, status.tokens_left, status.samples_left = "done", 1.0, 0, 0
        elif name in self.failed:
            status.stage, status.why = "failed", self.failed[name]
        self.of_job[name] = status

    def done(self, name: str) -> bool:
        """Whether the job was done when it was last looked at."""
        return name in self._done

    def blocked(self, job: Job) -> str:
        """Why the job cannot be begun, as what it needs has failed; else ""."""
        if job.kind in ("fetch", "build"):
            return ""
        needed = [name for name in self.failed if self.jobs[name].kind in ("fetch", "build")]
        if job.kind == "judge":
            needed.append(job.name.removeprefix("judge "))
        return "; ".join(f"{name} failed: {self.failed[name]}" for name in needed if name in self.failed)

    def _of_model(self, job: Job) -> JobStatus:
        """Of a base, a cell or the teacher, by its metrics and results and what of them is begun."""
        status, cell = JobStatus(), self._cells.get(job.name)
        if cell:
            self._add_training(cell, status)
        tasks = ["style"] if job.kind == "teacher" else list(self.layout.evaluations)
        asked, begun = 0, {}
        for task in tasks:
            result = done.result_of(self.layout, job.name, task)
            if result and done.task_done(self.layout, job.name, task):
                status.results[task] = result
                self._sizes[task] = result["n"]
                asked += result["n"]
            else:
                begun[task] = self._rows_begun(job.name, task)
                asked += begun[task]
        status.samples_left = sum(max(self._sizes.get(task, 0) - rows, 0) for task, rows in begun.items())
        if asked:
            status.stage = "evaluating"
            if all(task in self._sizes for task in tasks):
                status.share = asked / sum(self._sizes[task] for task in tasks)
        elif job.name in self.running or status.trained_tokens:
            status.stage = "training" if cell else "evaluating"
            status.share = min(1.0, status.trained_tokens / cell.tokens) if cell and cell.tokens else 0.0
        if cell and not asked:
            status.tokens_left = max(cell.tokens - status.trained_tokens, 0)
        for task in done.VERDICTS:
            if verdicts := done.result_of(self.layout, job.name, task):
                status.results[task] = verdicts
        return status

    def _add_training(self, cell: Cell, status: JobStatus) -> None:
        run = epath.Path(self.layout.run(cell))
        if not (run / "config.json").exists() or not (run / "metrics.jsonl").exists():
            return
        config = json.loads((run / "config.json").read_text())
        positions = config["batch_size"] * config["data"]["seq_len"]
        for line in (run / "metrics.jsonl").read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # cut off by a kill
                continue
            status.trained_tokens += round(positions * (1 - row["padding_share"]))
            status.loss_tokens += round(row["loss_tokens"])
            status.train_seconds += row["seconds"]

    def _rows_begun(self, name: str, task: str) -> int:
        """Samples of a task that is not whole yet."""
        folder = epath.Path(self.layout.workdir) / "eval" / name
        partials = folder.glob(f"{task}.*.partial") if folder.exists() else ()
        return max((path.read_bytes().count(b"\n") for path in partials), default=0)

    def seconds_left(self) -> float | None:
        """By what training and evaluating took so far; None where nothing tells."""
        known = self.of_job.values()
        trained = sum(one.trained_tokens for one in known)
        results = [result for one in known for result in one.results.values()]
        asked = sum(result["n"] for result in results)
        tokens = sum(one.tokens_left for one in known if one.stage != "failed")
        samples = sum(one.samples_left for one in known if one.stage != "failed")
        if (tokens and not trained) or (samples and not asked) or not self._sizes:
            return None
        if any(cell.tokens == ALL and not self.done(cell.name) for cell in self.layout.cells):
            return None
        seconds = tokens * sum(one.train_seconds for one in known) / trained if tokens else 0.0
        seconds += samples * sum(result["seconds"] for result in results) / asked if samples else 0.0
        unfinished = [job for name, job in self.jobs.items() if not self.done(name)]
        return seconds + START_SECONDS * sum(
            isinstance(command, list) for job in unfinished for command in job.commands
        )

    def as_json(self) -> dict[str, Any]:
        """What `study.json` holds."""
        layout, config = self.layout, self.layout.config
        cells = []
        for cell in layout.cells:
            status = self.of_job[cell.name]
            about = {key: value for key, value in dataclasses.asdict(cell).items() if key != "asked"}
            about |= {"trained_tokens": status.trained_tokens, "loss_tokens": status.loss_tokens}
            cells.append(about | {"status": status.stage, "why": status.why})
        teacher = next((job.name for job in self.jobs.values() if job.kind == "teacher"), None)
        return {
            "name": layout.name,
            "scale": layout.scale,
            "bases": [
                {key: base[key] for key in ("label", "parameters", "model", "note")} | {"name": name}
                for name, base in layout.bases.items()
            ],
            "teacher": teacher,
            "data": [_about_data(name, config.builds[name]) for name in _unique(cell.data for cell in layout.cells)],
            "schedules": {name: config.schedules[name].to_dict() for name in _unique(c.schedule for c in layout.cells)},
            "train": config.train.to_dict(),
            "cells": cells,
            "evaluations": [{"task": task, "settings": keys, "why": ""} for task, keys in layout.evaluations.items()],
            "left_out": [{"what": what, "why": why} for what, why in layout.left_out.items()],
        }

    def write(self) -> None:
        """Writes `study.json`, if it would change.

        Raises:
          ValueError: the folder holds a study of another scale or name.
        """
        path = epath.Path(self.layout.workdir) / "study.json"
        text = json.dumps(self.as_json(), indent=1) + "\n"
        before = path.read_text() if path.exists() else ""
        for key, now in (("name", self.layout.name), ("scale", self.layout.scale)) if before else ():
            if (old := json.loads(before).get(key)) != now:
                raise ValueError(f"{path}: is of a study whose {key} is {old!r}, not {now!r}; use a new --workdir")
        if text != before:
            write_text(path, text)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _about_data(name: str, build: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": name,
        "label": build["label"],
        "kind": "local" if build["local"] else "broad",
        "task": build["task"],
    }
