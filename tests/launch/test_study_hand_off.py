"""A study's cells on Slurm and on TPU slices: arrays and slices as study asks for them, and what comes of it."""

import fcntl
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_slurm import wait_for

from imitation_jax.studies import config as studies
from imitation_jax.studies import launchers
from imitation_jax.studies.jobs import Job
from imitation_jax.studies.launchers import slurm, tpu
from imitation_jax.studies.layout import ROOT, lay_out
from imitation_jax.studies.status import StudyStatus
from imitation_jax.studies.study_session import StudySession, exclusive, stop_signal

# A study in a process of its own, which can be killed.
PROGRAM = """
import pickle, sys
from imitation_jax.studies.launchers import tpu
from imitation_jax.studies.study_session import StudySession, exclusive, stop_signal
state, here = pickle.loads(sys.stdin.buffer.read())
with exclusive(here) as lock, stop_signal() as stopped:
    tpu.run(StudySession(state, here, lock, lambda name: None, stopped), list(state.jobs.values()))
"""


@pytest.fixture
def make_state(tmp_path, monkeypatch):
    """`make_state({"name": script})` is a study of two cells, which these scripts do; "DONE" in one is its result."""
    monkeypatch.setattr(launchers, "POLL_SECONDS", 0.3)

    def make(scripts: dict[str, str], **keys: str) -> StudyStatus:
        config = studies.get_config("small study")
        config.public = ""
        config.bases.tiny = studies.base("orbax:gs://bucket/tiny", "Tiny", 1000, "tiny.py", topology="v5e:4x4")
        config.builds.talk = studies.build("Talk", "prepare", input="t.jsonl")
        config.schedules.flat = {}
        config.grids.main = studies.grid("tiny", "talk", "10_000,20_000", "flat")
        config.evaluations.facts = {"data": "quiz.jsonl"}
        for key, value in keys.items():
            config[key].flags = value
        layout = lay_out(config, str(tmp_path / "study"), 1)
        jobs = []
        for cell, script in zip(layout.cells, scripts.values(), strict=True):
            done = tmp_path / f"{cell.name}.done"
            commands = (["PYTHON", "-c", "pass"], ["bash", "-c", script.replace("DONE", str(done))])
            jobs.append(Job(cell.name, "cell", commands, done.exists))
        return StudyStatus(layout, jobs)

    return make


def hand_over(state: StudyStatus, here: Path, launcher: str) -> None:
    with exclusive(here) as lock, stop_signal() as stopped:
        missing = [job for job in state.jobs.values() if not state.done(job.name)]
        launchers.load(launcher).run(StudySession(state, here, lock, lambda name: None, stopped), missing)


@pytest.fixture
def in_slurm(slurm, installed, monkeypatch):
    """Makes this process one that submits to that cluster."""
    for key, value in (slurm.env | installed).items():
        monkeypatch.setenv(key, value)
    return slurm


@pytest.mark.slow
def test_cells_are_tasks_of_one_array(in_slurm, make_state, tmp_path):
    here = tmp_path / "study"
    state = make_state(
        {"good": "touch DONE", "bad": "echo error: what went wrong; exit 1"}, slurm="--ntasks=1 --time=5"
    )
    hand_over(state, here, "slurm")
    good, bad = state.jobs
    assert state.done(good) and state.failed == {bad: "what went wrong"}
    assert json.loads((here / "jobs" / "slurm.json").read_text())["jobs"] == [good, bad]
    # Again: only what is missing.
    again = make_state({"good": "exit 1", "bad": "touch DONE"}, slurm="--ntasks=1")
    hand_over(again, here, "slurm")
    assert again.done(bad) and not again.failed
    assert json.loads((here / "jobs" / "slurm.json").read_text())["jobs"] == [bad]


@pytest.mark.slow
def test_a_killed_study_finds_its_array_again(in_slurm, make_state, tmp_path):
    here, starts = tmp_path / "study", tmp_path / "starts"
    script = f"echo start >>{starts}; until [ -e {tmp_path}/go ]; do sleep 0.2; done; touch DONE"
    state = make_state({"one": script, "two": script}, slurm="--ntasks=1")
    with exclusive(here) as lock:
        slurm._submit(
            StudySession(state, here, lock, lambda name: None), list(state.jobs.values())
        )  # and then it is killed
    (tmp_path / "go").touch()
    state = make_state({"one": script, "two": script}, slurm="--ntasks=1")
    hand_over(state, here, "slurm")
    assert all(map(state.done, state.jobs)) and starts.read_text().split() == ["start", "start"]


@pytest.mark.slow
def test_what_sbatch_refuses_is_one_line(in_slurm, make_state, tmp_path):
    state = make_state({"one": "true", "two": "true"}, slurm="--partition=nowhere")
    with pytest.raises(OSError, match=r"sbatch: .*partition.*config.slurm.flags=--partition=nowhere"):
        hand_over(state, tmp_path / "study", "slurm")


def test_without_slurm_it_says_so(make_state, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="--launcher=slurm: there is no squeue here"):
        hand_over(make_state({"one": "true", "two": "true"}), tmp_path / "study", "slurm")


@pytest.fixture
def answering_slurm(tmp_path, monkeypatch):
    """`answering_slurm(answer, ...)`: what squeue answers one after the other, as shell; gives the calls of sbatch."""
    folder = tmp_path / "programs"
    folder.mkdir()

    def make(*answers: str) -> Path:
        asked, submitted = tmp_path / "asked", tmp_path / "submitted"
        cases = "".join(f"{n}) {answer} ;;\n" for n, answer in enumerate(answers))
        squeue = f'echo "$*" >>{asked}\ncase $(($(wc -l <{asked}) - 1)) in\n{cases}*) echo error >&2; exit 2 ;;\nesac'
        for name, does in {"squeue": squeue, "sbatch": f'echo "$*" >>{submitted}\necho 7'}.items():
            (folder / name).write_text(f"#!/usr/bin/env bash\n{does}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return submitted

    return make


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(slurm.logging, "warning", lambda text, *values: said.append(text % values))
    return said


BUSY = "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1"


def test_a_busy_controller_is_asked_again_and_gets_one_array(answering_slurm, make_state, tmp_path, warnings):
    state = make_state({"one": "", "two": ""})
    made = " ".join(f"{tmp_path}/{name}.done" for name in state.jobs)
    submitted = answering_slurm(BUSY, "true", "echo 7", BUSY, BUSY, "echo 7", f"touch {made}")
    hand_over(state, tmp_path / "study", "slurm")
    assert all(map(state.done, state.jobs)) and not state.failed
    (call,) = submitted.read_text().splitlines()
    (name,) = re.findall(r"--job-name=(\S+)", call)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 7 and all(f"--name={name} " in line for line in asked)
    again = "squeue: slurm_load_jobs error: Unable to contact slurm controller; asking again every 0.3 s"
    assert warnings == [again, again]  # once for the first answer missed, once for the two in a row


def test_a_kill_before_sbatch_has_answered_loses_no_array(answering_slurm, make_state, tmp_path, monkeypatch):
    state = make_state({"one": "", "two": ""})
    made = " ".join(f"{tmp_path}/{name}.done" for name in state.jobs)

    def killed(*argv: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(slurm, "_slurm", killed)
        slurm._submit(StudySession(state, tmp_path / "study", 0, lambda name: None), list(state.jobs.values()))
    submitted = answering_slurm("echo 7; echo 7", f"touch {made}")
    hand_over(state, tmp_path / "study", "slurm")
    assert all(map(state.done, state.jobs)) and not submitted.exists()


def test_a_found_arrays_logs_are_its_own(answering_slurm, make_state, tmp_path):
    here, state = tmp_path / "study", make_state({"one": "", "two": ""})
    one, two = state.jobs
    for name in ("jobs", "logs"):
        (here / name).mkdir(parents=True)
    (here / "jobs" / "slurm.json").write_text(json.dumps({"units": ["no longer asked for", two, one]}))
    for index, name in enumerate(["gone", "two", "one"]):
        (here / "logs" / f"slurm-7_{index}.log").write_text(f"error: {name}'s\n")
    submitted = answering_slurm("echo 7", "true")
    hand_over(state, here, "slurm")
    assert state.failed == {one: "one's", two: "two's"} and not submitted.exists()


@pytest.fixture
def cloud(make_cloud, monkeypatch):
    """Makes this process one that asks that cloud for slices."""
    cloud = make_cloud()
    for key, value in cloud.env.items():
        monkeypatch.setenv(key, value)
    return cloud


def asked_of(cloud, verb: str) -> list[list[str]]:
    lines = map(json.loads, (cloud.folder / "commands.jsonl").read_text().splitlines())
    return [line for line in lines if line[3] == verb]


@pytest.mark.slow
def test_each_cell_has_a_slice_of_its_own_and_gives_it_back(cloud, make_state, tmp_path):
    state = make_state({"good": "touch DONE", "bad": "exit 1"}, tpu="--spot")
    hand_over(state, tmp_path / "study", "tpu")
    good, bad = state.jobs
    logs = [(tmp_path / "study" / "logs" / f"{name}.log").read_text() for name in state.jobs]
    assert state.done(good), logs
    assert list(state.failed) == [bad] and state.failed[bad].startswith("exit 1; see "), logs
    created = asked_of(cloud, "create")
    assert {tpu.slice_name(state.layout.workdir, name) for name in state.jobs} == {line[4] for line in created}
    assert all("--spot" in line for line in created)
    assert {path.stem for path in cloud.folder.glob("*.json")} == {"host_environment"}  # all given back


def watchers(names: list[str]) -> dict[str, list[int]]:
    """Slice -> the processes of launch/ that it is an argument of."""
    processes: dict[str, list[int]] = {name: [] for name in names}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:  # it has ended
            continue
        if words[0] == "bash" and words[1].startswith("launch/"):
            for name in set(names) & set(words[2:4]):
                processes[name].append(int(path.parent.name))
    return processes


def is_free(path: Path) -> bool:
    with open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent was killed")
def test_nothing_outlives_a_killed_study_and_its_slices_are_given_back(cloud, make_state, tmp_path):
    here, script = tmp_path / "study", f"until [ -e {tmp_path}/go ]; do sleep 0.2; done; touch DONE"
    state = make_state({"one": script, "two": script})
    names = [tpu.slice_name(state.layout.workdir, name) for name in state.jobs]
    notes = [Path(cloud.env["IMITATION_CACHE"]) / "tpu" / f"{name}.run" for name in names]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    study = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    )
    study.stdin.write(pickle.dumps((state, here)))
    study.stdin.close()
    try:
        wait_for(lambda: all(cloud.queue.processes(name) for name in names) and all(note.exists() for note in notes))
        assert all(watchers(names).values())
    finally:
        study.kill()
        study.wait()
    wait_for(lambda: not any(watchers(names).values()) and is_free(here / "commands.lock"), 10)
    # The cells go on, end while no study runs, and one slice is taken away after that.
    (tmp_path / "go").touch()
    wait_for(lambda: all(job.done() for job in state.jobs.values()))
    cloud.preempt(names[0])
    for name in state.jobs:
        state.look(name)
    hand_over(state, here, "tpu")
    assert {path.stem for path in cloud.folder.glob("*.json")} == {"host_environment"}
    assert len(asked_of(cloud, "create")) == 2 and not any(note.exists() for note in notes)
    asked = len(asked_of(cloud, "list"))
    hand_over(state, here, "tpu")
    assert len(asked_of(cloud, "list")) == asked  # nothing is left to ask for


def test_names_of_slices(papers_grid):
    layout = lay_out(papers_grid, "w", 1)
    names = [*layout.bases, *(cell.name for cell in layout.cells)]
    slices = [tpu.slice_name(workdir, name) for workdir in ("gs://a/study", "gs://b/study") for name in names]
    assert len(names) >= 39 and len(set(slices)) == len(slices)
    assert all(re.fullmatch("[a-z]([a-z0-9-]*[a-z0-9])?", name) and len(name) <= 40 for name in slices)


@pytest.mark.parametrize(
    "model", ["hf:models/tiny", "gguf:.cache/tiny.gguf", "orbax:/runs/tiny", "hf:gs://bucket/tiny"]
)
def test_a_model_that_slices_cannot_load_is_refused(make_state, model):
    state = make_state({"one": "", "two": ""})
    state.layout.workdir, state.layout.config.bases.tiny.model = "gs://bucket/study", model
    with pytest.raises(ValueError, match=re.escape(f"--launcher=tpu: config.bases.tiny.model={model} must be")):
        tpu.check(state.layout)


def test_public_data_that_slices_cannot_see_is_refused(make_state):
    state = make_state({"one": "", "two": ""})
    with pytest.raises(ValueError, match="--launcher=tpu: --workdir=.*/study must be in a bucket"):
        tpu.check(state.layout)
    state.layout.workdir = "gs://bucket/study"
    tpu.check(state.layout)
    state.layout.config.public = "gs://bucket/public"
    tpu.check(state.layout)
    state.layout.evaluations["facts"]["data"] = "/data/quiz.jsonl"
    with pytest.raises(ValueError, match="--launcher=tpu: /data/quiz.jsonl is on this machine alone"):
        tpu.check(state.layout)
    state.layout.config.public = "/data"
    with pytest.raises(ValueError, match="--launcher=tpu: config.public=/data must be in a bucket"):
        tpu.check(state.layout)


def test_a_base_without_a_slice_is_named_before_any_is_asked_for(cloud, make_state, tmp_path):
    state = make_state({"one": "", "two": ""})
    state.layout.config.bases.tiny.topology = ""
    with pytest.raises(ValueError, match=r"config.bases.tiny names no topology"):
        hand_over(state, tmp_path / "study", "tpu")
    assert not (cloud.folder / "commands.jsonl").exists()
