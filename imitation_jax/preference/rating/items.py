"""What is rated: the pairs of two answer files, with attention checks among them; opens their database."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from absl import logging

from imitation_jax.core.fingerprint import digest
from imitation_jax.data import answer_files
from imitation_jax.preference.config import HUMAN
from imitation_jax.preference.rating.database import FORMAT, Store

GUIDELINES = Path(__file__).with_name("guidelines.md")
MOST_CHECKS = 40
KEYS = {"instruction": "instruction", "a": "output", "b": "reference"}
DEFAULTS = {name: dict(HUMAN.items())[name].default for name in ("ratings", "check_every", "seed", "guidelines")}


def open_store(db: str, answers_a: str, answers_b: str, given: Mapping[str, Any]) -> Store:
    """The ratings in the file `db`, made of two answer files where it is new.

    Args:
      answers_a, answers_b: may both be empty where the file is there.
      given: of `DEFAULTS` what a new file is to have otherwise, None as if left out; `guidelines` is a markdown file.
        Where the file is there, what is given, answers too, must be the same as there.

    Raises:
      FileNotFoundError, OSError, ValueError: one line; among them files that share no prompt, and other answers or
        settings than those that are being rated.
    """
    if bool(answers_a) != bool(answers_b):
        raise ValueError("--answers_a and --answers_b: give both; a --db that has been started needs neither")
    is_started = Path(db).expanduser().exists()
    if not answers_a and not is_started:
        raise FileNotFoundError(f"--db={db}: no such file; give --answers_a and --answers_b to start one")
    given = _checked(given)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(Store(db))) if is_started else None
        kept = store.settings() if store else None
        if kept is None and not answers_a:
            raise ValueError(f"--db={db}: holds nothing to rate; give --answers_a and --answers_b")
        if kept and kept["format"] != FORMAT:
            raise ValueError(f"--db={db}: of another version of this program; name another file")
        settings = kept or _checked(DEFAULTS) | given
        items, about_items = _items(answers_a, answers_b, settings["seed"]) if answers_a else ([], {})
        if kept is None:
            store = store or stack.enter_context(contextlib.closing(Store(db)))
            store.create(items, settings | about_items)
            pairs = sum(item["expected"] is None for item in items)
            logging.info("%s: %d pairs to rate, %d attention checks", db, pairs, len(items) - pairs)
        elif differing := [key for key, value in (given | about_items).items() if kept[key] != value]:
            raise ValueError(
                f"--db={db}: was started with other {' and '.join(differing).replace('_', ' ')}; "
                "name another file, or leave out these flags to go on with it"
            )
        stack.pop_all()
    return store


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is not None, with the guidelines' text."""
    settings = {key: value for key, value in given.items() if value is not None}
    if settings.get("ratings", 1) < 1:
        raise ValueError(f"--ratings={settings['ratings']}: must be at least 1")
    if settings.get("check_every", 0) < 0 or settings.get("check_every") == 1:
        raise ValueError(f"--check_every={settings['check_every']}: must be 0, for none, or at least 2")
    if "guidelines" in settings:
        settings["guidelines"] = Path(settings["guidelines"] or GUIDELINES).expanduser().read_text(encoding="utf-8")
    return settings


def _items(answers_a: str, answers_b: str, seed: int) -> tuple[list[dict], dict[str, Any]]:
    """Items of a new file, and what its settings say of them."""
    ours, theirs = answer_files.read_answers(answers_a), answer_files.read_answers(answers_b)
    pairs, by, counts = answer_files.pairs(ours, theirs, (answers_a, answers_b))
    for what, count in counts.items():
        if count:
            logging.info("not rated: %d %s", count, what.replace("_", " "))
    items = with_checks(pairs, seed)
    return items, {
        "generator_a": answer_files.generator_of(ours, answers_a),
        "generator_b": answer_files.generator_of(theirs, answers_b),
        "matched_by": by,
        "set_aside": counts,
        "answers": digest(items),
    }


def with_checks(pairs: Sequence[dict], seed: int) -> list[dict]:
    """Items of the pairs, and attention checks made of them: at most `MOST_CHECKS`, in turn of two kinds.

    An answer beside itself is equal; the second file's answer beside what it said to another instruction is better.

    Args:
      pairs: rows with `id`, `instruction`, `output` and `reference`.
    """
    rows = [
        {"id": pair["id"]}
        # Half a surrogate pair has no place in UTF-8.
        | {key: (pair[name] or "").encode("utf-8", "replace").decode() for key, name in KEYS.items()}
        for pair in pairs
    ]
    rng = Random(seed)
    sources = [row for row in rows if row["b"] and row["instruction"]]
    checks, name = [], "check"
    while any(row["id"].startswith(name) for row in rows):
        name += " "
    for number, row in enumerate(rng.sample(sources, min(MOST_CHECKS, len(sources)))):
        check = {"id": f"{name} {number}", "instruction": row["instruction"], "a": row["b"], "b": row["b"]}
        # The answer to the same words, in two items, would be no worse.
        asked = row["instruction"].split()
        others = [other["b"] for other in sources if other["b"] != row["b"] and other["instruction"].split() != asked]
        if number % 2 and others:
            own, other = rng.choice([("a", "b"), ("b", "a")])
            checks.append({**check, other: rng.choice(others), "expected": 1 if own == "a" else -1})
        else:
            checks.append({**check, "expected": 0})
    return [{**row, "expected": None} for row in rows] + checks
