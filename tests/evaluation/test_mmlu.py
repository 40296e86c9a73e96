import csv
from pathlib import Path

import pytest

from imitation_jax.evaluation.tasks import mmlu
from imitation_jax.tokenizers.tokenizer import load_tokenizer

HEADER = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]


def write(path, rows, header=HEADER):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def folder(tmp_path):
    for subject in ("high_school_physics", "virology"):
        write(tmp_path / "dev" / f"{subject}_dev.csv", [[f"shot {k}?", "a", "b", "c", "d", k % 4] for k in range(5)])
    write(tmp_path / "test/high_school_physics_test.csv", [[" one? ", "1", "2.50", "NA", "x, y", 2]])
    write(tmp_path / "test/virology_test.csv", [[f"q{k}?", "a", "b", "c", "d", 0] for k in range(3)])
    return str(tmp_path)


def test_the_prompt_is_lm_evals_letter_for_letter(folder, config_of, scripted, answer_all):
    config = config_of("mmlu", data_dir=folder, subjects="high_school_physics", shots=1)
    engine = scripted(likes={"Answer: C": -1.0})
    [sample], _ = answer_all(mmlu, engine, config)
    context = (
        "The following are multiple choice questions (with answers) about high school physics.\n\n"
        "shot 0?\nA. a\nB. b\nC. c\nD. d\nAnswer: A\n\n"
        "one?\nA. 1\nB. 2.50\nC. NA\nD. x, y\nAnswer:"
    )
    assert sample["prompt"] == context
    assert engine.asked == [f"{context} {letter}" for letter in "ABCD"]
    assert (sample["prediction"], sample["gold"], sample["correct"]) == (2, 2, True)
    assert sample["logprobs"] == [-10.0, -10.0, -1.0, -10.0]


def test_the_original_prompt_has_two_spaces_and_questions_as_they_are(folder, config_of, scripted, answer_all):
    config = config_of("mmlu", "original", data_dir=folder, subjects="high_school_physics", shots=0)
    [sample], _ = answer_all(mmlu, scripted(), config)
    assert sample["prompt"] == (
        "The following are multiple choice questions (with answers) about  high school physics.\n\n"
        " one? \nA. 1\nB. 2.50\nC. NA\nD. x, y\nAnswer:"
    )


def test_files_as_published_have_no_header_and_letters(folder, config_of):
    write(Path(folder, "test/virology_test.csv"), [["q1?", "a", "b", "c", "d", "D"]], header=["q0?", *"abcd", "B"])
    items = mmlu.read(config_of("mmlu", data_dir=folder, subjects="virology"))
    assert [(item["question"], item["gold"]) for item in items] == [("q0?", 1), ("q1?", 3)]
    assert items[0]["answers"] == ["a", "b", "c", "d"]


def test_text_is_the_question_and_its_answers_alone(folder, config_of):
    [item] = mmlu.read(config_of("mmlu", data_dir=folder, subjects="high_school_physics"))
    assert mmlu.text(item).split("\n") == [" one? ", "1", "2.50", "NA", "x, y"]


def test_chat_asks_in_the_template_without_the_space(folder, config_of, scripted, answer_all):
    engine = scripted()
    answer_all(mmlu, engine, config_of("mmlu", data_dir=folder, subjects="virology", chat=True, limit=1))
    assert engine.asked[0].endswith("Answer:<|im_end|>\n<|im_start|>assistant\nA")


def test_micro_and_macro(folder, config_of, scripted, answer_all):
    # right on the one question of physics, wrong on all three of virology
    _, found = answer_all(mmlu, scripted(likes={"Answer: C": -1.0}), config_of("mmlu", data_dir=folder))
    assert found["metrics"]["accuracy"]["value"] == 0.25
    assert found["metrics"]["accuracy"]["n"] == 4
    assert found["metrics"]["accuracy_macro"]["value"] == 0.5
    assert found["subjects"]["virology"]["value"] == 0.0
    groups = {group: (estimate["value"], estimate["n"]) for group, estimate in found["groups"].items()}
    assert groups == {"STEM": (1.0, 1), "other": (0.0, 3)}
    # One choice is e**9 times as likely as each other one, so the model is sure each time and right once in four.
    assert found["metrics"]["calibration_error"]["value"] == pytest.approx(0.75, abs=1e-3)
    assert found["counts"] == {"questions_with_fewer_shots": 0, "shots_dropped": 0, "questions_cut": 0}


def test_shots_that_do_not_fit_are_dropped_and_counted(folder, config_of, scripted, answer_all):
    config = config_of("mmlu", data_dir=folder, subjects="virology")
    whole = scripted()
    answer_all(mmlu, whole, config)
    read = [len(request.context) + len(request.continuation) - 1 for request in whole.requests]
    lengths = [max(read[k : k + 4]) for k in range(0, len(read), 4)]  # of each question
    fits, _ = answer_all(mmlu, scripted(context=max(lengths)), config)
    assert [row["shots"] for row in fits] == [5, 5, 5]
    rows, found = answer_all(mmlu, scripted(context=min(lengths) - 1), config)
    assert [row["shots"] for row in rows] == [4, 4, 4]
    assert found["counts"]["questions_with_fewer_shots"] == 3
    assert found["counts"]["shots_dropped"] == 3
    assert "shot 4?" not in rows[0]["prompt"] and "shot 3?" in rows[0]["prompt"]


def test_one_call_scores_all_subjects(folder, config_of, scripted, answer_all, monkeypatch):
    engine, calls = scripted(), []

    def score(requests, on_result):
        calls.append(len(requests))
        return type(engine).score(engine, requests, on_result)

    monkeypatch.setattr(engine, "score", score)
    answer_all(mmlu, engine, config_of("mmlu", data_dir=folder))
    assert calls == [4 * 4]


def test_bad_folders_and_files_are_named(folder, config_of, tmp_path):
    with pytest.raises(FileNotFoundError, match="data_dir"):
        mmlu.read(config_of("mmlu", data_dir=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="no 'astrology'.*virology"):
        mmlu.read(config_of("mmlu", data_dir=folder, subjects="virology,astrology"))
    with pytest.raises(ValueError, match="config.prompt='lm-eval'"):
        mmlu.read(config_of("mmlu", data_dir=folder, prompt="lm-eval"))
    with pytest.raises(ValueError, match="needs more"):
        mmlu.read(config_of("mmlu", data_dir=folder, shots=6))
    write(tmp_path / "test/virology_test.csv", [["q?", "a", "b", "c", "d", "A"]])
    with pytest.raises(ValueError, match=r"virology_test.csv:2: answer 'A'"):
        mmlu.read(config_of("mmlu", data_dir=folder))
    write(tmp_path / "test/virology_test.csv", [], header=["q?", "a", "b", "c", "d", "0"])
    with pytest.raises(ValueError, match=r"virology_test.csv:1: the header"):
        mmlu.read(config_of("mmlu", data_dir=folder))


def test_the_known_lengths_of_the_real_prompts(lent, config_of):
    """Mean and maximum over all 14,042 prompts, with LLaMA's tokens: 804 and 3,479 with BOS, here without."""
    tokenizer = load_tokenizer(lent("tokenizers/llama_tokenizer.model"))
    items = mmlu.read(config_of("mmlu", data_dir=str(lent("mmlu"))))
    assert len(items) == 14_042
    subjects = {item["subject"] for item in items}
    assert len(subjects) == 57
    assert sorted(subjects) == sorted(sum(mmlu.GROUPS.values(), []))
    assert [len(members) for members in mmlu.GROUPS.values()] == [18, 13, 12, 14]
    texts = ["".join([item["header"], *item["shots"], item["prompt"]]) for item in items]
    longest = sorted(texts, key=len)[-30:]
    assert max(map(len, tokenizer.encode_batch(longest))) == 3_478
    some = texts[::40]
    assert sum(map(len, tokenizer.encode_batch(some))) / len(some) == pytest.approx(803, abs=25)
