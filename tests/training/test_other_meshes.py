"""A checkpoint belongs to no mesh: saved on one, it is the same weights and optimiser state, bit for bit, on any."""

import jax
import numpy as np
import pytest
from etils import epath

from imitation_jax.models.checkpoint import model_to_json
from imitation_jax.models.families import gpt2, llama
from imitation_jax.models.load import LoadedModel, load_model, save_model
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.sharding import path_of
from imitation_jax.tokenizers.chat_template import load_template
from imitation_jax.tokenizers.tokenizer import load_tokenizer
from imitation_jax.training import config as training
from imitation_jax.training.checkpoints import Checkpoints
from imitation_jax.training.initial import new_model
from imitation_jax.training.program import make_program

STUDENTS = {
    "llama": (llama, llama.PRESETS["tiny"], "adamw", "bfloat16"),
    "gpt2": (gpt2, gpt2.GPT2Config(512, 64, 128, 2, 4, 128), "weight_magnitude", "float32"),
}
MESHES = {"fsdp=8": 8, "fsdp=2,tensor=2": 4, "data=2,sequence=2,tensor=2": 8, "fsdp=1": 1}


def mesh_of(spec):
    return make_mesh(spec, jax.devices()[: MESHES[spec]])


def program_of(name, spec):
    family, model_config, rule, state_dtype = STUDENTS[name]
    config = training.get_config()
    config.optimizer.name, config.optimizer.state_dtype = rule, state_dtype
    return make_program(config, family, model_config, mesh_of(spec), total_steps=10)


def same_bits(got, wanted):
    def leaf(path, a, b):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes(), path_of(path)

    jax.tree_util.tree_map_with_path(leaf, got, wanted)


@pytest.fixture(scope="module", params=STUDENTS)
def saved(request, tiny_tokenizer, open_stream, tmp_path_factory):
    """The student's name, its workdir with a checkpoint of 8 devices, and what is in that, on the host."""
    random = np.random.default_rng(0)

    def draw(leaf):
        value = random.normal(size=leaf.shape) if leaf.ndim else 3  # only the counts have no axis
        return jax.device_put(np.asarray(value, leaf.dtype), leaf.sharding)

    state = jax.tree.map(draw, program_of(request.param, "fsdp=8").state)
    family, model_config, *_ = STUDENTS[request.param]
    tokenizer = load_tokenizer(tiny_tokenizer)
    model = LoadedModel(family, model_config, None, tokenizer, load_template("model", tokenizer))
    folder = epath.Path(tmp_path_factory.mktemp(request.param))
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.save(3, state, model_to_json(model), open_stream(4).iterator().get_state(), None)
    checkpoints.close()
    return request.param, folder, jax.device_get(state)


@pytest.mark.parametrize("spec", MESHES)
def test_training_goes_on_with_the_same_bits(saved, spec, open_stream):
    name, folder, wanted = saved
    abstract = program_of(name, spec).state
    checkpoints = Checkpoints(folder, keep=2)
    got = checkpoints.restore(3, abstract, open_stream(4).iterator())
    checkpoints.close()
    same_bits(got, wanted)
    assert jax.tree.map(lambda x: x.sharding, got) == jax.tree.map(lambda x: x.sharding, abstract)
    big = got["params"]["layers"]["mlp"]["up"]
    whole = mesh_of(spec).shape["fsdp"] * mesh_of(spec).shape["tensor"]
    assert {shard.data.size for shard in big.addressable_shards} == {big.size // whole}


@pytest.mark.parametrize("spec", ["fsdp=2,tensor=2", "fsdp=1"])
def test_an_export_has_the_same_bits(saved, spec, tmp_path):
    _, folder, wanted = saved
    model = load_model(f"orbax:{folder}", mesh_of(spec))
    same_bits(model.params, wanted["params"])
    save_model(model, f"hf:{tmp_path / 'hf'}")
    same_bits(load_model(f"hf:{tmp_path / 'hf'}", mesh_of("fsdp=1")).params, wanted["params"])


@pytest.mark.parametrize("name", STUDENTS)
def test_no_device_ever_holds_more_than_its_share_of_new_moments(name):
    """Not at the end alone: the program that makes them needs no room beside them."""
    program = program_of(name, "fsdp=8")
    make = jax.jit(program.optimizer.init, out_shardings=program.sharding["optimizer"])
    made = make.lower(program.state["params"]).compile().memory_analysis()
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.state["optimizer"]))
    assert made.output_size_in_bytes < 0.15 * whole  # an eighth, and norms and biases, which all have
    assert made.temp_size_in_bytes < 0.05 * made.output_size_in_bytes


@pytest.mark.parametrize(
    "spec, count, message",
    [
        ("tensor=3", 3, "parameter 'embed' of shape .512, 64.: 512 is not a multiple of 3 .tensor.; choose a smaller"),
        (
            "tensor=8",
            8,
            "'layers/attention/k' of shape .5, 64, 4, 8.: 4 is not a multiple of 8 .tensor.; choose a",
        ),
        ("fsdp=5", 5, "64 is not a multiple of 5 .fsdp.; choose a smaller fsdp"),
    ],
)
def test_a_mesh_that_does_not_divide_the_model_is_refused_with_it(config, spec, count, message):
    """Before the data is read, which may take hours to tokenise."""
    with pytest.raises(ValueError, match=message):
        new_model(config, make_mesh(spec, jax.devices()[:count]))
