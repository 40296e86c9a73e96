import json

import pytest

from imitation_jax.evaluation.tasks import answers


def test_every_kind_of_prompt_file_reads(write, tmp_path, config_of):
    def read(path):
        return [(item["id"], item["instruction"]) for item in answers.read(config_of("answers", prompts=path))]

    vicuna = [{"question_id": 7, "text": "Why?", "category": "generic"}]
    assert read(write(tmp_path / "vicuna.jsonl", vicuna)) == [("7", "Why?")]
    assert read(write(tmp_path / "koala.jsonl", [{"id": "koala_0", "prompt": "List."}])) == [("koala_0", "List.")]
    alpaca = [
        {"instruction": "Do\u2028it", "output": "x", "generator": "g"},
        {"instruction": "Translate", "input": "chat"},
    ]
    assert read(write(tmp_path / "alpaca.json", json.dumps(alpaca, indent=1))) == [
        ("0", "Do\u2028it"),
        ("1", "Translate\n\nchat"),
    ]
    assert read(write(tmp_path / "plain.txt", "one\n\n two \n")) == [("0", "one"), ("1", "two")]


def test_a_dialogue_is_answered_at_its_last_user_turn(write, tmp_path, config_of):
    turns = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"), ("assistant", "gold")]
    row = {"id": "d", "messages": [{"role": role, "content": content} for role, content in turns]}
    [item] = answers.read(config_of("answers", prompts=write(tmp_path / "d.jsonl", [row])))
    assert item["instruction"] == "Why?"
    assert [message["role"] for message in item["messages"]] == ["system", "user", "assistant", "user"]


def test_answers_in_the_models_template(write, tmp_path, config_of, scripted, answer_all):
    path = write(tmp_path / "p.jsonl", [{"id": "a", "prompt": "Say hi"}, {"id": "b", "prompt": "Say nothing"}])
    engine = scripted(writes={"Say hi": " hi "})
    config = config_of("answers", prompts=path, name="student", temperature=0.7, top_p=0.9, seed=3, max_new_tokens=5)
    rows, found = answer_all(answers, engine, config)
    assert engine.asked[0].endswith("<|im_start|>user\nSay hi<|im_end|>\n<|im_start|>assistant\n")
    assert {key: rows[0][key] for key in ("id", "instruction", "output", "generator")} == {
        "id": "a", "instruction": "Say hi", "output": "hi", "generator": "student"
    }  # fmt: skip
    assert found["counts"]["answers_empty"] == 1
    first, second = engine.requests
    assert (first.temperature, first.top_p, first.max_new_tokens) == (0.7, 0.9, 5)
    assert first.seed != second.seed
    # a prompt draws alike whatever else is asked
    alone = scripted()
    answers.ask(alone, answers.read(config)[1:], config, lambda sample: None)
    assert alone.requests[0].seed == second.seed


def test_a_prompt_that_leaves_no_room_is_counted_and_not_asked(write, tmp_path, config_of, scripted, answer_all):
    path = write(tmp_path / "p.jsonl", [{"prompt": "word " * 300}, {"prompt": "short"}])
    engine = scripted(context=200, writes={"short": "yes"})
    rows, found = answer_all(answers, engine, config_of("answers", prompts=path, max_new_tokens=100))
    assert [row["finish_reason"] for row in rows] == ["prompt_too_long", "stop"]
    assert found["counts"]["prompts_too_long"] == 1
    assert len(engine.asked) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q"}, "needs a text"),
        ({"prompt": "  "}, "needs a text"),
        ({"messages": []}, "no user turn"),
        ({"messages": [{"role": "user"}]}, "must be a list"),
        ({"id": "0", "prompt": "again"}, "bad.jsonl:1"),
    ],
)
def test_bad_rows_are_named(write, tmp_path, config_of, row, reason):
    path = write(tmp_path / "bad.jsonl", [{"prompt": "fine"}, row])
    with pytest.raises(ValueError, match=f"bad.jsonl:2: .*{reason}"):
        answers.read(config_of("answers", prompts=path))


def test_bad_settings_are_named(write, tmp_path, config_of):
    path = write(tmp_path / "p.txt", "one")
    with pytest.raises(ValueError, match="config.top_p"):
        answers.read(config_of("answers", prompts=path, top_p=0.0))
