import json
import os
import re
import shlex
import subprocess

import pytest
import yaml

COMMAND = ["python", "-m", "imitation_jax.train", "--config=configs/llama_7b.py", '--config.notes=it\'s "#1": {x}']


@pytest.fixture
def jobset(launch):
    def render(slice_name: str) -> dict:
        done = launch("gke.sh", "run1", slice_name, "images/imitation:1", *COMMAND)
        assert (done.returncode, done.stderr) == (0, "")
        return yaml.safe_load(done.stdout)

    return render


def pod(rendered: dict) -> dict:
    return rendered["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("name", "slices", "hosts", "chips", "label", "shape"),
    [
        ("v5e:8x8", 1, 16, 4, "tpu-v5-lite-podslice", "8x8"),
        ("v4:4x4x4", 1, 16, 4, "tpu-v4-podslice", "4x4x4"),
        ("2*v6e:4x4", 2, 4, 4, "tpu-v6e-slice", "4x4"),
        ("v5e:1x1", 1, 1, 1, "tpu-v5-lite-podslice", "1x1"),
    ],
)
def test_pods_are_as_many_as_a_slice_has_hosts(jobset, name, slices, hosts, chips, label, shape):
    rendered = jobset(name)
    job = rendered["spec"]["replicatedJobs"][0]
    assert job["replicas"] == slices
    assert job["template"]["spec"]["parallelism"] == job["template"]["spec"]["completions"] == hosts
    (container,) = pod(rendered)["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    selector = {"cloud.google.com/gke-tpu-accelerator": label, "cloud.google.com/gke-tpu-topology": shape}
    assert pod(rendered)["nodeSelector"] == selector


def test_the_command_is_unchanged(jobset):
    assert pod(jobset("v5e:8x8"))["containers"][0]["command"] == COMMAND


def test_an_error_is_final_and_what_another_start_mends_is_not(jobset, shell):
    rendered = jobset("v5e:8x8")
    (rule,) = rendered["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    final = rule["onExitCodes"]
    assert (rule["action"], final["operator"]) == ("FailJob", "In")
    assert final["containerName"] == pod(rendered)["containers"][0]["name"]
    for code in final["values"]:
        assert shell(f"source launch/setup.sh; starts_again {code}").returncode == 1, code
    assert not set(final["values"]) & {75, 76, 137, 143}  # 143: a pod that is moved before its first checkpoint


def test_kubernetes_and_jobset_know_every_key(jobset):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    models = pytest.importorskip("kubeflow_trainer_api.models.jobset_v1alpha2_job_set")
    rendered = jobset("2*v5e:8x8")
    # What the model of JobSet does not know is not in what it writes.
    known = json.loads(models.JobsetV1alpha2JobSet.from_dict(rendered).to_json())
    known["spec"]["failurePolicy"]["rules"][0].pop("name")
    template = rendered["spec"]["replicatedJobs"][0].pop("template")
    known["spec"]["replicatedJobs"][0].pop("template")
    assert known == rendered
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "run1"}} | template
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.slow
def test_xpk_takes_the_command_of_the_help(launch, tmp_path):
    if not (xpk := os.environ.get("IMITATION_TEST_XPK")):
        pytest.skip("needs IMITATION_TEST_XPK, the program xpk, which does not go with what we install")
    said = launch("gke.sh", "--help").stdout
    line = re.search(r"xpk (workload create.*?\.\.\.\")", said, re.DOTALL)[1].replace("\\\n", " ")
    line = line.replace("=TYPE", "=v5litepod-64").replace("=CLUSTER", "=cluster-1")
    nobody = "--project=p --project-number=1 --zone=us-west4-a --dry-run --skip-validation"
    manifest = f"--no-dependency-auto-download --output-manifest-file={tmp_path}/m"
    argv = [xpk, *shlex.split(line), *nobody.split(), *manifest.split()]
    env = os.environ | {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    theirs, ours = (tmp_path / "m").read_text(), launch("gke.sh", "run1", "v5e:8x8", "IMAGE", "true").stdout
    both = ["parallelism", "google.com/tpu", "gke-tpu-accelerator", "gke-tpu-topology", "maxRestarts"]
    for key in both:
        pattern = rf"{key}: (\S+)"
        assert re.search(pattern, theirs)[1] == re.search(pattern, ours)[1]
