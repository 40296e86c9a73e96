"""Open answers to a file of prompts, in the model's chat template: what style, judge and raters compare.

Prompts are JSONL rows with `instruction`, `prompt`, `text` (Vicuna's questions) or `messages` (a dialogue is answered
at its last user turn), a JSON list of such rows (alpaca_eval), or a text file (.txt) with one prompt a line. The answer
file is `eval/<model>/answers.jsonl`; it is at the same time the task's sample file.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from imitation_jax.core.fingerprint import DATA, Key, Keys
from imitation_jax.data.benchmark_rows import Rows, read_lines, read_rows
from imitation_jax.data.prompt_files import ID_KEYS, is_text, messages_of
from imitation_jax.evaluation import generations, shots, statistics
from imitation_jax.evaluation.config import OF_MODEL
from imitation_jax.evaluation.results import Sample
from imitation_jax.evaluation.task import AnyEngine, Needs
from imitation_jax.inference.requests import Generation

DEFINITIONS = {"prompt": "the chat template, with the assistant's turn opened"}
NAMES, NEEDS, PAIRED = ("answers",), Needs.CHAT_MODEL, ()
KEYS = OF_MODEL | generations.SAMPLING | Keys(prompts=Key("", "file of the prompts", DATA))
ROWS, FULL_SIZE = (), {}


def parse(where: str, row: dict) -> dict:
    """{"id", "instruction", "messages"} of one row, "id" where it has any.

    Raises:
      ValueError: naming the place and what is wrong there.
    """
    try:
        messages = messages_of(row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    key = next((key for key in ID_KEYS if row.get(key) is not None), None)
    own = {"id": str(row[key])} if key else {}
    return {**own, "instruction": messages[-1]["content"], "messages": messages}


def read_prompts(path: str) -> Rows:
    """Rows of a file of prompts; of a text file each line is one.

    Raises:
      FileNotFoundError, ValueError: one line with the place.
    """
    if not is_text(path):
        return read_rows(path)
    rows = [(where, {"instruction": text}) for where, text in read_lines(path)]
    if not rows:
        raise ValueError(f"{path}: holds no prompts")
    return rows


def read(config: ConfigDict) -> list[dict]:
    """The prompts of `config.prompts`.

    Raises:
      FileNotFoundError, ValueError: one line with the place or the key.
    """
    generations.check_sampling(config)
    return shots.read_questions(config.prompts, parse, read_prompts)[: config.limit or None]


def text(item: dict) -> str:
    """The user's own words: what contamination looks for in training data."""
    return "\n".join(turn["content"] for turn in item["messages"] if turn["role"] == "user")


def ask(engine: AnyEngine, items: list[dict], config: ConfigDict, on_sample: Callable[[Sample], None]) -> None:
    """One answer a prompt; a prompt that leaves no room for its answer gets an empty one and says so."""
    drafts, requests = [], []
    room = generations.room(engine, config)
    for item in items:
        ids = engine.template.prompt_ids(item["messages"])
        draft = {"id": item["id"], "instruction": item["instruction"], "output": "", "generator": config.name}
        draft["tokens"] = len(ids)
        if len(ids) > room:
            on_sample({**draft, "finish_reason": "prompt_too_long"})
            continue
        drafts.append(draft)
        requests.append(generations.sampling_request(ids, config, item["id"]))

    def collect(index: int, generation: Generation) -> None:
        draft = drafts[index]
        tokens = draft["tokens"] + len(generation.ids)
        output = generation.text.strip()
        on_sample({**draft, "output": output, "finish_reason": generation.finish_reason, "tokens": tokens})

    engine.generate(requests, on_result=collect)


def summarise(samples: list[Sample], items: list[dict], config: ConfigDict) -> dict:
    """How long the answers are and how they ended."""
    reasons = [sample["finish_reason"] for sample in samples]
    return {
        "metrics": {
            "words": statistics.mean([len(sample["output"].split()) for sample in samples]),
            "finished": statistics.proportion([reason == "stop" for reason in reasons]),
        },
        "counts": {
            "answers_empty": sum(not sample["output"] for sample in samples),
            "answers_cut_at_max_new_tokens": reasons.count("length"),
            "prompts_too_long": reasons.count("prompt_too_long"),
        },
    }
