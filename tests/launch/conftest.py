"""The scripts of launch/ as a user starts them, on a machine where the project is installed already."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
        return subprocess.Popen(argv, env=environment, text=True, **(pipes | options))

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
