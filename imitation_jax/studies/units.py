"""The pieces of work of a study, each with the commands that do it and whether it is done.

Whether it is done is read from what the commands have written: nothing else has to be kept, wherever they ran.
"""

import dataclasses
import functools
import json
import os
import runpy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from imitation_jax.data import answer_files, rows
from imitation_jax.data.output import write_text
from imitation_jax.data.prompts import read_prompts
from imitation_jax.data.rows import Rejected
from imitation_jax.evaluation.results import Result, digest, read_result, safe_name, samples_path
from imitation_jax.evaluation.rows import read_rows
from imitation_jax.evaluation.run import NOT_SETTINGS
from imitation_jax.models.load import identify
from imitation_jax.studies import local_task
from imitation_jax.studies.cells import ROOT, Cell, Layout
from imitation_jax.training.config import flat

VERDICTS = ("judge", "tone")
REPORTED = ("label", "local", "task")  # keys of a build for the report alone

# A command of this project, without the interpreter, or what is done in this process.
Command = list[str] | Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Unit:
    """What is done as a whole, here or, for a base or a cell, on another machine."""

    name: str
    kind: str  # fetch, build, base, teacher, cell or judge
    commands: tuple[Command, ...]
    done: Callable[[], bool]


def units(layout: Layout, here: Path) -> list[Unit]:
    """All of the study, in an order in which they can be done.

    Args:
      here: local folder; the workdir, unless that is in a bucket.
    """
    _defaults(layout)  # what is wrong with it is said before anything is done
    found = [*_fetches(layout), *_builds(layout, here)]
    for unit in (*_bases(layout), *_teacher(layout), *_cells(layout)):
        found += [unit, *_judge(layout, unit)]
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Before the models
# ----------------------------------------------------------------------------------------------------------------------


def _fetches(layout: Layout) -> Iterator[Unit]:
    for name, base in layout.bases.items():
        where = base.model.partition(":")[2]
        if base.fetch and "://" not in where and not Path(where).is_absolute():  # the config's own, no other
            path = ROOT / where
            script = 'source launch/setup.sh && PYTHON=$1 && "$2"'
            yield Unit(f"fetch {name}", "fetch", (["bash", "-c", script, "fetch", "PYTHON", base.fetch],), path.exists)


def _builds(layout: Layout, here: Path) -> Iterator[Unit]:
    for name, build in layout.builds.items():
        output = here / "data" / f"{name}{build.suffix}"
        making = {key: value for key, value in build.to_dict().items() if key not in REPORTED}
        told = json.dumps(making, sort_keys=True)
        flags = json.loads(told.replace(f"{layout.workdir}/", f"{here}/"))["flags"]
        keys, begun = _portable(layout, told), epath.Path(f"{output}.begun.json")
        made = epath.Path(f"{layout.output(name)}.made.json")
        if build.command == "questions":
            command: Command = functools.partial(local_task.write, **flags, output=str(output))
        else:
            command = _python(build.command, f"--config={build.config}", *_flags(flags), f"--output={output}")
        begin = functools.partial(_note, begun, keys)
        kept = functools.partial(_keep, output, epath.Path(layout.output(name)), made, keys)
        # A kill may have come when the output was there and `made` was not.
        commands = (kept,) if output.exists() and _noted(begun, keys) else (begin, command, kept)
        yield Unit(f"data {name}", "build", commands, functools.partial(_noted, made, keys))


def _portable(layout: Layout, told: str) -> dict:
    """A build's keys without where the folders are."""
    public = layout.config.public or "PUBLIC"
    return json.loads(told.replace(f"{layout.workdir}/", "WORKDIR/").replace(f"{public}/", "PUBLIC/"))


def _keep(output: Path, target: epath.Path, made: epath.Path, keys: dict) -> None:
    """Takes the output to the bucket, if the workdir is in one, and notes how it was made."""
    if str(target) != str(output):
        for file in (file for file in [output, *output.rglob("*")] if file.is_file()):
            place = target / file.relative_to(output) if file != output else target
            place.parent.mkdir(parents=True, exist_ok=True)
            epath.Path(file).copy(place, overwrite=True)
    _note(made, keys)


def _note(path: epath.Path, keys: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(keys, indent=1) + "\n")


def _noted(path: epath.Path, keys: dict) -> bool:
    """Whether a build with these keys is noted there.

    Raises:
      ValueError: one with other keys is.
    """
    if not path.exists():
        return False
    there, wanted = dict(flat(json.loads(path.read_text()))), dict(flat(keys))
    differ = sorted(key for key in there.keys() | wanted.keys() if there.get(key) != wanted.get(key))
    if differ:
        raise ValueError(f"{path}: was made with another {', '.join(differ)}; use a new --workdir")
    return True


def _teacher(layout: Layout) -> Iterator[Unit]:
    """The ceiling: the teacher's second sample, on the prompts that the models answer."""
    config = layout.config
    if not config.teacher.answers or "style" not in layout.evaluations:
        return
    name = safe_name(config.teacher.name)
    asked, style = layout.evaluations["answers"], layout.evaluations["style"]
    limit, chosen = asked.get("limit", 0), _ceiling(layout)

    def choose() -> None:
        prompts = [row for _, row in read_prompts(_from_root(asked["prompts"])) if not isinstance(row, Rejected)]
        texts = {row["messages"][-1]["content"].strip() for row in prompts[: limit or None]}
        answers = answer_files.read_answers(_from_root(config.teacher.answers))
        found = [row | {"generator": name} for row in answers if (row["instruction"] or "").strip() in texts]
        kept = ({key: value for key, value in row.items() if value is not None} for row in found)
        write_text(epath.Path(chosen), "".join(map(rows.line, kept)))

    flags = [*_flags(style), f"--config.answers={chosen}", f"--config.name={name}", "--config.role=teacher"]
    command = _python("evaluate", "--config=configs/eval/style.py", *flags, f"--workdir={layout.workdir}")

    yield Unit(name, "teacher", (choose, command), lambda: task_done(layout, name, "style"))


def _ceiling(layout: Layout) -> str:
    """The teacher's second answers to the prompts that the models answer."""
    return f"{layout.workdir}/data/ceiling-{layout.evaluations['answers'].get('limit', 0) or 'all'}.jsonl"


# ----------------------------------------------------------------------------------------------------------------------
# Bases and cells
# ----------------------------------------------------------------------------------------------------------------------


def _bases(layout: Layout) -> Iterator[Unit]:
    for name, base in layout.bases.items():
        commands = _evaluate(layout, name, "base", base.model)
        yield Unit(name, "base", tuple(commands), functools.partial(_evaluated, layout, name))


def _cells(layout: Layout) -> Iterator[Unit]:
    for cell in layout.cells:
        base = layout.config.bases[cell.base]
        flags = [f"{key}={value}" for key, value in _training(layout, cell).items()]
        train = _python("train", f"--config={base.config}", *flags, f"--workdir={layout.run(cell)}")
        commands = [train, *_evaluate(layout, cell.name, "student", f"orbax:{layout.run(cell)}")]
        if _trained_alike(layout, cell) and _weights_alone(layout, cell):
            del commands[0]  # it was done once, and is evaluated on something new

        def done(cell: Cell = cell) -> bool:
            trained = layout.config.keep == "nothing" or _weights(f"orbax:{layout.run(cell)}") is not None
            return trained and _trained_alike(layout, cell) and _evaluated(layout, cell.name)

        yield Unit(cell.name, "cell", tuple(commands), done)


def _training(layout: Layout, cell: Cell) -> dict[str, Any]:
    """The training flags of the cell."""
    keys = dict(flat(layout.config.train.to_dict())) | dict(flat(layout.config.schedules[cell.schedule].to_dict()))
    keys |= {"model.init": layout.config.bases[cell.base].model, "data.path": layout.output(cell.data)}
    keys |= {"data.token_budget": cell.tokens, "seed": cell.seed}
    return {f"--config.{key}": value for key, value in keys.items()}


def _trained_alike(layout: Layout, cell: Cell) -> bool:
    """Whether the run in the cell's folder has its settings; one that has not is for `train` to refuse."""
    path = epath.Path(layout.run(cell)) / "config.json"
    if not path.exists():
        return False
    there = dict(flat(json.loads(path.read_text())))
    wanted = {key.removeprefix("--config."): value for key, value in _training(layout, cell).items()}
    return all(there.get(key) == value for key, value in wanted.items() if key != "mesh")


def _weights_alone(layout: Layout, cell: Cell) -> bool:
    """Whether the cell's checkpoint has no optimiser's state, as `config.keep` leaves it when the cell is done."""
    folder = epath.Path(layout.run(cell)) / "checkpoints"
    return any(folder.glob("*/params")) and not any(folder.glob("*/optimizer")) if folder.exists() else False


def _evaluate(layout: Layout, name: str, role: str, model: str) -> list[Command]:
    tasks = [f"--config.tasks.{task}.{flag}" for task, keys in layout.evaluations.items() for flag in _bare(keys)]
    flags = [f"--config.only={','.join(layout.evaluations)}", f"--config.name={name}", f"--config.role={role}"]
    flags += [*_flags(layout.config.evaluate_keys.to_dict()), *tasks, f"--model={model}"]
    flags.append(f"--contamination={_trained_on(layout)}")
    return [_python("evaluate", f"--config={layout.config.evaluate}", *flags, f"--workdir={layout.workdir}")]


def _judge(layout: Layout, unit: Unit) -> list[Unit]:
    """The LLM judge's verdicts on a model's answers, and what it says about their tone; needs no accelerator."""
    if "judge" in layout.left_out:
        return []
    judge, name = layout.config.judge, unit.name
    role = "student" if unit.kind == "cell" else unit.kind
    answers = _answers(layout, name)
    flags = [*_flags(judge.flags.to_dict()), f"--config.name={name}", f"--config.role={role}"]
    flags += [f"--answers_a={answers}", f"--workdir={layout.workdir}"]
    compare = _python("judge", f"--config={judge.config}", *flags, f"--answers_b={judge.reference}")
    tone = _python("judge", f"--config={judge.tone}", *flags)

    def done() -> bool:
        results = [result_of(layout, name, task) or {} for task in VERDICTS]
        asked = [result.get("settings", {}) for result in results]
        alike = all(settings.get("model") == judge.flags.model for settings in asked)
        fresh = all(_of_answers(layout, name, task) for task in VERDICTS)
        return unit.done() and alike and fresh

    return [Unit(f"judge {name}", "judge", (compare, tone), done)]


def _evaluated(layout: Layout, name: str) -> bool:
    return all(task_done(layout, name, task) for task in layout.evaluations)


def task_done(layout: Layout, name: str, task: str) -> bool:
    """Whether that result is there, with the settings of the study, of the model's present weights and answers."""
    result = result_of(layout, name, task)
    if result is None:
        return False
    settings, own = result["settings"], dict(layout.evaluations[task])
    if task == "style":
        own["answers"] = _answers(layout, name)
        if not _of_answers(layout, name, task):
            return False
    else:
        own["model"] = _models(layout)[name]
        if weights := _weights(own["model"]):
            own["weights"] = weights
        if result.get("contamination", {}).get("dataset") != _trained_on(layout):
            return False
    others = {key: value for key, value in _defaults(layout)[task].items() if key in settings}
    return all(settings.get(key) == value for key, value in (others | own).items())


def _models(layout: Layout) -> dict[str, str]:
    """Where the model behind a name is."""
    bases = {name: base.model for name, base in layout.bases.items()}
    return bases | {cell.name: f"orbax:{layout.run(cell)}" for cell in layout.cells}


def _weights(model: str) -> str | None:
    """What `evaluate` notes of the weights; None where the model is not there (any more)."""
    kind, _, where = model.partition(":")
    try:
        return digest(identify(f"{kind}:{_from_root(os.path.expanduser(where))}"))
    except (OSError, ValueError):
        return None


def _trained_on(layout: Layout) -> str:
    """What the questions are looked for in: for all models the same, so that their clean questions are the same."""
    return ",".join(sorted({layout.output(cell.data) for cell in layout.cells}))


def _answers(layout: Layout, name: str) -> str:
    """The file of a model's answers; of the teacher's second ones, where it is no model."""
    return f"{layout.workdir}/eval/{name}/answers.jsonl" if name in _models(layout) else _ceiling(layout)


def _of_answers(layout: Layout, name: str, task: str) -> bool:
    """Whether a result's samples are of the answers as they are now; times would not tell, as a result is kept where
    answers come out the same."""
    samples = samples_path(layout.workdir, name, task, task)
    try:
        present = {(row["instruction"], row["output"]) for row in answer_files.read_answers(_answers(layout, name))}
        asked = [row for _, row in read_rows(str(samples))]
    except (OSError, ValueError):
        return False
    return all((row["prompt"], row["prediction"]) in present for row in asked)


@functools.cache
def _defaults_of(file: str, told: str) -> dict[str, dict]:
    path, *variant = file.split(":", 1)
    config = runpy.run_path(str(ROOT / path))["get_config"](*variant)
    try:
        config.update(json.loads(told))
    except (KeyError, TypeError) as error:
        raise ValueError(f"config.evaluate_keys: {' '.join(str(error).split())}") from None
    changing = {*NOT_SETTINGS, "answers"}
    return {
        name: {key: value for key, value in task.to_dict().items() if key not in changing}
        for name, task in config.tasks.items()
    }


def _defaults(layout: Layout) -> dict[str, dict]:
    """Task -> the settings that it has where the study names no other.

    Raises:
      ValueError: the study names a task or a key that the batch has not.
    """
    found = _defaults_of(layout.config.evaluate, layout.config.evaluate_keys.to_json())
    if unknown := sorted(layout.evaluations.keys() - found.keys()):
        raise ValueError(f"config.evaluations.{unknown[0]}: {layout.config.evaluate} has no such task")
    return found


def result_of(layout: Layout, name: str, task: str) -> Result | None:
    """The result file, where it is there."""
    return read_result(epath.Path(layout.workdir) / "eval" / name / f"{task}.json")


# ----------------------------------------------------------------------------------------------------------------------
# Command lines
# ----------------------------------------------------------------------------------------------------------------------


def _from_root(path: str) -> str:
    """The path as the commands, which run in the root of the repository, understand it."""
    return path if "://" in path else str(ROOT / path)


def _python(command: str, *flags: str) -> list[str]:
    return ["PYTHON", "-m", f"imitation_jax.{command}", *flags]


def _bare(keys: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in flat(keys)]


def _flags(keys: Mapping[str, Any]) -> list[str]:
    return [f"--config.{flag}" for flag in _bare(keys)]
