"""Greedy answers after worked examples: which examples an item gets, what is asked, what its sample holds.

An item's prompt is its `header`, its `shots` (texts) and its `body`, one after the other; with `config.chat` all of
that is what the user says, and the assistant's turn is opened. Natural Questions, TriviaQA, GSM8K and TL;DR ask here.
"""

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from imitation_jax.evaluation.prompts import encode_prompt, with_shots_that_fit
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.rows import read_rows, unique_ids
from imitation_jax.inference.engine import Engine, GenerateRequest, Generation

SHOTS_FROM = ("seed", "first", "lm_eval")
WORD = re.compile(r"[^\W_]+")


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


def read_questions(path: str, parse: Callable[[str, dict], dict]) -> list[dict]:
    """parse(where, row) of every row, with its "id", or its number in the file where it has none.

    Raises:
      FileNotFoundError, ValueError: one line with the place.
    """
    rows, places = [], []
    for index, (where, row) in enumerate(read_rows(path)):
        rows.append({"id": str(row.get("id", index)), **parse(where, row)})
        places.append((where, rows[-1]["id"]))
    unique_ids(places)
    return rows


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
    questions = read_questions(config.data, parse)
    pool = read_questions(config.shots_data, parse) if config.shots else []
    asked = {words(row["question"]) for row in questions}
    usable = range(len(pool))
    if config.shots_from != "lm_eval":
        usable = [index for index in usable if words(pool[index]["question"]) not in asked]
    questions = questions[: config.limit or None]
    shots = [(prompt.question + prompt.answer).format_map(row) for row in pool]
    return [
        {
            "id": row["id"],
            "question": row["question"],
            "gold": row["gold"],
            "header": prompt.header,
            "shots": [shots[index] for index in drawn],
            "body": prompt.question.format_map(row),
            "overlap": len(pool) - len(usable),
        }
        for row, drawn in zip(questions, _draws(questions, pool, usable, config, spare), strict=True)
    ]


def _draws(
    questions: list[dict], pool: list[dict], usable: Sequence[int], config: ConfigDict, spare: int
) -> Iterator[list[int]]:
    """The shots of each question, as places in the pool."""
    rng = random.Random(config.seed)
    anew = config.shots_from == "lm_eval"
    needed = config.shots + spare if anew and config.shots else config.shots
    if len(usable) < needed:
        raise ValueError(
            f"config.shots_data={config.shots_data!r}: {len(usable)} of {len(pool)} exemplars can be used (test "
            f"questions cannot), and config.shots={config.shots} needs {needed}"
        )
    if anew:
        for row in questions:
            yield [index for index in rng.sample(usable, needed) if not _is(pool[index], row)][: config.shots]
    else:
        same = usable[:needed] if config.shots_from == "first" else rng.sample(usable, needed)
        yield from itertools.repeat(same, len(questions))


def words(text: str) -> str:
    """What makes two questions the same: their letters and digits."""
    return " ".join(WORD.findall(text.lower()))


def _is(row: dict, other: dict) -> bool:
    return all(row[key] == other[key] for key in row if key != "id")


def text(item: dict) -> str:
    """The question alone, as contamination looks for it."""
    return item["question"]


def answer(
    engine: Engine,
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

        def prompt(shots, item=item):
            return item["header"] + "".join(shots) + item["body"]

        [(ids, _)], shots = with_shots_that_fit(
            item["shots"], lambda shots: [(encode_prompt(engine, prompt(shots), config.chat), [])], limit
        )
        asked = prompt(item["shots"][: max(0, shots)])
        drafts.append({"id": item["id"], "prompt": asked, "gold": item["gold"], "shots": shots, "tokens": len(ids)})
        requests.append(GenerateRequest(ids, config.max_new_tokens, stop=stop))

    def collect(index: int, generation: Generation) -> None:
        draft = drafts[index]
        tokens = draft["tokens"] + len(generation.ids)
        judged = judge(items[index], generation.text)
        on_sample({**draft, **judged, "finish_reason": generation.finish_reason, "tokens": tokens})

    engine.generate(requests, on_result=collect)


def room(engine: Engine, config: ConfigDict) -> int:
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
