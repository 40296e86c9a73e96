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
from imitation_jax.models.load import identify, load_model
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.progress import ticks

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


def evaluate(config: ConfigDict, models: Sequence[str], workdir: str, cache_dir: Path) -> list[Result]:
    """Runs `config.task` on every model and writes `eval/<model>/<task>.json` and its samples under `workdir`.

    Args:
      config: from `configs/eval/`; `config.name` files the results under another name than the model's own, and
        `config.role` ("base", "student" or "teacher") is what the report calls the model.
      models: `hf:`, `gguf:` or `orbax:` sources; none for style.
      workdir: local or in a bucket.
      cache_dir: local folder; an unfinished task of a bucket's workdir lies there.

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
    if config.limit < 0:
        raise ValueError(f"config.limit={config.limit}: must be 0 (all) or more")
    if task is style and models:
        raise ValueError("--model: style compares two files of answers and takes no model")
    if task is not style and not models:
        raise ValueError(f"--model: {config.task} needs a model: hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]")
    if config.name and len(models) > 1:
        raise ValueError("config.name names one model, --model gives several")
    items = task.read(config)
    if task is style:
        name = safe_name(config.name or items[0]["generator"])
        return [_evaluate(config, items, None, name, workdir, cache_dir)]
    names = [safe_name(config.name) if config.name else model_name(model) for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"--model: two models would be filed as {max(names, key=names.count)!r}; give one config.name")
    return [_evaluate(config, items, *each, workdir, cache_dir) for each in zip(models, names, strict=True)]


def _evaluate(
    config: ConfigDict, items: list[dict], model: str | None, name: str, workdir: str, cache_dir: Path
) -> Result:
    config = config.copy_and_resolve_references()
    config.name = name
    task = TASKS[config.task]
    settings = {**config.to_dict(), "definitions": task.DEFINITIONS, "data_digest": digest(items)}
    if model is not None:
        settings |= {"model": model, "weights": digest(identify(model))}
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

    with Samples(samples_path, fingerprint, cache_dir) as samples:
        todo = [item for item in items if item["id"] not in samples.rows]
        done = len(items) - len(todo)
        if done:
            logging.info("%s on %s: %d of %d were done before", config.task, name, done, len(items))
        engine = _engine(config, model) if model is not None and todo else None
        if todo:
            with ticks(total=len(items), initial=done, desc=f"{config.task} on {name}") as tick:

                def on_sample(sample: Sample) -> None:
                    samples.append(sample)
                    tick()

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
            marks = {"tokenizer": engine.tokenizer, "template": engine.template}
            result["fingerprints"] = {key: mark and mark.fingerprint[:16] for key, mark in marks.items()}
        write_result(path, result)
        samples.discard()
    return result


def _engine(config: ConfigDict, model: str) -> Engine:
    mesh = make_mesh(config.mesh)
    loaded = load_model(model, mesh, template=config.template)
    if loaded.template is None and (config.task == "answers" or config.chat):
        raise ValueError(
            f"{model}: has no chat template, and {config.task} needs one here; "
            "give --config.template=lineage (USER: / GPT:) or a .jinja file"
        )
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
