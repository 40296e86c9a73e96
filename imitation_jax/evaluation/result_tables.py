"""Results as text for a terminal: every metric of every model, and which models differ by more than chance."""

import json
from collections.abc import Sequence

from imitation_jax.core.text_table import text_table
from imitation_jax.evaluation import contamination, statistics
from imitation_jax.evaluation.config import settings_keys
from imitation_jax.evaluation.results import Result, differing_settings, samples_path
from imitation_jax.evaluation.tasks import all_tasks


def table(results: Sequence[Result]) -> str:
    """One line a metric: value, 95% interval (see `statistics.interval`), n, seconds, tokens/s.

    Seconds are those of asking: tokenising, compiling, running and judging, over all starts, without reading data and
    loading the model. Tokens are those of all prompts and answers; what several prompts share counts in each of them.
    """
    lines = [("task", "model", "metric", "value", "95% interval", "n", "seconds", "tokens/s")]
    for result in results:
        seconds, tokens = result["seconds"], result["tokens"]
        speed = f"{tokens / seconds:.0f}" if tokens and seconds else "-"
        for metric, estimate in (result["metrics"] | contamination.metrics(result)).items():
            value = "-" if estimate["value"] is None else f"{estimate['value']:.4f}"
            numbers = (value, _span(statistics.interval(estimate)), str(estimate["n"]), f"{seconds:.1f}", speed)
            lines.append((result["task"], result["model"], metric, *numbers))
    return text_table(lines, left=3)


def paired_table(results: Sequence[Result], workdir: str) -> str:
    """Of each task, every model minus the first one, item by item; empty where there are no two.

    A line a score (see `Task.PAIRED`): the mean difference with its interval by `statistics.paired_bootstrap`, n, and
    for scores that are true or false how many items only the one and only the other got right, with McNemar's exact p.
    Models whose settings differ in what changes the result are not compared.
    """
    by_task: dict[str, list[Result]] = {}
    for result in results:
        by_task.setdefault(result["task"], []).append(result)
    header = ("task", "model", "minus", "score", "difference", "95% interval", "n", "won", "lost", "McNemar p")
    lines, notes = [header], []
    for task, (first, *others) in by_task.items():
        module = all_tasks()[first["settings"]["task"]]
        keys = module.PAIRED
        theirs = _read_scores(workdir, first, keys) if others and keys else {}
        for other in others if keys else ():
            differ = differing_settings(other, first, settings_keys(module))
            ours = _read_scores(workdir, other, keys)
            if differ or ours.keys() != theirs.keys():
                why = f"they differ in {', '.join(differ)}" if differ else "their samples are not of the same items"
                notes.append(f"{task}: {other['model']} and {first['model']} are not compared, {why}")
                continue
            for index, key in enumerate(keys):
                pairs = [(ours[item][index], theirs[item][index]) for item in ours]
                pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
                if pairs:
                    lines.append((task, other["model"], first["model"], key, *_compared(pairs)))
    return "\n".join([*([text_table(lines, left=4)] if len(lines) > 1 else []), *notes])


def _compared(pairs: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    differences = [a - b for a, b in pairs]
    mean = sum(differences) / len(differences)
    numbers = (f"{mean:+.4f}", _span(statistics.paired_bootstrap(differences)), str(len(differences)))
    if not all(isinstance(score, bool) for pair in pairs for score in pair):
        return (*numbers, "-", "-", "-")
    won, lost = differences.count(1), differences.count(-1)
    return (*numbers, str(won), str(lost), f"{statistics.mcnemar(won, lost):.2g}")


def _read_scores(workdir: str, result: Result, keys: Sequence[str]) -> dict[str, tuple]:
    """{id: scores} of a result's samples; None for what a sample lacks."""
    path = samples_path(workdir, result["model"], result["task"], result["settings"]["task"])
    with path.open("rb") as file:
        samples = map(json.loads, file)
        return {sample["id"]: tuple(sample.get(key) for key in keys) for sample in samples}


def _span(interval: statistics.Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
