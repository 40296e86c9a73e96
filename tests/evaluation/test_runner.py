import copy
import json
import shutil
from types import SimpleNamespace

import pytest

from imitation_jax.evaluation import engines, runner
from imitation_jax.evaluation.result_tables import paired_table, table


@pytest.fixture
def quiz(write, tmp_path, config_of):
    rows = [{"id": f"q{k}", "question": f"number {k}", "choices": ["right", "wrong"], "answer": 0} for k in range(6)]
    path = tmp_path / "quiz.jsonl"
    write(path, rows)
    return config_of("facts", data=str(path))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"stands for weights")
    return f"gguf:{path}"


def test_result_and_samples(quiz, model, tmp_path, scripted, with_engine):
    with_engine(scripted(likes={"right": -1.0}))
    [result] = runner.evaluate(quiz, [model], str(tmp_path / "run"), tmp_path)
    folder = tmp_path / "run" / "eval" / "tiny"
    assert json.loads((folder / "facts.json").read_text()) == result
    assert (result["task"], result["model"], result["n"]) == ("facts", "tiny", 6)
    assert result["metrics"]["accuracy"]["value"] == 1.0
    assert result["settings"]["model"] == model
    # what was left to the engine is recorded as what it became
    assert (result["settings"]["mesh"], result["settings"]["memory_gib"]) == ("fsdp=1", 1.0)
    assert result["tokens"] > 0 and "jax" in result["versions"]
    samples = [json.loads(line) for line in open(folder / "facts.samples.jsonl", encoding="utf-8")]
    assert [sample["id"] for sample in samples] == [f"q{k}" for k in range(6)]
    assert {"id", "prompt", "gold", "prediction", "correct", "logprobs"} <= samples[0].keys()
    assert not list(folder.glob("*.partial"))


def test_a_killed_run_asks_nothing_twice(quiz, model, tmp_path, scripted, with_engine):
    dying = with_engine(scripted(likes={"right": -1.0}, dies_after=7))
    with pytest.raises(RuntimeError, match="killed"):
        runner.evaluate(quiz, [model], str(tmp_path / "run"), tmp_path)
    assert not (tmp_path / "run/eval/tiny/facts.json").exists()
    # of the seven scored choices six are whole questions; the seventh's question is asked again
    engine = with_engine(scripted(likes={"right": -1.0}))
    [result] = runner.evaluate(quiz, [model], str(tmp_path / "run"), tmp_path)
    assert len(engine.asked) == 6
    assert set(engine.asked).isdisjoint(dying.asked[:6])
    whole = with_engine(scripted(likes={"right": -1.0}))
    [undisturbed] = runner.evaluate(quiz, [model], str(tmp_path / "other"), tmp_path)
    assert len(whole.asked) == 12
    assert undisturbed["metrics"] == result["metrics"]
    one, other = ((tmp_path / name / "eval/tiny/facts.samples.jsonl").read_text() for name in ("run", "other"))
    assert one == other


def test_the_same_settings_are_kept_and_others_recomputed(quiz, model, tmp_path, scripted, with_engine):
    workdir = str(tmp_path / "run")
    with_engine(scripted())
    runner.evaluate(quiz, [model], workdir, tmp_path)
    again = with_engine(scripted())
    quiz.batch_size = 2  # no number depends on it
    quiz.role = "student"
    [kept] = runner.evaluate(quiz, [model], workdir, tmp_path)
    assert again.asked == [] and kept["role"] == "student"
    shutil.move(quiz.data, tmp_path / "moved.jsonl")  # the same data
    quiz.data = str(tmp_path / "moved.jsonl")
    [kept] = runner.evaluate(quiz, [model], workdir, tmp_path)
    assert again.asked == [] and kept["settings"]["data"] == quiz.data and list(kept["data"]) == [quiz.data]
    assert json.loads((tmp_path / "run/eval/tiny/facts.json").read_text()) == kept
    quiz.limit = 2
    [changed] = runner.evaluate(quiz, [model], workdir, tmp_path)
    assert changed["n"] == 2 and len(again.asked) == 4
    (tmp_path / "tiny.gguf").write_bytes(b"other weights of another size")
    runner.evaluate(quiz, [model], workdir, tmp_path)
    assert len(again.asked) == 8


def test_style_needs_no_model(tmp_path, config_of):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "instruction": "p", "output": "- x", "generator": "my/student"}\n', encoding="utf-8")
    config = config_of("style", answers=str(path), reference=str(path))
    [result] = runner.evaluate(config, [], str(tmp_path / "run"), tmp_path)
    assert result["metrics"]["list_match"]["value"] == 1.0
    assert (tmp_path / "run/eval/my_student/style.json").exists()
    assert runner.evaluate(config, [], str(tmp_path / "run"), tmp_path) == [result]
    with pytest.raises(ValueError, match="takes no model"):
        runner.evaluate(config, ["hf:x"], str(tmp_path / "run"), tmp_path)


def test_answers_are_one_file(model, tmp_path, config_of, scripted, with_engine):
    prompts = tmp_path / "p.txt"
    prompts.write_text("one\ntwo\n", encoding="utf-8")
    with_engine(scripted(writes={"one": "1"}))
    runner.evaluate(
        config_of("answers", prompts=str(prompts), name="student"), [model], str(tmp_path / "run"), tmp_path
    )
    lines = open(tmp_path / "run/eval/student/answers.jsonl", encoding="utf-8").read().splitlines()
    first = json.loads(lines[0])
    assert (first["id"], first["instruction"], first["output"], first["generator"]) == ("0", "one", "1", "student")
    assert len(lines) == 2


def test_bad_calls_are_named(quiz, model, tmp_path):
    workdir = str(tmp_path / "run")
    with pytest.raises(ValueError, match="--model: facts needs a model"):
        runner.evaluate(quiz, [], workdir, tmp_path)
    with pytest.raises(ValueError, match="write hf:DIR"):
        runner.evaluate(quiz, ["tiny.gguf"], workdir, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        runner.evaluate(quiz, ["hf:/nowhere"], workdir, tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        runner.evaluate(quiz, [f"orbax:{tmp_path}"], workdir, tmp_path)
    with pytest.raises(ValueError, match="'tiny'"):
        runner.evaluate(quiz, [model, model.replace("gguf:", "hf:").removesuffix(".gguf")], workdir, tmp_path)
    quiz.limit = -1
    with pytest.raises(ValueError, match="config.limit=-1: must be 0"):
        runner.evaluate(quiz, [model], workdir, tmp_path)
    quiz.limit = 0
    quiz.name = "one"
    with pytest.raises(ValueError, match="config.name names one"):
        runner.evaluate(quiz, [model, "hf:x"], workdir, tmp_path)
    quiz.role = "pupil"
    with pytest.raises(ValueError, match="config.role='pupil'"):
        runner.evaluate(quiz, [model], workdir, tmp_path)
    quiz.task = "mmul"
    with pytest.raises(ValueError, match="config.task='mmul'"):
        runner.evaluate(quiz, [model], workdir, tmp_path)


@pytest.fixture
def batch(write, tmp_path, config_of):
    """Two quizzes with the data of a few rows each, and the other tasks of all.py without."""
    config = config_of("all")
    config.only = "facts,nq*"
    for name, count in (("quiz", 4), ("nq", 3)):
        rows = [{"id": f"{name}{k}", "question": f"{name} number {k}", "answer": 0} for k in range(count)]
        rows = [row | ({"choices": ["right", "wrong"]} if name == "quiz" else {"answer": ["yes"]}) for row in rows]
        path = tmp_path / f"{name}.jsonl"
        write(path, rows)
    config.tasks.facts.data = str(tmp_path / "quiz.jsonl")
    for key in ("nq", "nq_zero_shot"):
        config.tasks[key].data = str(tmp_path / "nq.jsonl")
    config.tasks.nq.shots = 0
    return config


@pytest.fixture
def two_models(model, tmp_path):
    shutil.copy(tmp_path / "tiny.gguf", tmp_path / "tiny2.gguf")
    return [f"gguf:{tmp_path}/tiny*.gguf"]


def test_a_batch_loads_each_model_once_and_keeps_what_is_done(batch, two_models, tmp_path, scripted, with_engine):
    batch.tasks.nq.limit = 2
    engine = with_engine(scripted(likes={"right": -1.0}, writes={"nq": "yes\n"}))
    results = runner.evaluate(batch, two_models, str(tmp_path / "run"), tmp_path)
    keys = [(task, name) for task in ("nq", "nq_zero_shot", "facts") for name in ("tiny", "tiny2")]
    assert [(result["task"], result["model"]) for result in results] == keys
    assert [result["n"] for result in results] == [2, 2, 3, 3, 4, 4]
    assert with_engine.loaded == [f"gguf:{tmp_path}/tiny.gguf", f"gguf:{tmp_path}/tiny2.gguf"]
    assert len(with_engine.made) == 2 and len(engine.asked) == 2 * (2 + 3 + 2 * 4)
    # one more model and a changed task: nothing else is asked again
    shutil.copy(tmp_path / "tiny.gguf", tmp_path / "tiny10.gguf")
    batch.tasks.facts.limit = 1
    engine.asked.clear()
    results = runner.evaluate(batch, two_models, str(tmp_path / "run"), tmp_path)
    assert [result["model"] for result in results][:3] == ["tiny", "tiny2", "tiny10"]
    assert len(engine.asked) == 2 * 2 + (2 + 3 + 2)
    with_engine.loaded.clear()
    assert runner.evaluate(batch, two_models, str(tmp_path / "run"), tmp_path) == results
    assert with_engine.loaded == []


def test_a_batch_and_a_single_task_share_their_results(batch, quiz, model, tmp_path, scripted, with_engine):
    engine = with_engine(scripted())
    quiz.data = batch.tasks.facts.data
    [single] = runner.evaluate(quiz, [model], str(tmp_path / "run"), tmp_path)
    engine.asked.clear()
    results = runner.evaluate(batch, [model], str(tmp_path / "run"), tmp_path)
    assert results[-1] == single and len(engine.asked) == 3 + 3


def test_shared_keys_hold_for_all_and_a_tasks_own_for_it(batch, model, tmp_path, scripted, with_engine):
    with_engine(scripted())
    batch.tasks.nq.template = "plain"
    batch.limit = 2
    batch.tasks.nq.limit = 1
    batch.role = "student"
    results = runner.evaluate(batch, [model], str(tmp_path / "run"), tmp_path)
    assert [(result["task"], result["n"]) for result in results] == [("nq", 1), ("nq_zero_shot", 2), ("facts", 2)]
    assert [result["settings"]["template"] for result in results] == ["plain", "model", "model"]
    assert {result["role"] for result in results} == {"student"}
    # one model in memory, an engine for each template
    assert len(with_engine.loaded) == 1 and with_engine.made == ["plain", "model"]


def test_a_killed_batch_goes_on_at_the_item(batch, two_models, tmp_path, scripted, with_engine):
    scripts = {"likes": {"right": -1.0}, "writes": {"nq": "yes\n"}}
    whole = with_engine(scripted(**scripts))
    expected = runner.evaluate(batch, two_models, str(tmp_path / "whole"), tmp_path)
    for dies_after in range(1, len(whole.asked), 4):
        workdir = str(tmp_path / f"run{dies_after}")
        first = with_engine(scripted(**scripts, dies_after=dies_after))
        with pytest.raises(RuntimeError, match="killed"):
            runner.evaluate(batch, two_models, workdir, tmp_path)
        second = with_engine(scripted(**scripts))
        results = runner.evaluate(batch, two_models, workdir, tmp_path)
        # at most one choice of the question that the kill cut in two is scored again
        assert len(first.asked) + len(second.asked) - len(whole.asked) in (0, 1)
        metrics = [(result["task"], result["model"], result["metrics"], result["tokens"]) for result in results]
        assert metrics == [(r["task"], r["model"], r["metrics"], r["tokens"]) for r in expected]
        assert paired_table(results, workdir) == paired_table(expected, str(tmp_path / "whole"))


def test_contamination_is_told_of_kept_results_too(write, batch, model, tmp_path, scripted, with_engine):
    seen = "which of the farmers in the valley waits for the water of the old river"
    rows = [{"id": "seen", "question": seen, "answer": ["yes"]}, {"id": "new", "question": "x", "answer": ["yes"]}]
    write(tmp_path / "nq.jsonl", rows)
    dialogue = {"messages": [{"role": "user", "content": f"Tell me, {seen}?"}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(dialogue) + "\n", encoding="utf-8")
    batch.only = "nq"
    with_engine(scripted(writes={"farmers": "yes"}))
    [plain] = runner.evaluate(batch, [model], str(tmp_path / "run"), tmp_path)
    [told] = runner.evaluate(batch, [model], str(tmp_path / "run"), tmp_path, str(tmp_path / "train.jsonl"))
    assert len(with_engine.loaded) == 1 and told["metrics"] == plain["metrics"]
    lines = [line.split() for line in table([told]).splitlines()[1:]]
    values = {" ".join(line[2:-7]): line[-7] for line in lines if line[2] == "exact_match"}
    assert values == {"exact_match": "0.5000", "exact_match (clean)": "0.0000", "exact_match (contaminated)": "1.0000"}


def test_style_of_a_batch_is_of_each_models_own_answers(write, batch, two_models, tmp_path, scripted, with_engine):
    (tmp_path / "p.txt").write_text("one\ntwo\n", encoding="utf-8")
    teacher = [{"instruction": text, "output": "- a\n- b", "generator": "teacher"} for text in ("one", "two")]
    write(tmp_path / "teacher.jsonl", teacher)
    batch.only = "style"
    batch.tasks.style.reference = str(tmp_path / "teacher.jsonl")
    with pytest.raises(FileNotFoundError, match="tiny/answers.jsonl: no such file; style needs the task answers"):
        runner.evaluate(batch, two_models, str(tmp_path / "run"), tmp_path)
    batch.only = "answers,style"
    batch.tasks.answers.prompts = str(tmp_path / "p.txt")
    with_engine(scripted(writes={"one": "- 1"}))
    results = runner.evaluate(batch, two_models, str(tmp_path / "run"), tmp_path)
    assert [(result["task"], result["model"]) for result in results][2:] == [("style", "tiny"), ("style", "tiny2")]
    assert results[2]["metrics"]["list_match"]["value"] == 0.5
    assert (tmp_path / "run/eval/tiny2/style.json").exists()
    batch.tasks.style.answers = "x.jsonl"
    with pytest.raises(ValueError, match="config.tasks.style.answers: a batch compares each model's own"):
        runner.evaluate(batch, two_models, str(tmp_path / "run"), tmp_path)


def test_everything_is_checked_before_a_model_is_loaded(batch, model, tmp_path, with_engine, scripted):
    def refused(error, match, models=(model,), trained_on="", **changes):
        config = copy.deepcopy(batch)
        config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
        with pytest.raises(error, match=match):
            runner.evaluate(config, models, str(tmp_path / "run"), tmp_path, trained_on)

    with_engine(scripted())
    refused(
        ValueError, r"config.tasks.facts: .*no such file.*\(empty: config.tasks.facts.data\)", tasks__facts__data=""
    )
    refused(ValueError, "^config.tasks.nq: config.tasks.nq.stops='x': expected", tasks__nq__stops="x")
    refused(ValueError, r"config.tasks.nq: nowhere: no such file", tasks__nq__data="nowhere")
    refused(ValueError, "config.only: no task matches 'arcs'; there are", only="facts,arcs")
    refused(ValueError, "config.tasks.nq.limit=-1", tasks__nq__limit=-1)
    refused(ValueError, "config.tasks.facts.batch_size=0: must be 1", batch_size=0)
    refused(ValueError, "config.tasks.facts.compute_dtype='half'", tasks__facts__compute_dtype="half")
    refused(FileNotFoundError, "nowhere: no such file or folder", trained_on="nowhere", only="nq")
    refused(FileNotFoundError, "config.tasks.nq.template='x.jinja'", tasks__nq__template="x.jinja")
    refused(ValueError, "unknown axis 'rows'", tasks__facts__mesh="rows=2")
    refused(FileNotFoundError, "nowhere.gguf: no such file", models=(model, "gguf:nowhere.gguf"))
    refused(ValueError, "--model=gguf:nowhere/.*: matches no model", models=(model, "gguf:nowhere/*.gguf"))
    refused(ValueError, "--model: facts needs a model", models=(), only="facts")
    assert with_engine.loaded == []


def test_a_model_without_a_template_is_refused_before_its_first_task(batch, model, tmp_path, monkeypatch):
    batch.tasks.nq_zero_shot.chat = True
    monkeypatch.setattr(engines, "load_model", lambda source, mesh: SimpleNamespace(template=None))
    with pytest.raises(ValueError, match="tiny.gguf: has no chat template, and nq needs one"):
        runner.evaluate(batch, [model], str(tmp_path / "run"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "oracle", "n"),
    [
        ("mmlu", {"data_dir": "mmlu", "shots": 0, "limit": 5}, "mmlu_0_5.jsonl", 285),
        ("mmlu", {"data_dir": "mmlu", "subjects": "abstract_algebra"}, "mmlu_abstract_algebra_5shot.jsonl", 100),
    ],
)
def test_the_oracle(name, overrides, oracle, n, lent, smollm2_gguf, config_of, tmp_path):
    """Log-likelihoods of the reference harness, of every question that it was asked, on the live engine."""
    overrides = {key: str(lent(value)) if key.startswith("data") else value for key, value in overrides.items()}
    runner.evaluate(config_of(name, name="m", **overrides), [f"gguf:{smollm2_gguf}"], str(tmp_path), tmp_path)
    expected = [json.loads(line) for line in open(lent(f"oracle_smollm2/{oracle}"), encoding="utf-8")]
    samples = [json.loads(line) for line in open(tmp_path / f"eval/m/{name}.samples.jsonl", encoding="utf-8")]
    assert len(samples) == len(expected) == n
    for sample, row in zip(samples, expected, strict=True):
        assert sample["gold"] == row["gold"], sample["id"]
        assert sample["logprobs"] == pytest.approx(row["ll"], abs=1e-3, rel=0), sample["id"]
