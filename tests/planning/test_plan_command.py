"""`plan` as a shell sees it, on this machine's own devices: everything but the TPU compiler is the same."""

import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def one_line(result) -> str:
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    return result.stderr.splitlines()[-1]


def test_train_loads_the_step_that_plan_saved(command, tiny_config, write_dialogues, tmp_path):
    """Which it lowers again to find it."""
    data = write_dialogues(tmp_path / "train.jsonl", 60)
    flags = [f"--config={tiny_config}", f"--config.data.path={data}", "--config.steps=2", "--config.evaluate.samples=0"]
    planned = command("plan", *flags, "--topology=cpu:2", "--programs=train", "--save", "--json", devices=2)
    assert planned.returncode == 0, planned.stderr
    run = json.loads(planned.stdout)["run"]
    assert (run["steps"], run["steps_from"]) == (2, "the data")
    loaded = command("train", *flags, f"--workdir={tmp_path / 'loaded'}", devices=2)
    assert loaded.returncode == 0 and "the train step is loaded from " in loaded.stderr, loaded.stderr
    losses = [json.loads(line)["loss"] for line in (tmp_path / "loaded" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2 and losses[0] == pytest.approx(math.log(512), rel=0.1)  # random weights know nothing


def test_a_killed_plan_goes_on(tiny_config, tmp_path):
    """kill -9 between two programs: the first is not compiled again; and the JSON says whether it all fits."""
    argv = [sys.executable, "-m", "imitation_jax.plan", f"--config={tiny_config}", "--topology=cpu:4", "--json"]
    env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "IMITATION_CACHE": str(tmp_path), "XLA_FLAGS": ""}
    with subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 300
        while not list(tmp_path.glob("plans/*/facts.json")) and time.monotonic() < until:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    (first,) = tmp_path.glob("plans/*/facts.json")  # else it was too fast for this test
    written = first.stat().st_mtime_ns
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == written and len(list(tmp_path.glob("plans/*/facts.json"))) == 3

    planned = json.loads(done.stdout)
    assert planned["fits"] is True and 0 < planned["hbm_gib"] < planned["limit_gib"]
    assert planned["spare_gib"] == pytest.approx(planned["limit_gib"] - planned["hbm_gib"])
    assert planned["mesh"] == {"fsdp": 4} and set(planned["programs"]) == {"train", "score", "generate"}
    train = planned["programs"]["train"]
    assert {"parameters", "optimizer", "batch", "activations"} == set(train["memory_gib"])
    # Adam's two moments are as large as the weights; a fourth of each and a count is on each device.
    assert train["memory_gib"]["optimizer"] == pytest.approx(2 * train["memory_gib"]["parameters"], rel=1e-3)
    assert {one["axes"] for one in train["collectives"]} == {"fsdp"}
    assert planned["run"]["steps"] == round(150e6 / (4 * 64)) and "150M tokens" in planned["run"]["steps_from"]


@pytest.mark.slow
def test_all_plans_every_size_and_a_failure_stops_no_other(command, tiny_config, tmp_path):
    """In a folder of its own: one size, one whose mesh does not divide, one config that is no size."""
    configs = tmp_path / "configs"
    configs.mkdir()
    text = tiny_config.read_text().replace("    return", "    config.plan.topology = 'cpu:2'\n    return")
    (configs / "good.py").write_text(text)
    (configs / "bad.py").write_text(text.replace("    return", "    config.mesh = 'fsdp=3'\n    return"))
    shutil.copy(ROOT / "configs" / "toxicity.py", configs)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    flags = ("--all", "--programs=train")
    argv = [sys.executable, "-m", "imitation_jax.plan", *flags]
    env |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "IMITATION_CACHE": str(tmp_path / "cache")}
    result = subprocess.run([*argv, "--json"], cwd=tmp_path, env=env, capture_output=True, text=True)
    bad, good = json.loads(result.stdout)
    assert result.returncode == 1 and good["fits"] and good["config"] == "good"
    assert not bad["fits"] and "mesh 'fsdp=3' does not divide the 2 devices" in bad["error"]
    table = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True).stdout.splitlines()
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| bad | cpu:2 | mesh 'fsdp=3'") and "| yes |" in table[3]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=cpu:4", "--programs=train,serve"], "--programs: 'serve' is none of train, score, generate"),
        (["--topology=cpu:4", "--config.data.path=nowhere.jsonl"], "no data at nowhere.jsonl"),
    ],
)
def test_a_mistake_is_one_line(command, tiny_config, flags, message):
    assert message in one_line(command("plan", f"--config={tiny_config}", *flags, devices=4))


def test_a_machine_without_the_tpu_s_compiler_says_what_to_install(tiny_config, tmp_path):
    """As on one where libtpu is not installed."""
    (tmp_path / "sitecustomize.py").write_text("import sys\n\nsys.modules['libtpu'] = None\n")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    env.pop("TPU_LIBRARY_PATH", None)  # libtpu itself sets it, in this process
    argv = [sys.executable, "-m", "imitation_jax.plan", f"--config={tiny_config}", "--topology=v5e:2x2"]
    result = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
    assert "needs the TPU compiler; pip install 'imitation_jax[tpu]'" in one_line(result)


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu, of the extra [tpu]")
def test_a_small_config_is_compiled_for_a_tpu_slice(command, tiny_config):
    flags = ("--topology=v5e:2x2", "--config.mesh=fsdp=2,tensor=2", "--programs=train", "--config.steps=1000", "--json")
    result = command("plan", f"--config={tiny_config}", *flags, "--price=2", devices=1)
    assert result.returncode == 0, result.stderr
    planned = json.loads(result.stdout)
    assert planned["fits"] and planned["limit_gib"] == 15.75 and planned["chips"] == 4
    train, run = planned["programs"]["train"], planned["run"]
    assert sum(train["pallas_calls"].values()) > 0  # attention is a kernel there
    assert {"fsdp", "tensor"} <= {axis for one in train["collectives"] for axis in one["axes"].split("+")}
    assert 0 < run["mfu"] < 1 and run["binds"] == train["roofline"]["binds"]
    assert run["hours"] == pytest.approx(1000 * run["step_seconds"] / 3600)
    assert run["dollars"] == pytest.approx(run["hours"] * 4 * 2)
