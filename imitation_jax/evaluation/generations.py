"""Greedy answers after worked examples: which examples an item gets, what is asked, what its sample holds.

An item's prompt is its `header`, its `shots` (texts) and its `body`, one after the other; with `config.chat` all of
that is what the user says, and the assistant's turn is opened. Natural Questions, TriviaQA, GSM8K and TL;DR ask here.
"""

import functools
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import DATA, Key, Keys
from imitation_jax.evaluation import shots
from imitation_jax.evaluation.config import CHAT, OF_MODEL
from imitation_jax.evaluation.prompts import encode_prompt, with_shots_that_fit
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.task import AnyEngine
from imitation_jax.inference.requests import GenerateRequest, Generation

SHOTS_FROM = ("seed", "first", "lm_eval")
KEYS = (
    OF_MODEL
    | CHAT
    | Keys(
        data=Key("", "file of the questions", DATA),
        shots_data=Key("", "file of the worked examples", DATA),
        shots=Key(0, "worked examples before each question"),
        shots_from=Key("seed", "seed: one draw for all; first: the file's first rows; lm_eval: a draw a question"),
        seed=Key(0, "which examples are drawn"),
        max_new_tokens=Key(32, "of an answer"),
    )
)
SAMPLING = Keys(
    max_new_tokens=Key(256, "of an answer"),
    temperature=Key(0.0, "0 is greedy"),
    top_p=Key(1.0, "mass of the nucleus that is drawn from"),
    seed=Key(0, "of the draws"),
)


class Prompt(NamedTuple):
    """Format strings over a question's fields: what comes first, the question, and a worked example's answer."""

    header: str
    question: str
    answer: str


def one_of(config: ConfigDict, key: str, choices: Sequence[str]) -> str:
    """config[key].

    Raises:
      ValueError: it is none of `choices`.
    """
    if config[key] not in choices:
        raise ValueError(f"config.{key}={config[key]!r}: expected {' or '.join(choices)}")
    return config[key]


def field(where: str, row: dict, key: str) -> str:
    """The text under `key`, as it is.

    Raises:
      ValueError: there is none, or only white space.
    """
    if not isinstance(row.get(key), str) or not row[key].strip():
        raise ValueError(f"{where}: needs a text under {key!r}")
    return row[key]


def read(config: ConfigDict, parse: Callable[[str, dict], dict], prompt: Prompt, spare: int) -> list[dict]:
    """The questions of `config.data`, each with its shots out of `config.shots_data`.

    Args:
      config: `shots_from` is "seed" (one draw for all questions by `seed`), "first" (the file's first rows, so that a
        file can name the shots exactly) or "lm_eval" (a new draw for each question, as lm-eval's sampler makes it from
        `seed`). The first two leave out what the test asks; lm-eval leaves out the question itself alone.
      parse: from ("FILE:LINE", row) to the fields of the prompt's format strings, with "question" and "gold".
      spare: how many shots more than it needs lm-eval draws for the task: 1 where it cannot know that its examples
        come from another split than the questions.

    Returns:
      Items with "id", "question", "gold", "header", "shots", "body" and "overlap", the number of exemplars left out.

    Raises:
      FileNotFoundError, ValueError: one line with the place; too few exemplars left.
    """
    if config.shots < 0 or config.max_new_tokens < 1:
        raise ValueError("config.shots must be 0 or more, config.max_new_tokens 1 or more")
    one_of(config, "shots_from", SHOTS_FROM)
    questions = shots.read_questions(config.data, parse)
    pool = shots.read_questions(config.shots_data, parse) if config.shots else []
    asked = {shots.words(row["question"]) for row in questions}
    anew = config.shots_from == "lm_eval" and config.shots > 0
    usable = pool if anew else [row for row in pool if shots.words(row["question"]) not in asked]
    random, where = Random(config.seed), f"config.shots_data={config.shots_data!r}"

    def drawn(row: dict) -> list[dict]:
        return shots.draw(random, usable, config.shots, spare, functools.partial(_is, row), where)

    same = [] if anew else shots.draw(random, usable, config.shots, 0, lambda _: False, where)
    if config.shots_from == "first":
        same = usable[: config.shots]
    return [
        {
            "id": row["id"],
            "question": row["question"],
            "gold": row["gold"],
            "header": prompt.header,
            "shots": [(prompt.question + prompt.answer).format_map(shot) for shot in (drawn(row) if anew else same)],
            "body": prompt.question.format_map(row),
            "overlap": len(pool) - len(usable),
        }
        for row in questions[: config.limit or None]
    ]


def _is(row: dict, other: dict) -> bool:
    return all(row[key] == other[key] for key in row if key != "id")


def check_sampling(config: ConfigDict) -> None:
    """Checks the keys of tasks that sample.

    Raises:
      ValueError: one is out of range.
    """
    if config.max_new_tokens < 1 or config.temperature < 0 or not 0 < config.top_p <= 1:
        raise ValueError(
            "config.max_new_tokens must be 1 or more, config.temperature 0 or more, config.top_p in (0, 1]"
        )


def seed(config: ConfigDict, *names: object) -> int:
    """Of one answer's draws: its own for every item, the same whatever else is asked."""
    return zlib.crc32("/".join(map(str, (config.seed, *names))).encode()) & 0x7FFFFFFF


def sampling_request(
    ids: Sequence[int], config: ConfigDict, *names: object, stop: Sequence[str] = ()
) -> GenerateRequest:
    """By the keys of `SAMPLING`, with draws of its own (see `seed`)."""
    sampling = {"temperature": config.temperature, "top_p": config.top_p, "seed": seed(config, *names)}
    return GenerateRequest(ids, config.max_new_tokens, stop=stop, **sampling)


def text(item: dict) -> str:
    """The question alone, as contamination looks for it."""
    return item["question"]


def answer(
    engine: AnyEngine,
    items: Sequence[dict],
    config: ConfigDict,
    on_sample: Callable[[Sample], None],
    *,
    stop: Sequence[str],
    judge: Callable[[dict, str], Sample],
) -> None:
    """Greedy answers, cut at the first stop; shots are dropped from the end until prompt and answer fit the model.

    Args:
      stop: strings that end an answer, beside the end of the model's turn.
      judge: from the item and what was written to the sample's "prediction", "correct" and what else it holds.

    Raises:
      ValueError: `config.max_new_tokens` leaves no room for a prompt.
    """
    limit = room(engine, config)
    drafts, requests = [], []
    for item in items:

        def prompt(worked, item=item):
            return item["header"] + "".join(worked) + item["body"]

        [(ids, _)], fitting = with_shots_that_fit(
            item["shots"], lambda worked: [(encode_prompt(engine, prompt(worked), config.chat), [])], limit
        )
        asked = prompt(item["shots"][: max(0, fitting)])
        drafts.append({"id": item["id"], "prompt": asked, "gold": item["gold"], "shots": fitting, "tokens": len(ids)})
        requests.append(GenerateRequest(ids, config.max_new_tokens, stop=stop))

    def collect(index: int, generation: Generation) -> None:
        draft = drafts[index]
        tokens = draft["tokens"] + len(generation.ids)
        judged = judge(items[index], generation.text)
        on_sample({**draft, **judged, "finish_reason": generation.finish_reason, "tokens": tokens})

    engine.generate(requests, on_result=collect)


def room(engine: AnyEngine, config: ConfigDict) -> int:
    """How many tokens a prompt may have.

    Raises:
      ValueError: `config.max_new_tokens` leaves none.
    """
    positions = engine.config.max_position_embeddings
    if config.max_new_tokens >= positions:
        raise ValueError(
            f"config.max_new_tokens={config.max_new_tokens}: leaves no room for a prompt in the model's {positions} "
            "positions"
        )
    return positions - config.max_new_tokens


def counts(samples: Sequence[Sample], items: Sequence[dict], config: ConfigDict) -> dict[str, int]:
    """What was dropped on the way, and how the answers ended."""
    return {
        "exemplars_dropped_as_test_questions": max((item["overlap"] for item in items), default=0),
        "questions_with_fewer_shots": sum(max(0, sample["shots"]) < config.shots for sample in samples),
        "questions_cut": sum(sample["shots"] < 0 for sample in samples),
        "answers_not_stopped": sum(sample["finish_reason"] == "length" for sample in samples),
    }
