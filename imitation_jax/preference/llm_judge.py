"""An LLM compares two answer files, or says of one whether it sounds authoritative.

Every pair is asked about with A first and with B first. A pair has a vote where both replies hold a verdict: the mean
of the two; where they name opposite winners it has none, unless `config.contradiction` says that this is a tie. What
holds no verdict is counted by its reason. Each reply is in the cache before the next is looked at, so a start after a
kill -9 asks nothing twice; refusals too, unless `config.retry_refused`. Every comparison with one cache and one judge
is on one ledger, which the budget bounds.
"""

import collections
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
    is_current,
    read_result,
    safe_name,
    samples_path,
)
from imitation_jax.preference import annotations, judge_prompts, result_files, verdicts, win_rates
from imitation_jax.preference.config import KEYS_OF_RESULTS
from imitation_jax.preference.verdicts import Verdict
from imitation_jax.preference.win_rates import Sample

TASKS = ("judge", "tone")
SHOWN = 2000  # characters of a reply that a sample keeps
REFUSED = "refused"
CONTRADICTION = "the orders contradict each other"
ONE_ORDER = "a verdict in one order only"
EMPTY = {"prompt": "", "output_a": "", "output_b": ""}  # a pair to see the wording by


class Question(NamedTuple):
    """What the judge is asked in one request.

    Attributes:
      item: index of the pair, or of the answer.
      order: "ab" (A is shown first), "ba", or "a" of the question about tone.
      messages: as the API takes them.
    """

    item: int
    order: str
    messages: list[dict]


class Comparison:
    """The pairs, or single answers, that a judge is asked about, and the questions.

    Attributes:
      items: {"id", "prompt", "output_a"} and, of pairs, "output_b".
      name, opponent: of A's and B's model; opponent is None for the question about tone.
      unmatched: how many answers have no counterpart, by reason.
      settings: what a result records of how it was made, see `config.KEYS_OF_RESULTS`.
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
        self.keys = KEYS_OF_RESULTS[config.task]
        values = config.to_dict()
        changing = {name.partition(".")[0] for name in self.keys.only(values)}
        self.settings = {key: value for key, value in values.items() if key in changing}
        self.settings |= {"judge": config.model, "opponent": self.opponent, "data_digest": digest(self.items)}
        self.settings["wording"] = digest([question.messages for question in _questions(config, [EMPTY])])


def judge(config: ConfigDict, answers_a: str, answers_b: str = "", workdir: str = "") -> Result:
    """Asks what was not asked before, and gives the result; with `workdir` it is filed there, under A's name.

    Raises:
      ValueError, OSError: one line; what was answered is kept.
    """
    clients.check(config)
    comparison = Comparison(config, answers_a, answers_b)
    path = _path(workdir, comparison.name, config.task)
    kept = read_result(path) if path else None
    if kept and kept["role"] == config.role and is_current(kept, comparison.keys, comparison.settings):
        # What was refused may be had now: in the cache stands what would be refused again.
        if not any(REFUSED in why for why in kept["counts"]["no_vote"]):
            logging.info("%s: there already, with the same settings", path)
            return result_files.with_votes(kept)
    begin = time.monotonic()
    with contextlib.closing(Cache(config.cache)) as cache:
        replies = [_cached(cache, config, question) for question in comparison.questions]
        if None in replies:
            _ask(config, comparison.questions, replies, cache)
    samples = _samples(config, comparison, replies)
    summary = _tone(samples) if config.task == "tone" else win_rates.summarise(samples)
    summary["counts"] |= {key: count for key, count in comparison.unmatched.items() if count}
    result = {"task": config.task, "model": comparison.name, "role": config.role, "n": summary["counts"]["votes"]}
    result |= {**summary, "settings": comparison.settings}
    result["fingerprint"] = comparison.keys.fingerprint(comparison.settings)
    result["tokens"] = sum(billed.total for reply in replies if (billed := chat_client.usage_of(reply)))
    result["seconds"] = round(time.monotonic() - begin, 3)
    return result_files.with_votes(result_files.write(path, result, samples))


def plan(config: ConfigDict, answers_a: str, answers_b: str = "") -> str:
    """What `judge` would ask, and what that costs, for people; asks and writes nothing."""
    clients.check(config)
    comparison = Comparison(config, answers_a, answers_b)
    is_started = Path(config.cache).expanduser().exists()
    with contextlib.closing(Cache(config.cache if is_started else ":memory:")) as cache:
        left = [question for question in comparison.questions if _cached(cache, config, question) is None]
    counts = f"{len(comparison.items):,} items, {len(comparison.questions):,} questions, {len(left):,} to ask"
    example = "\n".join(message["content"] for message in left[0].messages) if left else ""
    costs = forecast(config, _ledger(config), [question.messages for question in left])
    return "\n".join([f"{counts}, such as this one:", "", example, "", *costs])


def from_verdicts(path: str, answers_a: str = "", answers_b: str = "", workdir: str = "") -> Result:
    """The same numbers from verdicts that are there already, see `annotations`.

    Raises:
      ValueError, OSError: one line with the place.
    """
    samples, name, opponent = annotations.read(path, answers_a, answers_b)
    # Beside a judge's samples stands how they were made.
    end = ".samples.jsonl"
    made = read_result(epath.Path(path.removesuffix(end) + ".json")) if path.endswith(end) else None
    settings = made["settings"] if made else {"task": "judge"}
    settings |= {"verdicts": path, "opponent": opponent, "data_digest": digest(samples)}
    summary = win_rates.summarise(samples)
    result = {"task": "judge", "model": name, "role": made["role"] if made else "", "n": summary["counts"]["votes"]}
    result |= {**summary, "settings": settings, "fingerprint": digest(settings), "tokens": 0, "seconds": 0.0}
    return result_files.write(_path(workdir, name, "judge"), result_files.with_votes(result), samples)


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


def _questions(config: ConfigDict, items: list[dict]) -> Iterator[Question]:
    if config.task == "tone":
        for index, item in enumerate(items):
            yield Question(index, "a", judge_prompts.tone(item["prompt"], item["output_a"]))
        return
    text = judge_prompts.wording(config.prompt)
    for index, item in enumerate(items):
        # Drawn by the pair itself, so that it does not depend on the others.
        drawn = "ab" if int(digest([config.seed, item]), 16) % 2 else "ba"
        for order in ("ab", "ba") if config.orders == "both" else (drawn,):
            outputs = [item[f"output_{side}"] for side in order]
            yield Question(index, order, judge_prompts.comparison(text, config.verdict, item["prompt"], *outputs))


def _cache_key(config: ConfigDict, messages: list[dict]) -> dict:
    whom = {"url": config.url, "model": config.model, "parameters": config.parameters.to_dict()}
    return {"api": "chat", **whom, "messages": messages}


def _cached(cache: Cache, config: ConfigDict, question: Question) -> dict | None:
    reply = cache.get(_cache_key(config, question.messages))
    return None if reply and REFUSED in reply and config.retry_refused else reply


def _ledger(config: ConfigDict) -> Path:
    """What was spent on this model, by all that share the cache."""
    return Path(config.cache).expanduser().resolve().with_suffix(f".{safe_name(config.model)}.spend.sqlite")


def _ask(config: ConfigDict, questions: list[Question], replies: list[dict | None], cache: Cache) -> None:
    """Fills the gaps in `replies`.

    Raises:
      ValueError: some got no answer; what was answered is kept.
    """
    missing = [Request(questions[i].messages, about=i) for i, reply in enumerate(replies) if reply is None]

    # All comparisons with this cache are on one ledger.
    with request_pool.open_pool(config, _ledger(config), hold=True) as pool:

        def done(request: Request, end: Reply | ApiError) -> None:
            if isinstance(end, Reply):
                # One character more than is looked at: enough to know that it was too long.
                text = end.text[: verdicts.MOST_CHARACTERS + 1]
                reply = {"text": text, "characters": len(end.text), "model": end.model}
                replies[request.about] = reply | {"finish_reason": end.finish_reason, "usage": end.usage}
            elif request_pool.is_refusal(end):
                replies[request.about] = {REFUSED: str(end)[:SHOWN]}
            # Of what was refused for other reasons another start may fare better.
            if isinstance(end, Reply) or getattr(end, "status", None) in request_pool.REFUSALS:
                cache.put(_cache_key(config, request.messages), replies[request.about])

        about = {"desc": "judging", "unit": "question", "total": len(replies)}
        pool.ask_all(missing, done, **about, is_final=request_pool.is_refusal)


# ----------------------------------------------------------------------------------------------------------------------
# What was said
# ----------------------------------------------------------------------------------------------------------------------


def _samples(config: ConfigDict, comparison: Comparison, replies: list[dict]) -> list[Sample]:
    form = "tone" if config.task == "tone" else config.verdict
    by_order: list[dict[str, dict]] = [{} for _ in comparison.items]
    for question, reply in zip(comparison.questions, replies, strict=True):
        verdict = Verdict(None, REFUSED)
        if "text" in reply:
            verdict = verdicts.read(form, reply["text"], reply["finish_reason"])
        shown = reply.get("text", reply.get(REFUSED))[:SHOWN]
        more = {"reply": shown, "characters": reply.get("characters", len(shown))}
        by_order[question.item][question.order] = verdict._asdict() | more
    samples = []
    for item, said in zip(comparison.items, by_order, strict=True):
        if config.task == "tone":
            preference, why = said["a"]["first"], said["a"]["why"]
        else:
            preference, why = vote(said, config.contradiction)
        sample = {**item, "verdicts": said, "preference": preference, "why": why}
        samples.append(win_rates.complete(sample, comparison.name, comparison.opponent))
    return samples


def vote(said: dict[str, dict], contradiction: str = "none") -> tuple[float | None, str | None]:
    """(A's preference, None), or (None, why there is no vote).

    Args:
      said: by order ("ab", "ba") the verdict on that order: "first" and "why".
      contradiction: what two opposite verdicts are, "none" for no vote or "tie".
    """
    first = {order: verdict["first"] for order, verdict in said.items()}
    if None in first.values():
        reasons = " and ".join(sorted({said[order]["why"] for order in first if first[order] is None}))
        return None, reasons if set(first.values()) == {None} else f"{ONE_ORDER}, the other: {reasons}"
    of_a = [first[order] if order == "ab" else 1 - first[order] for order in first]
    if sorted(of_a) == [0, 1] and contradiction == "none":
        return None, CONTRADICTION
    return sum(of_a) / len(of_a), None


def _tone(samples: list[Sample]) -> dict[str, Any]:
    votes = [sample["preference"] for sample in samples if sample["preference"] is not None]
    why = collections.Counter(sample["why"] for sample in samples if sample["preference"] is None)
    counts = {"answers": len(samples), "votes": len(votes), "no_vote": dict(sorted(why.items()))}
    return {"metrics": {"authoritative": statistics.share(votes)}, "counts": counts}


def _path(workdir: str, name: str, task: str) -> epath.Path | None:
    return samples_path(workdir, safe_name(name), task, task).with_name(f"{task}.json") if workdir else None
