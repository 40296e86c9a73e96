import json

import pytest

from imitation_jax.evaluation import natural_questions as nq


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def files(tmp_path):
    data = [
        {"question": "who wrote emma", "answer": ["Jane Austen"]},
        {
            "question": "when was the last time anyone was on the moon",
            "answer": ["14 December 1972 UTC", "December 1972"],
        },
    ]
    pool = [
        {"question": "The Capital of France?", "answer": ["Paris"]},
        {"question": "Who wrote Emma", "answer": ["x"]},
    ]
    pool += [{"question": f"number {k}", "answer": [str(k), "n"]} for k in range(3)]
    return {"data": write(tmp_path / "data.jsonl", data), "shots_data": write(tmp_path / "pool.jsonl", pool)}


def test_normalisation_is_squads():
    assert nq.normalise("  The  Beatles' an A.B.C. ") == "beatles abc"
    assert nq.exact_match("the December, 1972", ["14 December 1972 UTC", "December 1972"])
    assert not nq.exact_match("December", ["December 1972"])
    assert nq.f1("in December of 1972", ["December 1972"]) == pytest.approx(2 * 2 / 6)
    assert nq.f1("no idea", ["December 1972"]) == 0.0
    assert nq.f1("The", ["a"]) == 1.0  # both empty after normalisation
    assert nq.f1("Bob Russell", ["Bobby Scott", "Bob Russell"]) == 1.0


def test_prompt_stops_and_scores(files, config_of, scripted, answer_all):
    engine = scripted(writes={"emma?": " Jane Austen.\nQ: next", "moon?": " December of 1972"})
    rows, found = answer_all(nq, engine, config_of("nq", **files, shots=1))
    assert rows[0]["prompt"].startswith("Answer these questions:\n\nQ: ")
    assert rows[0]["prompt"].endswith(
        "?\nA: " + rows[0]["prompt"].split("?\nA: ")[1].split("\n")[0] + "\nQ: who wrote emma?\nA:"
    )
    assert engine.asked == [row["prompt"] for row in rows]
    assert [row["prediction"] for row in rows] == ["Jane Austen.", "December of 1972"]
    assert [row["correct"] for row in rows] == [True, False]
    assert found["metrics"]["exact_match"]["value"] == 0.5
    assert found["metrics"]["f1"]["value"] == pytest.approx((1 + 2 * 2 / 5) / 2)
    assert all(request.temperature == 0.0 for request in engine.requests)


def test_shots_leave_out_the_test_questions(files, config_of):
    items = nq.read(config_of("nq", **files, shots=4))
    assert items[0]["overlap"] == 1
    shots = "".join(items[0]["shots"])
    assert "emma" not in shots.lower()
    assert "Q: The Capital of France?\nA: Paris\n" in shots
    assert items[0]["shots"] == items[1]["shots"] == nq.read(config_of("nq", **files, shots=4))[0]["shots"]
    assert len({tuple(nq.read(config_of("nq", **files, shots=2, seed=seed))[0]["shots"]) for seed in range(8)}) > 1
    with pytest.raises(ValueError, match="4 of 5 exemplars"):
        nq.read(config_of("nq", **files, shots=5))


def test_variants(files, config_of, scripted, answer_all):
    zero = config_of("nq", "zero_shot", data=files["data"])
    rows, _ = answer_all(nq, scripted(), zero)
    assert rows[0]["prompt"] == "Answer these questions:\n\nQ: who wrote emma?\nA:"
    assert rows[0]["prediction"] == ""
    engine = scripted(writes={"emma?": " Austen, J."})
    rows, _ = answer_all(nq, engine, config_of("nq", "lm_eval", **files))
    assert rows[0]["prediction"] == "Austen"
    with pytest.raises(ValueError, match="zero_shot and lm_eval"):
        config_of("nq", "zeroshot")


def test_real_exemplars_share_no_question_with_the_real_test(lent, config_of):
    files = {
        "data": str(lent("nq_open/NQ-open.dev.jsonl")),
        "shots_data": str(lent("nq_open/NQ-open.efficientqa.dev.1.1.jsonl")),
    }
    items = nq.read(config_of("nq", **files))
    assert len(items) == 3_610
    assert len(items[0]["shots"]) == 3
    asked = {nq.normalise(item["question"]) for item in items}
    assert not any(nq.normalise(shot.split("\n")[0].removeprefix("Q: ")) in asked for shot in items[0]["shots"])


@pytest.mark.parametrize(
    ("row", "reason"),
    [({"question": "", "answer": ["a"]}, "'question'"), ({"question": "q", "answer": "a"}, "'answer'"),
     ({"question": "q", "answer": []}, "'answer'")],
)  # fmt: skip
def test_bad_rows_are_named(tmp_path, config_of, row, reason):
    path = write(tmp_path / "bad.jsonl", [{"question": "fine", "answer": ["x"]}, row])
    with pytest.raises(ValueError, match=f"bad.jsonl:2: .*{reason}"):
        nq.read(config_of("nq", data=path, shots=0))
