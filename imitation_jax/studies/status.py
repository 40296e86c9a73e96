"""How far a study is, from its files: `study.json`, and what the live table shows."""

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
    """Of a base or a cell: its status, how much of it is done, and the first number of each result."""

    status: str  # missing, training, evaluating, done or failed; making, of what is no model
    why: str = ""
    trained_tokens: int = 0
    loss_tokens: int = 0
    train_seconds: float = 0.0
    share: float = 0.0  # of the work that is going on, training or evaluating; 0 where it is not known
    results: dict[str, Result] = dataclasses.field(default_factory=dict)
    left: tuple[int, int] = (0, 0)  # tokens to train on, samples to evaluate

    @property
    def numbers(self) -> dict[str, float | None]:
        """Task -> its first metric."""
        return {task: next(iter(result["metrics"].values()))["value"] for task, result in self.results.items()}


class StudyStatus:
    """What every job has come to; `look` reads again what a job has written."""

    def __init__(self, layout: Layout, todo: Iterable[Job]):
        self.layout = layout
        self.jobs = {job.name: job for job in todo}
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
        self.of_job[name] = self._status_of(job)

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

    def _status_of(self, job: Job) -> JobStatus:
        status = JobStatus("missing")
        if job.kind in ("fetch", "build", "judge"):
            going_on = "making" if job.name in self.running else "missing"
            status.status = "done" if self.done(job.name) else "failed" if job.name in self.failed else going_on
            return status
        tasks = ["style"] if job.kind == "teacher" else list(self.layout.evaluations)
        for task in tasks:
            result = done.result_of(self.layout, job.name, task)
            if result and done.task_done(self.layout, job.name, task):
                status.results[task] = result
                self._sizes[task] = result["n"]
        cell = self._cells.get(job.name)
        if cell:
            self._training(cell, status)
        rows = self._rows(job.name, tasks, status)
        asked = rows + sum(result["n"] for result in status.results.values())
        verdicts = {task: done.result_of(self.layout, job.name, task) for task in done.VERDICTS}
        status.results |= {task: result for task, result in verdicts.items() if result}
        if self.done(job.name):
            status.status, status.share, status.left = "done", 1.0, (0, 0)
        elif job.name in self.failed:
            status.status, status.why = "failed", self.failed[job.name]
        elif asked:
            total = sum(self._sizes.get(task, 0) for task in tasks)
            known = all(task in self._sizes for task in tasks)
            status.status, status.share = "evaluating", asked / total if known and total else 0.0
        elif job.name in self.running or status.trained_tokens:
            status.status = "training" if cell else "evaluating"
            if cell and cell.tokens:
                status.share = min(1.0, status.trained_tokens / cell.tokens)
        return status

    def _training(self, cell: Cell, status: JobStatus) -> None:
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

    def _rows(self, name: str, tasks: Iterable[str], status: JobStatus) -> int:
        """Samples of tasks that are not whole yet; notes what is left."""
        folder = epath.Path(self.layout.workdir) / "eval" / name
        rows, left = 0, 0
        for task in tasks:
            if task in status.results:
                continue
            partials = list(folder.glob(f"{task}.*.partial")) if folder.exists() else []
            here = max((path.read_bytes().count(b"\n") for path in partials), default=0)
            rows, left = rows + here, left + max(self._sizes.get(task, 0) - here, 0)
        cell = self._cells.get(name)
        tokens = max(cell.tokens - status.trained_tokens, 0) if cell and not (rows or status.results) else 0
        status.left = (tokens, left)
        return rows

    def seconds_left(self) -> float | None:
        """By what training and evaluating took so far; None where nothing tells."""
        known = self.of_job.values()
        trained = sum(one.trained_tokens for one in known)
        results = [result for one in known for result in one.results.values()]
        asked = sum(result["n"] for result in results)
        tokens, samples = (sum(one.left[i] for one in known if one.status != "failed") for i in (0, 1))
        if (tokens and not trained) or (samples and not asked) or not self._sizes:
            return None
        if any(cell.tokens == ALL and not self.done(cell.name) for cell in self.layout.cells):
            return None
        seconds = tokens * sum(one.train_seconds for one in known) / trained if tokens else 0.0
        seconds += samples * sum(result["seconds"] for result in results) / asked if samples else 0.0
        open_ = [self.jobs[name] for name, one in self.of_job.items() if one.status != "done"]
        starts = sum(isinstance(command, list) for job in open_ for command in job.commands)
        return seconds + START_SECONDS * starts

    def told(self) -> dict[str, Any]:
        """What `study.json` holds."""
        layout, config = self.layout, self.layout.config
        cells = []
        for cell in layout.cells:
            status = self.of_job[cell.name]
            about = {key: value for key, value in dataclasses.asdict(cell).items() if key != "asked"}
            about |= {"trained_tokens": status.trained_tokens, "loss_tokens": status.loss_tokens}
            cells.append(about | {"status": status.status, "why": status.why})
        teacher = next((job.name for job in self.jobs.values() if job.kind == "teacher"), None)
        return {
            "name": layout.name,
            "scale": layout.scale,
            "bases": [
                {key: base[key] for key in ("label", "parameters", "model", "note")} | {"name": name}
                for name, base in layout.bases.items()
            ],
            "teacher": teacher,
            "data": [
                _about_data(name, layout.config.builds[name]) for name in _used(cell.data for cell in layout.cells)
            ],
            "schedules": {name: config.schedules[name].to_dict() for name in _used(c.schedule for c in layout.cells)},
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
        text = json.dumps(self.told(), indent=1) + "\n"
        before = path.read_text() if path.exists() else ""
        if before:
            for key, now in (("name", self.layout.name), ("scale", self.layout.scale)):
                there = json.loads(before).get(key)
                if there != now:
                    raise ValueError(
                        f"{path}: is of a study whose {key} is {there!r}, not {now!r}; use a new --workdir"
                    )
        if text != before:
            write_text(path, text)


def _used(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _about_data(name: str, build: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": name,
        "label": build["label"],
        "kind": "local" if build["local"] else "broad",
        "task": build["task"],
    }
