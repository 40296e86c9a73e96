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

from imitation_jax.clients import config as clients
from imitation_jax.clients import request_pool
from imitation_jax.clients.chat_client import Reply, Request
from imitation_jax.clients.forecast import forecast
from imitation_jax.clients.http import ApiError, RefusedError
from imitation_jax.core import append_only, json_rows
from imitation_jax.core.append_only import Lines, beside
from imitation_jax.core.files import existing, write_text
from imitation_jax.core.json_rows import Rejected
from imitation_jax.data import dialogues, prompt_files
from imitation_jax.teacher import sidecar

Key = tuple[str, str]  # what an answer is known by: the prompt's own id, and the digest of its messages


class State(NamedTuple):
    """Where a collection stands.

    Attributes:
      prompts: how many there are.
      rejected: rows of the file that are none.
      answered, refused: of the prompts.
      completion_tokens: of each answer that tells them.
      pending: still to be asked; `about` has the id, and the original_id where that is another one.
    """

    prompts: int
    rejected: list[Rejected]
    answered: int
    refused: int
    completion_tokens: list[int]
    pending: list[Request]


def collect(config: ConfigDict, path: str, output: str, retry_refused: bool = False) -> None:
    """Asks for every prompt in `path` that `output` has no answer to, and adds the answers there.

    Beside OUTPUT.jsonl there may come: .failed.jsonl, prompts that were refused or got no answer, with the reason;
    .rejected.jsonl, rows that are no prompts; .spend.sqlite, every try and what it cost.

    Args:
      retry_refused: asks the refused ones again too.

    Raises:
      ValueError, OSError: one line; what was answered is kept.
    """
    clients.check(config)
    with contextlib.closing(Lines(output)) as answers:
        state = _compare(config, path, output, retry_refused)
        _write(beside(output, ".rejected.jsonl"), [row.line() for row in state.rejected])
        if state.rejected:
            logging.warning("%s: %d rows are no prompts and set aside", path, len(state.rejected))
        counts = collections.Counter(answered=state.answered, refused=state.refused)
        try:
            if state.pending:
                _ask(config, state, answers, output, counts)
        finally:
            text = "%s: %d of %d prompts answered, %d refused"
            logging.info(text, output, counts["answered"], state.prompts, counts["refused"])


def plan(config: ConfigDict, path: str, output: str, retry_refused: bool = False) -> str:
    """What `collect` would ask, and what that costs, for people; asks and writes nothing."""
    clients.check(config)
    state = _compare(config, path, output, retry_refused)
    text = [
        f"{path}: {state.prompts:,} prompts, {len(state.rejected):,} rows set aside; {state.answered:,} answered, "
        f"{state.refused:,} refused, {len(state.pending):,} to ask"
    ]
    asked = [request.messages for request in state.pending]
    return "\n".join(text + forecast(config, sidecar.ledger(output), asked, state.completion_tokens))


def _compare(config: ConfigDict, path: str, output: str, retry_refused: bool) -> State:
    """Compares the prompts with what was answered and refused."""
    prompts, rejected = _read_prompts(path)
    closed: dict[str, collections.Counter[Key]] = {"answered": collections.Counter(), "refused": collections.Counter()}
    ids, lengths, last = set(), [], {}
    for _, row in append_only.read(output):
        if row.get("parameters") != last:
            sidecar.same_parameters(output, row, config)
            last = row["parameters"]
        closed["answered"][_key(row, row["messages"][:-1])] += 1
        ids.add(row["id"])
        length = (row.get("usage") or {}).get("completion_tokens")
        lengths += [length] if isinstance(length, int) else []
    for _, row in append_only.read(beside(output, ".failed.jsonl")):
        if row["refused"] and not retry_refused:
            closed["refused"][_key(row, row["messages"])] += 1
    pending, counts, old_ids = [], collections.Counter(), frozenset(ids)
    for prompt in prompts:
        key = _key(prompt, prompt["messages"])
        state = next((name for name, keys in closed.items() if keys[key]), None)
        if state:
            closed[state][key] -= 1
            counts[state] += 1
            continue
        counts["changed"] += key[0] in old_ids
        about = dialogues.with_own_id({"id": key[0]}, ids)
        pending.append(Request(prompt["messages"], _seed(config, key), about))
    if counts["changed"]:
        text = "%s: %d ids of %s stand there with another text or less often; these are asked as ID#2, ID#3, ..."
        logging.info(text, output, counts["changed"], path)
    return State(len(prompts), rejected, counts["answered"], counts["refused"], lengths, pending)


def _read_prompts(path: str) -> tuple[list[dict], list[Rejected]]:
    """The prompts of the file, and its rows that are none."""
    prompts, rejected = [], []
    for where, row in prompt_files.read_prompts(existing(path)):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        # A row without an id is known by its text: by its place it would be another one in another order.
        placed = row["id"] == dialogues.id_of(where, None)
        prompts.append(row | {"id": _digest(row["messages"])[:16]} if placed else row)
    if not prompts:
        raise ValueError(f"{path}: holds no prompts" + (f": {rejected[0].reason}" if rejected else ""))
    return prompts, rejected


def _ask(config: ConfigDict, state: State, answers: Lines, output: str, counts: collections.Counter[str]) -> None:
    """Asks what is pending and counts the answers and refusals.

    Raises:
      ValueError: some got no answer.
    """
    with (
        request_pool.open_pool(config, sidecar.ledger(output)) as pool,
        contextlib.closing(_open_failed(output, state.pending)) as failed,
    ):

        def done(request: Request, end: Reply | ApiError) -> None:
            if isinstance(end, Reply):
                answers.append(sidecar.answer_row(request, end, config))
                counts["answered"] += 1
                return
            refused = isinstance(end, RefusedError)
            about = {"refused": refused, "reason": str(end), "time": sidecar.now()}
            failed.append(request.about | {"messages": request.messages} | about)
            counts["refused"] += refused

        about = {"desc": "asking", "unit": "prompt", "total": state.prompts, "flush": answers.sync}
        pool.ask_all(state.pending, done, **about, is_final=lambda error: isinstance(error, RefusedError))


def _open_failed(output: str, pending: list[Request]) -> Lines:
    """The file of what failed, without what is asked again now: that has not failed yet."""
    path = beside(output, ".failed.jsonl")
    again = {_key(request.about, request.messages) for request in pending}
    _write(path, [json_rows.line(row) for _, row in append_only.read(path) if _key(row, row["messages"]) not in again])
    return Lines(path)


def _seed(config: ConfigDict, key: Key) -> dict:
    """A seed that does not depend on the order of prompts."""
    if not config.send_seed:
        return {}
    digest = hashlib.sha256(json.dumps([config.seed, *key]).encode()).digest()
    return {"seed": int.from_bytes(digest[:4]) >> 1}


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
