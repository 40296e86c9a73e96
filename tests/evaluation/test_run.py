import json

import pytest

from imitation_jax.evaluation import run
from imitation_jax.evaluation.prompts import encode_pairs
from imitation_jax.inference.engine import Engine, ScoreRequest
from imitation_jax.models.load import load_model


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
    [result] = run.evaluate(quiz, [model], str(tmp_path / "run"), tmp_path)
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
        run.evaluate(quiz, [model], str(tmp_path / "run"), tmp_path)
    assert not (tmp_path / "run/eval/tiny/facts.json").exists()
    # of the seven scored choices six are whole questions; the seventh's question is asked again
    engine = with_engine(scripted(likes={"right": -1.0}))
    [result] = run.evaluate(quiz, [model], str(tmp_path / "run"), tmp_path)
    assert len(engine.asked) == 6
    assert set(engine.asked).isdisjoint(dying.asked[:6])
    whole = with_engine(scripted(likes={"right": -1.0}))
    [undisturbed] = run.evaluate(quiz, [model], str(tmp_path / "other"), tmp_path)
    assert len(whole.asked) == 12
    assert undisturbed["metrics"] == result["metrics"]
    one, other = ((tmp_path / name / "eval/tiny/facts.samples.jsonl").read_text() for name in ("run", "other"))
    assert one == other


def test_the_same_settings_are_kept_and_others_recomputed(quiz, model, tmp_path, scripted, with_engine):
    workdir = str(tmp_path / "run")
    with_engine(scripted())
    run.evaluate(quiz, [model], workdir, tmp_path)
    again = with_engine(scripted())
    quiz.batch_size = 2  # no number depends on it
    quiz.role = "student"
    [kept] = run.evaluate(quiz, [model], workdir, tmp_path)
    assert again.asked == [] and kept["role"] == "student"
    quiz.limit = 2
    [changed] = run.evaluate(quiz, [model], workdir, tmp_path)
    assert changed["n"] == 2 and len(again.asked) == 4
    (tmp_path / "tiny.gguf").write_bytes(b"other weights of another size")
    run.evaluate(quiz, [model], workdir, tmp_path)
    assert len(again.asked) == 8


def test_style_needs_no_model(tmp_path, config_of):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "instruction": "p", "output": "- x", "generator": "my/student"}\n', encoding="utf-8")
    config = config_of("style", answers=str(path), reference=str(path))
    [result] = run.evaluate(config, [], str(tmp_path / "run"), tmp_path)
    assert result["metrics"]["list_match"]["value"] == 1.0
    assert (tmp_path / "run/eval/my_student/style.json").exists()
    assert run.evaluate(config, [], str(tmp_path / "run"), tmp_path) == [result]
    with pytest.raises(ValueError, match="takes no model"):
        run.evaluate(config, ["hf:x"], str(tmp_path / "run"), tmp_path)


def test_answers_are_one_file(model, tmp_path, config_of, scripted, with_engine):
    prompts = tmp_path / "p.txt"
    prompts.write_text("one\ntwo\n", encoding="utf-8")
    with_engine(scripted(writes={"one": "1"}))
    run.evaluate(config_of("answers", prompts=str(prompts), name="student"), [model], str(tmp_path / "run"), tmp_path)
    lines = open(tmp_path / "run/eval/student/answers.jsonl", encoding="utf-8").read().splitlines()
    first = json.loads(lines[0])
    assert (first["id"], first["instruction"], first["output"], first["generator"]) == ("0", "one", "1", "student")
    assert len(lines) == 2


def test_bad_calls_are_named(quiz, model, tmp_path):
    workdir = str(tmp_path / "run")
    with pytest.raises(ValueError, match="--model: facts needs a model"):
        run.evaluate(quiz, [], workdir, tmp_path)
    with pytest.raises(ValueError, match="write hf:DIR"):
        run.evaluate(quiz, ["tiny.gguf"], workdir, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        run.evaluate(quiz, ["hf:/nowhere"], workdir, tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        run.evaluate(quiz, [f"orbax:{tmp_path}"], workdir, tmp_path)
    with pytest.raises(ValueError, match="'tiny'"):
        run.evaluate(quiz, [model, model.replace("gguf:", "hf:").removesuffix(".gguf")], workdir, tmp_path)
    quiz.limit = -1
    with pytest.raises(ValueError, match="config.limit=-1: must be 0"):
        run.evaluate(quiz, [model], workdir, tmp_path)
    quiz.limit = 0
    quiz.name = "one"
    with pytest.raises(ValueError, match="config.name names one"):
        run.evaluate(quiz, [model, "hf:x"], workdir, tmp_path)
    quiz.role = "pupil"
    with pytest.raises(ValueError, match="config.role='pupil'"):
        run.evaluate(quiz, [model], workdir, tmp_path)
    quiz.task = "mmul"
    with pytest.raises(ValueError, match="config.task='mmul'"):
        run.evaluate(quiz, [model], workdir, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "oracle", "n"),
    [
        ("mmlu", {"data_dir": "mmlu", "shots": 0, "limit": 5}, "mmlu_0_5.jsonl", 285),
        ("mmlu", {"data_dir": "mmlu", "subjects": "abstract_algebra"}, "mmlu_abstract_algebra_5shot.jsonl", 100),
        ("facts", {"data": "arc_easy/arc_easy.jsonl", "limit": 300}, "arc_easy.jsonl", 300),
        ("facts", {"data": "piqa/piqa_100.jsonl"}, "piqa_100.jsonl", 100),
    ],
)
def test_the_oracle(name, overrides, oracle, n, lent, smollm2_gguf, config_of, tmp_path):
    """Log-likelihoods of the reference harness, of every question that it was asked, on the live engine."""
    overrides = {key: str(lent(value)) if key.startswith("data") else value for key, value in overrides.items()}
    run.evaluate(config_of(name, name="m", **overrides), [f"gguf:{smollm2_gguf}"], str(tmp_path), tmp_path)
    expected = [json.loads(line) for line in open(lent(f"oracle_smollm2/{oracle}"), encoding="utf-8")]
    samples = [json.loads(line) for line in open(tmp_path / f"eval/m/{name}.samples.jsonl", encoding="utf-8")]
    assert len(samples) == len(expected) == n
    for sample, row in zip(samples, expected, strict=True):
        assert sample["gold"] == row["gold"], sample["id"]
        assert sample["logprobs"] == pytest.approx(row["ll"], abs=1e-3, rel=0), sample["id"]


@pytest.mark.slow
def test_the_oracle_on_lambada(lent, smollm2_gguf):
    """Continuations of whole passages, asked of the engine itself: no task reads this file."""
    model = load_model(f"gguf:{smollm2_gguf}")
    rows = [json.loads(line) for line in open(lent("lambada_openai/lambada_openai_100.jsonl"), encoding="utf-8")]
    expected = [json.loads(line) for line in open(lent("oracle_smollm2/lambada_openai_100.jsonl"), encoding="utf-8")]
    pairs = [encode_pairs(model.tokenizer, row["context"], [" " + row["continuation"]])[0] for row in rows]
    scores = Engine(model).score([ScoreRequest(*pair) for pair in pairs])
    assert len(scores) == len(expected) == 100
    for row, score in zip(expected, scores, strict=True):
        assert score.logprob == pytest.approx(row["ll"], abs=1e-3, rel=0), row["i"]
        assert score.greedy == row["greedy"], row["i"]
