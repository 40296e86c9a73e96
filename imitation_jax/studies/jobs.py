"""The jobs of a study: its data, base models, cells and judge, each with the commands that do it."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from imitation_jax.core import json_rows
from imitation_jax.core.files import write_text
from imitation_jax.core.fingerprint import Keys, flat
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import answer_files
from imitation_jax.data.prompt_files import read_prompts
from imitation_jax.evaluation.results import safe_name
from imitation_jax.studies import done, local_task
from imitation_jax.studies.layout import ROOT, Cell, Layout, from_root
from imitation_jax.training.config import trained_with

REPORTED = ("label", "local", "task")  # keys of a build for the report alone

# A command of this project, without the interpreter, or what is done in this process.
Command = list[str] | Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Job:
    """What is done as a whole, here or, for a base or a cell, on another machine."""

    name: str
    kind: str  # fetch, build, base, teacher, cell or judge
    commands: tuple[Command, ...]
    done: Callable[[], bool]


def study_jobs(layout: Layout, here: Path) -> list[Job]:
    """All of the study, in an order in which they can be done.

    Args:
      here: local folder; the workdir, unless that is in a bucket.
    """
    done.defaults(layout)  # what is wrong with it is said before anything is done
    jobs = [*_fetches(layout), *_builds(layout, here)]
    for job in (*_bases(layout), *_teacher(layout), *_cells(layout)):
        jobs += [job, *_judge(layout, job)]
    return jobs


# ----------------------------------------------------------------------------------------------------------------------
# Before the models
# ----------------------------------------------------------------------------------------------------------------------


def _fetches(layout: Layout) -> Iterator[Job]:
    for name, base in layout.bases.items():
        where = base.model.partition(":")[2]
        if base.fetch and "://" not in where and not Path(where).is_absolute():  # the config's own, no other
            path = ROOT / where
            script = 'source launch/setup.sh && PYTHON=$1 && "$2"'
            yield Job(f"fetch {name}", "fetch", (["bash", "-c", script, "fetch", "PYTHON", base.fetch],), path.exists)


def _builds(layout: Layout, here: Path) -> Iterator[Job]:
    for name, build in layout.builds.items():
        output = here / "data" / f"{name}{build.suffix}"
        making = {key: value for key, value in build.to_dict().items() if key not in REPORTED}
        text = json.dumps(making, sort_keys=True)
        flags = json.loads(text.replace(f"{layout.workdir}/", f"{here}/"))["flags"]
        # As noted beside the output: without where the folders are.
        public = layout.config.public or "PUBLIC"
        keys = json.loads(text.replace(f"{layout.workdir}/", "WORKDIR/").replace(f"{public}/", "PUBLIC/"))
        begun, made = epath.Path(f"{output}.begun.json"), epath.Path(f"{layout.output(name)}.made.json")
        if build.command == "questions":
            command: Command = functools.partial(local_task.write, **flags, output=str(output))
        else:
            command = _python(build.command, f"--config={build.config}", *_flags(flags), f"--output={output}")
        begin = functools.partial(_note, begun, keys)
        keep = functools.partial(_keep, output, epath.Path(layout.output(name)), made, keys)
        # A kill may have come when the output was whole and `made` was not.
        commands = (keep,) if output.exists() and _noted(begun, keys) else (begin, command, keep)
        yield Job(f"data {name}", "build", commands, functools.partial(_noted, made, keys))


def _keep(output: Path, target: epath.Path, made: epath.Path, keys: dict) -> None:
    """Takes the output to the bucket, if the workdir is in one, and notes how it was made."""
    if str(target) != str(output):
        for file in (file for file in [output, *output.rglob("*")] if file.is_file()):
            place = target / file.relative_to(output) if file != output else target
            place.parent.mkdir(parents=True, exist_ok=True)
            epath.Path(file).copy(place, overwrite=True)
    _note(made, keys)


def _note(path: epath.Path, keys: dict) -> None:
    write_text(path, json.dumps(keys, indent=1) + "\n")


def _noted(path: epath.Path, keys: dict) -> bool:
    """Whether a build with these keys is noted there.

    Raises:
      ValueError: one with other keys is.
    """
    if not path.exists():
        return False
    if differing := Keys().differing(json.loads(path.read_text()), keys):
        raise ValueError(f"{path}: was made with another {', '.join(differing)}; use a new --workdir")
    return True


def _teacher(layout: Layout) -> Iterator[Job]:
    """The ceiling: the teacher's second sample, on the prompts that the models answer."""
    config = layout.config
    if not config.teacher.answers or "style" not in layout.evaluations:
        return
    name = safe_name(config.teacher.name)
    asked, style = layout.evaluations["answers"], layout.evaluations["style"]
    limit, second_sample = asked.get("limit", 0), done.ceiling(layout)

    def choose() -> None:
        prompts = [row for _, row in read_prompts(from_root(asked["prompts"])) if not isinstance(row, Rejected)]
        texts = {row["messages"][-1]["content"].strip() for row in prompts[: limit or None]}
        answers = answer_files.read_answers(from_root(config.teacher.answers))
        chosen = [row | {"generator": name} for row in answers if (row["instruction"] or "").strip() in texts]
        rows = ({key: value for key, value in row.items() if value is not None} for row in chosen)
        write_text(epath.Path(second_sample), "".join(map(json_rows.line, rows)))

    flags = [*_flags(style), f"--config.answers={second_sample}", f"--config.name={name}", "--config.role=teacher"]
    command = _python("evaluate", "--config=configs/eval/style.py", *flags, f"--workdir={layout.workdir}")

    yield Job(name, "teacher", (choose, command), lambda: done.task_done(layout, name, "style"))


# ----------------------------------------------------------------------------------------------------------------------
# Bases and cells
# ----------------------------------------------------------------------------------------------------------------------


def _bases(layout: Layout) -> Iterator[Job]:
    for name, base in layout.bases.items():
        evaluate = _evaluate(layout, name, "base", base.model)
        yield Job(name, "base", (evaluate,), functools.partial(done.evaluated, layout, name))


def _cells(layout: Layout) -> Iterator[Job]:
    for cell in layout.cells:
        base = layout.config.bases[cell.base]
        flags = _flags(_training(layout, cell))
        train = _python("train", f"--config={base.config}", *flags, f"--workdir={layout.run(cell)}")
        evaluate = _evaluate(layout, cell.name, "student", f"orbax:{layout.run(cell)}")
        # One that was done once, and is evaluated on something new, has no state left to train with.
        trained = _trained_alike(layout, cell) and _weights_alone(layout, cell)

        def whole(cell: Cell = cell) -> bool:
            kept = layout.config.keep == "nothing" or done.weights_of(f"orbax:{layout.run(cell)}") is not None
            return kept and _trained_alike(layout, cell) and done.evaluated(layout, cell.name)

        yield Job(cell.name, "cell", (evaluate,) if trained else (train, evaluate), whole)


def _training(layout: Layout, cell: Cell) -> dict[str, Any]:
    """The training settings of the cell, by their dotted names."""
    keys = dict(flat(layout.config.train.to_dict())) | dict(flat(layout.config.schedules[cell.schedule].to_dict()))
    keys |= {"model.init": layout.config.bases[cell.base].model, "data.path": layout.output(cell.data)}
    return keys | {"data.token_budget": cell.tokens, "seed": cell.seed}


def _trained_alike(layout: Layout, cell: Cell) -> bool:
    """Whether the run in the cell's folder has its settings; one that has not is for `train` to refuse."""
    path = epath.Path(layout.run(cell)) / "config.json"
    return path.exists() and trained_with(json.loads(path.read_text()), _training(layout, cell))


def _weights_alone(layout: Layout, cell: Cell) -> bool:
    """Whether the cell's checkpoint has no optimiser's state, as `config.keep` leaves it when the cell is done."""
    folder = epath.Path(layout.run(cell)) / "checkpoints"
    return any(folder.glob("*/params")) and not any(folder.glob("*/optimizer")) if folder.exists() else False


def _evaluate(layout: Layout, name: str, role: str, model: str) -> list[str]:
    tasks = _flags({"tasks": layout.evaluations})
    flags = [f"--config.only={','.join(layout.evaluations)}", f"--config.name={name}", f"--config.role={role}"]
    flags += [*_flags(layout.config.evaluate_keys.to_dict()), *tasks, f"--model={model}"]
    flags.append(f"--contamination={done.trained_on(layout)}")
    return _python("evaluate", f"--config={layout.config.evaluate}", *flags, f"--workdir={layout.workdir}")


def _judge(layout: Layout, job: Job) -> list[Job]:
    """The LLM judge's verdicts on a model's answers, and what it says about their tone; needs no accelerator."""
    if "judge" in layout.left_out:
        return []
    judge, name = layout.config.judge, job.name
    role = "student" if job.kind == "cell" else job.kind
    answers = done.answers_of(layout, name)
    flags = [*_flags(judge.flags.to_dict()), f"--config.name={name}", f"--config.role={role}"]
    flags += [f"--answers_a={answers}", f"--workdir={layout.workdir}"]
    compare = _python("judge", f"--config={judge.config}", *flags, f"--answers_b={judge.reference}")
    tone = _python("judge", f"--config={judge.tone}", *flags)

    return [Job(f"judge {name}", "judge", (compare, tone), lambda: job.done() and done.judged(layout, name))]


# ----------------------------------------------------------------------------------------------------------------------
# Command lines
# ----------------------------------------------------------------------------------------------------------------------


def _python(command: str, *flags: str) -> list[str]:
    return ["PYTHON", "-m", f"imitation_jax.{command}", *flags]


def _flags(keys: Mapping[str, Any]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in flat(keys)]
