"""Question pairs that no test question and no worked example is among."""

import json

import pytest

from imitation_jax.data import normalise
from imitation_jax.studies import local_task


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows_of(questions: list[str]) -> list[dict]:
    return [{"question": text, "answer": [f"answer to {text}", "x"]} for text in questions]


def test_pairs_shots_and_test_questions_are_apart(tmp_path, write):
    asked = ["Who wrote Émile?", "one", "ONE?", "who first wrote Emile", "two", "three", "what is four"]
    questions = write(tmp_path / "q.jsonl", rows_of(asked))
    test = write(tmp_path / "t.jsonl", rows_of(["who wrote emile", "five"]))
    counts = local_task.write(questions, test, 1, str(tmp_path / "out"))
    assert counts == {"rows": 7, "in_test": 1, "near_test": 1, "repeated": 1, "shots": 1, "pairs": 3}
    assert rows(tmp_path / "out" / "shots.jsonl") == [{"question": "one", "answer": ["answer to one", "x"]}]
    pairs = rows(tmp_path / "out" / "pairs.jsonl")
    assert [pair["messages"] for pair in pairs][-1] == [
        {"role": "user", "content": "what is four?"},
        {"role": "assistant", "content": "answer to what is four"},
    ]
    assert json.loads((tmp_path / "out" / "selection.json").read_text()) == counts


def test_a_row_without_an_answer_is_named(tmp_path, write):
    questions = write(tmp_path / "q.jsonl", {"question": "one", "answer": []})
    test = write(tmp_path / "t.jsonl", rows_of(["x"]))
    with pytest.raises(ValueError, match="q.jsonl:1: needs a text under 'question' and a list of texts"):
        local_task.write(questions, test, 1, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_real_questions(lent, tmp_path):
    questions, test = lent("nq_open/NQ-open.efficientqa.dev.1.1.jsonl"), lent("nq_open/NQ-open.dev.jsonl")
    counts = local_task.write(str(questions), str(test), 32, str(tmp_path / "out"))
    pairs, shots = (rows(tmp_path / "out" / name) for name in ("pairs.jsonl", "shots.jsonl"))
    assert len(pairs) == counts["pairs"] > 1500 and len(shots) == 32
    asked = {normalise.words(row["question"]) for row in rows(test)}
    trained = {normalise.words(pair["messages"][0]["content"]) for pair in pairs}
    shown = {normalise.words(shot["question"]) for shot in shots}
    assert not trained & asked and not trained & shown and not shown & asked
    assert counts["near_test"] and sum(counts.values()) == 2 * counts["rows"]
