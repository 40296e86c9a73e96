"""Files the results of judges and raters, and shows a judge's to people and to scripts."""

from collections.abc import Sequence
from typing import Any

from absl import logging
from etils import epath

from imitation_jax.core.text_table import text_table
from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.results import Result, Sample, versions, write_lines, write_result


def write(path: epath.Path | None, result: Result, samples: list[Sample]) -> Result:
    """Adds the versions; where there is a path the result is written, with its samples beside it."""
    result = {**result, "versions": versions()}
    if path:
        path.unlink(missing_ok=True)  # an older result, about the samples that are replaced now
        write_lines(path.with_name(f"{path.stem}.samples.jsonl"), samples)
        write_result(path, result)
        logging.info("%s: written", path)
    return result


def with_votes(result: Result) -> Result:
    """Raises ValueError where nothing was voted: what a script reads must be a number."""
    if not result["n"]:
        raise ValueError(f"no vote in all of {result['model']}'s answers: {result['counts']['no_vote']}")
    return result


def percentages(result: Result) -> dict[str, Any]:
    """The result for a script: every metric in percent, n, and 95% intervals of the first one."""
    first, estimate = next(iter(result["metrics"].items()))
    values = {key: _percent(metric["value"]) for key, metric in result["metrics"].items()}
    values |= {"n": estimate["n"], "stderr": _percent(estimate["stderr"])}
    values["interval"] = _percents(statistics.interval(estimate))
    if f"{first}_bootstrap" in result:
        values["interval_bootstrap"] = _percents(result[f"{first}_bootstrap"])
    return values | {"counts": result["counts"], "model": result["model"], "opponent": result["settings"]["opponent"]}


def table(result: Result) -> str:
    """The result for people."""
    against = f" against {result['settings']['opponent']}" if result["settings"]["opponent"] else ""
    rows = []
    for key, metric in result["metrics"].items():
        value, span = _percent(metric["value"]), _percents(statistics.interval(metric))
        interval = f"[{span[0]:.2f}, {span[1]:.2f}]" if span else ""
        rows.append([f"  {key}", "-" if value is None else f"{value:.2f}%", interval, f"n={metric['n']}"])
    counts = [f"{key}: {value}" for key, value in result["counts"].items() if key != "no_vote" and value]
    no_vote = [f"  no vote, {why}: {count}" for why, count in result["counts"]["no_vote"].items()]
    return "\n".join([f"{result['model']}{against}", text_table(rows), f"  {', '.join(counts)}", *no_vote])


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _percents(span: Sequence[float] | None) -> list[float] | None:
    return None if span is None else [100 * value for value in span]
