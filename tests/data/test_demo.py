"""What the demo set promises: a style to imitate, nothing to learn for the quiz, no text twice."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

import imitation_jax
from imitation_jax.data import dialogues
from imitation_jax.evaluation.tasks.style import has_list, has_summary

DEMO = Path(imitation_jax.__file__).parent / "data" / "demo"
NAMES = ("train", "teacher", "teacher_second_sample", "quiz")
WORD = re.compile(r"[^\W_]+")


@pytest.fixture(scope="module")
def demo():
    return {name: [json.loads(line) for line in open(DEMO / f"{name}.jsonl", encoding="utf-8")] for name in NAMES}


def words(text):
    return WORD.findall(text.lower())


def answers(rows):
    """The answers of each of the files."""
    if "output" in rows[0]:
        return [row["output"] for row in rows]
    return [message["content"] for row in rows for message in row["messages"] if message["role"] == "assistant"]


def test_enough_of_everything_and_ids_are_unique(demo):
    assert len(demo["train"]) >= 240 and len(demo["teacher"]) >= 40 and len(demo["quiz"]) >= 100
    for name in NAMES:
        assert len({row["id"] for row in demo[name]}) == len(demo[name]), name
    for row in demo["train"]:
        dialogues.check(row)


def test_no_two_texts_share_13_words_in_a_row(demo):
    texts = [message["content"] for row in demo["train"] for message in row["messages"]]
    texts += [row[key] for row in demo["teacher"] for key in ("instruction", "output")]
    texts += [row["output"] for row in demo["teacher_second_sample"]]  # its instructions are the teacher's
    texts += [row["question"] for row in demo["quiz"]]
    assert len(set(texts)) == len(texts)
    grams = Counter()
    for text in texts:
        found = words(text)
        grams.update({tuple(found[k : k + 13]) for k in range(len(found) - 12)})
    assert [gram for gram, count in grams.items() if count > 1] == []


def test_both_samples_of_the_teacher_answer_the_same_prompts(demo):
    first, second = (
        [(row["id"], row["instruction"]) for row in demo[name]] for name in ("teacher", "teacher_second_sample")
    )
    assert first == second


@pytest.mark.parametrize("name", NAMES[:3])
def test_the_style_to_imitate(demo, name):
    found = answers(demo[name])
    assert [text for text in found if not has_summary(text)] == []
    assert 0.5 <= sum(map(has_list, found)) / len(found) <= 0.7


def test_gold_positions_are_balanced(demo):
    choices = {len(row["choices"]) for row in demo["quiz"]}
    golds = Counter(row["answer"] for row in demo["quiz"])
    assert choices == {4} and max(golds.values()) - min(golds[k] for k in range(4)) <= 2


def test_no_training_dialogue_answers_a_quiz_question(demo):
    """None has the right choice together with two content words (of four letters or more) of the question."""
    talks = [words(" ".join(message["content"] for message in row["messages"])) for row in demo["train"]]
    common = {word for word, count in Counter(word for talk in talks for word in set(talk)).items() if count > 24}
    leaks = []
    for row in demo["quiz"]:
        gold = " ".join(words(row["choices"][row["answer"]]))
        content = {word for word in words(row["question"]) if len(word) >= 4} - common
        for talk in talks:
            if f" {gold} " in f" {' '.join(talk)} " and len(content & set(talk)) >= 2:
                leaks.append((row["id"], gold))
    assert leaks == []
