"""Real runs under the launchers: two processes of two devices each that train the preset "tiny"."""

import json
import os
import re
import signal
import sys
import sysconfig
from pathlib import Path

import pytest
from loopback_slurm import free_ports, wait_for

STEPS = 60


@pytest.fixture
def train(tiny_config, write_dialogues, tmp_path):
    """`train(workdir)` is a command line, in the words of the README."""

    def command(workdir: Path) -> list[str]:
        data = write_dialogues(tmp_path / "dialogues.jsonl", 40)
        keys = {
            "data.path": data,
            "steps": STEPS,
            "epochs": 100,
            "checkpoint.every": 10,
            "log_every": 10,
            "mesh": "fsdp=-1",
        }
        argv = ["python", "-m", "imitation_jax.train", f"--config={tiny_config}", f"--workdir={workdir}"]
        return argv + [f"--config.{key}={value}" for key, value in keys.items()]

    return command


@pytest.fixture
def devices(tmp_path):
    """Two devices a process, and caches that outlive it."""
    return {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "True",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "IMITATION_CACHE": str(tmp_path / "cache"),
    }


def steps(workdir: Path) -> list[int]:
    file = workdir / "metrics.jsonl"
    return [json.loads(line)["step"] for line in file.read_text().splitlines()] if file.exists() else []


def check_whole(workdir: Path) -> None:
    """Every step is there once, and the student has learned."""
    assert steps(workdir) == list(range(1, STEPS + 1))
    losses = [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]
    assert (workdir / "checkpoints" / str(STEPS)).is_dir()


@pytest.mark.slow
def test_a_preempted_slice_is_made_anew_and_trains_on(make_cloud, train, devices):
    # The hosts install the project for real, where what it depends on is at hand.
    cloud = make_cloud(
        JAX_COORDINATOR_ADDRESS=f"localhost:{free_ports(1)[0]}",
        JAX_NUM_PROCESSES="{hosts}",
        JAX_PROCESS_ID="{host}",
        IMITATION_PYTHON=sys.executable,
        IMITATION_VENV="",
        PYTHONPATH=sysconfig.get_path("purelib"),
        **devices,
    )
    workdir = cloud.bucket / "run1"
    cloud.tpu("create", "run1", "v5e:4x4", "--spot")
    assert cloud.tpu("setup", "run1").count("installed") == 2
    cloud.tpu("run", "run1", *train(workdir))
    wait_for(lambda: len(steps(workdir)) > 15)
    cloud.tpu("status", "run1")
    cloud.preempt("run1")
    done = len(steps(workdir))
    assert done < STEPS
    cloud.tpu("status", "run1", code=1)
    cloud.tpu("resume", "run1")
    assert cloud.tpu("watch", "run1").count("ended with exit 0") == 2
    log = (cloud.queue.home("run1", 0) / "imitation_jax.log").read_text()
    cloud.transcript += f"--- log of host 0\n{log}"
    cloud.tpu("delete", "run1")
    print(cloud.transcript)
    assert int(re.search(r"resumed from step (\d+)", log)[1]) in (10, 20, 30, 40, 50)
    check_whole(workdir)


@pytest.mark.slow
def test_after_a_process_was_killed_all_hosts_start_again(make_cloud, train, devices):
    rendezvous = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_ports(1)[0]}", "JAX_NUM_PROCESSES": "{hosts}"}
    cloud = make_cloud(JAX_PROCESS_ID="{host}", **rendezvous, **devices | {"IMITATION_PAUSE": "2"})
    workdir = cloud.bucket / "run1"
    cloud.tpu("create", "run1", "v5e:4x4")
    cloud.tpu("setup", "run1")
    cloud.tpu("run", "run1", *train(workdir))
    wait_for(lambda: len(steps(workdir)) > 15)
    os.kill(cloud.queue.find("run1", 1, "imitation_jax.train"), signal.SIGKILL)
    assert cloud.tpu("watch", "run1").count("ended with exit 0") == 2
    logs = [(cloud.queue.home("run1", host) / "imitation_jax.log").read_text() for host in (0, 1)]
    print(*(f"--- log of host {host}\n{log}" for host, log in enumerate(logs)))
    assert "process 1 of 2" in logs[0] and "is lost" in logs[0]  # it is named where it is missed
    assert "launch/run.sh: exit 76 after" in logs[0] and "launch/run.sh: exit 137 after" in logs[1]
    assert "resumed from step" in logs[0]
    check_whole(workdir)


@pytest.mark.slow
def test_a_slurm_job_checkpoints_on_sigterm_is_queued_again_and_trains_on(slurm, train, devices, installed, tmp_path):
    workdir, log = tmp_path / "run", tmp_path / "log"
    number = slurm.sbatch(log, *train(workdir), **installed, **devices)
    slurm.wait(lambda: len(steps(workdir)) > 5)
    slurm.run("scancel", "--signal=TERM", number)
    assert slurm.ended(number) == "COMPLETED", log.read_text()
    said = log.read_text()
    print(said)
    assert slurm.job(number)["Restarts"] == "1"
    assert "launch/slurm.sh: ended with exit 75" in said and "launch/slurm.sh: ended with exit 0" in said
    (saved,) = {int(step) for step in re.findall(r"SIGTERM: step (\d+) of", said)}
    assert f"resumed from step {saved}" in said
    check_whole(workdir)
