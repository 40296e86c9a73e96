"""A start of a study: it has its folder for itself, its commands end with it, and done cells keep what is wanted."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from imitation_jax.studies.jobs import Job
from imitation_jax.studies.study_session import StudySession, exclusive

# A study whose only command notes its start, and on SIGTERM takes a second to end, as one that checkpoints.
SLOW = "trap 'sleep 1; echo ended >>NOTES; exit 75' TERM; echo started >>NOTES; while true; do sleep 0.1; done"
PROGRAM = """
import sys
from pathlib import Path
from imitation_jax.studies.study_session import exclusive, start
here, shell = Path(sys.argv[1]), sys.argv[2]
with exclusive(here) as lock:
    print("alone", flush=True)
    if shell:
        start(["bash", "-c", shell], here / "log", lock).wait()
"""


def program(here: Path, shell: str = "") -> subprocess.Popen:
    argv = [sys.executable, "-c", PROGRAM, str(here), shell]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent was killed")
def test_a_killed_study_takes_its_command_with_it_and_the_next_waits(tmp_path):
    notes = tmp_path / "notes"
    first = program(tmp_path, SLOW.replace("NOTES", str(notes)))
    wait_for(notes)
    first.kill()
    first.wait()
    second = program(tmp_path)
    assert second.communicate()[0] == "alone\n" and second.returncode == 0
    assert notes.read_text().split() == ["started", "ended"]  # before the second one had the folder


def test_two_studies_in_one_folder(tmp_path):
    with exclusive(tmp_path):
        with pytest.raises(ValueError, match="another study is at work there"), exclusive(tmp_path):
            pass
    with exclusive(tmp_path):
        pass


@pytest.mark.parametrize("keep, left", [("all", ["optimizer", "params"]), ("weights", ["params"]), ("nothing", None)])
def test_of_a_finished_cell_stays_what_the_config_keeps(state, tmp_path, keep, left):
    finished, other = (
        tmp_path / "runs" / name / "checkpoints" for name in ("tiny-talk-10k-flat", "tiny-talk-20k-flat")
    )
    for folder in (finished, other):
        for name in ("params", "optimizer"):
            (folder / "2" / name).mkdir(parents=True)
    status = state(Job("base", "base", (), lambda: False))
    status.layout.config.keep = keep
    status._done.remove("tiny-talk-20k-flat")  # that one goes on
    StudySession(status, tmp_path, 0, lambda name: None)
    kept = sorted(path.name for path in finished.glob("2/*")) if finished.exists() else None
    assert kept == left and len(list(other.glob("2/*"))) == 2
