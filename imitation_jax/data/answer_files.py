"""Answer files: what several models said to the same prompts, and which answers belong together.

Reads JSON Lines with `id, instruction, output, generator`, alpaca_eval's JSON lists, Vicuna's answer files
(`question_id`, `text`, `model_id`) and dialogue files, whose last assistant turn answers the user turn before it.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from imitation_jax.core import json_rows
from imitation_jax.data.prompt_files import ID_KEYS, TEXT_KEYS, with_input

OUTPUT_KEYS = ("output", "text")
GENERATOR_KEYS = ("generator", "model_id")


def read_answers(path: str) -> list[dict]:
    """See `answers`.

    Raises:
      OSError: the file cannot be read.
      ValueError: one line with the place.
    """
    rows = answers(json_rows.read(path, strict=True))
    if not rows:
        raise ValueError(f"{path}: holds no rows")
    return rows


def answers(rows: Iterable[tuple[str, dict]]) -> list[dict]:
    """Rows with `id` and `instruction` (each None where the file has none), `output` and `generator`.

    Args:
      rows: (where, row) as `json_rows.read` gives them with `strict`.

    Raises:
      ValueError: one line with the place.
    """
    read = []
    for where, row in rows:
        key = next((str(row[key]) for key in ID_KEYS if row.get(key) is not None), None)
        generator = next((row[key] for key in GENERATOR_KEYS if isinstance(row.get(key), str)), None)
        if "messages" in row:
            instruction, output = last_exchange(where, row["messages"])
        else:
            keys = [name for name in OUTPUT_KEYS if name in row]
            output = row[keys[0]] if keys else None
            instruction = next(
                (row[name] for name in TEXT_KEYS if isinstance(row.get(name), str) and name not in keys), None
            )
            instruction = None if instruction is None else with_input(instruction, row.get("input"))
        if not isinstance(output, str):
            raise ValueError(f"{where}: needs a text under 'output' (or 'text', or 'messages' that end with an answer)")
        if key is None and instruction is None:
            raise ValueError(f"{where}: has neither 'id' nor 'instruction' to match it by")
        read.append({"id": key, "instruction": instruction, "output": output.strip(), "generator": generator})
    return read


def last_exchange(where: str, messages: object) -> tuple[str | None, str | None]:
    """(last user turn, the assistant's answer to it); None for what is missing.

    Raises:
      ValueError: not a list of objects with texts.
    """
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError(f"{where}: 'messages' must be a list of objects")
    turns = [message for message in messages if message.get("role") in ("user", "assistant")]
    if len(turns) < 2 or turns[-1]["role"] != "assistant" or turns[-2]["role"] != "user":
        return None, None
    asked, said = (turn.get("content") for turn in turns[-2:])
    if asked is not None and not isinstance(asked, str):
        raise ValueError(f"{where}: the content of a message must be a text")
    return asked, said


def match(answers: list[dict], references: list[dict]) -> tuple[list[tuple[dict, dict]], str, dict[str, int]]:
    """Pairs answers with references to the same prompt; of repeated rows the first counts.

    By id where all rows have one and the files share some, else by instruction. Where both rows of an id have an
    instruction they must agree.

    Returns:
      (pairs in the order of the answers, "id" or "instruction", counts of everything that found no pair).
    """
    by = "instruction"
    if all(row["id"] is not None for row in answers + references):
        if {row["id"] for row in answers} & {row["id"] for row in references}:
            by = "id"
    lookup: dict[str, dict] = {}
    counts = Counter()
    for row in references:
        key = _key(row, by)
        if key is not None:
            counts["references_repeated"] += key in lookup
            lookup.setdefault(key, row)
        else:
            counts["references_without_answer"] += 1
    pairs, used = [], set()
    for row in answers:
        key = _key(row, by)
        reference = lookup.get(key) if key is not None else None
        if reference is not None and key in used:
            counts["answers_repeated"] += 1
        elif reference is None:
            counts["answers_without_reference"] += 1
        elif by == "id" and _differ(row, reference):
            counts["instructions_differ"] += 1
            used.add(key)
        else:
            pairs.append((row, reference))
            used.add(key)
    counts["references_without_answer"] += len(set(lookup) - used)
    return pairs, by, dict(counts)


def _key(row: dict, by: str) -> str | None:
    return row[by].strip() if row[by] is not None else None


def _differ(row: dict, other: dict) -> bool:
    both = row["instruction"] is not None and other["instruction"] is not None
    return both and row["instruction"].split() != other["instruction"].split()


def pairs(
    answers: list[dict], references: list[dict], paths: tuple[str, str]
) -> tuple[list[dict], str, dict[str, int]]:
    """What `match` finds, as rows with `id`, `instruction` (None where neither file has one), `output`, `reference`.

    An id is the answer's own; where one is missing or repeats, all are numbers.

    Args:
      paths: of both, for the error.

    Raises:
      ValueError: there are no pairs.
    """
    matched, by, counts = match(answers, references)
    if not matched:
        raise ValueError(f"{paths[0]} and {paths[1]} share no prompt, neither by id nor by instruction")
    rows = []
    for ours, theirs in matched:
        instruction = ours["instruction"] if ours["instruction"] is not None else theirs["instruction"]
        outputs = {"output": ours["output"], "reference": theirs["output"]}
        rows.append({"id": ours["id"], "instruction": instruction, **outputs})
    if None in (ids := {row["id"] for row in rows}) or len(ids) < len(rows):
        rows = [row | {"id": str(index)} for index, row in enumerate(rows)]
    return rows, by, counts


def generator_of(answers: list[dict], path: str) -> str:
    """Who wrote the answers: what the rows say, else the file's name."""
    return next((row["generator"] for row in answers if row["generator"]), Path(path).stem)
