"""The scripts of launch/ as a user starts them, on a machine where the project is installed already."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_gcloud import Queue
from loopback_slurm import Slurm

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> dict[str, str]:
    """Environment in which launch/setup.sh finds an environment of its own making: this interpreter, all installed."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "interpreter").write_text(sys.executable + "\n")
    checksum = subprocess.run(["cksum"], input=(ROOT / "setup.py").read_bytes(), capture_output=True).stdout.decode()
    for extra in ("demo", "cuda", "tpu"):
        (venv / f"installed-{extra}").write_text(f"{sys.executable} {checksum.strip()}\n")
    for name, starts in {"python": f'exec {sys.executable} "$@"', "pip": "echo pip is not needed >&2; exit 1"}.items():
        (venv / "bin" / name).write_text(f"#!/bin/sh\n{starts}\n")
        (venv / "bin" / name).chmod(0o755)
    return {"IMITATION_VENV": str(venv), "IMITATION_PYTHON": "", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def launch(installed):
    """`launch("run.sh", *arguments, env={...})` runs a script to its end; `launch.start(...)` only starts it."""

    def start(script: str, *arguments: str, env: dict[str, str] | None = None, **options) -> subprocess.Popen:
        environment = os.environ | installed | {"IMITATION_PAUSE": "0"} | (env or {})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        argv = ["bash", str(ROOT / "launch" / script), *map(str, arguments)]
        # Where these tests run in the background, Ctrl-C is ignored by whatever they start.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(argv, env=environment, text=True, **(pipes | options))
        finally:
            signal.signal(signal.SIGINT, before)

    def run(script: str, *arguments: str, **options) -> subprocess.CompletedProcess:
        process = start(script, *arguments, **options)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    run.start = start
    return run


@pytest.fixture(scope="session")
def shell():
    """`shell("source launch/slices.sh; ...")` runs bash in the root of the repository."""

    def run(script: str) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def config_slices() -> set[str]:
    """The slices that the configs' docstrings and topologies name."""
    text = "".join(path.read_text() for path in (ROOT / "configs").rglob("*.py"))
    return set(re.findall(r"(?:\d+\*)?\bv\d\w?:\d+(?:x\d+)+", text))


class Cloud:
    """Google's cloud as tests/launch/fake_gcloud.py plays it, and launch/tpu.sh before it.

    `cloud.tpu("create", "run1", "v5e:4x4")` is what it printed, with what it was asked on top; `cloud.folder` is the
    state of the fake, `cloud.bucket` a folder that every host sees and that outlives them, `cloud.transcript` all that
    was printed so far.
    """

    def __init__(self, folder: Path, launch, hosts: dict[str, str]):
        self.folder, self.bucket, self.launch, self.transcript = folder / "cloud", folder / "bucket", launch, ""
        programs = folder / "programs"
        for new in (self.folder, self.bucket, programs):
            new.mkdir()
        scripts = {
            "gcloud": f'exec {sys.executable} {Path(__file__).with_name("fake_gcloud.py")} "$@"',
            "hostname": "echo $FAKE_HOST_NAME",
        }
        for name, does in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{does}\n")
            (programs / name).chmod(0o755)
        hosts = hosts | {"PATH": f"{programs}:{os.environ['PATH']}", "FAKE_HOST_NAME": "host-{host}"}
        (self.folder / "host_environment.json").write_text(json.dumps(hosts))
        self.queue = Queue(self.folder)
        self.env = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "FAKE_GCLOUD": str(self.folder),
            "CLOUDSDK_COMPUTE_ZONE": "us-west4-a",
            "IMITATION_CACHE": str(folder / "cache"),
            "IMITATION_POLL": "0.2",
        }

    def start(self, *arguments: str) -> subprocess.Popen:
        return self.launch.start("tpu.sh", *arguments, env=self.env, stderr=subprocess.STDOUT, process_group=0)

    def tpu(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        out, _ = process.communicate()
        self.transcript += f"$ launch/tpu.sh {shlex.join(map(str, arguments))}\n{out}"
        assert process.returncode == code, self.transcript
        return out

    def preempt(self, name: str) -> None:
        self.transcript += "--- the slice is preempted: its hosts and their disks are gone\n"
        self.queue.preempt(name)


@pytest.fixture
def make_cloud(tmp_path, launch, installed):
    """`make_cloud(**environment)` is a Cloud whose hosts have that environment; its processes end with the test."""
    made = []

    def make(**environment: str) -> Cloud:
        made.append(Cloud(tmp_path, launch, installed | {"IMITATION_PAUSE": "0"} | environment))
        return made[-1]

    yield make
    for cloud in made:
        for request in cloud.folder.glob("*.json"):
            cloud.queue.take_away(request.stem)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    if not shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("needs Slurm; apt-get install slurm-wlm")
    if os.geteuid():
        pytest.skip("needs root, as whom slurmd runs")
    with Slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster
