"""A teacher's answers to a file of prompts: each prompt asked until it is answered, and never again."""

import collections
import contextlib
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from imitation_jax.clients import chat_client, request_pool
from imitation_jax.clients.chat_client import Reply
from imitation_jax.clients.http import ApiError, RefusedError
from imitation_jax.clients.limits import Budget
from imitation_jax.clients.request_pool import Asking, Prompt
from imitation_jax.core import append_only, json_rows
from imitation_jax.core.append_only import Lines, beside
from imitation_jax.core.files import write_text
from imitation_jax.core.json_rows import Rejected
from imitation_jax.core.progress import ticks
from imitation_jax.data import dialogues, prompt_files
from imitation_jax.teacher import sidecar

ROUNDS = 3  # a prompt that all tries of a request failed for gets so many requests in one start

Key = tuple[str, str]


class State(NamedTuple):
    """Where a collection stands.

    Attributes:
      prompts: how many there are.
      rejected: rows of the file that are none.
      answered, refused: of the prompts.
      completion_tokens: of each answer that tells them.
      pending: still to be asked.
    """

    prompts: int
    rejected: list[Rejected]
    answered: int
    refused: int
    completion_tokens: list[int]
    pending: list[Prompt]


def collect(config: ConfigDict, path: str, output: str, retry_refused: bool = False) -> None:
    """Asks for every prompt in `path` that `output` has no answer to, and adds the answers there.

    Beside OUTPUT.jsonl there may come: .failed.jsonl, prompts that were refused or got no answer, with the reason;
    .rejected.jsonl, rows that are no prompts; .spend.sqlite, every try and what it cost.

    Args:
      retry_refused: asks the refused ones again too.

    Raises:
      ValueError, OSError: one line; what was answered is kept.
    """
    request_pool.check(config)
    with contextlib.ExitStack() as stack:
        answers = stack.enter_context(contextlib.closing(Lines(output, sync=True)))
        state = _look(config, path, output, retry_refused)
        if state.pending and config.key:
            chat_client.read_key(config.key)
        budget = stack.enter_context(contextlib.closing(request_pool.open_budget(config, sidecar.ledger(output))))
        _write(beside(output, ".rejected.jsonl"), [row.line() for row in state.rejected])
        if state.rejected:
            logging.warning("%s: %d rows are no prompts and set aside", path, len(state.rejected))
        refused, unanswered = _ask(config, state, answers, budget, beside(output, ".failed.jsonl"))
        done = state.prompts - refused - len(unanswered)
        logging.info("%s: %d of %d prompts answered, %d refused", output, done, state.prompts, refused)
        logging.info("spent, with all starts before: %s", request_pool.spend(budget))
    if unanswered:
        more = f"{len(unanswered)} of {state.prompts} prompts got no answer, the last because of: {unanswered[-1]}"
        raise ValueError(f"{more}; the same command asks them again")


def plan(config: ConfigDict, path: str, output: str, retry_refused: bool = False) -> str:
    """What `collect` would ask, and what that costs, for people; asks and writes nothing."""
    request_pool.check(config)
    state = _look(config, path, output, retry_refused)
    text = [
        f"{path}: {state.prompts:,} prompts, {len(state.rejected):,} rows set aside; {state.answered:,} answered, "
        f"{state.refused:,} refused, {len(state.pending):,} to ask"
    ]
    asked = [prompt["messages"] for prompt in state.pending]
    return "\n".join(text + request_pool.forecast(config, sidecar.ledger(output), asked, state.completion_tokens))


def _look(config: ConfigDict, path: str, output: str, retry_refused: bool) -> State:
    """Compares the prompts with what was answered."""
    found, rejected = [], []
    for where, row in prompt_files.read_prompts(append_only.existing(path)):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        # A row without an id is known by its text: by its place it would be another one in another order.
        placed = row["id"] == dialogues.id_of(where, None)
        found.append(row | {"id": _digest(row["messages"])[:16]} if placed else row)
    if not found:
        raise ValueError(f"{path}: holds no prompts" + (f": {rejected[0].reason}" if rejected else ""))
    answered: collections.Counter[Key] = collections.Counter()
    ids, lengths, last = set(), [], {}
    for _, row in append_only.read(output):
        if row.get("parameters") != last:
            sidecar.same_parameters(output, row, config)
            last = row["parameters"]
        answered[_key(row, row["messages"][:-1])] += 1
        ids.add(row["id"])
        length = (row.get("usage") or {}).get("completion_tokens")
        lengths += [length] if isinstance(length, int) else []
    refused: collections.Counter[Key] = collections.Counter()
    for _, row in append_only.read(beside(output, ".failed.jsonl")):
        if row["refused"] and not retry_refused:
            refused[_key(row, row["messages"])] += 1
    pending, counts, there = [], collections.Counter(), frozenset(ids)
    for prompt in found:
        key = _key(prompt, prompt["messages"])
        for name, done in (("answered", answered), ("refused", refused)):
            if done[key]:
                done[key] -= 1
                counts[name] += 1
                break
        else:
            counts["changed"] += key[0] in there
            own = dialogues.with_own_id({"id": key[0], "messages": prompt["messages"]}, ids)
            pending.append(own | _seed(config, key))
    if counts["changed"]:
        text = "%s: %d ids of %s stand there with another text or less often; these are asked as ID#2, ID#3, ..."
        logging.info(text, output, counts["changed"], path)
    return State(len(found), rejected, counts["answered"], counts["refused"], lengths, pending)


def _ask(config: ConfigDict, state: State, answers: Lines, budget: Budget, path: Path) -> tuple[int, list[str]]:
    """Asks what is pending; how many are refused, and why others got no answer. The file at `path` tells of both."""
    # What is asked again has not failed yet.
    again = collections.Counter(_key(prompt, prompt["messages"]) for prompt in state.pending)
    _write(path, [json_rows.line(row) for _, row in append_only.read(path) if not again[_key(row, row["messages"])]])
    refused, unanswered = state.refused, []
    if not state.pending:
        return refused, unanswered
    asker = Asking(request_pool.open_chat(config, budget), config)
    waiting = collections.deque(state.pending)
    rounds: collections.Counter[str] = collections.Counter()
    failed = Lines(path)
    initial = state.answered + state.refused
    with ticks(total=state.prompts, initial=initial, desc="asking", unit="prompt") as tick:

        def done(prompt: Prompt, end: Reply | ApiError) -> None:
            nonlocal refused
            if isinstance(end, Reply):
                answers.append(sidecar.answer_row(prompt, end, config))
            else:
                no = isinstance(end, RefusedError)
                rounds[prompt["id"]] += 1
                if not no and rounds[prompt["id"]] < ROUNDS:
                    waiting.append(prompt)
                    return
                about = {"refused": no, "reason": str(end), "time": sidecar.now()}
                failed.append({key: value for key, value in prompt.items() if key != "more"} | about)
                refused += no
                unanswered.extend([] if no else [str(end)])
            tick(request_pool.spend(budget))

        try:
            asker.run(lambda: waiting.popleft() if waiting else None, done)
        finally:
            failed.close()
    return refused, unanswered


def _seed(config: ConfigDict, key: Key) -> dict:
    """A seed that does not depend on the order of prompts."""
    if not config.send_seed:
        return {}
    digest = hashlib.sha256(json.dumps([config.seed, *key]).encode()).digest()
    return {"more": {"seed": int.from_bytes(digest[:4]) >> 1}}


def _key(row: dict, messages: list[dict]) -> Key:
    return str(row.get("original_id", row["id"])), _digest(messages)


def _digest(messages: list[dict]) -> str:
    said = [[message["role"], message["content"]] for message in messages]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _write(path: Path, text: list[str]) -> None:
    """Puts the file in place as a whole; none where it would be empty."""
    if not text:
        path.unlink(missing_ok=True)
        return
    write_text(epath.Path(path), "".join(text))
