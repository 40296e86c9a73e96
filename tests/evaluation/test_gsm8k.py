import json

import pytest

from imitation_jax.evaluation.tasks import gsm8k


@pytest.fixture
def files(write, tmp_path):
    data = [
        {"question": "Ann has 3 apples & buys {2} more. How many?", "answer": "3+2=<<3+2=5>>5\n#### 5"},
        {"question": "Twice $1,000 is?", "answer": "2*1000=<<2*1000=2000>>2000\n#### 2,000"},
    ]
    pool = [{"question": f"What is {k} plus one?", "answer": f"{k}+1={k + 1}\n#### {k + 1}"} for k in range(9)]
    paths = {}
    for key, rows in (("data", data), ("shots_data", pool)):
        paths[key] = str(tmp_path / f"{key}.jsonl")
        write(tmp_path / f"{key}.jsonl", rows)
    return paths


# What lm-eval 0.4.13's filters and exact match say.
@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("so 3 + 2.\n#### 5", "5", "5"),
        ("#### $5", "[invalid]", "5"),
        ("#### 2,000. That is $2,000.00", "2000", "2000.00"),
        ("#### 5 and #### 7 then", "5", "7"),
        ("####5", "[invalid]", "5"),
        ("it is 5, then -5", "[invalid]", "-5"),
        ("none ...", "[invalid]", ".."),
        ("none at all", "[invalid]", "[invalid]"),
    ],
)
def test_readings(text, strict, flexible):
    assert (gsm8k.strict(text), gsm8k.flexible(text)) == (strict, flexible)


def test_prompt_stops_and_scores(files, config_of, scripted, answer_all):
    engine = scripted(writes={"apples": " 3+2=5\n#### 5\n\nQuestion: x #### 6", "Twice": " It is $2,000."})
    rows, found = answer_all(gsm8k, engine, config_of("gsm8k", **files, shots=1, shots_from="first"))
    shot = "Question: What is 0 plus one?\nAnswer: 0+1=1\n#### 1\n\n"
    assert engine.asked[0] == f"{shot}Question: Ann has 3 apples & buys {{2}} more. How many?\nAnswer:"
    assert rows[0]["output"] == " 3+2=5\n#### 5\n\n"
    assert [row["gold"] for row in rows] == ["5", "2000"]
    assert [(row["prediction"], row["correct"]) for row in rows] == [("5", True), ("[invalid]", False)]
    assert [row["correct_flexible"] for row in rows] == [True, True]
    assert found["metrics"]["exact_match_strict"]["value"] == 0.5
    assert found["metrics"]["exact_match_flexible"]["value"] == 1.0
    assert found["counts"]["answers_without_marker"] == 1


def test_lm_evals_draw(files, config_of):
    """As lm-eval 0.4.13 drew of the same rows, seed 1234: five, as its examples come from another split."""
    items = gsm8k.read(config_of("gsm8k", "lm_eval", **files))
    for item, drawn in zip(items, ((7, 1, 0, 6, 4), (0, 1, 8, 2, 7)), strict=True):
        shots = (f"Question: What is {k} plus one?\nAnswer: {k}+1={k + 1}\n#### {k + 1}\n\n" for k in drawn)
        assert item["shots"] == list(shots)
    assert config_of("gsm8k", "lm_eval").max_new_tokens == 256


def test_chat_asks_for_the_marker(files, config_of, scripted, answer_all):
    engine = scripted(writes={"apples": "Five.\n#### 5"})
    rows, _ = answer_all(gsm8k, engine, config_of("gsm8k", "chat", data=files["data"]))
    assert rows[0]["correct"] and not rows[1]["correct"]
    assert "<|im_start|>user\nAnn has 3 apples" in engine.asked[0]
    assert rows[0]["prompt"].endswith("such as: #### 42")


def test_bad_rows_are_named(tmp_path, config_of):
    (tmp_path / "bad.jsonl").write_text(json.dumps({"question": "q", "answer": "5"}) + "\n")
    with pytest.raises(ValueError, match="bad.jsonl:1: 'answer' must end with '#### '"):
        gsm8k.read(config_of("gsm8k", data=str(tmp_path / "bad.jsonl"), shots=0))
