"""Evaluates models on tasks: keeps results whose settings are the same, goes on where a killed run stopped.

A batch goes model by model, so that one is in memory at a time and is loaded once; data is read once for all models,
and models of one shape share their compiled programs.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.fingerprint import digest
from imitation_jax.core.progress import ticks
from imitation_jax.data import answer_files
from imitation_jax.evaluation import contamination
from imitation_jax.evaluation.benchmark_rows import recording
from imitation_jax.evaluation.model_sources import named_sources
from imitation_jax.evaluation.result_tables import paired_table
from imitation_jax.evaluation.results import (
    Result,
    Sample,
    Samples,
    partial_path,
    read_result,
    safe_name,
    samples_path,
    versions,
    write_result,
)
from imitation_jax.evaluation.tasks import (
    answers,
    arc,
    facts,
    gsm8k,
    hellaswag,
    human_eval,
    lambada,
    mmlu,
    natural_questions,
    piqa,
    style,
    tldr,
    toxicity,
    trivia_qa,
)
from imitation_jax.evaluation.worker_processes import Leader, repeat
from imitation_jax.inference.engine import Engine
from imitation_jax.models.load import LoadedModel, identify, load_model
from imitation_jax.parallel import hosts
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.tokenizers.chat_template import NAMED_TEMPLATES, load_template

TASKS: dict[str, ModuleType] = {
    "mmlu": mmlu,
    "arc_easy": arc,
    "arc_challenge": arc,
    "hellaswag": hellaswag,
    "piqa": piqa,
    "lambada": lambada,
    "nq": natural_questions,
    "trivia_qa": trivia_qa,
    "gsm8k": gsm8k,
    "human_eval": human_eval,
    "tldr": tldr,
    "toxicity": toxicity,
    "facts": facts,
    "answers": answers,
    "style": style,
}
ROLES = ("", "base", "student", "teacher")
# Recorded, but no number depends on them.
NOT_SETTINGS = (
    *("name", "role", "batch_size", "memory_gib", "mesh"),
    *("perspective_per_second", "perspective_budget", "perspective_cache"),
)
# What an engine is made for.
ENGINE_KEYS = ("mesh", "template", "compute_dtype", "batch_size", "memory_gib")


def evaluate(
    config: ConfigDict, models: Sequence[str], workdir: str, cache_dir: Path, trained_on: str = ""
) -> list[Result]:
    """Runs a task, or all that `config.only` chooses of `config.tasks`, on every model.

    Writes `eval/<model>/<task>.json` and its samples under `workdir`. What can be checked without a model in memory is
    checked, of all tasks and models, before the first one is loaded.

    Args:
      config: from `configs/eval/`; `config.name` files the results under another name than the model's own, and
        `config.role` ("base", "student" or "teacher") is what the report calls the model.
      models: sources as `named_sources` takes them; none for style alone.
      workdir: local or in a bucket.
      cache_dir: local folder; an unfinished task of a bucket's workdir lies there.
      trained_on: a training set, see `contamination.mark`: the results also say what they are without the items that
        stand in it.

    Returns:
      The results, task by task, each in the order of the models.

    Raises:
      ValueError, FileNotFoundError: one line with the key or the place.
    """
    batch = "tasks" in config
    tasks = _chosen(config) if batch else {config.task: config}
    for key, task in tasks.items():
        _check(task, f"config.tasks.{key}" if batch else "config")
    if not batch and config.task == "style":
        if models:
            raise ValueError("--model: style compares two files of answers and takes no model")
        if trained_on:
            raise ValueError("--contamination: style has no items to look for in training data")
        data = _read("style", config, batch)
        name = safe_name(config.name or data.items[0]["generator"])
        return [_Job("style", config, data, name, None, workdir, cache_dir).result()]
    if not models:
        raise ValueError(f"--model: {', '.join(tasks)} needs a model: hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]")
    sources = named_sources(models)
    if config.name:
        if len(sources) > 1:
            raise ValueError("config.name names one model, --model gives several")
        sources = dict.fromkeys(sources, safe_name(config.name))
    weights = {source: digest(identify(source)) for source in sources}
    own_style = {key: task for key, task in tasks.items() if batch and task.task == "style"}
    for key, task in own_style.items():
        _check_own_style(key, task, tasks, sources.values(), workdir)
    data = {key: _read(key, task, batch) for key, task in tasks.items() if key not in own_style}
    for key, task in own_style.items():
        if "answers" in data:
            asked = [{"id": item["id"], "instruction": item["instruction"]} for item in data["answers"].items]
            if not answer_files.match(asked, style.read_answers(task.reference))[0]:
                raise ValueError(
                    f"config.tasks.{key}.reference={task.reference!r}: shares no prompt with "
                    f"config.tasks.answers.prompts={tasks['answers'].prompts!r}"
                )
    marks = {}
    if trained_on:
        texts = {key: contamination.texts(key, TASKS[tasks[key].task], items) for key, (items, *_) in data.items()}
        marks = contamination.mark(texts, trained_on, cache_dir)

    results: dict[tuple[str, str], Result] = {}
    for number, (source, name) in enumerate(sources.items(), 1):
        logging.info("model %d of %d: %s", number, len(sources), source)
        model = (source, weights[source])
        jobs = [_Job(key, tasks[key], read, name, model, workdir, cache_dir) for key, read in data.items()]
        engines = _Engines(source, [job.config for job in jobs if job.kept() is None])
        # Tasks that share an engine follow one another.
        for job in sorted(jobs, key=engines.place):
            result = job.result(engines)
            if marks:
                place = (job.path, job.samples_path, job.task, job.items, job.config)
                result = contamination.add(result, *place, marks[job.key])
            else:  # the file may hold an earlier start's
                result.pop("contamination", None)
            results[job.key, name] = result
        for key, task in own_style.items():
            task = task.copy_and_resolve_references()
            task.answers = str(_own_answers(workdir, name))
            results[key, name] = _Job(key, task, _read(key, task, batch), name, None, workdir, cache_dir).result()
    return [results[key, name] for key in tasks for name in sources.values()]


def follow() -> None:
    """What the other processes do while the first one evaluates: they load and ask what it does, until it is done."""
    engines = engine = None
    while (told := hosts.tell()) is not None:
        if "source" in told:
            engine, engines = None, _Engines(told["source"], [ConfigDict(config) for config in told["configs"]])
        elif "config" in told:
            engine = engines(ConfigDict(told["config"]))
        else:
            repeat(engine, told)


def _chosen(config: ConfigDict) -> dict[str, ConfigDict]:
    """The tasks that `config.only` names, in the order of `config.tasks`."""
    patterns = comma_list(config.only) or ["*"]
    for pattern in patterns:
        if not any(fnmatchcase(key, pattern) for key in config.tasks):
            raise ValueError(f"config.only: no task matches {pattern!r}; there are {', '.join(config.tasks)}")
    return {key: task for key, task in config.tasks.items() if any(fnmatchcase(key, p) for p in patterns)}


def _check(config: ConfigDict, where: str) -> None:
    """What a task's config can be refused for without reading its data."""
    if config.task not in TASKS:
        raise ValueError(f"{where}.task={config.task!r}: expected one of {', '.join(TASKS)}")
    if config.role not in ROLES:
        raise ValueError(f"{where}.role={config.role!r}: expected {', '.join(ROLES[1:])}, or nothing")
    if config.limit < 0:
        raise ValueError(f"{where}.limit={config.limit}: must be 0 (all) or more")
    if config.task != "style":
        make_mesh(config.mesh)
        if config.batch_size < 1:
            raise ValueError(f"{where}.batch_size={config.batch_size}: must be 1 or more")
        if not config.memory_gib >= 0:
            raise ValueError(f"{where}.memory_gib={config.memory_gib}: must be 0 (chosen by itself) or more")
        if config.compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"{where}.compute_dtype={config.compute_dtype!r}: expected float32 or bfloat16")
        if config.template not in NAMED_TEMPLATES and not Path(config.template).is_file():
            raise FileNotFoundError(f"{where}.template={config.template!r}: expected model, plain or a .jinja file")


class _Data(NamedTuple):
    """A task's items, their digest, and the checksums of the files that they come from."""

    items: list[dict]
    digest: str
    files: dict


def _read(key: str, config: ConfigDict, batch: bool) -> _Data:
    """The task's data; an error of a batch says which task's it is."""
    try:
        with recording() as files:
            items = TASKS[config.task].read(config)
    except (ValueError, OSError) as error:
        if batch:
            raise _error_of(key, config, error) from error
        if hint := _hint("config", config, error):
            raise FileNotFoundError(f"{error}{hint}") from error
        raise
    return _Data(items, digest(items), files)


def _error_of(key: str, config: ConfigDict, error: Exception) -> ValueError:
    """In a batch: whose error it is, with the keys as they are called here."""
    text = re.sub(rf"\bconfig\.({'|'.join(config)})\b", rf"config.tasks.{key}.\1", str(error))
    hint = _hint(f"config.tasks.{key}", config, error)
    return ValueError(f"config.tasks.{key}: {text}{hint}; or leave {key} out by config.only")


def _hint(where: str, config: ConfigDict, error: Exception) -> str:
    """Which paths are not set, where that is what is wrong."""
    empty = [f"{where}.{name}" for name, value in config.items() if value == "" and name not in ("name", "role")]
    return f" (empty: {', '.join(empty)})" if empty and "(no path given)" in str(error) else ""


def _check_own_style(
    key: str, config: ConfigDict, tasks: dict[str, ConfigDict], names: Iterable[str], workdir: str
) -> None:
    """In a batch, style is about the answers that each model gives to the task `answers`, in this start or before."""
    if config.answers:
        raise ValueError(f"config.tasks.{key}.answers: a batch compares each model's own answers; leave it empty")
    try:
        style.read_answers(config.reference)
    except (ValueError, OSError) as error:
        raise _error_of(key, config, error) from error
    for name in names:
        if "answers" not in tasks and not _own_answers(workdir, name).exists():
            raise FileNotFoundError(f"{_own_answers(workdir, name)}: no such file; style needs the task answers first")


def _own_answers(workdir: str, name: str) -> epath.Path:
    return samples_path(workdir, name, "answers", "answers")


class _Job:
    """A task on a model, or style on a file."""

    def __init__(
        self,
        key: str,
        config: ConfigDict,
        data: _Data,
        name: str,
        model: tuple[str, str] | None,
        workdir: str,
        cache_dir: Path,
    ):
        """Args:
        key: what the result is filed as; the task's name, unless a batch gives another.
        name: the model's.
        model: its source and the digest of its weights.
        """
        self.key, self.data, self.name, self.cache_dir = key, data, name, cache_dir
        self.items = data.items
        self.config = config.copy_and_resolve_references()
        self.config.name = name
        self.task = TASKS[config.task]
        settings = {**self.config.to_dict(), "definitions": self.task.DEFINITIONS, "data_digest": data.digest}
        if model is not None:
            settings |= {"model": model[0], "weights": model[1]}
        template = settings.get("template", "model")
        if template not in NAMED_TEMPLATES:
            settings["template_digest"] = digest(Path(template).read_text(encoding="utf-8"))
        self.settings = json.loads(json.dumps(settings))  # as a kept result's are read
        self.fingerprint = digest({key: value for key, value in self.settings.items() if key not in NOT_SETTINGS})
        self.samples_path = samples_path(workdir, name, key, config.task)
        self.path = self.samples_path.parent / f"{key}.json"

    def kept(self) -> Result | None:
        """The result, if it is there and the settings are the same."""
        kept = read_result(self.path)
        same = kept and kept.get("fingerprint") == self.fingerprint and self.samples_path.exists()
        return kept if same else None

    def result(self, engines: "_Engines | None" = None) -> Result:
        """The kept result, else what is left of it is asked and it is written."""
        kept = self.kept()
        if kept:
            logging.info("%s on %s: kept, the settings are the same (%s)", self.key, self.name, self.path)
            # A kill may have come between the result and the end of this file.
            partial_path(self.samples_path, self.fingerprint, self.cache_dir).unlink(missing_ok=True)
            if kept["role"] != self.config.role:
                kept["role"] = self.config.role
                write_result(self.path, kept)
            return kept
        with Samples(self.samples_path, self.fingerprint, self.cache_dir) as samples:
            todo = [item for item in self.items if item["id"] not in samples.rows]
            done = len(self.items) - len(todo)
            if done:
                logging.info("%s on %s: %d of %d were done before", self.key, self.name, done, len(self.items))
            engine = engines(self.config) if engines else None
            if todo:
                with ticks(total=len(self.items), initial=done, desc=f"{self.key} on {self.name}") as tick:

                    def on_sample(sample: Sample) -> None:
                        samples.append(sample)
                        tick()

                    samples.start()
                    self.task.ask(engine, todo, self.config, on_sample)
            self.path.unlink(missing_ok=True)  # an older result, about the samples that are replaced now
            rows = samples.finish(item["id"] for item in self.items)
            result = {
                "task": self.key,
                "model": self.name,
                "role": self.config.role,
                "n": len(rows),
                **self.task.summarise(rows, self.items, self.config),
                "settings": self.settings,
                "fingerprint": self.fingerprint,
                "data": self.data.files,
                "seconds": round(samples.seconds, 3),
                "tokens": sum(row.get("tokens", 0) for row in rows),
                "versions": versions(),
            }
            if engine is not None:
                marks = {"tokenizer": engine.tokenizer, "template": engine.template}
                result["fingerprints"] = {key: mark and mark.fingerprint[:16] for key, mark in marks.items()}
            write_result(self.path, result)
            samples.discard()
        metric, found = next(iter(result["metrics"].items()))
        logging.info("%s on %s: done, %s %s of %d", self.key, self.name, metric, found["value"], result["n"])
        return result


class _Engines:
    """One model, loaded when the first engine is asked for, and the engine in use: at most one is in memory."""

    def __init__(self, source: str, configs: Sequence[ConfigDict]):
        """Args:
        configs: of the tasks that are to be asked.
        """
        self._source, self._configs = source, configs
        self._ways = list(dict.fromkeys(map(_way, configs)))
        self._model: LoadedModel | None = None
        self._engine: Engine | None = None
        self._current: tuple | None = None
        _tell_others({"source": source, "configs": [config.to_dict() for config in configs]})

    def place(self, job: _Job) -> int:
        """A number that is the same for jobs with the same engine; kept results come first."""
        way = _way(job.config)
        return self._ways.index(way) if way in self._ways else -1

    def __call__(self, config: ConfigDict) -> Engine:
        _tell_others({"config": config.to_dict()})
        if self._current != _way(config):
            self._engine = None  # the next one needs its memory
            model = self._model or self._load(config.mesh)
            self._engine, self._current = _engine(config, model), _way(config)
            # A second engine is made from the weights as they were read.
            self._model = model if len(self._ways) > 1 else None
        return Leader(self._engine) if hosts.several() and hosts.index() == 0 else self._engine

    def _load(self, mesh: str) -> LoadedModel:
        model = load_model(self._source, make_mesh(mesh))
        for config in self._configs:
            if (config.task == "answers" or config.get("chat")) and config.template == "model" and not model.template:
                raise ValueError(
                    f"{self._source}: has no chat template, and {config.task} needs one here; "
                    "give --config.template=plain (USER: / GPT:) or a .jinja file"
                )
        return model


def _tell_others(told: dict) -> None:
    if hosts.index() == 0:
        hosts.tell(told)


def _way(config: ConfigDict) -> tuple:
    return tuple(config[key] for key in ENGINE_KEYS)


def _engine(config: ConfigDict, model: LoadedModel) -> Engine:
    """The one place where engines are made."""
    if config.template != "model":
        model = dataclasses.replace(model, template=load_template(config.template, model.tokenizer))
    sizes = {key: config[key] for key in ("batch_size", "memory_gib", "compute_dtype")}
    return Engine(model, make_mesh(config.mesh), **sizes)


def compare(results: Sequence[Result], workdir: str) -> str:
    """The table of each task's models against its first one; empty where no task has two.

    An item's scores are the keys of a sample that the task names in PAIRED, "correct" where it has none.
    """
    scored = {key: task for key, task in TASKS.items() if task not in (style, answers)}
    scores = {key: getattr(task, "PAIRED", ("correct",)) for key, task in scored.items()}
    return paired_table(results, workdir, scores, own={*NOT_SETTINGS, "model", "weights"})
