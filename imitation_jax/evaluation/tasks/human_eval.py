"""HumanEval (Chen et al. 2021, arXiv 2107.03374): functions from their docstrings, judged by running unit tests.

Reads the official HumanEval.jsonl.gz: `task_id`, `prompt`, `entry_point`, `canonical_solution` and `test`. Plain, the
model continues the prompt and a program is prompt, completion and test. In chat the instruction is the one of
simple-evals, and the code is taken from the answer's markdown fence; where that defines the function itself it replaces
the prompt's, and the imports and helpers before it stay. Programs run in `sandbox`, and only if the config says so.
"""

import dataclasses
import os
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from imitation_jax.core.comma_list import comma_list
from imitation_jax.core.fingerprint import DATA, PLACE, Key, Keys
from imitation_jax.evaluation import statistics
from imitation_jax.evaluation.by_item import by_item
from imitation_jax.evaluation.config import CHAT, OF_MODEL
from imitation_jax.evaluation.generations import SAMPLING, check_sampling, room, sampling_request
from imitation_jax.evaluation.prompts import encode_prompt, with_shots_that_fit
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.shots import read_questions
from imitation_jax.evaluation.task import AnyEngine, Needs, Row
from imitation_jax.inference.requests import GenerateRequest, Generation
from imitation_jax.sandbox import sandbox

# Section 3.2 of the paper.
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
INSTRUCTION = (
    "Read the following function signature and docstring, and fully implement the function described. "
    "Your response should only contain the code for this function.\n"
)
FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
DEFINITIONS = {
    "plain": "the prompt as it is",
    "stops": STOPS,
    "chat": INSTRUCTION + "{prompt}",
    "program": "prompt and completion, then test and check(entry_point), in one namespace; standard library and numpy",
    "wall_seconds": "three times config.timeout, which is of processor time",
    "limits": {
        key: value for key, value in dataclasses.asdict(sandbox.Limits()).items() if not key.endswith("seconds")
    },
}
NAMES, NEEDS = ("human_eval",), Needs.MODEL
PAIRED = ("passed",)  # whether the completion passed, or the share that did
KEYS = (
    OF_MODEL
    | CHAT
    | SAMPLING
    | Keys(
        data=Key("", "HumanEval.jsonl.gz", DATA),
        execute_code=Key(False, "allow running what the model writes, in a sandbox", PLACE),
        samples=Key(1, "completions a problem"),
        k=Key("1,10,100", "those up to samples are told"),
        max_new_tokens=Key(512, "of a completion"),
        timeout=Key(3, "whole seconds of processor time a program"),
    )
)
ROWS = (Row("knowledge", "human_eval", "pass@1", "HumanEval, pass@1, %", order=40),)
FULL_SIZE = {"human_eval": 164}


def parse(where: str, row: dict) -> dict:
    """One problem.

    Raises:
      ValueError: naming the place and the key.
    """
    for key in FIELDS:
        if not isinstance(row.get(key), str):
            raise ValueError(f"{where}: needs a text under {key!r}, as HumanEval.jsonl.gz has it")
    if not row["entry_point"].isidentifier():
        raise ValueError(f"{where}: 'entry_point' is the name of a function, not {row['entry_point']!r}")
    return {"id": row["task_id"], **{key: row[key] for key in FIELDS[1:]}}


def ks(config: ConfigDict) -> list[int]:
    """The k of every pass@k that `config.samples` completions can tell.

    Raises:
      ValueError: no whole numbers of 1 or more, or all above `config.samples`.
    """
    try:
        given = [int(text) for text in comma_list(config.k)]
    except ValueError:
        given = []
    if not given or min(given) < 1:
        raise ValueError(f"config.k={config.k!r}: expected whole numbers of 1 or more, such as 1,10,100")
    if min(given) > config.samples:
        raise ValueError(f"config.k={config.k!r}: pass@{min(given)} needs config.samples={min(given)} or more")
    return sorted({k for k in given if k <= config.samples})


def limits(config: ConfigDict) -> sandbox.Limits:
    """Of each program."""
    return sandbox.Limits(cpu_seconds=config.timeout, wall_seconds=3.0 * config.timeout)


def read(config: ConfigDict) -> list[dict]:
    """The problems of `config.data`.

    Raises:
      FileNotFoundError, ValueError: one line with the place or the key; `config.execute_code` is off.
      OSError: no sandbox can be had here.
    """
    check_sampling(config)
    if config.samples < 1 or config.timeout < 1:
        raise ValueError("config.samples and config.timeout must be 1 or more")
    if config.samples > 1 and config.temperature == 0:
        raise ValueError(f"config.samples={config.samples}: greedy completions are all alike, set config.temperature")
    ks(config)
    if not config.execute_code:
        raise ValueError(
            "config.execute_code is off: HumanEval runs the code that the model writes, and has no result without; "
            "--config.execute_code=True runs it in a sandbox"
        )
    items = read_questions(config.data, parse)
    sandbox.find_sandbox(limits(config))  # before a model is loaded
    return items[: config.limit or None]


def text(item: dict) -> str:
    """The problem's signature and docstring, as contamination looks for them."""
    return item["prompt"]


def extract(answer: str, entry_point: str) -> str:
    """The code of a chat answer: the first fenced block that defines the function, else what stands before the first
    fence if that does (a fence that was only closed), else the first block, else all of it.

    A last block may be open, as where the answer was cut.
    """
    blocks = FENCE.findall(answer)
    places = [*blocks, answer.partition("```")[0]]
    return next((code for code in places if defines(code, entry_point)), blocks[0] if blocks else answer)


def defines(code: str, entry_point: str) -> bool:
    """Whether the code defines that function at its top level."""
    return bool(re.search(rf"^(?:async )?def {entry_point}\b", code, re.MULTILINE))


def program(item: dict, completion: str, chat: bool) -> list[str]:
    """The sources that are run one after another: the solution, then its tests.

    Apart, no completion can swallow the tests into a text or a block of its own.
    """
    tests = f"{item['test']}\ncheck({item['entry_point']})\n"
    if chat:
        code = extract(completion, item["entry_point"])
        if defines(code, item["entry_point"]):
            before = re.split(rf"^def {item['entry_point']}\b", item["prompt"], maxsplit=1, flags=re.MULTILINE)[0]
            return [before, code, tests]
        completion = code
    return [item["prompt"] + completion, tests]


def ask(engine: AnyEngine, items: list[dict], config: ConfigDict, on_sample: Callable[[Sample], None]) -> None:
    """Completes every problem `config.samples` times; programs run beside the generation, one a processor."""
    place = sandbox.find_sandbox(limits(config))
    logging.info("code runs in %s", {"bwrap": "bubblewrap"}.get(place.kind, place.kind))
    limit = room(engine, config)
    drafts, requests = [], []
    for item in items:
        prompt = INSTRUCTION + item["prompt"] if config.chat else item["prompt"]
        ids = encode_prompt(engine, prompt, config.chat)
        [(ids, _)], shots = with_shots_that_fit([], lambda _, ids=ids: [(ids, [])], limit)
        drafts.append({"id": item["id"], "prompt": prompt, "gold": item["canonical_solution"], "cut": shots < 0})
        stop = () if config.chat else STOPS
        requests += [sampling_request(ids, config, item["id"], number, stop=stop) for number in range(config.samples)]
    running: dict[int, tuple[list[Generation], list[Future]]] = {}

    def hand_on(index: int) -> None:
        completions, futures = running.pop(index)
        verdicts = [future.result() for future in futures]
        on_sample({**drafts[index], **judged(requests[index * config.samples], completions, verdicts)})

    def on_item(index: int, completions: list[Generation]) -> None:
        programs = [program(items[index], completion.text, config.chat) for completion in completions]
        running[index] = completions, [pool.submit(place.run, sources) for sources in programs]
        for ended in [k for k, (_, futures) in running.items() if all(future.done() for future in futures)]:
            hand_on(ended)

    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        engine.generate(requests, on_result=by_item([config.samples] * len(items), on_item))
        for index in list(running):
            hand_on(index)
    finally:
        pool.shutdown(cancel_futures=True)


def judged(request: GenerateRequest, generations: list[Generation], verdicts: list[str]) -> Sample:
    """What a problem's sample holds of its completions; "prediction" and "correct" are of the first one."""
    passed = [verdict == sandbox.PASSED for verdict in verdicts]
    return {
        "prediction": generations[0].text,
        "correct": passed[0],
        "passed": passed[0] if len(passed) == 1 else sum(passed) / len(passed),
        "completions": [generation.text for generation in generations],
        "verdicts": verdicts,
        "finish_reasons": [generation.finish_reason for generation in generations],
        "tokens": sum(len(request.prompt) + len(generation.ids) for generation in generations),
    }


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate that one of k completions passes, from n of which c passed (equation 1 of the paper)."""
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - c + 1, n + 1))) if n - c >= k else 1.0


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """pass@k over the problems, and how the programs ended."""
    verdicts = [verdict for sample in samples for verdict in sample["verdicts"]]
    reasons = [reason for sample in samples for reason in sample["finish_reasons"]]
    if config.samples == 1:
        metrics = {"pass@1": statistics.proportion([sample["correct"] for sample in samples])}
    else:
        passed = [sample["verdicts"].count(sandbox.PASSED) for sample in samples]
        metrics = {
            f"pass@{k}": statistics.mean([pass_at_k(config.samples, count, k) for count in passed]) for k in ks(config)
        }
    return {
        "metrics": metrics,
        "counts": {
            "programs_passed": verdicts.count(sandbox.PASSED),
            "programs_timed_out": verdicts.count(sandbox.TIMED_OUT),
            "programs_failed": len(verdicts) - verdicts.count(sandbox.PASSED) - verdicts.count(sandbox.TIMED_OUT),
            "completions_empty": sum(not text.strip() for sample in samples for text in sample["completions"]),
            "completions_cut_at_max_new_tokens": reasons.count("length"),
            "prompts_cut": sum(sample["cut"] for sample in samples),
        },
    }
