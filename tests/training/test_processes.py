"""Training by several real processes on this machine, two devices each: the same run, and one end for all of them."""

import shutil
import signal
from pathlib import Path

import pytest
from test_bad_input import small_disk
from test_loop import EXACT, go, records, saved_steps

import imitation_jax
from imitation_jax.core.command import PREEMPTED
from imitation_jax.parallel.supervisor import LOST


@pytest.fixture(scope="module")
def flags(tiny_config, dialogues):
    """`flags(workdir, **keys)`: arguments of a run of the tiny model."""

    def make(workdir, **keys):
        keys = {"data.path": dialogues, "batch_size": 8, "epochs": 9} | keys
        return ["train", f"--config={tiny_config}", f"--workdir={workdir}"] + [
            f"--config.{k}={v}" for k, v in keys.items()
        ]

    return make


def losses_are_those_of(got, wanted, assert_close):
    """The same data in the same order; losses but for the order of summation."""
    for key in ("step", "learning_rate", "loss_tokens", "padding_share"):
        assert records(got, (key,)) == records(wanted, (key,))
    for key in ("loss", "grad_norm"):
        assert_close([x[key] for x in records(got, (key,))], [x[key] for x in records(wanted, (key,))], 1e-4)


def test_two_processes_one_is_killed_and_another_mesh_goes_on(together, flags, config, tmp_path, assert_close):
    run, whole = tmp_path / "run", tmp_path / "whole"
    two = together(flags(run, **{"steps": 40, "checkpoint.every": 3}), 2, variables={"IMITATION_LOST_SECONDS": "15"})
    two.wait_for(run / "metrics.jsonl", 7)
    two.send(1, signal.SIGKILL)
    assert two.ended(60) == [LOST, 128 + signal.SIGKILL], two
    assert two.error(0).startswith(f"{two.name(1)} is lost: no heartbeat for 15 s")
    assert two.error(1) == f"{two.name(1)} was ended by SIGKILL"
    assert all("coordination_service" not in two.said(index) for index in (0, 1)), two
    assert saved_steps(run) and len(records(run)) < 40
    config.epochs, config.steps, config.checkpoint.every, config.mesh = 9, 40, 3, "fsdp=8"
    assert go(config, run) is True and go(config, whole) is True
    losses_are_those_of(run, whole, assert_close)
    assert records(run)[-1]["loss"] < records(run)[0]["loss"] - 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh", ["fsdp=8", "data=2,fsdp=2,tensor=2", "fsdp=2,tensor=4", "data=4,sequence=2", "tensor=4,fsdp=1,sequence=2"]
)
def test_four_processes_one_is_killed_and_two_go_on(
    together, flags, config, write_dialogues, tmp_path, assert_close, mesh
):
    """With validation and samples, and with meshes whose processes share rows."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    config.data.validation = str(write_dialogues(tmp_path / "validation.jsonl", 9, seed=3))
    keys = {
        "steps": 12,
        "checkpoint.every": 3,
        "evaluate.every": 6,
        "evaluate.samples": 2,
        "evaluate.max_new_tokens": 4,
    }
    keys["data.validation"] = config.data.validation
    four = together(flags(run, **keys, mesh=mesh), 4)
    four.wait_for(run / "metrics.jsonl", 7)
    four.processes[2].kill()
    codes = four.ended(60)
    assert codes == [LOST, LOST, -signal.SIGKILL, LOST], four
    for index in (0, 1, 3):
        assert four.error(index).startswith(f"{four.name(2)} is lost: ")
    assert sum("data: dialogues" in four.said(index) for index in range(4)) == 1
    two = together(flags(run, **keys, mesh="fsdp=-1"), 2)
    assert two.ended() == [0, 0], two
    assert "resumed from step" in two.said(0)
    config.mesh, config.epochs, config.evaluate.every, config.checkpoint.every = "fsdp=8", 9, 6, 3
    assert go(config, whole) is True
    losses_are_those_of(run, whole, assert_close)
    got, wanted = ([x for x in records(path, ("validation_loss",)) if x] for path in (run, whole))
    assert len(got) == len(wanted) > 2
    assert_close([x["validation_loss"] for x in got], [x["validation_loss"] for x in wanted], 1e-4)
    events = list((run / "tensorboard").iterdir())
    assert len(events) == 2  # of process 0, before and after


@pytest.mark.slow
@pytest.mark.parametrize("whom", [0, 1])
def test_sigterm_to_one_saves_on_all_and_resumes_bit_for_bit(together, flags, tmp_path, whom):
    run, whole = tmp_path / "run", tmp_path / "whole"
    keys = {"steps": 60, "checkpoint.every": 50}
    first = together(flags(run, **keys), 2)
    first.wait_for(run / "metrics.jsonl", 5)
    first.processes[whom].send_signal(signal.SIGTERM)
    assert first.ended() == [PREEMPTED, PREEMPTED], first
    stopped = len(records(run, ()))
    assert saved_steps(run) == [stopped] and f"SIGTERM: step {stopped} of 60 is saved" in first.said(0)
    for path in (run, whole):
        rest = together(flags(path, **keys), 2)
        assert rest.ended() == [0, 0], rest
    assert records(run, EXACT) == records(whole, EXACT)


@pytest.mark.slow
def test_process_0_is_named_when_it_is_killed(together, flags, tmp_path):
    run = tmp_path / "run"
    three = together(flags(run, **{"steps": 4000, "epochs": 4000, "mesh": "data=3,fsdp=2", "batch_size": 6}), 3)
    three.wait_for(run / "metrics.jsonl", 3)
    three.send(0, signal.SIGKILL)
    assert three.ended(60) == [128 + signal.SIGKILL, LOST, LOST], three
    for index in (1, 2):
        assert three.error(index).startswith(f"{three.name(0)} is lost: its connection broke")


@pytest.mark.slow
@pytest.mark.parametrize("whom", [0, 1])
def test_a_process_that_hangs_is_lost(together, flags, tmp_path, whom):
    run, other = tmp_path / "run", 1 - whom
    two = together(flags(run, steps=4000, epochs=4000), 2, variables={"IMITATION_LOST_SECONDS": "20"})
    two.wait_for(run / "metrics.jsonl", 3)
    two.send(whom, signal.SIGSTOP)
    codes = two.ended(60)
    assert codes[other] == LOST and codes[whom] == 128 + signal.SIGKILL, two  # which ends what still hung
    assert two.error(other).startswith(f"{two.name(whom)} is lost: ")


@pytest.mark.slow
def test_a_worker_does_not_outlive_its_parent(together, flags, tmp_path):
    run = tmp_path / "run"
    two = together(flags(run, steps=4000, epochs=4000), 2)
    two.wait_for(run / "metrics.jsonl", 3)
    two.processes[1].kill()
    assert two.ended(60) == [LOST, -signal.SIGKILL], two
    assert two.error(0).startswith(f"{two.name(1)} is lost: no heartbeat for 30 s")
    with pytest.raises(ProcessLookupError):
        two.send(1, 0)


@pytest.mark.slow
def test_what_one_process_fails_of_all_say(together, flags, tmp_path):
    """A cache that one host cannot write, or another's failure would be a hang."""
    (tmp_path / "file").write_text("")
    two = together(flags(tmp_path / "run"), 2, variables=[{}, {"IMITATION_CACHE": str(tmp_path / "file")}])
    assert two.ended(60) == [1, 1], two
    assert "Not a directory" in two.error(1)
    assert two.error(0) == f"{two.name(1)} failed: {two.error(1)}"


@pytest.mark.slow
def test_a_disk_that_is_full_for_one_ends_both(together, flags, tmp_path):
    """Process 0 puts the parts of a checkpoint together; the other one would wait for that for twenty minutes."""
    with small_disk(tmp_path / "disk") as (options, _):
        two = together(flags(tmp_path / "disk" / "run", **{"steps": 90, "checkpoint.every": 3}), 2, **options)
        assert two.ended(120) == [1, 1], two
        assert all("checkpoints: a checkpoint could not be written (" in two.error(index) for index in range(2)), two


@pytest.mark.slow
@pytest.mark.parametrize(
    "each, codes, messages",
    [
        (
            [[], ["--config.batch_sze=3"]],
            [LOST, 1],
            ["process 1 of 2 did not come to process 0 at", "the config has no key 'batch_sze'"],
        ),
        (
            [[], ["--config.seed=3"]],
            [1, 1],
            ["failed: the config of process 1 of 2", "is not that of process 0: seed (0 there, 3 here)"],
        ),
        (
            [["--config.mesh=fsdp=3"]] * 2,
            [1, 1],
            ["mesh 'fsdp=3' does not divide the 4 devices here"] * 2,
        ),
        (
            [["--config.batch_size=6"]] * 2,
            [1, 1],
            ["batch_size=6 is not a multiple of accumulation=1 x 4 (mesh data x fsdp)"] * 2,
        ),
    ],
)
def test_wrong_settings_end_in_one_line_on_each(together, flags, tmp_path, each, codes, messages):
    two = together(flags(tmp_path / "run"), 2, each, variables={"IMITATION_JOIN_SECONDS": "20"})
    assert two.ended(60) == codes, two
    for index, message in enumerate(messages):
        assert message in two.error(index), two
        assert two.said(index).count("error: ") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_other_code_on_another_host_is_refused(together, flags, tmp_path):
    package = shutil.copytree(Path(imitation_jax.__file__).parent, tmp_path / "imitation_jax")
    with open(package / "training" / "loss.py", "a") as file:
        file.write("\n# changed\n")
    two = together(flags(tmp_path / "run"), 2, variables=[{}, {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(tmp_path)}])
    assert two.ended(60) == [1, 1], two
    assert two.error(0) == f"{two.name(1)} failed: {two.error(1)}"
    assert two.error(1).startswith(
        f"the code of {two.name(1)} is not that of process 0: imitation_jax/training/loss.py ("
    )


@pytest.mark.slow
def test_other_weights_on_another_host_are_refused(together, flags, tmp_path):
    homes = [tmp_path / "0", tmp_path / "1"]
    for size, home in enumerate(homes, 1):
        (home / "model").mkdir(parents=True)
        (home / "model" / "model.safetensors").write_bytes(bytes(size))
    arguments = flags(tmp_path / "run", **{"model.init": "hf:~/model", "model.preset": ""})
    two = together(arguments, 2, variables=[{"HOME": str(home)} for home in homes])
    assert two.ended(120) == [1, 1], two
    assert "failed: hf:~/model of process 1 of 2" in two.error(0), two
    assert "is not that of process 0: model.safetensors (1 there, 2 here)" in two.error(1), two
