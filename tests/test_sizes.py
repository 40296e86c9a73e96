"""The config file of every model size: its architecture, variants, mesh, and what its docstring says."""

import ast
import math
import runpy
from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh

from imitation_jax.models import decoder
from imitation_jax.models.families import gpt2, llama
from imitation_jax.parallel.mesh import parse_mesh
from imitation_jax.parallel.sharding import shardings
from imitation_jax.training import config as training
from imitation_jax.training.initial import check_length

CONFIGS = Path(__file__).parents[1] / "configs"
# The published counts.
WEIGHTS = {
    "llama_7b": 6_738_415_616,
    "llama_13b": 13_015_864_320,
    "llama_30b": 32_528_943_616,
    "llama_65b": 65_285_660_672,
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama2_70b": 68_976_648_192,
    "llama31_8b": 8_030_261_248,
    "llama31_70b": 70_553_706_496,
    "llama32_1b": 1_235_814_400,
    "llama32_3b": 3_212_749_824,
    "tinyllama_1_1b": 1_100_048_384,
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1_7b": 1_711_376_384,
    "gpt2_124m": 124_439_808,
    "gpt2_355m": 354_823_168,
    "gpt2_774m": 774_030_080,
    "gpt2_1_5b": 1_557_611_200,
}


@pytest.fixture(params=WEIGHTS)
def name(request):
    return request.param


def load(name, variant=""):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](variant)


def architecture(name):
    """The family, the preset and its abstract weights."""
    family = gpt2 if name in gpt2.PRESETS else llama
    return family, family.PRESETS[name], jax.eval_shape(lambda: decoder.init(family.PRESETS[name], jax.random.key(0)))


def chips(topology):
    return math.prod(map(int, topology.partition(":")[2].split("x")))


def test_each_size_has_a_file_and_each_file_a_size():
    files = {path.stem for path in CONFIGS.glob("*.py") if "training" in path.read_text(encoding="utf-8")}
    assert files - {"toxicity"} == set(WEIGHTS) == (llama.PRESETS.keys() | gpt2.PRESETS.keys()) - {"tiny"}


def test_the_architecture_is_the_published_one(name):
    assert load(name).model.preset == name
    assert sum(leaf.size for leaf in jax.tree.leaves(architecture(name)[2])) == WEIGHTS[name]


@pytest.mark.parametrize("variant", ["", "paper"])
def test_the_config_can_be_trained_on_its_slice(name, variant):
    config = load(name, variant)
    config.data.path = "here"
    family, model, shapes = architecture(name)
    sizes = parse_mesh(config.mesh, chips(config.plan.topology))
    mesh = AbstractMesh(tuple(sizes.values()), tuple(sizes))
    training.check(config, mesh)
    check_length(model, config)
    shardings(shapes, family.SHARDING, mesh)
    kv_heads = model.num_key_value_heads
    assert kv_heads % sizes["tensor"] == 0  # the cache is cut as well
    # As many tokens a step as the paper, but for the letter on a model of half as many positions.
    assert config.batch_size * config.data.seq_len == 65_536 // (2 if variant and family is gpt2 else 1)


def test_the_letter_of_the_paper(name):
    usual, letter = load(name), load(name, "paper")
    optimizer = letter.optimizer
    assert (letter.batch_size, letter.epochs, letter.model.template) == (32, 1, "plain")
    assert (optimizer.name, optimizer.learning_rate, optimizer.schedule) == ("weight_magnitude", 2e-3, "constant")
    assert optimizer.warmup_steps == 1000
    assert (usual.optimizer.name, usual.optimizer.warmup_steps, usual.optimizer.schedule) == ("adamw", 0, "cosine")
    assert usual.optimizer.learning_rate <= 3e-4
    assert usual.plan.topology == letter.plan.topology and usual.mesh == letter.mesh


def test_another_variant_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}.py has no variant 'papr'; there (is|are) paper"):
        load(name, "papr")


def test_the_docstring_names_the_slice_and_mesh_of_the_config(name):
    text = ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text(encoding="utf-8")))
    config = load(name)
    count = chips(config.plan.topology)
    assert f"--config=configs/{name}.py" in text and f"{name}.py:paper" in text
    axes = " x ".join(f"{axis}={size}" for axis, size in parse_mesh(config.mesh, count).items() if size > 1)
    assert f"Slice: {config.plan.topology}, {count} chips, as {axes}" in text


def test_no_two_sizes_are_one_architecture():
    presets = [*llama.PRESETS.values(), *gpt2.PRESETS.values()]
    assert len(set(presets)) == len(presets)
