"""What is done is read from the files, with the settings that the study wants."""

import json
import shutil

import pytest

from imitation_jax.core.fingerprint import digest
from imitation_jax.studies import config as studies
from imitation_jax.studies import live_table
from imitation_jax.studies.jobs import study_jobs
from imitation_jax.studies.layout import ROOT, lay_out
from imitation_jax.studies.status import StudyStatus

CELL = "tiny-talk-10k-flat"


@pytest.fixture
def look(make_config, tmp_path):
    """`look()` reads the study in the folder `look.workdir` anew; `look.config` is its config."""

    def read() -> StudyStatus:
        layout = lay_out(read.config, str(read.workdir), 1)
        return StudyStatus(layout, study_jobs(layout, read.workdir))

    read.config, read.workdir = make_config(), tmp_path / "study"
    return read


def train(look, **other) -> None:
    """As `train` leaves a run of two steps of 1,000 positions."""
    run = look.workdir / "runs" / CELL
    run.mkdir(parents=True, exist_ok=True)
    data = {"path": f"{look.workdir}/data/talk", "token_budget": 10_000, "seq_len": 500}
    config = {"seed": 0, "batch_size": 2, "data": data, "model": {"init": "hf:tiny"}, "optimizer": {"warmup_steps": 7}}
    (run / "config.json").write_text(json.dumps(config | other))
    row = {"loss_tokens": 300.0, "padding_share": 0.1, "seconds": 2.0}
    (run / "metrics.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n{json.dumps(row)[:9]}")


def checkpoint(look, committed="at noon") -> dict:
    """As Orbax leaves a whole one; the settings of a result on it."""
    step = look.workdir / "runs" / CELL / "checkpoints" / "2"
    step.mkdir(parents=True, exist_ok=True)
    (step / "_CHECKPOINT_METADATA").write_text(committed)
    model = f"orbax:{look.workdir}/runs/{CELL}"
    return {"data": "quiz.jsonl", "limit": 100, "model": model, "weights": digest(committed)}


def test_nothing_is_there_yet(look):
    state = look()
    assert {one.stage for one in state.of_job.values()} == {"missing"} and state.seconds_left() is None


def test_a_base_is_done_when_its_results_have_the_studys_settings(look, write_result):
    settings = {"data": "quiz.jsonl", "limit": 100, "model": "hf:tiny", "more": 1}
    write_result(look.workdir, "tiny", "facts", settings | {"limit": 50})
    assert not look().done("tiny")
    write_result(look.workdir, "tiny", "facts", settings | {"model": "hf:other"})
    assert not look().done("tiny")
    write_result(look.workdir, "tiny", "facts", settings)
    state = look()
    assert state.done("tiny") and state.of_job["tiny"].numbers == {"facts": 0.25}


def test_a_cell_is_trained_then_evaluated_then_done(look, write_result):
    train(look)
    one = look().of_job[CELL]
    assert (one.stage, one.trained_tokens, one.loss_tokens, one.share) == ("training", 1800, 600, 0.18)
    write_result(look.workdir, "tiny", "facts", {"data": "quiz.jsonl", "limit": 100, "model": "hf:tiny"}, n=10)
    (look.workdir / "eval" / CELL).mkdir()
    (look.workdir / "eval" / CELL / "facts.samples.jsonl.0123.partial").write_text("{}\n" * 4)
    one = look().of_job[CELL]
    assert (one.stage, one.share) == ("evaluating", 0.4)
    write_result(look.workdir, CELL, "facts", checkpoint(look))
    state = look()
    assert state.done(CELL) and state.of_job[CELL].stage == "done"


def test_results_of_other_weights_or_settings_are_not_the_cells(look, write_result):
    train(look)
    settings = checkpoint(look)
    write_result(look.workdir, CELL, "facts", settings)
    assert look().done(CELL)
    checkpoint(look, "trained again")
    assert not look().done(CELL)
    (look.workdir / "runs" / CELL / "checkpoints" / "2" / "_CHECKPOINT_METADATA").unlink()  # training has begun anew
    assert not look().done(CELL)
    checkpoint(look)
    look.config.evaluate_keys.compute_dtype = "bfloat16"
    write_result(look.workdir, CELL, "facts", settings | {"compute_dtype": "float32"})
    assert not look().done(CELL)
    write_result(look.workdir, CELL, "facts", settings | {"compute_dtype": "bfloat16", "mesh": "data=8"})
    look.config.evaluate_keys.memory_gib = 2.0
    assert look().done(CELL)  # where it was computed changes no number
    del look.config.evaluations.facts["limit"]
    assert not look().done(CELL)


def write_answer(look, text: str, *tasks: str) -> None:
    """The base's only answer, and samples of these tasks on it."""
    folder = look.workdir / "eval" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "answers.jsonl").write_text(json.dumps({"instruction": "hi", "output": text, "generator": "tiny"}) + "\n")
    for task in tasks:
        (folder / f"{task}.samples.jsonl").write_text(
            json.dumps({"prompt": "hi", "prediction": text, "gold": "theirs"}) + "\n"
        )


def test_style_of_other_answers_is_not_done(look, write_result):
    look.config.evaluations = {"answers": {"prompts": "p.jsonl"}, "style": {"reference": "r.jsonl"}}
    write_result(look.workdir, "tiny", "answers", {"prompts": "p.jsonl", "model": "hf:tiny"})
    answers = f"{look.workdir}/eval/tiny/answers.jsonl"
    write_result(look.workdir, "tiny", "style", {"reference": "r.jsonl", "answers": answers})
    assert not look().done("tiny")
    write_answer(look, "yes", "style")
    assert look().done("tiny")
    write_answer(look, "no")
    assert not look().done("tiny")
    write_answer(look, "yes")  # written again, word for word: style is then kept as it is
    assert look().done("tiny")


def test_questions_looked_for_in_other_training_data_are_looked_for_again(look, write_result):
    write_result(look.workdir, "tiny", "facts", {"data": "quiz.jsonl", "limit": 100, "model": "hf:tiny"})
    assert look().done("tiny")
    look.config.builds.more = studies.build("More", "prepare", input="m.jsonl")
    look.config.grids.more = studies.grid("tiny", "more", "10_000", "flat")
    state = look()
    assert not state.done("tiny") and "facts" not in state.of_job["tiny"].results
    data = f"{look.workdir}/data"
    assert f"--contamination={data}/more,{data}/talk" in state.jobs["tiny"].commands[-1]


def test_a_batch_with_a_variant_and_a_task_that_it_has_not(look, tmp_path):
    (tmp_path / "batch.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(variant):\n"
        "    return ConfigDict({'only': '', 'tasks': {variant: {'task': 'facts', 'limit': 0}}})\n"
    )
    look.config.evaluate = f"{tmp_path}/batch.py:facts"
    assert look().jobs
    look.config.evaluate_keys.only = 3
    with pytest.raises(ValueError, match="config.evaluate_keys: .*int"):
        look()
    del look.config.evaluate_keys["only"]
    (tmp_path / "typo.py").write_text((tmp_path / "batch.py").read_text().replace("'facts'", "'fact'"))
    look.config.evaluate = f"{tmp_path}/typo.py:facts"
    with pytest.raises(ValueError, match="typo.py:facts: tasks.facts.task='fact' is none of .*facts, "):
        look()
    look.config.evaluate = f"{tmp_path}/batch.py:nq"
    with pytest.raises(ValueError, match="config.evaluations.facts: .*batch.py:nq has no such task"):
        look()


def test_an_evaluation_is_added_by_its_config_alone(look, tmp_path):
    """Beside the others of the batch; its task's module is found as any task's."""
    shutil.copytree(ROOT / "configs" / "eval", tmp_path / "eval")
    shutil.copy(tmp_path / "eval" / "facts.py", tmp_path / "eval" / "riddles.py")
    look.config.evaluate = f"{tmp_path}/eval/all.py"
    look.config.evaluations.riddles = {"data": "riddles.jsonl"}
    (command,) = look().jobs["tiny"].commands
    assert {"--config.only=facts,riddles", "--config.tasks.riddles.data=riddles.jsonl"} <= set(command)


def test_only_the_configs_own_model_is_fetched(look):
    for model, fetched in (("gguf:.cache/a.gguf", True), ("gguf:/models/a.gguf", False), ("orbax:gs://b/a", False)):
        look.config.bases.tiny.update(model=model, fetch="fetch_a")
        assert ("fetch tiny" in look().jobs) == fetched


def test_a_cell_of_another_training_is_not_done(look, write_result):
    train(look, optimizer={"warmup_steps": 1000})
    write_result(look.workdir, CELL, "facts", checkpoint(look))
    assert not look().done(CELL)
    train(look)
    assert look().done(CELL)


@pytest.mark.parametrize(
    "keys",
    [
        {"log_every": 3, "mesh": "fsdp=2"},
        {"checkpoint": {"every": 7, "keep": 1}, "evaluate": {"every": 0}},
        {"dtype": "auto"},  # which the run's own machine has decided
        {"optimizer": {"b1": 0.9}},  # the default, of a run that was recorded before there was this key
    ],
)
def test_a_key_that_changes_no_weight_leaves_a_finished_cell_finished(look, write_result, keys):
    train(look, log_every=10, dtype="bfloat16", mesh="fsdp=-1")
    write_result(look.workdir, CELL, "facts", checkpoint(look))
    (look.workdir / "runs" / CELL / "checkpoints" / "2" / "params").mkdir()
    look.config.train = keys
    state = look()
    assert state.done(CELL)
    assert [command[2] for command in state.jobs[CELL].commands] == ["imitation_jax.evaluate"]


def test_a_finished_cell_whose_optimiser_state_is_gone_is_only_evaluated(look):
    """As when the study gets another evaluation."""
    train(look)
    checkpoint = look.workdir / "runs" / CELL / "checkpoints" / "2"
    for name in ("params", "optimizer"):
        (checkpoint / name).mkdir(parents=True)
    assert [command[2] for command in look().jobs[CELL].commands] == ["imitation_jax.train", "imitation_jax.evaluate"]
    (checkpoint / "optimizer").rmdir()
    assert [command[2] for command in look().jobs[CELL].commands] == ["imitation_jax.evaluate"]
    look.config.schedules.flat.optimizer.warmup_steps = 8
    assert len(look().jobs[CELL].commands) == 2  # train says what differs


def test_the_time_left_comes_from_what_was_measured(look, write_result):
    train(look)  # 4 s for 1,800 tokens
    write_result(
        look.workdir, "tiny", "facts", {"data": "quiz.jsonl", "limit": 100, "model": "hf:tiny"}, n=10, seconds=5
    )
    state = look()
    tokens, samples, starts = (10_000 - 1800) + 20_000, 2 * 10, 2 * 2 + 1  # the build's command counts as well
    assert state.seconds_left() == pytest.approx(tokens * 4 / 1800 + samples * 0.5 + starts * 20)
    assert live_table.title(state).startswith("small: 1 of 3 done, about ")


def test_a_build_made_otherwise_is_refused(look):
    (look.workdir / "data").mkdir(parents=True)
    talk = next(job for job in look().jobs.values() if job.name == "data talk")
    talk.commands[-1]()
    assert look().done("data talk")
    look.config.builds.talk.flags.input = "other.jsonl"
    with pytest.raises(ValueError, match="talk.made.json: was made with another flags.input; use a new --workdir"):
        look()


def test_a_build_that_a_kill_cut_off_is_kept_only_with_the_same_keys(look):
    talk = look().jobs["data talk"]
    talk.commands[0]()
    assert [callable(command) for command in look().jobs["data talk"].commands] == [True, False, True]
    (look.workdir / "data" / "talk").mkdir()  # what the command itself makes
    state = look()
    assert len(state.jobs["data talk"].commands) == 1 and not state.done("data talk")
    look.config.builds.talk.flags.input = "other.jsonl"
    with pytest.raises(ValueError, match="talk.begun.json: was made with another flags.input; use a new --workdir"):
        look()


def test_study_json_says_what_every_cell_is(look, write_result):
    train(look)
    look().write()
    written = json.loads((look.workdir / "study.json").read_text())
    assert written["name"] == "small" and written["teacher"] is None
    assert written["bases"][0] == {"name": "tiny", "label": "Tiny", "parameters": 1000, "model": "hf:tiny", "note": ""}
    assert written["data"] == [{"name": "talk", "label": "Talk", "kind": "broad", "task": ""}]
    cell = {"name": CELL, "base": "tiny", "data": "talk", "tokens": 10_000, "schedule": "flat", "seed": 0}
    assert written["cells"][0] == cell | {"trained_tokens": 1800, "loss_tokens": 600, "status": "training", "why": ""}
    assert {"what": "judge", "why": "config.judge.flags.model is empty: no LLM judge was named"} in written["left_out"]

    layout = lay_out(look.config, str(look.workdir), 0.5)
    with pytest.raises(ValueError, match="is of a study whose scale is 1, not 0.5; use a new --workdir"):
        StudyStatus(layout, study_jobs(layout, look.workdir)).write()


def test_the_judge_runs_where_a_model_is_named(look, write_result):
    look.config.evaluations.answers = {"prompts": "p.jsonl"}
    write_result(look.workdir, "tiny", "facts", {"data": "quiz.jsonl", "limit": 100, "model": "hf:tiny"})
    write_result(look.workdir, "tiny", "answers", {"prompts": "p.jsonl", "model": "hf:tiny"})
    assert "judge tiny" not in look().jobs
    look.config.judge.flags.model = "gpt-4"
    look.config.judge.reference = f"{look.workdir}/theirs.jsonl"
    (look.workdir / "theirs.jsonl").write_text(json.dumps({"instruction": "hi", "output": "theirs"}) + "\n")
    state = look()
    assert state.done("tiny") and not state.done("judge tiny")
    for command in state.jobs["judge tiny"].commands:
        assert command[2] == "imitation_jax.judge" and f"--answers_a={look.workdir}/eval/tiny/answers.jsonl" in command
    for task in ("judge", "tone"):
        write_result(look.workdir, "tiny", task, {"model": "gpt-4"})
    assert not look().done("judge tiny")
    write_answer(look, "yes", "judge", "tone")
    state = look()
    assert state.done("judge tiny") and {"judge", "tone"} <= state.of_job["tiny"].numbers.keys()
    (look.workdir / "theirs.jsonl").write_text(json.dumps({"instruction": "hi", "output": "others"}) + "\n")
    assert not look().done("judge tiny")
    (look.workdir / "theirs.jsonl").write_text(json.dumps({"instruction": "hi", "output": "theirs"}) + "\n")
    look.config.judge.flags.verdict = "scores"
    assert look().done("judge tiny")  # these results do not tell it
    write_result(look.workdir, "tiny", "judge", {"model": "gpt-4", "verdict": "ranking"})
    assert not look().done("judge tiny")
