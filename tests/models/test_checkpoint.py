import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imitation_jax.models import checkpoint
from imitation_jax.models.load import load_model, save_model
from imitation_jax.parallel.mesh import make_mesh

# Orbax leaves the reads that it gave up to the garbage collector, which complains about each.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MESSAGES = [{"role": "user", "content": "w5 w6"}, {"role": "assistant", "content": "w7"}]


@pytest.fixture
def saved(hf_folder, tmp_path):
    """A model on eight devices, and the workdir that it was written to."""
    model = load_model(f"hf:{hf_folder('llama3_rope')}", make_mesh("fsdp=8"))
    save_model(model, f"orbax:{tmp_path}/run")
    return model, tmp_path / "run"


def equal(params, expected):
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_round_trip(saved):
    model, workdir = saved
    again = load_model(f"orbax:{workdir}")
    equal(again.params, model.params)
    assert again.config == model.config and again.config.rope_scaling.factor == 8.0
    assert again.family is model.family
    assert again.tokenizer.files() == model.tokenizer.files()
    assert again.template.fingerprint == model.template.fingerprint
    assert again.template.tokenize(MESSAGES) == model.template.tokenize(MESSAGES)


def test_the_template_that_was_trained_with_is_the_one_that_is_carried(hf_folder, tmp_path):
    folder = hf_folder("multi_head")
    model = load_model(f"hf:{folder}", template="plain")
    save_model(model, f"orbax:{tmp_path}/run")
    again = load_model(f"orbax:{tmp_path}/run")
    assert again.template.fingerprint == model.template.fingerprint
    assert again.template.apart and again.template.tokenize(MESSAGES) == model.template.tokenize(MESSAGES)
    assert "USER: w5 w6 GPT:w7" in again.template.render(MESSAGES)
    other = load_model(f"orbax:{tmp_path}/run", template="model").template
    assert other.fingerprint == model.template.fingerprint


def test_onto_another_mesh(saved):
    model, workdir = saved
    mesh = make_mesh("fsdp=2,tensor=2", jax.devices()[:4])
    again = load_model(f"orbax:{workdir}", mesh)
    up = again.params["layers"]["mlp"]["up"]
    assert up.sharding.device_set == set(jax.devices()[:4])
    assert up.addressable_shards[0].data.shape == (2, 24, 40)
    assert model.params["layers"]["mlp"]["up"].addressable_shards[0].data.shape == (2, 6, 80)
    equal(again.params, model.params)
    half = load_model(f"orbax:{workdir}", mesh, jnp.bfloat16)
    equal(half.params, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.params))


def test_out_of_orbax_into_a_hugging_face_folder(saved, tmp_path):
    model, workdir = saved
    save_model(load_model(f"orbax:{workdir}@0"), f"hf:{tmp_path}/out")
    again = load_model(f"hf:{tmp_path}/out")
    equal(again.params, model.params)
    assert again.config == model.config and again.template.source == model.template.source


def test_checkpoints_are_not_written_over(saved, refused):
    model, workdir = saved
    with refused(FileExistsError, workdir, "choose another folder"):
        save_model(model, f"orbax:{workdir}")


def test_an_unknown_step(saved, refused):
    with refused(FileNotFoundError, f"{saved[1]}/checkpoints: no step 7; there are 0"):
        load_model(f"orbax:{saved[1]}@7")
    for other in ("last", "", "-1"):
        with refused(FileNotFoundError, f"{saved[1]}@{other}/checkpoints", "write orbax:WORKDIR[@STEP]"):
            load_model(f"orbax:{saved[1]}@{other}")


def test_a_path_with_an_at_sign(saved, tmp_path):
    model, workdir = saved
    for name in ("me@corp/run", "me@2/run", "run@home"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        workdir = workdir.rename(tmp_path / name)
        for step in ("", "@0"):
            assert checkpoint.locate(f"{workdir}{step}") == (str(workdir), 0)
        equal(load_model(f"orbax:{workdir}@0").params, model.params)


def test_a_step_that_is_not_whole_is_none(saved):
    workdir = saved[1]
    (workdir / "checkpoints/9.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.locate(str(workdir)) == (str(workdir), 0)


def test_a_model_without_a_template(hf_folder, tmp_path):
    folder = hf_folder("multi_head", template=None)
    save_model(load_model(f"hf:{folder}"), f"orbax:{tmp_path}/run")
    assert load_model(f"orbax:{tmp_path}/run").template is None
    assert "USER: w5" in load_model(f"orbax:{tmp_path}/run", template="plain").template.render(MESSAGES)


def test_no_checkpoint(tmp_path, refused):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with refused(FileNotFoundError, folder / "checkpoints", "no checkpoint there"):
            load_model(f"orbax:{folder}")
    assert not (tmp_path / "nowhere").exists()


def test_a_newer_step_is_the_one_that_is_read(saved):
    model, workdir = saved
    (workdir / "checkpoints/0").rename(workdir / "checkpoints/12")
    assert checkpoint.locate(str(workdir)) == (str(workdir), 12)
    equal(load_model(f"orbax:{workdir}").params, model.params)
    with checkpoint.open_manager(str(workdir)) as manager:
        assert manager.all_steps() == [12]


def test_a_deleted_file_is_one_line(saved, refused):
    """Whatever file it is: refused, or not needed for reading; never other weights."""
    model, workdir = saved
    step = workdir / "checkpoints/0"
    refusals = set()
    for path in sorted(path for path in step.rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.unlink()
        name = str(path.relative_to(step))
        try:
            equal(load_model(f"orbax:{workdir}").params, model.params)
        except (ValueError, FileNotFoundError):
            refusals.add(name.split("/")[0])
            with refused(
                ValueError, step, "cannot be restored, a file may be missing or damaged", "remove that folder"
            ):
                load_model(f"orbax:{workdir}")
        path.write_bytes(content)
    gc.collect()
    assert {"params", "model"} <= refusals


def test_a_cut_file_is_one_line(saved, refused):
    step = saved[1] / "checkpoints/0"
    files = [path for path in (step / "params").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with refused(ValueError, step, "params cannot be restored"):
        load_model(f"orbax:{saved[1]}")
    gc.collect()


def test_a_mesh_that_does_not_divide_is_said_before_reading(saved, refused):
    with refused(ValueError, "does not divide parameter 'layers/attention/k'"):
        load_model(f"orbax:{saved[1]}", make_mesh("fsdp=2,tensor=4"))
