import os
import subprocess
from pathlib import Path

import pytest
import yaml

FILE = Path(__file__).resolve().parents[2] / "launch" / "skypilot.yaml"
# SkyPilot's own reading of the file, with its checks of names, accelerators and exit codes.
READ = """
import sys, yaml, jsonschema, sky
from sky.utils import schemas
read = yaml.safe_load(open(sys.argv[1]))
jsonschema.validate(read, schemas.get_task_schema())
jsonschema.validate(read["resources"], schemas.get_resources_schema())
task = sky.Task.from_yaml_config(read, env_overrides=[("COMMAND", "python -m imitation_jax.train")])
(resources,) = task.resources
print(resources.cloud, resources.accelerators, resources.use_spot)
"""


@pytest.fixture(scope="module")
def task():
    return yaml.safe_load(FILE.read_text())


def test_its_scripts_are_there(task, shell):
    for script in (task["setup"], task["run"]):
        assert shell(f"bash -n <<'END'\n{script}END").returncode == 0
        assert "launch/" in script


def test_the_command_keeps_its_quotes(task, shell):
    command = """python -m imitation_jax.train --config.notes='two words'"""
    run = task["run"].replace("launch/run.sh", "printf '%s|'")
    done = shell(f'IMITATION_EXTRAS=tpu COMMAND="{command}"\n{run}')
    assert done.stdout == "python|-m|imitation_jax.train|--config.notes=two words|"


@pytest.mark.parametrize(("extras", "told"), [("cuda", "10.0.0.1:8476 3 2\n"), ("tpu", "\n")])
def test_several_gpu_nodes_are_told_where_they_are(task, shell, extras, told):
    nodes = "SKYPILOT_NODE_IPS=$'10.0.0.1\\n10.0.0.2\\n10.0.0.3' SKYPILOT_NUM_NODES=3 SKYPILOT_NODE_RANK=2"
    asks = "COMMAND='$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES $JAX_PROCESS_ID'"
    run = task["run"].replace("launch/run.sh", "echo")
    assert shell(f"IMITATION_EXTRAS={extras} {nodes} {asks}\n{run}").stdout == told


def test_slice_and_version_belong_together(task, shell):
    known = shell("source launch/setup.sh; source launch/slices.sh; slice v5e:4x4; echo $TYPE $VERSION").stdout.split()
    resources = task["resources"]
    assert [resources["accelerators"], resources["accelerator_args"]["runtime_version"]] == [
        "tpu-" + known[0],
        known[1],
    ]


def test_it_comes_back_for_what_another_start_mends(task, shell):
    for code in task["resources"]["job_recovery"]["recover_on_exit_codes"]:
        assert shell(f"source launch/setup.sh; starts_again {code}").returncode == 0


@pytest.mark.slow
def test_skypilot_reads_it(tmp_path):
    if not (python := os.environ.get("IMITATION_TEST_SKYPILOT")):
        pytest.skip("needs IMITATION_TEST_SKYPILOT, a Python with skypilot, which does not go with what we install")
    env = os.environ | {"HOME": str(tmp_path)}
    read = subprocess.run([python, "-c", READ, FILE], env=env, capture_output=True, text=True)
    assert read.stdout == "GCP {'tpu-v5litepod-16': 1} True\n", read.stderr
