import json
from hashlib import sha256
from pathlib import Path

import pytest

from imitation_jax.evaluation.shots import words
from imitation_jax.evaluation.tasks import natural_questions as nq

LM_EVAL = Path(__file__).parent / "lm_eval_nq.json"


@pytest.fixture
def files(write, tmp_path):
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


@pytest.fixture
def real(lent):
    return {
        "data": str(lent("nq_open/NQ-open.dev.jsonl")),
        "shots_data": str(lent("nq_open/NQ-open.efficientqa.dev.1.1.jsonl")),
    }


def asked(item):
    return item["header"] + "".join(item["shots"]) + item["body"]


def test_prompt_stops_and_scores(files, config_of, scripted, answer_all):
    engine = scripted(writes={"emma?": " Jane Austen.\nQ: next", "moon?": " December of 1972"})
    rows, found = answer_all(nq, engine, config_of("nq", **files, shots=1, shots_from="first"))
    header = "Answer these questions:\n\nQ: The Capital of France?\nA: Paris\n"
    assert [row["prompt"] for row in rows] == engine.asked
    assert engine.asked[0] == header + "Q: who wrote emma?\nA:"
    assert [row["prediction"] for row in rows] == ["Jane Austen.", "December of 1972"]
    assert [row["correct"] for row in rows] == [True, False]
    assert found["metrics"]["exact_match"]["value"] == 0.5
    assert found["metrics"]["f1"]["value"] == pytest.approx((1 + 2 * 2 / 5) / 2)
    assert [(request.temperature, request.stop) for request in engine.requests] == [(0.0, ("\n",))] * 2


def test_chat_asks_the_same_as_a_user(files, config_of, scripted, answer_all):
    engine = scripted(writes={"emma?": "Jane Austen"})
    rows, _ = answer_all(nq, engine, config_of("nq", "zero_shot", data=files["data"], chat=True))
    assert rows[0]["correct"]
    assert "<|im_start|>user\nAnswer these questions:\n\nQ: who wrote emma?\nA:<|im_end|>" in engine.asked[0]
    assert engine.asked[0].endswith("<|im_start|>assistant\n")


def test_shots_leave_out_the_test_questions(files, config_of):
    items = nq.read(config_of("nq", **files, shots=4))
    assert items[0]["overlap"] == 1
    shots = "".join(items[0]["shots"])
    assert "emma" not in shots.lower()
    assert "Q: The Capital of France?\nA: Paris\n" in shots
    assert items[0]["shots"] == items[1]["shots"] == nq.read(config_of("nq", **files, shots=4))[0]["shots"]
    assert len({tuple(nq.read(config_of("nq", **files, shots=2, seed=seed))[0]["shots"]) for seed in range(8)}) > 1
    with pytest.raises(ValueError, match="4 questions can be examples, 5 are needed"):
        nq.read(config_of("nq", **files, shots=5))


def test_lm_eval_draws_for_each_question_and_leaves_out_itself_alone(files, config_of):
    own = config_of("nq", "lm_eval", data=files["shots_data"], shots_data=files["shots_data"], shots=4)
    for item in nq.read(own):
        assert sorted(item["shots"] + [f"{item['body']} {item['gold'][0]}\n"]) == sorted(
            ["Q: The Capital of France??\nA: Paris\n", "Q: Who wrote Emma?\nA: x\n"]
            + [f"Q: number {k}?\nA: {k}\n" for k in range(3)]
        )
    items = nq.read(config_of("nq", "lm_eval", **files))
    assert items[0]["shots"] != items[1]["shots"]
    assert items == nq.read(config_of("nq", "lm_eval", **files))
    assert items[:1] == nq.read(config_of("nq", "lm_eval", **files, limit=1))


def test_shots_are_dropped_until_the_prompt_fits(files, config_of, scripted, answer_all):
    config = config_of("nq", **files, shots=4, max_new_tokens=16)
    whole = scripted()
    answer_all(nq, whole, config)
    room = min(len(request.prompt) for request in whole.requests) - 1
    engine = scripted(context=room + 16)
    rows, found = answer_all(nq, engine, config)
    assert found["counts"]["questions_with_fewer_shots"] == 2
    assert all(0 <= row["shots"] < 4 and row["prompt"].startswith("Answer these") for row in rows)
    assert [row["prompt"] for row in rows] == engine.asked
    assert all(len(request.prompt) <= room for request in engine.requests)
    with pytest.raises(ValueError, match=f"max_new_tokens={room + 16}: leaves no room"):
        answer_all(nq, engine, config_of("nq", **files, max_new_tokens=room + 16))


def test_variants(files, config_of, scripted, answer_all):
    zero = config_of("nq", "zero_shot", data=files["data"])
    rows, found = answer_all(nq, scripted(), zero)
    assert rows[0]["prompt"] == "Answer these questions:\n\nQ: who wrote emma?\nA:"
    assert rows[0]["prediction"] == ""
    assert found["counts"]["answers_empty"] == 2
    engine = scripted(writes={"emma?": " Austen, J."})
    rows, _ = answer_all(nq, engine, config_of("nq", "lm_eval", **files))
    assert rows[0]["prediction"] == "Austen"
    assert {(request.stop, request.max_new_tokens) for request in engine.requests} == {(("\n", ".", ","), 256)}
    with pytest.raises(ValueError, match="zero_shot and lm_eval"):
        config_of("nq", "zeroshot")
    with pytest.raises(ValueError, match="config.shots_from='best'"):
        nq.read(config_of("nq", **files, shots_from="best"))


def test_real_exemplars_share_no_question_with_the_real_test(real, config_of):
    items = nq.read(config_of("nq", **real))
    assert len(items) == sum(1 for _ in open(real["data"], encoding="utf-8"))
    assert len(items[0]["shots"]) == 3
    questions = {words(nq.text(item)) for item in items}
    assert not any(words(shot.split("\n")[0].removeprefix("Q: ")) in questions for shot in items[0]["shots"])


@pytest.fixture
def oracle(real):
    """What lm-eval 0.4.13 asked (a digest of all prompts) and SmolLM2 answered, with the exemplars as train split."""
    expected = json.loads(LM_EVAL.read_text())
    if {key: sha256(Path(path).read_bytes()).hexdigest() for key, path in real.items()} != expected["files"]:
        pytest.skip("the oracle is of other rows than those in IMITATION_TEST_DATA")
    return expected


def test_lm_evals_prompts_on_real_questions(real, oracle, config_of):
    prompts = "\n\n".join(asked(item) for item in nq.read(config_of("nq", "lm_eval", **real)))
    assert sha256(prompts.encode()).hexdigest() == oracle["prompts"]


@pytest.mark.slow
def test_answers_are_lm_evals_text_for_text(real, oracle, command, smollm2_gguf, tmp_path):
    answers = oracle["answers"]
    flags = [f"--config.{key}={path}" for key, path in real.items()]
    flags += [f"--config.limit={len(answers)}", f"--model=gguf:{smollm2_gguf}", f"--workdir={tmp_path}"]
    done = command("evaluate", "--config=configs/eval/nq.py:lm_eval", *flags, quick=False)
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "eval").iterdir()
    rows = [json.loads(line) for line in (folder / "nq.samples.jsonl").read_text().splitlines()]
    pairs = [(row["prediction"], answer) for row, answer in zip(rows, answers, strict=True)]
    assert [pair for pair in pairs if pair[0] != pair[1]] == []
    result = json.loads((folder / "nq.json").read_text())
    assert result["metrics"]["exact_match"]["value"] == oracle["exact_match"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [({"question": "", "answer": ["a"]}, "'question'"), ({"question": "q", "answer": "a"}, "'answer'"),
     ({"question": "q", "answer": []}, "'answer'")],
)  # fmt: skip
def test_bad_rows_are_named(write, tmp_path, config_of, row, reason):
    path = write(tmp_path / "bad.jsonl", [{"question": "fine", "answer": ["x"]}, row])
    with pytest.raises(ValueError, match=f"bad.jsonl:2: .*{reason}"):
        nq.read(config_of("nq", data=path, shots=0))
