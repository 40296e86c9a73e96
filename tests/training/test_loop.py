"""Whole runs: what a restart changes (nothing), what ends a run, what is written."""

import json
import os
import random
import signal
import time

import pytest

from imitation_jax.training.loop import train

# What a restart must reproduce bit for bit; the others are times.
EXACT = ("step", "loss", "accuracy", "grad_norm", "learning_rate", "loss_tokens", "padding_share", "skipped")


@pytest.fixture(autouse=True)
def sigterm_ends_with_the_test():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def records(workdir, keys=EXACT):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in keys if key in line} for line in lines]


def saved_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def go(config, workdir, *evaluators):
    return train(config, str(workdir), config.data.cache_dir, evaluators)


def test_sigterm_and_another_mesh(config, tmp_path, write_dialogues, assert_close):
    """Six of twelve steps on one mesh, the rest on another: the same data, the same losses; the best is kept."""
    config.data.validation = str(write_dialogues(tmp_path / "validation.jsonl", 9, seed=3))
    config.evaluate.every = config.checkpoint.every = 3
    config.checkpoint.keep = 1
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    seen = []

    def evaluator(model, step):
        assert model.params["embed"].shape == (512, 64)
        seen.append(step)
        return {"twice_the_step": 2.0 * step}, {"note": "text"}

    config.mesh = "fsdp=8"
    assert go(config, whole, evaluator) is True
    assert seen == [3, 6, 9, 12]
    lines = records(whole, ("step", "validation_loss", "twice_the_step", "loss"))
    assert {line["step"]: line["twice_the_step"] for line in lines if "twice_the_step" in line} == {3: 6, 6: 12, 9: 18, 12: 24}
    losses = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    assert set(losses) == {3, 6, 9, 12} and lines[-1]["loss"] < lines[0]["loss"] - 0.5
    assert saved_steps(whole) == sorted({12, min(losses, key=losses.get)})

    def preempt(model, step):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}, {}

    config.evaluate.every = 5
    assert go(config, moved, preempt) is False
    assert saved_steps(moved) == [5] and len(records(moved)) == 5
    config.mesh = "data=2,fsdp=2,tensor=2"
    assert go(config, moved) is True
    for key in ("step", "learning_rate", "loss_tokens", "padding_share"):
        assert records(moved, (key,)) == records(whole, (key,))
    for key in ("loss", "grad_norm"):
        assert_close(
            [line[key] for line in records(moved, (key,))], [line[key] for line in records(whole, (key,))], 1e-4
        )

    # A run that is whole stays as it is.
    before = (moved / "metrics.jsonl").read_text()
    assert go(config, moved) is True
    assert (moved / "metrics.jsonl").read_text() == before


def test_a_run_that_only_gets_nan_stops(config, tmp_path):
    config.optimizer.learning_rate, config.optimizer.warmup_fraction = 1e30, 0.0
    config.max_skipped = 3
    with pytest.raises(FloatingPointError, match="not finite in 3 steps in a row up to step 4; lower .*") as error:
        go(config, tmp_path / "run")
    assert "\n" not in str(error.value) and "None" not in str(error.value)
    # The first step was fine and its update was not.
    assert [line["skipped"] for line in records(tmp_path / "run")] == [0, 1, 1]


def test_a_first_start_that_failed_does_not_bind_the_workdir(config, tmp_path):
    good = config.data.path
    config.data.path = str(tmp_path / "nothing.jsonl")
    with pytest.raises(FileNotFoundError, match="no data at"):
        go(config, tmp_path / "run")
    config.data.path = good
    config.model.tokenizer = "nowhere"
    with pytest.raises(FileNotFoundError):
        go(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


# ----------------------------------------------------------------------------------------------------------------------
# Exact resume, in processes that are really killed
# ----------------------------------------------------------------------------------------------------------------------


def wait_for_step(process, workdir, step):
    """Returns as soon as `step` stands in metrics.jsonl."""
    while process.poll() is None:
        path = workdir / "metrics.jsonl"
        if path.exists() and path.read_text().count("\n") >= step:
            return
        time.sleep(0.005)
    pytest.fail(f"ended before step {step}: {process.communicate()[1][-2000:]}")


@pytest.fixture
def tiny_run(tmp_path, dialogues, tiny_tokenizer):
    """Arguments of `train` for a run of 60 steps with a checkpoint every 7."""
    path = tmp_path / "config.py"
    path.write_text(
        "from imitation_jax.training import config as training\n\n\n"
        "def get_config():\n"
        "    config = training.get_config()\n"
        "    config.model.preset = 'tiny'\n"
        f"    config.model.tokenizer = {str(tiny_tokenizer)!r}\n"
        f"    config.data.path = {str(dialogues)!r}\n"
        "    config.data.seq_len = 64\n"
        "    config.batch_size = 4\n"
        "    config.epochs = 9\n"
        "    config.steps = 60\n"
        "    config.evaluate.every = 0\n"
        "    config.checkpoint.every = 7\n"
        "    config.optimizer.learning_rate = 1e-2\n"
        "    return config\n"
    )
    return lambda workdir: ("train", f"--config={path}", f"--workdir={workdir}")


def test_kill_and_sigterm_change_no_bit(command, tiny_run, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    result = command(*tiny_run(whole))
    assert result.returncode == 0, result.stderr
    assert len(records(whole)) == 60 and saved_steps(whole) == [56, 60]

    at = random.Random(os.getpid()).randint(8, 40)
    process = command.start(*tiny_run(broken))
    wait_for_step(process, broken, at)
    process.kill()
    process.communicate()
    killed_at = len(records(broken, ()))

    process = command.start(*tiny_run(broken))
    wait_for_step(process, broken, 45)
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 75, err
    assert "resumed from step" in err and "SIGTERM: step" in err
    stopped = records(broken)
    # The step of the signal is the newest checkpoint, not the last multiple of 7.
    assert saved_steps(broken)[-1] == stopped[-1]["step"] == len(stopped) < 60

    result = command(*tiny_run(broken))
    assert result.returncode == 0, result.stderr
    assert f"resumed from step {len(stopped)}" in result.stderr
    assert records(broken) == records(whole), f"killed at step {killed_at}, SIGTERM at {len(stopped)}"
