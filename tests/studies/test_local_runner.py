"""Jobs as processes on this machine: failures are said and the others go on, and SIGTERM lets them end."""

import os
import signal
from pathlib import Path

import pytest

from imitation_jax.studies import local_runner
from imitation_jax.studies.jobs import Job
from imitation_jax.studies.status import StudyStatus
from imitation_jax.studies.study_session import Stopped, StudySession, exclusive, stop_signal

# A study whose only command notes its start, and on SIGTERM takes a second to end, as one that checkpoints.
SLOW = "trap 'sleep 1; echo ended >>NOTES; exit 75' TERM; echo started >>NOTES; while true; do sleep 0.1; done"


def shell_job(name: str, kind: str, script: str, done: Path) -> Job:
    return Job(name, kind, (["bash", "-c", script],), done.exists)


def run(state: StudyStatus, here: Path) -> list[str]:
    shown = []
    with exclusive(here) as lock, stop_signal() as stopped:
        local_runner.run(StudySession(state, here, lock, shown.append, stopped), list(state.jobs.values()))
    return shown


def test_a_failed_job_is_named_and_the_others_go_on(state, tmp_path):
    jobs = [
        shell_job("first", "cell", "echo 'error: what went wrong'; exit 1", tmp_path / "a"),
        shell_job("second", "cell", f"touch {tmp_path}/b", tmp_path / "b"),
        shell_job("third", "cell", "true", tmp_path / "c"),
        shell_job("killed", "cell", "kill -9 $$", tmp_path / "d"),
    ]
    status = state(*jobs)
    assert "second" in run(status, tmp_path)
    assert status.failed["first"] == "what went wrong" and status.of_job["first"].stage == "failed"
    assert status.done("second") and "second" not in status.failed
    assert status.failed["third"].startswith("its commands ended, but not all results are there; see ")
    assert status.failed["killed"].startswith("exit -9; see ")


@pytest.mark.parametrize("needed, needs", [("data talk", "cell"), ("cell", "judge cell")])
def test_what_needs_a_failed_job_is_not_started(state, tmp_path, needed, needs):
    kinds = {"data talk": "build", "cell": "cell", "judge cell": "judge"}
    first = shell_job(needed, kinds[needed], "echo 'error: no file t.jsonl'; exit 1", tmp_path / "a")
    status = state(first, shell_job(needs, kinds[needs], f"touch {tmp_path}/started", tmp_path / "b"))
    run(status, tmp_path)
    assert status.failed[needs] == f"{needed} failed: no file t.jsonl" and not (tmp_path / "started").exists()


def test_what_is_done_is_not_done_again(state, tmp_path):
    (tmp_path / "made").touch()
    status = state(shell_job("cell", "cell", f"touch {tmp_path}/again", tmp_path / "made"))
    assert run(status, tmp_path) == [] and not (tmp_path / "again").exists()


def test_sigterm_lets_the_command_end_by_itself(state, tmp_path):
    notes = tmp_path / "notes"
    status = state(shell_job("cell", "cell", SLOW.replace("NOTES", str(notes)), tmp_path / "never"))
    me, signalled = os.getpid(), []

    def show(name: str) -> None:
        if notes.exists() and not signalled:
            signalled.append(os.kill(me, signal.SIGTERM))

    with exclusive(tmp_path) as lock, stop_signal() as stopped, pytest.raises(Stopped):
        local_runner.run(StudySession(status, tmp_path, lock, show, stopped), list(status.jobs.values()))
    assert notes.read_text().split() == ["started", "ended"]
