"""Contamination of a result: a task's metrics with and without the items that stand in the training set."""

import math
from collections.abc import Callable

from etils import epath

from imitation_jax.data.benchmark_rows import read_rows
from imitation_jax.data.evaluation_items import DEFINITION, Marks
from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.results import Result, Sample, write_result


def add(
    result: Result,
    path: epath.Path,
    samples_path: epath.Path,
    items: list[dict],
    marks: Marks,
    metrics_of: Callable[[list[Sample], list[dict]], dict],
) -> Result:
    """The result with "contamination": the task's metrics over the clean and over the marked items, and the marks.

    Nothing else of it changes, its fingerprint neither; items that are too short to be marked are among the clean.

    Args:
      path: of the result's file, which is written again where this is new.
      samples_path: the samples that the result was made of.
      marks: the task's own, from `mark`.
      metrics_of: from samples and their items to metrics.
    """
    marked = marks["items"]
    samples = [row for _, row in read_rows(str(samples_path))]
    section = {"dataset": marks["dataset"], "definition": DEFINITION}
    section |= {"rows": marks["rows"], "rows_unread": marks["rows_unread"], "n_too_short": len(marks["too_short"])}
    for name, wanted in (("clean", False), ("contaminated", True)):
        some = [sample for sample in samples if (sample["id"] in marked) == wanted]
        section[f"n_{name}"] = len(some)
        if some:
            chosen = [item for item in items if (item["id"] in marked) == wanted]
            section[f"metrics_{name}"] = metrics_of(some, chosen)
        else:
            section[f"metrics_{name}"] = dict.fromkeys(result["metrics"], statistics.estimate(math.nan, math.nan, 0))
    section["items"] = {sample["id"]: marked[sample["id"]] for sample in samples if sample["id"] in marked}
    if result.get("contamination") != section:
        result = result | {"contamination": section}
        write_result(path, result)
    return result


def metrics(result: Result) -> dict[str, statistics.Estimate]:
    """The lines that contamination adds to the table of results: each metric without and with marked items only."""
    section = result.get("contamination", {})
    return {
        f"{metric} ({name})": estimate
        for metric in result["metrics"]
        for name in ("clean", "contaminated")
        if (estimate := section.get(f"metrics_{name}", {}).get(metric))
    }
