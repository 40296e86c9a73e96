import pytest

from imitation_jax.evaluation.tasks import piqa

GOALS = [{"goal": f"Open jar {k}", "sol1": "Turn the lid.", "sol2": "Hit it"} for k in range(3)]


def test_the_prompt_is_lm_evals_letter_for_letter(write, tmp_path, config_of, scripted, answer_all):
    engine = scripted(likes={"the lid.": -1.0})
    data = write(tmp_path / "p.jsonl", [GOALS[0] | {"label": 0}])
    [sample], found = answer_all(piqa, engine, config_of("piqa", data=data))
    assert engine.asked == [f"Question: Open jar 0\nAnswer: {way}" for way in ("Turn the lid.", "Hit it")]
    assert sample["correct"] and found["chance"] == 0.5
    assert piqa.text(piqa.read(config_of("piqa", data=data))[0]) == "Open jar 0\nTurn the lid.\nHit it"


def test_labels_may_stand_in_the_file_beside(write, tmp_path, config_of):
    data = write(tmp_path / "dev.jsonl", GOALS)
    (tmp_path / "dev-labels.lst").write_text("0\n1\n1\n")
    assert [item["gold"] for item in piqa.read(config_of("piqa", data=data))] == [0, 1, 1]
    (tmp_path / "dev-labels.lst").write_text("0\n1\n")
    with pytest.raises(ValueError, match="dev-labels.lst: 2 labels for the 3 rows of .*dev.jsonl"):
        piqa.read(config_of("piqa", data=data))
    (tmp_path / "dev-labels.lst").unlink()
    with pytest.raises(ValueError, match="dev.jsonl:1: the answer must be the index .* not None"):
        piqa.read(config_of("piqa", data=data))


def test_csv_and_worded_rows(tmp_path, config_of, lent):
    (tmp_path / "p.csv").write_text('goal,sol1,sol2,label\n"Open, jar",a,b,1\n')
    [item] = piqa.read(config_of("piqa", data=str(tmp_path / "p.csv")))
    assert (item["prompt"], item["gold"], item["choices"]) == ("Question: Open, jar\nAnswer:", 1, ["a", "b"])
    items = piqa.read(config_of("piqa", data=str(lent("piqa/piqa_100.jsonl"))))
    assert items[1]["prompt"] == "Question: dresser\n\nAnswer:" and len(items) == 100
    assert piqa.text(items[1]).startswith("dresser\nreplace drawer")
