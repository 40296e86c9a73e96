"""Evaluates models on tasks: keeps results whose settings are the same, goes on where a killed run stopped.

A batch goes model by model, so that one is in memory at a time and is loaded once; data is read once for all models,
and models of one shape share their compiled programs. The way of a config, from top to bottom:

    checked       questions.choose    which tasks, and whether their keys are in range
    read          Questions.read      the items, and with them everything that can be refused without a model
    loaded        engines.Engines     the model, and an engine for all tasks with the same `EngineKey`
    asked         Task.ask            what is not yet on disk; samples go there as they come
    summarised    Task.summarise      the metrics
    written       _Job._write         the result, with its settings, so that the next start can tell whether to keep it
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import DATA, LABEL, digest
from imitation_jax.core.progress import ticks
from imitation_jax.data import evaluation_items
from imitation_jax.evaluation import contamination
from imitation_jax.evaluation.engines import EngineKey, Engines
from imitation_jax.evaluation.model_sources import named_sources
from imitation_jax.evaluation.questions import Questions, choose
from imitation_jax.evaluation.results import (
    Result,
    Sample,
    Samples,
    is_current,
    partial_path,
    read_result,
    safe_name,
    samples_path,
    versions,
    write_result,
)
from imitation_jax.evaluation.task import AnyEngine
from imitation_jax.models.load import identify


class EvaluatedModel(NamedTuple):
    """What results are filed under, where the model is, and a digest of its weights (the last two of models alone)."""

    name: str
    source: str = ""
    weights: str = ""


def evaluate(
    config: ConfigDict, models: Sequence[str], workdir: str, cache_dir: Path, trained_on: str = ""
) -> list[Result]:
    """Runs a task, or all that `config.only` chooses of `config.tasks`, on every model.

    Writes `eval/<model>/<task>.json` and its samples under `workdir`. What can be checked without a model in memory is
    checked, of all tasks and models, before the first one is loaded.

    Args:
      config: from `configs/eval/`; `config.name` files the results under another name than the model's own, and
        `config.role` ("base", "student" or "teacher") is what the report calls the model.
      models: sources as `named_sources` takes them; none for a task that looks at two files of answers.
      workdir: local or in a bucket.
      cache_dir: local folder; an unfinished task of a bucket's workdir lies there.
      trained_on: a training set, see `evaluation_items.mark`: the results also say what they are without the items
        that stand in it.

    Returns:
      The results, task by task, each in the order of the models.

    Raises:
      ValueError, OSError: one line with the key or the place.
    """
    # Checked.
    chosen = choose(config)
    if "tasks" not in config and chosen[0].of_answers:
        return [_evaluate_answers(chosen[0], models, trained_on, workdir, cache_dir)]
    if not models:
        keys = ", ".join(each.key for each in chosen)
        raise ValueError(f"--model: {keys} needs a model: hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]")
    evaluated = _identified(models, config.name)

    # Read.
    asking = {each.key: each.read() for each in chosen if not each.of_answers}
    looking = [each for each in chosen if each.of_answers]
    for each in looking:
        _check_answers(each, asking.get("answers"), [_answers_of(model, workdir) for model in evaluated])
    marks = {}
    if trained_on:
        texts = {key: {item["id"]: each.task.text(item) for item in each.items} for key, each in asking.items()}
        marks = evaluation_items.mark(texts, trained_on, cache_dir)

    # Loaded, asked, summarised and written, model by model.
    results: dict[tuple[str, str], Result] = {}
    for number, model in enumerate(evaluated, 1):
        logging.info("model %d of %d: %s", number, len(evaluated), model.source)
        jobs = [_Job(each, model, workdir, cache_dir) for each in asking.values()]
        todo = [job for job in jobs if job.kept() is None]
        keys = list(dict.fromkeys(job.engine_key for job in todo))
        needs_template = next((job.config.task for job in todo if job.questions.needs_template), "")
        engines = Engines(model.source, keys, needs_template)
        # What is kept comes first; tasks that share an engine follow one another.
        for job in sorted(jobs, key=lambda job: keys.index(job.engine_key) if job in todo else -1):
            result = job.result(engines)
            if marks:
                result = job.add_contamination(result, marks[job.questions.key])
            else:  # the file may hold an earlier start's
                result.pop("contamination", None)
            results[job.questions.key, model.name] = result
        for each in looking:
            own = each.read(answers=str(_answers_of(model, workdir)))
            results[each.key, model.name] = _Job(own, EvaluatedModel(model.name), workdir, cache_dir).result()
    return [results[each.key, model.name] for each in chosen for model in evaluated]


def _identified(models: Sequence[str], name: str) -> list[EvaluatedModel]:
    """Raises ValueError, OSError: a source that is no model, or one name for several."""
    sources = named_sources(models)
    if name and len(sources) > 1:
        raise ValueError("config.name names one model, --model gives several")
    return [EvaluatedModel(safe_name(name or own), source, digest(identify(source))) for source, own in sources.items()]


def _evaluate_answers(
    questions: Questions, models: Sequence[str], trained_on: str, workdir: str, cache_dir: Path
) -> Result:
    """Of a task by itself that looks at a file of answers."""
    if models:
        raise ValueError(f"--model: {questions.key} compares two files of answers and takes no model")
    if trained_on:
        raise ValueError(f"--contamination: {questions.key} has no items to look for in training data")
    questions = questions.read()
    name = safe_name(questions.config.name or questions.items[0]["generator"])
    return _Job(questions, EvaluatedModel(name), workdir, cache_dir).result()


def _check_answers(questions: Questions, asked: Questions | None, places: Sequence[epath.Path]) -> None:
    """In a batch such a task looks at what each model answers to the task `answers`, in this start or before."""
    if questions.config.answers:
        raise ValueError(f"{questions.where}.answers: a batch compares each model's own answers; leave it empty")
    try:
        questions.task.check(questions.config, asked.items if asked else [])
    except (ValueError, OSError) as error:
        raise questions.error(error) from error
    for place in places:
        if not asked and not place.exists():
            raise FileNotFoundError(f"{place}: no such file; {questions.key} needs the task answers first")


def _answers_of(model: EvaluatedModel, workdir: str) -> epath.Path:
    return samples_path(workdir, model.name, "answers", "answers")


class _Job:
    """A task on a model."""

    def __init__(self, questions: Questions, model: EvaluatedModel, workdir: str, cache_dir: Path):
        self.questions, self.task, self.cache_dir = questions, questions.task, cache_dir
        self.config = questions.config.copy_and_resolve_references()
        self.config.name = model.name
        recorded = {"model": model.source, "weights": model.weights} if model.source else {}
        self.settings = questions.settings(name=model.name, **recorded)
        self.fingerprint = questions.keys.fingerprint(self.settings)
        self.samples_path = samples_path(workdir, model.name, questions.key, self.config.task)
        self.path = self.samples_path.parent / f"{questions.key}.json"
        self.about = f"{questions.key} on {model.name}"

    @property
    def engine_key(self) -> EngineKey:
        return EngineKey.of(self.config)

    def kept(self) -> Result | None:
        """The result, if it is there with its samples and is what these settings give."""
        kept = read_result(self.path)
        current = is_current(kept, self.questions.keys, self.settings) and self.samples_path.exists()
        return kept if current else None

    def result(self, engines: Engines | None = None) -> Result:
        """The kept result, else what is left of it is asked and it is written."""
        kept = self.kept()
        if kept:
            return self._keep(kept)
        with Samples(self.samples_path, self.fingerprint, self.cache_dir) as samples:
            engine = engines(self.engine_key) if engines else None
            self._ask(engine, samples)
            result = self._write(engine, samples)
        metric, estimate = next(iter(result["metrics"].items()))
        logging.info("%s: done, %s %s of %d", self.about, metric, estimate["value"], result["n"])
        return result

    def _keep(self, kept: Result) -> Result:
        logging.info("%s: kept, the settings are the same (%s)", self.about, self.path)
        # A kill may have come between the result and the end of this file.
        partial_path(self.samples_path, self.fingerprint, self.cache_dir).unlink(missing_ok=True)
        now = self.questions.keys.only(self.settings, {LABEL, DATA})  # what it is called, and where the same data are
        now = kept | {"role": self.config.role, "settings": kept["settings"] | now, "data": self.questions.files}
        if now != kept:
            write_result(self.path, now)
        return now

    def _ask(self, engine: AnyEngine | None, samples: Samples) -> None:
        items = self.questions.items
        todo = [item for item in items if item["id"] not in samples.rows]
        if done := len(items) - len(todo):
            logging.info("%s: %d of %d were done before", self.about, done, len(items))
        if not todo:
            return
        with ticks(total=len(items), initial=done, desc=self.about) as tick:

            def on_sample(sample: Sample) -> None:
                samples.append(sample)
                tick()

            samples.start()
            self.task.ask(engine, todo, self.config, on_sample)

    def _write(self, engine: AnyEngine | None, samples: Samples) -> Result:
        items = self.questions.items
        self.path.unlink(missing_ok=True)  # an older result, about the samples that are replaced now
        rows = samples.finish(item["id"] for item in items)
        result = {
            "task": self.questions.key,
            "model": self.config.name,
            "role": self.config.role,
            "n": len(rows),
            **self.task.summarise(rows, items, self.config),
            "settings": self.settings | (engine.chosen if engine else {}),
            "fingerprint": self.fingerprint,
            "data": self.questions.files,
            "seconds": round(samples.seconds, 3),
            "tokens": sum(row.get("tokens", 0) for row in rows),
            "versions": versions(),
        }
        if engine:
            marks = {"tokenizer": engine.tokenizer, "template": engine.template}
            result["fingerprints"] = {key: mark and mark.fingerprint[:16] for key, mark in marks.items()}
        write_result(self.path, result)
        samples.discard()
        return result

    def add_contamination(self, result: Result, marks: contamination.Marks) -> Result:
        """See `contamination.add`."""

        def metrics(samples: list[Sample], items: list[dict]) -> dict:
            return self.task.summarise(samples, items, self.config)["metrics"]

        return contamination.add(result, self.path, self.samples_path, self.questions.items, marks, metrics)
