import json

import pytest

from imitation_jax.evaluation import run


@pytest.fixture
def quiz(tmp_path, config_of):
    rows = [{"id": f"q{k}", "question": f"number {k}", "choices": ["right", "wrong"], "answer": 0} for k in range(6)]
    path = tmp_path / "quiz.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return config_of("facts", data=str(path), mesh="")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"stands for weights")
    return f"gguf:{path}"


@pytest.fixture
def with_engine(monkeypatch):
    """Puts a scripted engine in the place of the loaded model, and gives it back."""

    def put(engine):
        monkeypatch.setattr(run, "_engine", lambda config, model: engine)
        return engine

    return put


def test_result_and_samples(quiz, model, tmp_path, scripted, with_engine):
    with_engine(scripted(likes={"right": -1.0}))
    [result] = run.evaluate(quiz, [model], str(tmp_path / "run"))
    folder = tmp_path / "run" / "eval" / "tiny"
    assert json.loads((folder / "facts.json").read_text()) == result
    assert (result["task"], result["model"], result["n"]) == ("facts", "tiny", 6)
    assert result["metrics"]["accuracy"]["value"] == 1.0
    assert result["settings"]["model"] == model
    assert result["tokens"] > 0 and "jax" in result["versions"]
    samples = [json.loads(line) for line in open(folder / "facts.samples.jsonl", encoding="utf-8")]
    assert [sample["id"] for sample in samples] == [f"q{k}" for k in range(6)]
    assert {"id", "prompt", "gold", "prediction", "correct", "logprobs"} <= samples[0].keys()
    assert not list(folder.glob("*.partial"))
    lines = run.table([result]).splitlines()
    assert lines[0].split() == ["task", "model", "metric", "value", "stderr", "n", "seconds"]
    assert lines[1].split()[:4] == ["facts", "tiny", "accuracy", "1.0000"]


def test_a_killed_run_asks_nothing_twice(quiz, model, tmp_path, scripted, with_engine):
    dying = with_engine(scripted(likes={"right": -1.0}, dies_after=7))
    with pytest.raises(RuntimeError, match="killed"):
        run.evaluate(quiz, [model], str(tmp_path / "run"))
    assert not (tmp_path / "run/eval/tiny/facts.json").exists()
    # of the seven scored choices six are whole questions; the seventh's question is asked again
    engine = with_engine(scripted(likes={"right": -1.0}))
    [result] = run.evaluate(quiz, [model], str(tmp_path / "run"))
    assert len(engine.asked) == 6
    assert set(engine.asked).isdisjoint(dying.asked[:6])
    whole = with_engine(scripted(likes={"right": -1.0}))
    [undisturbed] = run.evaluate(quiz, [model], str(tmp_path / "other"))
    assert len(whole.asked) == 12
    assert undisturbed["metrics"] == result["metrics"]
    one, other = ((tmp_path / name / "eval/tiny/facts.samples.jsonl").read_text() for name in ("run", "other"))
    assert one == other


def test_the_same_settings_are_kept_and_others_recomputed(quiz, model, tmp_path, scripted, with_engine):
    workdir = str(tmp_path / "run")
    with_engine(scripted())
    run.evaluate(quiz, [model], workdir)
    again = with_engine(scripted())
    quiz.batch_size = 2  # no number depends on it
    quiz.role = "student"
    [kept] = run.evaluate(quiz, [model], workdir)
    assert again.asked == [] and kept["role"] == "student"
    quiz.limit = 2
    [changed] = run.evaluate(quiz, [model], workdir)
    assert changed["n"] == 2 and len(again.asked) == 4
    (tmp_path / "tiny.gguf").write_bytes(b"other weights of another size")
    run.evaluate(quiz, [model], workdir)
    assert len(again.asked) == 8


def test_style_needs_no_model(tmp_path, config_of):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "instruction": "p", "output": "- x", "generator": "my/student"}\n', encoding="utf-8")
    config = config_of("style", answers=str(path), reference=str(path))
    [result] = run.evaluate(config, [], str(tmp_path / "run"))
    assert result["metrics"]["list_match"]["value"] == 1.0
    assert (tmp_path / "run/eval/my_student/style.json").exists()
    assert run.evaluate(config, [], str(tmp_path / "run")) == [result]
    with pytest.raises(ValueError, match="takes no model"):
        run.evaluate(config, ["hf:x"], str(tmp_path / "run"))


def test_answers_are_one_file(model, tmp_path, config_of, scripted, with_engine):
    prompts = tmp_path / "p.txt"
    prompts.write_text("one\ntwo\n", encoding="utf-8")
    with_engine(scripted(writes={"one": "1"}))
    run.evaluate(config_of("answers", prompts=str(prompts), name="student"), [model], str(tmp_path / "run"))
    lines = open(tmp_path / "run/eval/student/answers.jsonl", encoding="utf-8").read().splitlines()
    first = json.loads(lines[0])
    assert (first["id"], first["instruction"], first["output"], first["generator"]) == ("0", "one", "1", "student")
    assert len(lines) == 2


def test_bad_calls_are_named(quiz, model, tmp_path):
    workdir = str(tmp_path / "run")
    with pytest.raises(ValueError, match="--model: facts needs a model"):
        run.evaluate(quiz, [], workdir)
    with pytest.raises(ValueError, match="write hf:DIR"):
        run.evaluate(quiz, ["tiny.gguf"], workdir)
    with pytest.raises(FileNotFoundError, match="no such file"):
        run.evaluate(quiz, ["hf:/nowhere"], workdir)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        run.evaluate(quiz, [f"orbax:{tmp_path}"], workdir)
    with pytest.raises(ValueError, match="'tiny'"):
        run.evaluate(quiz, [model, model.replace("gguf:", "hf:").removesuffix(".gguf")], workdir)
    quiz.name = "one"
    with pytest.raises(ValueError, match="config.name names one"):
        run.evaluate(quiz, [model, "hf:x"], workdir)
    quiz.role = "pupil"
    with pytest.raises(ValueError, match="config.role='pupil'"):
        run.evaluate(quiz, [model], workdir)
    quiz.task = "mmul"
    with pytest.raises(ValueError, match="config.task='mmul'"):
        run.evaluate(quiz, [model], workdir)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "oracle"),
    [
        ("mmlu", {"data_dir": "mmlu", "shots": 0, "limit": 1}, "mmlu_0_5.jsonl"),
        (
            "mmlu",
            {"data_dir": "mmlu", "subjects": "abstract_algebra", "limit": 10},
            "mmlu_abstract_algebra_5shot.jsonl",
        ),
        ("facts", {"data": "arc_easy/arc_easy.jsonl", "limit": 40}, "arc_easy.jsonl"),
        ("facts", {"data": "piqa/piqa_100.jsonl", "limit": 40}, "piqa_100.jsonl"),
    ],
)
def test_the_oracle(name, overrides, oracle, lent, smollm2_gguf, config_of, tmp_path):
    """Log-likelihoods of the reference harness, by question, on the live engine."""
    overrides = {key: str(lent(value)) if key.startswith("data") else value for key, value in overrides.items()}
    run.evaluate(config_of(name, name="m", **overrides), [f"gguf:{smollm2_gguf}"], str(tmp_path))
    expected = [json.loads(line) for line in open(lent(f"oracle_smollm2/{oracle}"), encoding="utf-8")]
    # that file has the first five questions of each subject, this run asked the first
    expected = expected[::5] if oracle == "mmlu_0_5.jsonl" else expected
    samples = [json.loads(line) for line in open(tmp_path / f"eval/m/{name}.samples.jsonl", encoding="utf-8")]
    assert len(samples) in (57, 40, 10)
    for sample, row in zip(samples, expected, strict=False):
        assert sample["gold"] == row["gold"]
        assert sample["logprobs"] == pytest.approx(row["ll"], abs=1e-3)
