"""What of a study is done: is each result there, of the study's settings and the present weights and answers?

Read from what the commands have written; nothing else is kept, wherever they ran.
"""

import functools
import json
import os
import runpy

from etils import epath

from imitation_jax.core.fingerprint import digest, flat
from imitation_jax.data import answer_files
from imitation_jax.data.benchmark_rows import read_rows
from imitation_jax.evaluation.config import settings_keys
from imitation_jax.evaluation.results import Result, is_current, read_result, samples_path
from imitation_jax.evaluation.task import Needs
from imitation_jax.evaluation.tasks import all_tasks
from imitation_jax.models.load import identify
from imitation_jax.preference.config import KEYS_OF_RESULTS
from imitation_jax.studies.layout import ROOT, Layout, from_root

VERDICTS = ("judge", "tone")


def evaluated(layout: Layout, name: str) -> bool:
    """Whether all results of the study are current, see `task_done`."""
    return all(task_done(layout, name, task) for task in layout.evaluations)


def task_done(layout: Layout, name: str, task: str) -> bool:
    """Whether a model's result has the settings of the study and is of the model's present weights and answers."""
    result = result_of(layout, name, task)
    if result is None:
        return False
    settings = defaults(layout)[task] | layout.evaluations[task]
    module = all_tasks()[settings["task"]]
    if module.NEEDS is Needs.ANSWERS:
        settings["answers"] = answers_of(layout, name)
        if not _of_answers(layout, name, task, settings["answers"]):
            return False
    else:
        settings["model"] = _models(layout)[name]
        if weights := weights_of(settings["model"]):
            settings["weights"] = weights
        if result.get("contamination", {}).get("dataset") != trained_on(layout):
            return False
    return is_current(result, settings_keys(module), settings, whole=False)


def judged(layout: Layout, name: str) -> bool:
    """Whether the judge's verdicts, and its word on the tone, are by the study's flags and of the present answers."""
    answers = answers_of(layout, name)
    for task in VERDICTS:
        result = result_of(layout, name, task)
        if result is None or "model" not in result["settings"] or not _of_answers(layout, name, task, answers):
            return False
        noted = dict(flat(result["settings"]))
        wanted = {key: value for key, value in flat(layout.config.judge.flags.to_dict()) if key in noted}
        if not is_current(result, KEYS_OF_RESULTS[task], wanted, whole=False):
            return False
    return _of_answers(layout, name, VERDICTS[0], layout.config.judge.reference, "gold")


def _models(layout: Layout) -> dict[str, str]:
    """Where the model behind a name is."""
    bases = {name: base.model for name, base in layout.bases.items()}
    return bases | {cell.name: f"orbax:{layout.run(cell)}" for cell in layout.cells}


def weights_of(model: str) -> str | None:
    """What `evaluate` notes of the weights; None where the model is not there (any more)."""
    kind, _, where = model.partition(":")
    try:
        return digest(identify(f"{kind}:{from_root(os.path.expanduser(where))}"))
    except (OSError, ValueError):
        return None


def trained_on(layout: Layout) -> str:
    """What the questions are looked for in: for all models the same, so that their clean questions are the same."""
    return ",".join(sorted({layout.output(cell.data) for cell in layout.cells}))


def answers_of(layout: Layout, name: str) -> str:
    """The file of a model's answers; of the teacher's second ones, where it is no model."""
    return f"{layout.workdir}/eval/{name}/answers.jsonl" if name in _models(layout) else ceiling(layout)


def ceiling(layout: Layout) -> str:
    """The teacher's second answers to the prompts that the models answer."""
    return f"{layout.workdir}/data/ceiling-{layout.evaluations['answers'].get('limit', 0) or 'all'}.jsonl"


def _of_answers(layout: Layout, name: str, task: str, answers: str, key: str = "prediction") -> bool:
    """Whether what a result's samples hold under `key` are the answers in that file as it is now.

    Times would not say it, as a result is kept where answers come out the same.
    """
    samples = samples_path(layout.workdir, name, task, task)
    try:
        present = {row["output"] for row in answer_files.read_answers(from_root(answers))}
        asked = [row for _, row in read_rows(str(samples))]
    except (OSError, ValueError):
        return False
    return all(row[key] in present for row in asked)


@functools.cache
def _defaults_of(file: str, changes: str) -> dict[str, dict]:
    path, *variant = file.split(":", 1)
    config = runpy.run_path(str(ROOT / path))["get_config"](*variant)
    try:
        config.update(json.loads(changes))
    except (KeyError, TypeError) as error:
        raise ValueError(f"config.evaluate_keys: {' '.join(str(error).split())}") from None
    return {name: task.to_dict() for name, task in config.tasks.items()}


def defaults(layout: Layout) -> dict[str, dict]:
    """Task -> the settings that it has where the study names no other.

    Raises:
      ValueError: the study names a task or a key that the batch has not.
    """
    by_task = _defaults_of(layout.config.evaluate, layout.config.evaluate_keys.to_json())
    if unknown := sorted(layout.evaluations.keys() - by_task.keys()):
        raise ValueError(f"config.evaluations.{unknown[0]}: {layout.config.evaluate} has no such task")
    for name in layout.evaluations:
        if (task := by_task[name].get("task")) not in all_tasks():
            raise ValueError(
                f"{layout.config.evaluate}: tasks.{name}.task={task!r} is none of {', '.join(all_tasks())}"
            )
    return by_task


def result_of(layout: Layout, name: str, task: str) -> Result | None:
    """A model's result file, or None."""
    return read_result(epath.Path(layout.workdir) / "eval" / name / f"{task}.json")
