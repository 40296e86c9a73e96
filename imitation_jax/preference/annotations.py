"""Reads files of verdicts: others', or those of `judge` itself. Answer A is the model, B what it is compared with.

Read are alpaca_eval's annotations (`preference` 1 for generator_1, the baseline B; 2 for generator_2, the model A;
between them a probability; 0 or 1.5 for a draw; null for none), the reviews of Vicuna's evaluation of 2023 (`text`,
from which the two scores are read; the first answer is B), and the samples of `judge`.
"""

import math

from imitation_jax.core import json_rows
from imitation_jax.data import answer_files
from imitation_jax.preference import verdicts, win_rates
from imitation_jax.preference.win_rates import Sample


def read(path: str, answers_a: str = "", answers_b: str = "") -> tuple[list[Sample], str, str]:
    """(samples, A's name, B's name).

    Args:
      answers_a, answers_b: the answers, for their lengths, where the verdicts do not hold them.

    Raises:
      OSError, ValueError: one line with the place.
    """
    samples, names = [], set()
    for where, row in json_rows.read(path, strict=True):
        sample, pair = _sample(where, row)
        samples.append({"id": str(len(samples)), **sample})
        names.add(pair)
    if not samples:
        raise ValueError(f"{path}: holds no rows")
    if len(names) > 1:
        raise ValueError(f"{path}: holds verdicts on {len(names)} pairs of models; give a file for each pair")
    [(a, b)] = names
    for side, file in (("a", answers_a), ("b", answers_b)):
        if file:
            answers = answer_files.read_answers(file)
            _add_outputs(samples, answers, side)
            named = answer_files.generator_of(answers, file)
            a, b = (a or named, b) if side == "a" else (a, b or named)
    a, b = a or "answer 2", b or "answer 1"
    return [win_rates.complete(sample, a, b) for sample in samples], a, b


def _sample(where: str, row: dict) -> tuple[Sample, tuple[str | None, str | None]]:
    """A sample without id and lengths, and the names of A and B."""
    if isinstance(row.get("verdicts"), dict) and "preference" in row:
        keys = ("id", "prompt", "output_a", "output_b", "verdicts", "preference", "why")
        missing = [key for key in keys if key not in row]
        said = row["verdicts"].values()
        good = all(isinstance(verdict, dict) and _is_share(verdict.get("first")) for verdict in said)
        good = good and all(isinstance(row.get(key), str | None) for key in ("output_a", "output_b", "why"))
        if missing or not good or not _is_share(row["preference"]):
            raise ValueError(f"{where}: not a sample of judge")
        return {key: row[key] for key in keys}, (row.get("generator_a"), row.get("generator_b"))
    sample = {
        "prompt": next((row[key] for key in ("instruction", "prompt") if isinstance(row.get(key), str)), None),
        "question": str(row["question_id"]) if "question_id" in row else None,
        "output_a": row.get("output_2") if isinstance(row.get("output_2"), str) else None,
        "output_b": row.get("output_1") if isinstance(row.get("output_1"), str) else None,
        "verdicts": {},
        "why": None,
    }
    if "preference" in row:
        sample["preference"] = _of_alpaca_eval(where, row["preference"])
        sample["why"] = "no verdict" if sample["preference"] is None else None
        return sample, (row.get("generator_2"), row.get("generator_1"))
    if isinstance(row.get("text"), str):
        verdict = verdicts.read("review", row["text"])
        sample["verdicts"] = {"ba": verdict._asdict()}
        sample["preference"], sample["why"] = None if verdict.first is None else 1 - verdict.first, verdict.why
        return sample, (None, None)
    raise ValueError(f"{where}: needs 'preference' (alpaca_eval's annotations) or 'text' (a review with two scores)")


def _of_alpaca_eval(where: str, value: object) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2):
        raise ValueError(f"{where}: 'preference' must be 1 to 2, 0 for a draw, or null, not {str(value)[:40]}")
    return 0.5 if value == 0 else float(value) - 1


def _is_share(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1)


def _add_outputs(samples: list[Sample], answers: list[dict], side: str) -> None:
    """Puts each answer to its verdict where that has none."""
    asked = [
        {"id": sample.get("question"), "instruction": sample["prompt"], "place": place}
        for place, sample in enumerate(samples)
        if sample[f"output_{side}"] is None
    ]
    asked = [row for row in asked if row["id"] is not None or row["instruction"] is not None]
    for row, answer in answer_files.match(asked, answers)[0]:
        samples[row["place"]][f"output_{side}"] = answer["output"]
