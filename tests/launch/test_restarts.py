import signal
import sys
import time

import pytest

# Exits, or is killed by a signal, as the next of its codes says.
COUNTING = """
import os, pathlib, sys
file, codes = pathlib.Path(sys.argv[1]), [int(code) for code in sys.argv[2].split(",")]
starts = len(file.read_text()) if file.exists() else 0
file.write_text("x" * (starts + 1))
code = codes[min(starts, len(codes) - 1)]
os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)
"""


@pytest.fixture
def ended(tmp_path, launch):
    """`ended("75,0")` is the exit code of launch/run.sh and how often it started a command that exits so in turn."""

    def run(codes: str):
        file = tmp_path / "starts"
        done = launch("run.sh", "python", "-c", COUNTING, file, codes, cwd=tmp_path)
        return done.returncode, len(file.read_text()), done.stderr

    return run


@pytest.mark.parametrize(("codes", "code", "starts"), [("0", 0, 1), ("75,75,0", 0, 3), ("76,0", 0, 2), ("-9,0", 0, 2)])
def test_what_another_start_mends_is_started_again(ended, codes, code, starts):
    assert ended(codes)[:2] == (code, starts)


@pytest.mark.parametrize(("codes", "code"), [("1", 1), ("2", 2), ("127", 127), ("-15", 143), ("75,1", 1)])
def test_an_error_is_final(ended, codes, code):
    assert ended(codes)[:2] == (code, 1 + codes.count(","))


def test_crashes_without_end_are_given_up(ended):
    code, starts, said = ended("-6")
    assert (code, starts) == (134, 8)
    assert "8 starts in a row ended within 170 s; giving up" in said


def test_checkpoints_without_end_are_not(ended):
    assert ended("75,75,75,75,75,75,75,75,75,75,0")[:2] == (0, 11)


def test_a_wrong_config_key_ends_in_its_own_line(launch, tiny_config):
    train = ["python", "-m", "imitation_jax.train", f"--config={tiny_config}", "--config.modle.preset=tiny"]
    done = launch("run.sh", *train)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-2].startswith("error: --config.modle.preset=tiny: the config has no key 'modle'")
    assert lines[-1] == "launch/run.sh: ended with exit 1"


WAITS = """
import signal, sys, time
def stop(number, frame):
    print("checkpointed", flush=True)
    sys.exit(75 if number == signal.SIGTERM else 130)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print("started", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_command_and_ends_both(launch, sent, code):
    process = launch.start("run.sh", "python", "-c", WAITS)
    assert process.stdout.readline() == "started\n"
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "checkpointed\n")
    assert err == f"launch/run.sh: ended with exit {code}\n"


def test_sigterm_between_two_starts_ends_it(launch):
    process = launch.start("run.sh", "bash", "-c", "exit 75", env={"IMITATION_PAUSE": "2"})
    assert "starting again" in process.stderr.readline()
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 75 and time.monotonic() - begin < 30


def test_the_command_runs_where_it_was_called_with_the_installed_python(launch, tmp_path):
    asks = "import os, sys; print(os.getcwd(), sys.executable)"
    done = launch("run.sh", "python", "-c", asks, cwd=tmp_path)
    assert done.stdout.split() == [str(tmp_path), sys.executable]


def test_gpus_bring_their_extra(shell, tmp_path):
    for name, prints in {"nvidia-smi": "GPU 0: NVIDIA H100", "no-gpu/nvidia-smi": "no devices"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\necho {prints}\n")
        (tmp_path / name).chmod(0o755)
    asks = "source launch/setup.sh; device_extras"
    assert shell(f"PATH={tmp_path}:$PATH; {asks}").stdout == "demo,cuda\n"
    assert shell(f"PATH={tmp_path}/no-gpu:$PATH; {asks}").stdout == "demo\n"
    assert shell(f"PATH={tmp_path}:$PATH; IMITATION_EXTRAS=tpu; {asks}").stdout == "tpu\n"
