"""Evaluates models on a task: keeps results whose settings are the same, goes on where a killed run stopped."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from imitation_jax.evaluation import answers, facts, mmlu, natural_questions, style
from imitation_jax.evaluation.results import (
    Result,
    Sample,
    Samples,
    digest,
    model_name,
    read_result,
    safe_name,
    versions,
    write_result,
)
from imitation_jax.inference.engine import Engine
from imitation_jax.models.load import load_model
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.progress import progress

TASKS: dict[str, ModuleType] = {
    "mmlu": mmlu,
    "nq": natural_questions,
    "facts": facts,
    "answers": answers,
    "style": style,
}
ROLES = ("", "base", "student", "teacher")
# Recorded, but no number depends on them.
NOT_SETTINGS = ("name", "role", "batch_size", "mesh")


def evaluate(config: ConfigDict, models: Sequence[str], workdir: str) -> list[Result]:
    """Runs `config.task` on every model and writes `eval/<model>/<task>.json` and its samples under `workdir`.

    Args:
      config: from `configs/eval/`; `config.name` files the results under another name than the model's own, and
        `config.role` ("base", "student" or "teacher") is what the report calls the model.
      models: `hf:`, `gguf:` or `orbax:` sources; none for style.

    Returns:
      The results in the order of the models.

    Raises:
      ValueError, FileNotFoundError: one line with the key or the place.
    """
    task = TASKS.get(config.task)
    if task is None:
        raise ValueError(f"config.task={config.task!r}: expected one of {', '.join(TASKS)}")
    if config.role not in ROLES:
        raise ValueError(f"config.role={config.role!r}: expected {', '.join(ROLES[1:])}, or nothing")
    if task is style and models:
        raise ValueError("--model: style compares two files of answers and takes no model")
    if task is not style and not models:
        raise ValueError(f"--model: {config.task} needs a model: hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]")
    if config.name and len(models) > 1:
        raise ValueError("config.name names one model, --model gives several")
    items = task.read(config)
    if task is style:
        return [_evaluate(config, items, None, safe_name(config.name or items[0]["generator"]), workdir)]
    names = [safe_name(config.name) if config.name else model_name(model) for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"--model: two models would be filed as {max(names, key=names.count)!r}; give one config.name")
    return [_evaluate(config, items, model, name, workdir) for model, name in zip(models, names, strict=True)]


def identify(source: str) -> str:
    """A digest that is another one where the model may be another: of its files' names, sizes and times.

    Raises:
      FileNotFoundError, ValueError: no such model, or no such kind of source.
    """
    kind, _, where = source.partition(":")
    if kind not in ("hf", "gguf", "orbax") or not where:
        raise ValueError(f"model {source!r}: write hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]")
    if kind == "orbax":
        workdir, _, step = where.partition("@")
        checkpoints = epath.Path(workdir).expanduser() / "checkpoints"
        steps = [path.name for path in checkpoints.iterdir() if path.name.isdigit()] if checkpoints.exists() else []
        if not steps or (step and step not in steps):
            raise FileNotFoundError(f"{checkpoints}: no checkpoint{f' of step {step}' if step else ''} there")
        # Orbax writes there when the step was committed, in nanoseconds.
        return digest((checkpoints / (step or max(steps, key=int)) / "_CHECKPOINT_METADATA").read_text())
    root = Path(where).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such file or folder")
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
    return digest([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files])


def _evaluate(config: ConfigDict, items: list[dict], model: str | None, name: str, workdir: str) -> Result:
    config = config.copy_and_resolve_references()
    config.name = name
    task = TASKS[config.task]
    settings = {**config.to_dict(), "definitions": task.DEFINITIONS, "data_digest": digest(items)}
    if model is not None:
        settings |= {"model": model, "weights": identify(model)}
    fingerprint = digest({key: value for key, value in settings.items() if key not in NOT_SETTINGS})
    folder = epath.Path(workdir).expanduser() / "eval" / name
    path = folder / f"{config.task}.json"
    samples_path = folder / ("answers.jsonl" if task is answers else f"{config.task}.samples.jsonl")

    kept = read_result(path)
    if kept and kept.get("fingerprint") == fingerprint and samples_path.exists():
        logging.info("%s on %s: kept, the settings are the same (%s)", config.task, name, path)
        if kept["role"] != config.role:
            kept["role"] = config.role
            write_result(path, kept)
        return kept

    samples = Samples(samples_path, fingerprint)
    todo = [item for item in items if item["id"] not in samples.rows]
    done = len(items) - len(todo)
    if done:
        logging.info("%s on %s: %d of %d were done before", config.task, name, done, len(items))
    engine = _engine(config, model) if model is not None and todo else None
    ticks = progress(range(len(todo)), total=len(items), initial=done, desc=f"{config.task} on {name}", unit="item")
    next(ticks, None)

    def on_sample(sample: Sample) -> None:
        samples.append(sample)
        next(ticks, None)

    if todo:
        task.ask(engine, todo, config, on_sample)
    rows = samples.finish(item["id"] for item in items)
    result = {
        "task": config.task,
        "model": name,
        "role": config.role,
        "n": len(rows),
        **task.summarise(rows, items, config),
        "settings": settings,
        "fingerprint": fingerprint,
        "seconds": round(samples.seconds, 3),
        "tokens": sum(row.get("tokens", 0) for row in rows),
        "versions": versions(),
    }
    if engine is not None:
        marks = {"tokenizer": engine.tokenizer.fingerprint, "template": engine.template.fingerprint}
        result["fingerprints"] = {key: value[:16] for key, value in marks.items()}
    write_result(path, result)
    samples.discard()
    return result


def _engine(config: ConfigDict, model: str) -> Engine:
    mesh = make_mesh(config.mesh)
    loaded = load_model(model, mesh, template=config.template)
    return Engine(loaded, mesh, batch_size=config.batch_size, compute_dtype=config.compute_dtype)


def table(results: Sequence[Result]) -> str:
    """Plain text: one line a metric, with task, model, value, standard error, n and seconds."""
    header = ("task", "model", "metric", "value", "stderr", "n", "seconds")
    lines = [header]
    for result in results:
        for metric, estimate in result["metrics"].items():
            numbers = ("-" if estimate[key] is None else f"{estimate[key]:.4f}" for key in ("value", "stderr"))
            count, seconds = str(estimate["n"]), f"{result['seconds']:.1f}"
            lines.append((result["task"], result["model"], metric, *numbers, count, seconds))
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    aligned = []
    for line in lines:
        left = [line[column].ljust(widths[column]) for column in range(3)]
        right = [line[column].rjust(widths[column]) for column in range(3, len(header))]
        aligned.append("  ".join(left + right))
    return "\n".join(aligned)
