"""Makes the result of the raters' votes: `eval/<first file's generator>/human.json` with its samples.

As in "The False Promise of Imitating Proprietary LLMs" (Gudibande et al. 2023) the majority's vote of each item counts,
and the mean over items is reported with its standard deviation (`sd`, of single items) beside the standard error.
Only items with all their ratings count, and only raters who passed the attention checks; of an item with more votes
than it needed the first ones count.

- `equal_or_better`, `better`, `equal`, `worse`: shares of items by the majority's vote; without one it is equal.
- `win_rate`: better counts 1, equal 1/2. `votes_equal_or_better`: each item's share of such votes, without a majority.
- `alpha`, `alpha_nominal`: Krippendorff's, of the votes on items with two or more; `rater_agreement`: equal pairs.
- `judge_...`: the majority beside an LLM judge on the same items, see `agreement.with_judge`.
"""

from collections import defaultdict

import numpy as np
from absl import logging

from imitation_jax.core import json_rows
from imitation_jax.core.files import existing
from imitation_jax.core.fingerprint import digest
from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.results import safe_name, samples_path
from imitation_jax.evaluation.statistics import Estimate
from imitation_jax.preference import agreement, result_files, win_rates
from imitation_jax.preference.rating.database import LEASE, Store, Vote

NAMES = {1: "better", 0: "equal", -1: "worse"}


def write(store: Store, workdir: str, judge: str) -> tuple[str, str]:
    """Writes the result file and its samples.

    Args:
      judge: samples of an LLM judge on the same answers; "" for those in the workdir, where there are any.

    Returns:
      The result's path, and its numbers as text for a terminal.

    Raises:
      FileNotFoundError, ValueError: no judge there, none of the same items, or no item with all its ratings.
    """
    settings = store.settings()
    model, opponent = safe_name(settings["generator_a"]), settings["generator_b"]
    items = [item for item in store.items() if item["expected"] is None]
    votes = store.votes()
    samples, left_out = _samples(items, votes, settings["ratings"])
    samples = [win_rates.complete(sample, settings["generator_a"], opponent) for sample in samples]
    whole = [sample for sample in samples if len(sample["votes"]) == settings["ratings"]]
    if not whole:
        most = max((len(sample["votes"]) for sample in samples), default=0)
        careless = len({vote.rater for vote in votes if not vote.counts})
        why = f"; {careless} raters failed the attention checks and do not count" if careless else ""
        raise ValueError(
            f"--db={store.path}: no item has its {settings['ratings']} ratings yet, the most is {most}{why}"
        )
    final = samples_path(workdir, model, "human", "human")
    beside = final.with_name("judge.samples.jsonl")
    judged = existing(judge) if judge else str(beside) if beside.exists() else ""
    metrics, counts = _metrics(samples, whole), _counts(samples, whole, votes, left_out)
    if both := _beside_judge(judged, whole) if judged else []:
        metrics |= agreement.with_judge(*zip(*both, strict=True))
    elif judged:
        why = f"{judged}: no verdict there on a pair that people rated"
        if judge:
            raise ValueError(f"{why}; name the judge of the same answers")
        logging.warning("%s; people are not put beside that judge", why)
        judged = ""
    kept = {key: settings[key] for key in ("generator_a", "answers", "ratings", "check_every", "seed", "matched_by")}
    kept |= {"opponent": opponent, "guidelines": digest(settings["guidelines"]), "judge": judged}
    result = {
        "task": "human",
        "model": model,
        "role": "",
        "n": len(whole),
        "metrics": metrics,
        "counts": counts | settings["set_aside"],
        "settings": kept,
        "seconds": round(sum(min(vote.voted - vote.shown, LEASE) for vote in votes), 1),
        "tokens": 0,
    }
    path = final.with_name("human.json")
    return str(path), text(result_files.write(path, result, samples))


def _samples(items: list[dict], votes: list[Vote], ratings: int) -> tuple[list[dict], set[Vote]]:
    """(a sample of each item with its first `ratings` votes that count, the votes that came later)."""
    cast: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        if vote.counts:
            cast[vote.item].append(vote)
    # By numbers: a result file is for showing around.
    numbers = {name: number for number, name in enumerate(dict.fromkeys(vote.rater for vote in votes), 1)}
    samples, left_out = [], set()
    for item in items:
        counted, later = cast[item["id"]][:ratings], cast[item["id"]][ratings:]
        left_out.update(later)
        majority = agreement.majority([vote.vote for vote in counted]) if counted else None
        samples.append(
            {
                "id": item["id"],
                "prompt": item["instruction"],
                "output_a": item["a"],
                "output_b": item["b"],
                "votes": [vote.vote for vote in counted],
                "raters": [numbers[vote.rater] for vote in counted],
                "a_first": [vote.a_first for vote in counted],
                "majority": None if majority is None else NAMES[majority],
                "preference": None if majority is None else (majority + 1) / 2,
            }
        )
    return samples, left_out


def _majorities(samples: list[dict]) -> list[int]:
    return [agreement.majority(sample["votes"]) for sample in samples]


def _with_sd(estimate: Estimate, values: list[float]) -> Estimate:
    return estimate | {"sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def _metrics(samples: list[dict], whole: list[dict]) -> dict[str, Estimate]:
    majorities = _majorities(whole)
    at_least_equal = [vote >= 0 for vote in majorities]
    shares = [float(np.mean([vote >= 0 for vote in sample["votes"]])) for sample in whole]
    metrics = {"equal_or_better": _with_sd(statistics.proportion(at_least_equal), at_least_equal)}
    for vote, name in NAMES.items():
        metrics[name] = statistics.proportion([one == vote for one in majorities])
    votes = [sample["votes"] for sample in samples]
    return metrics | {
        "win_rate": statistics.share([(vote + 1) / 2 for vote in majorities]),
        "votes_equal_or_better": _with_sd(statistics.share(shares), shares),
        "alpha": agreement.alpha_estimate(votes),
        "alpha_nominal": agreement.alpha_estimate(votes, "nominal"),
        "rater_agreement": agreement.between_raters(votes),
    }


def _counts(samples: list[dict], whole: list[dict], votes: list[Vote], left_out: set[Vote]) -> dict[str, int]:
    real = [vote for vote in votes if vote.expected is None]
    counted = [vote for vote in real if vote.counts and vote not in left_out]
    checks = [vote for vote in votes if vote.expected is not None]
    # Better for the one that stood first: what raters would do who always choose a side.
    chose_first = sum(vote.vote == (1 if vote.a_first else -1) for vote in counted)
    decided = sum(vote.vote != 0 for vote in counted)
    return {
        "items_without_all_ratings": len(samples) - len(whole),
        "items_without_majority": sum(len(agreement.leading(sample["votes"])) > 1 for sample in whole),
        "votes": len(counted),
        "votes_of_careless_raters_left_out": sum(not vote.counts for vote in real),
        "votes_beyond_all_ratings_left_out": len(left_out),
        "raters": len({vote.rater for vote in counted}),
        "careless_raters": len({vote.rater for vote in votes if not vote.counts}),
        "checks_passed": sum(vote.vote == vote.expected for vote in checks),
        "checks_failed": sum(vote.vote != vote.expected for vote in checks),
        "votes_with_a_first": sum(vote.a_first for vote in counted),
        "votes_for_the_first": chose_first,
        "votes_for_the_second": decided - chose_first,
    }


def _beside_judge(path: str, whole: list[dict]) -> list[tuple[int, int]]:
    """(the majority's vote, the judge's) of the pairs that both have seen."""
    verdicts = {}
    for _, row in json_rows.read(path, strict=True):
        if isinstance(row.get("preference"), int | float):
            verdicts[str(row.get("id")), row.get("output_a"), row.get("output_b")] = row["preference"]
    pairs = [(sample, verdicts.get((sample["id"], sample["output_a"], sample["output_b"]))) for sample in whole]
    return [
        (agreement.majority(sample["votes"]), (verdict > 0.5) - (verdict < 0.5))
        for sample, verdict in pairs
        if verdict is not None
    ]


def text(result: dict) -> str:
    """The numbers, a line each, with their 95% intervals."""
    said = [f"{result['model']} beside {result['settings']['opponent']}, {result['n']} items"]
    for name, metric in result["metrics"].items():
        if metric["value"] is None:
            said.append(f"{name:<24} undefined")
            continue
        within = statistics.interval(metric)
        limits = f"  95% {within[0]:.3f} to {within[1]:.3f}" if within else ""
        said.append(f"{name:<24} {metric['value']:6.3f}{limits}  n {metric['n']}")
    said += [f"{name.replace('_', ' ')}: {count}" for name, count in result["counts"].items()]
    return "\n".join(said)


def progress(store: Store) -> str:
    """How far the rating is, in one line."""
    settings = store.settings()
    items = [item for item in store.items() if item["expected"] is None]
    samples, _ = _samples(items, store.votes(), settings["ratings"])
    whole = sum(len(sample["votes"]) == settings["ratings"] for sample in samples)
    return f"{whole} of {len(samples)} items have their {settings['ratings']} ratings"
