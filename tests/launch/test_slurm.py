import re

import pytest


@pytest.mark.slow
def test_a_checkpointed_job_is_queued_again(slurm, installed, tmp_path):
    log = tmp_path / "log"
    script = 'echo "task $SLURM_PROCID, restart ${SLURM_RESTART_COUNT:=0}"; [ $SLURM_RESTART_COUNT = 2 ] || exit 75'
    number = slurm.sbatch(log, "bash", "-c", script, **installed)
    assert slurm.ended(number) == "COMPLETED", log.read_text()
    lines = {f"task {task}, restart {restart}" for task in (0, 1) for restart in (0, 1, 2)}
    assert lines <= set(log.read_text().splitlines())


@pytest.mark.slow
def test_an_error_ends_the_job(slurm, installed, tmp_path):
    log = tmp_path / "log"
    number = slurm.sbatch(log, "bash", "-c", "echo wrong >&2; exit 1", **installed)
    assert slurm.ended(number) == "FAILED"
    assert slurm.job(number)["Restarts"] == "0"
    assert log.read_text().count("wrong\n") == 2


@pytest.mark.slow
def test_a_checkpointed_task_of_an_array_is_queued_again_alone(slurm, installed, tmp_path):
    log, starts = tmp_path / "log", tmp_path / "starts"
    # The last task has the number of the whole array.
    once = '[ "$SLURM_ARRAY_TASK_ID ${SLURM_RESTART_COUNT:-0}" != "1 0" ] || exit 75'
    script = f"echo $SLURM_ARRAY_TASK_ID >>{starts}; {once}"
    flags = ["--parsable", "--array=0-1", "--ntasks=1", "--open-mode=append", f"--output={log}"]
    number = slurm.run("sbatch", *flags, "launch/slurm.sh", "bash", "-c", script, **installed).strip()

    def over() -> bool:
        # As in `Slurm.ended`: the two minutes before another start are cut short.
        for waiting in re.findall(r"(\S+) BeginTime", slurm.run("squeue", "--noheader", "--array", "--format=%i %r")):
            slurm.run("scontrol", "update", f"JobId={waiting}", "StartTime=now+1seconds")
        return not slurm.run("squeue", "--noheader", "--name=imitation_jax", "--format=%i")

    slurm.wait(over)
    assert sorted(starts.read_text().split()) == ["0", "1", "1"], number + log.read_text()
