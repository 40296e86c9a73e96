import pytest

from imitation_jax.evaluation.tasks import arc


def row(key, labels="ABC", name="Mercury_1"):
    choices = {"text": ["red", "a green one", "blue"], "label": list(labels)}
    return {"id": name, "question": "Which colour?", "choices": choices, "answerKey": key}


def test_the_prompt_is_lm_evals_letter_for_letter(write, tmp_path, config_of, scripted, answer_all):
    engine = scripted(likes={"Answer: red": -2.0, "green one": -3.0})
    data = write(tmp_path / "a.jsonl", row("B"), row("2", "123", "Mercury_2"))
    samples, found = answer_all(arc, engine, config_of("arc", data=data))
    assert engine.asked[:3] == [f"Question: Which colour?\nAnswer: {end}" for end in ("red", "a green one", "blue")]
    assert [sample["id"] for sample in samples] == ["Mercury_1", "Mercury_2"]
    for sample in samples:
        assert (sample["prediction"], sample["prediction_normalised"], sample["gold"]) == (0, 1, 1)
    assert found["metrics"]["accuracy"]["value"] == 0 and found["metrics"]["accuracy_normalised"]["value"] == 1
    assert found["chance"] == pytest.approx(1 / 3)


def test_twenty_five_shots(write, tmp_path, config_of, scripted, answer_all):
    data = write(tmp_path / "a.jsonl", row("B"))
    others = [row("A", name=str(k)) | {"question": f"Colour {k}?"} for k in range(30)]
    config = config_of("arc", "challenge_25", data=data, shots_data=write(tmp_path / "train.jsonl", *others))
    assert config.task == "arc_challenge"
    [sample], _ = answer_all(arc, scripted(), config)
    *shots, last = sample["prompt"].split("\n\n")
    assert len(set(shots)) == 25 and last == "Question: Which colour?\nAnswer:"
    assert all(shot.startswith("Question: Colour ") and shot.endswith("?\nAnswer: red") for shot in shots)


def test_chat_asks_in_the_template(write, tmp_path, config_of, scripted, answer_all):
    engine = scripted()
    answer_all(arc, engine, config_of("arc", data=write(tmp_path / "a.jsonl", row("B")), chat=True))
    assert engine.asked[0].endswith("Question: Which colour?\nAnswer:<|im_end|>\n<|im_start|>assistant\nred")


def test_worded_rows_and_text(lent, config_of):
    items = arc.read(config_of("arc", data=str(lent("arc_easy/arc_easy.jsonl"))))
    assert len(items) == 2376 and items[0]["prompt"].startswith("Question: Which statement best explains why photo")
    assert items[0]["prompt"].endswith("food webs?\nAnswer:")
    assert arc.text(items[1]).split("\n")[1:] == ["safety goggles", "breathing mask", "rubber gloves", "lead apron"]
    assert arc.text(items[1]).startswith("Which piece of")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("D"), "'answerKey' 'D' is none of the labels"),
        (row("A") | {"choices": ["red", "blue"]}, "needs lists 'text' and 'label'"),
        (row("A") | {"question": None}, "its question is empty"),
        ({"query": "Question: x", "choices": ["a", "b"], "gold": 2}, "0 to 1, not 2"),
    ],
)
def test_bad_rows_are_named(write, tmp_path, config_of, bad, reason):
    with pytest.raises(ValueError, match=f"bad.jsonl:2: .*{reason}"):
        arc.read(config_of("arc", data=write(tmp_path / "bad.jsonl", row("A", name="0"), bad)))
