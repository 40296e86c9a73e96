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
