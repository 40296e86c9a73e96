import json

import pytest

from imitation_jax.evaluation.tasks import facts


def test_cloze_scoring_by_sum_and_by_character(write, tmp_path, config_of, scripted, answer_all):
    rows = [{"id": "sky", "question": "What colour is the sky?", "choices": ["red", "a very deep blue"], "answer": 1}]
    engine = scripted(likes={"Answer: red": -3.0, "deep blue": -4.0})
    [sample], found = answer_all(facts, engine, config_of("facts", data=write(tmp_path / "f.jsonl", rows)))
    assert engine.asked == [f"Question: What colour is the sky?\nAnswer: {choice}" for choice in rows[0]["choices"]]
    assert sample["id"] == "sky"
    assert sample["logprobs"] == [-3.0, -4.0]
    assert (sample["prediction"], sample["correct"]) == (0, False)
    assert (sample["prediction_normalised"], sample["correct_normalised"]) == (1, True)
    assert found["metrics"]["accuracy"]["value"] == 0.0
    assert found["metrics"]["accuracy_normalised"]["value"] == 1.0
    assert found["chance"] == 0.5


def test_a_question_that_does_not_fit_keeps_its_end_and_says_so(write, tmp_path, config_of, scripted, answer_all):
    texts = {"1": "x", "2": "y " * 50}
    rows = [{"id": key, "question": text, "choices": ["a", "b"], "answer": 0} for key, text in texts.items()]
    engine = scripted(context=40)
    samples, found = answer_all(facts, engine, config_of("facts", data=write(tmp_path / "f.jsonl", rows)))
    assert [sample["shots"] for sample in samples] == [0, -1]
    assert found["counts"] == {"questions_with_fewer_shots": 0, "shots_dropped": 0, "questions_cut": 1}
    longest = max(len(request.continuation) for request in engine.requests[2:])
    # the last token is only scored, not read
    assert len(engine.requests[2].context) + longest == 41 and engine.asked[2].endswith("y \nAnswer: a")


def test_arc_easy_reads_as_it_is(lent, config_of):
    items = facts.read(config_of("facts", data=str(lent("arc_easy/arc_easy.jsonl")), limit=300))
    oracle = [json.loads(line) for line in open(lent("oracle_smollm2/arc_easy.jsonl"), encoding="utf-8")]
    assert [item["gold"] for item in items] == [row["gold"] for row in oracle]
    assert items[0]["prompt"].startswith("Question: ") and items[0]["prompt"].endswith("\nAnswer:")
    assert not items[0]["prompt"].startswith("Question: Question:")
    assert facts.text(items[1]) == (
        "Which piece of safety equipment is used to keep mold spores from entering the respiratory system?\n"
        "safety goggles\nbreathing mask\nrubber gloves\nlead apron"
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"choices": ["a", "b"], "answer": 0}, "its question is empty"),
        ({"question": "q", "choices": ["a"], "answer": 0}, "two or more"),
        ({"question": "q", "choices": ["a", " "], "answer": 0}, "empty"),
        ({"question": "q", "choices": ["a", "b"], "answer": 2}, "0 to 1, not 2"),
        ({"question": "q", "choices": ["a", "b"], "answer": "a"}, "not 'a'"),
        ({"question": "q", "choices": ["a", "b"]}, "not None"),
        ({"id": "first", "question": "q", "choices": ["a", "b"], "answer": 0}, "bad.jsonl:1"),
    ],
)
def test_bad_rows_are_named(write, tmp_path, config_of, row, reason):
    good = {"id": "first", "question": "q", "choices": ["a", "b"], "answer": 0}
    with pytest.raises(ValueError, match=f"bad.jsonl:2: .*{reason}"):
        facts.read(config_of("facts", data=write(tmp_path / "bad.jsonl", [good, row])))


def test_a_file_cut_off_is_named(tmp_path, config_of):
    path = tmp_path / "cut.jsonl"
    path.write_text('{"question": "q", "choices": ["a", "b"], "answer": 0}\n{"question": "q', encoding="utf-8")
    with pytest.raises(ValueError, match="cut.jsonl:2"):
        facts.read(config_of("facts", data=str(path)))
    with pytest.raises(FileNotFoundError, match="no such file"):
        facts.read(config_of("facts", data=str(tmp_path / "none.jsonl")))
