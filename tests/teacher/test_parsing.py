import itertools
import json
from random import Random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from imitation_jax.teacher.nq_synthetic import pairs_of
from imitation_jax.teacher.parsing import Avoid, labelled
from imitation_jax.teacher.self_instruct import Alike

PAIRS = [("who wrote hamlet", "William Shakespeare"), ("capital of france?", "Paris")]


@pytest.mark.parametrize(
    "text",
    [
        "Question: who wrote hamlet\nAnswer: William Shakespeare\n\nQuestion: capital of france?\nAnswer: Paris",
        "Sure!\n\n1. Question: Who wrote Hamlet\n   Answer: William Shakespeare\n"
        "2. Question: Capital of France?\n   Answer: Paris\n\nHope it helps: ask for more!",
        "**Question 1:** who wrote hamlet\n**Answer 1:** William Shakespeare\n\n"
        "**Question 2:** capital of france?\n**Answer 2:** Paris",
        "Q: who wrote hamlet\nA: William Shakespeare\nQ: capital of france?\nA: Paris",
        "- question: 'who wrote hamlet' answer: 'William Shakespeare'\n- question: capital of france? Answer: *Paris*",
        "QUESTION:\nwho wrote hamlet\nANSWER:\nWilliam Shakespeare\nHe was a poet.\n\n"
        "QUESTION:\ncapital of france?\nANSWER:\nParis",
        '```json\n[{"question": "who wrote hamlet", "answer": "William Shakespeare"}, '
        '{"Question": "Capital of France?", "Answer": "Paris"}]\n```',
        "Question：who wrote hamlet\nAnswer：William Shakespeare\nQuestion：capital of france?\nAnswer：Paris",
    ],
)
def test_pairs_however_they_are_written(text):
    assert pairs_of(text) == PAIRS


@pytest.mark.parametrize(
    "text, pairs",
    [
        ("", []),
        ("I cannot help.", []),
        ("[1, {}, [", []),
        ('["question"]', []),
        ("Answer: 7\nQuestion: what", [("what", "")]),
        ("Question: one\nQuestion: two\nAnswer: 2", [("one", ""), ("two", "2")]),
        ("Question: one\nAnswer: 1\nAnswer: 2", [("one", "1")]),
    ],
)
def test_what_is_missing_is_empty(text, pairs):
    assert pairs_of(text) == pairs


def test_long_runs_of_marks_take_no_time():
    for piece in ("-", "*", "# ", "1.", " ", "Question", "[", "A :"):
        labelled(piece * 50_000, ("question", "answer"), ("q", "a"))
        pairs_of(piece * 50_000)


def test_values_of_several_lines_end_at_the_next_label_only():
    text = "Instruction: Add\nInput: 1\n2\nOutput: It is\n\n3.\nInput: none of this\nInstruction: Next"
    assert labelled(text, ("instruction", "input", "output")) == [
        {"instruction": "Add", "input": "1\n2", "output": "It is\n\n3.\nInput: none of this"},
        {"instruction": "Next"},
    ]


def test_evaluation_files_of_all_kinds_are_avoided(tmp_path):
    path = tmp_path / "evaluation.jsonl"
    rows = [
        {"question": "Where is it?", "answer": ["x"]},
        {"instruction": "Name a colour."},
        {"messages": [{"role": "user", "content": "Hello you"}, {"role": "assistant", "content": "hi"}]},
        {"prompt": "Summarize: The long day of the seven kings who went over the hill ended badly. TL;DR:"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    avoid = Avoid(str(path))
    for text in (
        "where is IT",
        "name a colour",
        "hello, you!",
        "So the long day of the seven kings who went over the hill ended",
    ):
        assert avoid.holds([text]), text
    for text in ("where was it", "the long day of the seven kings", "x", "hi"):
        assert not avoid.holds([text]), text
    path.write_text('{"text": 7}\n')
    with pytest.raises(ValueError, match="evaluation.jsonl:1: needs a text under"):
        Avoid(str(path))


def test_alike_is_rouge_l_with_any_of_them():
    random, words = Random(0), [f"w{n}" for n in range(12)]
    texts = [" ".join(random.choices(words, k=random.randint(1, 9))) for _ in range(150)]
    scorer = RougeScorer(["rougeL"])
    alike, pool, seen = Alike(0.7), [], set()
    for text in itertools.chain(texts, ["", "Ünïcödé only", texts[0].upper()]):
        wanted = any(scorer.score(other, text)["rougeL"].fmeasure >= 0.7 for other in pool)
        assert alike.holds(text) == wanted, text
        seen.add(wanted)
        if not wanted:
            alike.add(text)
            pool.append(text)
    assert seen == {True, False}
