"""An LLM compares two answer files, or says of one whether it sounds authoritative.

Every pair is asked about with A first and with B first. A pair has a vote where both replies hold a verdict: the mean
of the two; where they name opposite winners it has none, unless `config.contradiction` says that this is a tie. What
holds no verdict is counted by its reason. Each reply is in the cache before the next is looked at, so a start after a
kill -9 asks nothing twice; refusals too, unless `config.retry_refused`. Every comparison with one cache and one judge
is on one bill, which the budget bounds.
"""

import collections
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from imitation_jax.clients import chat_client, request_pool
from imitation_jax.clients import config as clients
from imitation_jax.clients.answer_cache import Cache
from imitation_jax.clients.chat_client import Reply, Request
from imitation_jax.clients.forecast import forecast
from imitation_jax.clients.http import ApiError
from imitation_jax.core.fingerprint import digest
from imitation_jax.data import answer_files
from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.results import (
    Result,
    read_result,
    safe_name,
    samples_path,
    versions,
    write_lines,
    write_result,
)
from imitation_jax.preference import annotations, judge_prompts, verdicts, win_rates
from imitation_jax.preference.verdicts import Verdict
from imitation_jax.preference.win_rates import Sample

TASKS = ("judge", "tone")
SHOWN = 2000  # characters of a reply that a sample keeps
REFUSED = "refused"
CONTRADICTION = "the orders contradict each other"
ONE_ORDER = "a verdict in one order only"
# Keys that change a reply or what becomes of it.
SETTINGS = ("task", "url", "model", "prompt", "verdict", "orders", "seed", "contradiction", "limit", "also_answers")


class Comparison:
    """What is to be asked: the pairs, or single answers, and the questions about them.

    Attributes:
      name, opponent: of A's and B's model; opponent is None for the question about tone.
      questions: (place of the item, order, messages); the order is "ab" (A is shown first), "ba", or "a" of tone.
    """

    def __init__(self, config: ConfigDict, answers_a: str, answers_b: str):
        """Raises OSError, ValueError: one line with the key, flag or place."""
        _check(config, answers_a, answers_b)
        ours = answer_files.read_answers(answers_a)
        self.name = config.name or answer_files.generator_of(ours, answers_a)
        self.opponent, self.unmatched = None, {}
        if config.task == "tone":
            numbered = enumerate(ours)
            self.items = [{"id": row["id"] or str(index), **_shown(row, "output")} for index, row in numbered]
        else:
            theirs = answer_files.read_answers(answers_b)
            self.opponent = answer_files.generator_of(theirs, answers_b)
            pairs, _, self.unmatched = answer_files.pairs(ours, theirs, (answers_a, answers_b))
            self.items = [{"id": row["id"], **_shown(row, "output", "reference")} for row in pairs]
        self.items = self.items[: config.limit or None]
        self.questions = list(_questions(config, self.items))
        self.settings = {key: config[key] for key in SETTINGS if key in config}
        self.settings |= {"parameters": config.parameters.to_dict(), "opponent": self.opponent}
        self.settings["data_digest"] = digest(self.items)
        # A result's "model" may differ between results that are compared, its judge may not.
        self.settings["judge"] = config.model
        self.fingerprint = digest([self.settings, config.role, [messages for *_, messages in self.questions]])


def judge(config: ConfigDict, answers_a: str, answers_b: str = "", workdir: str = "") -> Result:
    """Asks what was not asked before, and gives the result; with `workdir` it is filed there, under A's name.

    Raises:
      ValueError, OSError: one line; what was answered is kept.
    """
    clients.check(config)
    asked = Comparison(config, answers_a, answers_b)
    path = _path(workdir, asked.name, config.task)
    kept = read_result(path) if path else None
    # What was refused may be had now: in the cache stands what would be refused again.
    missing = kept and any(REFUSED in why for why in kept["counts"]["no_vote"])
    if kept and not missing and kept.get("fingerprint") == asked.fingerprint:
        logging.info("%s: there already, with the same settings", path)
        return _with_votes(kept)
    begin = time.monotonic()
    with contextlib.closing(Cache(config.cache)) as cache:
        found = [_cached(cache, config, messages) for *_, messages in asked.questions]
        if None in found:
            _ask(config, asked.questions, found, cache)
    samples = _samples(config, asked, found)
    summary = _tone(samples) if config.task == "tone" else win_rates.summarise(samples)
    summary["counts"] |= {key: count for key, count in asked.unmatched.items() if count}
    tokens = sum(billed.total for reply in found if (billed := chat_client.usage_of(reply)))
    about = {"settings": asked.settings, "fingerprint": asked.fingerprint, "tokens": tokens}
    about["seconds"] = round(time.monotonic() - begin, 3)
    return _with_votes(_write(path, config.task, asked.name, config.role, summary, about, samples))


def plan(config: ConfigDict, answers_a: str, answers_b: str = "") -> str:
    """What `judge` would ask, and what that costs, for people; asks and writes nothing."""
    clients.check(config)
    asked = Comparison(config, answers_a, answers_b)
    there = Path(config.cache).expanduser().exists()
    with contextlib.closing(Cache(config.cache if there else ":memory:")) as cache:
        left = [messages for *_, messages in asked.questions if _cached(cache, config, messages) is None]
    text = [f"{len(asked.items):,} items, {len(asked.questions):,} questions, {len(left):,} to ask, such as this one:"]
    text += ["", *(message["content"] for message in (left[0] if left else [])), ""]
    return "\n".join(text + forecast(config, _ledger(config), left))


def from_verdicts(path: str, answers_a: str = "", answers_b: str = "", workdir: str = "") -> Result:
    """The same numbers from verdicts that are there already, see `annotations`.

    Raises:
      ValueError, OSError: one line with the place.
    """
    samples, name, opponent = annotations.read(path, answers_a, answers_b)
    # Of a judge's samples the result beside them tells the settings.
    end = ".samples.jsonl"
    kept = read_result(epath.Path(path.removesuffix(end) + ".json")) if path.endswith(end) else None
    settings = kept["settings"] if kept else {"task": "judge"}
    settings |= {"verdicts": path, "opponent": opponent, "data_digest": digest(samples)}
    about = {"settings": settings, "fingerprint": digest(settings), "tokens": 0, "seconds": 0.0}
    role, summary = kept["role"] if kept else "", win_rates.summarise(samples)
    _with_votes({"model": name, "n": summary["counts"]["votes"], **summary})  # before a good result is replaced
    return _write(_path(workdir, name, "judge"), "judge", name, role, summary, about, samples)


def percentages(result: Result) -> dict[str, Any]:
    """The result for a script: every metric in percent, n, and 95% intervals of the first one."""
    first, estimate = next(iter(result["metrics"].items()))
    found: dict[str, Any] = {key: _percent(metric["value"]) for key, metric in result["metrics"].items()}
    found |= {"n": estimate["n"], "stderr": _percent(estimate["stderr"])}
    found["interval"] = _percents(statistics.interval(estimate))
    if f"{first}_bootstrap" in result:
        found["interval_bootstrap"] = _percents(result[f"{first}_bootstrap"])
    found |= {"counts": result["counts"], "model": result["model"], "opponent": result["settings"]["opponent"]}
    return found


def table(result: Result) -> str:
    """The result for people."""
    against = f" against {result['settings']['opponent']}" if result["settings"]["opponent"] else ""
    lines = [f"{result['model']}{against}"]
    for key, found in result["metrics"].items():
        span = statistics.interval(found)
        shown = "-" if found["value"] is None else f"{100 * found['value']:.2f}%"
        around = f"  [{100 * span[0]:.2f}, {100 * span[1]:.2f}]" if span else ""
        lines.append(f"  {key:<28}{shown:>8}{around:<18}  n={found['n']}")
    counts = [f"{key}: {value}" for key, value in result["counts"].items() if key != "no_vote" and value]
    lines.append(f"  {', '.join(counts)}")
    lines += [f"  no vote, {why}: {count}" for why, count in result["counts"]["no_vote"].items()]
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------------------
# Asking
# ----------------------------------------------------------------------------------------------------------------------


def _check(config: ConfigDict, answers_a: str, answers_b: str) -> None:
    choices = {"task": TASKS, "verdict": tuple(judge_prompts.ENDINGS), "orders": ("both", "one")}
    for key, known in (choices | {"contradiction": ("none", "tie")}).items():
        if key in config and config[key] not in known:
            raise ValueError(f"config.{key}={config[key]!r}: expected {' or '.join(known)}")
    if config.limit < 0:
        raise ValueError(f"config.limit={config.limit}: must not be negative")
    if "://" in config.cache:
        raise ValueError(f"config.cache={config.cache}: must be a local file")
    if not answers_a:
        raise ValueError("--answers_a is required; --help tells more")
    if config.task == "judge" and not answers_b:
        raise ValueError("--answers_b is required; --help tells more")
    if config.task == "tone" and answers_b:
        raise ValueError("--answers_b: the question about tone looks at --answers_a alone")


def _shown(row: dict, *outputs: str) -> dict:
    names = dict(zip(outputs, ("output_a", "output_b"), strict=False))
    return {"prompt": row["instruction"], **{name: row[key] for key, name in names.items()}}


def _questions(config: ConfigDict, items: list[dict]) -> Iterator[tuple[int, str, list[dict]]]:
    if config.task == "tone":
        for place, item in enumerate(items):
            yield place, "a", judge_prompts.tone(item["prompt"], item["output_a"])
        return
    text = judge_prompts.wording(config.prompt)
    for place, item in enumerate(items):
        # Drawn by the pair itself, so that it does not depend on the others.
        drawn = "ab" if int(digest([config.seed, item]), 16) % 2 else "ba"
        for order in ("ab", "ba") if config.orders == "both" else (drawn,):
            shown = [item[f"output_{side}"] for side in order]
            yield place, order, judge_prompts.comparison(text, config.verdict, item["prompt"], *shown)


def _question(config: ConfigDict, messages: list[dict]) -> dict:
    asked = {"url": config.url, "model": config.model, "parameters": config.parameters.to_dict()}
    return {"api": "chat", **asked, "messages": messages}


def _cached(cache: Cache, config: ConfigDict, messages: list[dict]) -> dict | None:
    found = cache.get(_question(config, messages))
    return None if found and REFUSED in found and config.retry_refused else found


def _ledger(config: ConfigDict) -> Path:
    """What was spent on this model, by all that share the cache."""
    return Path(config.cache).expanduser().resolve().with_suffix(f".{safe_name(config.model)}.spend.sqlite")


def _ask(config: ConfigDict, questions: list, found: list[dict | None], cache: Cache) -> None:
    """Fills the gaps in `found`.

    Raises:
      ValueError: some got no answer; what was answered is kept.
    """
    missing = [Request(messages, about=place) for place, (*_, messages) in enumerate(questions) if found[place] is None]

    # All comparisons with this cache are on one ledger.
    with request_pool.open_pool(config, _ledger(config), hold=True) as pool:

        def done(request: Request, end: Reply | ApiError) -> None:
            if isinstance(end, Reply):
                # One character more than is looked at: enough to know that it was too long.
                text = end.text[: verdicts.MOST_CHARACTERS + 1]
                reply = {"text": text, "characters": len(end.text), "model": end.model}
                found[request.about] = reply | {"finish_reason": end.finish_reason, "usage": end.usage}
            elif request_pool.is_refusal(end):
                found[request.about] = {REFUSED: str(end)[:SHOWN]}
            # Of what was refused for other reasons another start may fare better.
            if isinstance(end, Reply) or getattr(end, "status", None) in request_pool.REFUSALS:
                cache.put(_question(config, request.messages), found[request.about])

        about = {"desc": "judging", "unit": "question", "total": len(found)}
        pool.ask_all(missing, done, **about, is_final=request_pool.is_refusal)


# ----------------------------------------------------------------------------------------------------------------------
# What was said
# ----------------------------------------------------------------------------------------------------------------------


def _samples(config: ConfigDict, asked: Comparison, found: list[dict]) -> list[Sample]:
    form = "tone" if config.task == "tone" else config.verdict
    said: list[dict[str, dict]] = [{} for _ in asked.items]
    for (place, order, _), reply in zip(asked.questions, found, strict=True):
        verdict = Verdict(None, REFUSED)
        if "text" in reply:
            verdict = verdicts.read(form, reply["text"], reply["finish_reason"])
        shown = {"reply": reply.get("text", reply.get(REFUSED))[:SHOWN]}
        shown["characters"] = reply.get("characters", len(shown["reply"]))
        said[place][order] = verdict._asdict() | shown
    samples = []
    for item, verdict in zip(asked.items, said, strict=True):
        preference, why = (
            (verdict["a"]["first"], verdict["a"]["why"])
            if config.task == "tone"
            else vote(verdict, config.contradiction)
        )
        sample = {**item, "verdicts": verdict, "preference": preference, "why": why}
        samples.append(win_rates.complete(sample, asked.name, asked.opponent))
    return samples


def vote(said: dict[str, dict], contradiction: str = "none") -> tuple[float | None, str | None]:
    """(A's preference, None), or (None, why there is no vote).

    Args:
      said: by order ("ab", "ba") the verdict on that order: "first" and "why".
      contradiction: what two opposite verdicts are, "none" for no vote or "tie".
    """
    found = {order: verdict["first"] for order, verdict in said.items()}
    if None in found.values():
        reasons = sorted({said[order]["why"] for order, first in found.items() if first is None})
        some = any(first is not None for first in found.values())
        return None, (f"{ONE_ORDER}, the other: " if some else "") + " and ".join(reasons)
    of_a = [first if order == "ab" else 1 - first for order, first in found.items()]
    if sorted(of_a) == [0, 1] and contradiction == "none":
        return None, CONTRADICTION
    return sum(of_a) / len(of_a), None


def _tone(samples: list[Sample]) -> dict[str, Any]:
    votes = [sample["preference"] for sample in samples if sample["preference"] is not None]
    why = collections.Counter(sample["why"] for sample in samples if sample["preference"] is None)
    counts = {"answers": len(samples), "votes": len(votes), "no_vote": dict(sorted(why.items()))}
    return {"metrics": {"authoritative": win_rates.share(votes)}, "counts": counts}


def _path(workdir: str, name: str, task: str) -> epath.Path | None:
    return samples_path(workdir, safe_name(name), task, task).with_name(f"{task}.json") if workdir else None


def _write(
    path: epath.Path | None, task: str, name: str, role: str, summary: dict, about: dict, samples: list[Sample]
) -> Result:
    result = {"task": task, "model": name, "role": role, "n": summary["counts"]["votes"], **summary, **about}
    result["versions"] = versions()
    if path:
        path.unlink(missing_ok=True)  # an older result, about the samples that are replaced now
        write_lines(path.with_name(f"{task}.samples.jsonl"), samples)
        write_result(path, result)
        logging.info("%s: written", path)
    return result


def _with_votes(result: Result) -> Result:
    """Raises ValueError where nothing was voted: what a script reads must be a number."""
    if not result["n"]:
        raise ValueError(f"no vote in all of {result['model']}'s answers: {result['counts']['no_vote']}")
    return result


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _percents(span: list | tuple | None) -> list[float] | None:
    return None if span is None else [100 * value for value in span]
