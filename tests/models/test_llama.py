import dataclasses
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import ARCHITECTURES, oracles

from imitation_jax.models import decoder
from imitation_jax.models.decoder import REMAT_POLICIES
from imitation_jax.models.families import llama
from imitation_jax.models.load import abstract_params
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.sharding import BATCH, path_of, shardings, specs
from imitation_jax.parallel.topology import QUIET, topology_devices

CONFIG = llama.LlamaConfig(64, 32, 48, 3, 4, 2, 8, 64)


def shapes(config):
    return jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))


def paths(tree):
    return {path_of(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.fixture(scope="module")
def params():
    """Norms away from 1 and matrices large enough that every part of a layer shows in the logits."""

    def draw(path, leaf):
        drawn = np.random.default_rng(len(str(path))).normal(size=leaf.shape).astype(np.float32)
        return 1 + drawn / 4 if "norm" in str(path) else drawn / 4

    return jax.tree_util.tree_map_with_path(draw, shapes(CONFIG))


@jax.jit
def logits(params, tokens, positions, segments):
    return decoder.logits(params, decoder.hidden(CONFIG, params, tokens, positions, segments))


def packed(*lengths, padding=0):
    """One row of segments of these lengths: tokens, positions, segment ids, each (1, S)."""
    rng = np.random.default_rng(7)
    positions = np.concatenate([*map(np.arange, lengths), np.zeros(padding, int)])
    segments = np.concatenate([np.repeat(np.arange(len(lengths)) + 1, lengths), np.zeros(padding, int)])
    tokens = rng.integers(0, CONFIG.vocab_size, sum(lengths) + padding) * (segments > 0)
    return tuple(array.astype(np.int32)[None] for array in (tokens, positions, segments))


# ----------------------------------------------------------------------------------------------------------------------
# Tables
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", llama.PRESETS)
def test_every_parameter_matches_one_row_of_each_table(preset):
    tree = shapes(llama.PRESETS[preset])
    for path, leaf in paths(tree).items():
        rows = [spec for pattern, spec in llama.SHARDING if re.fullmatch(pattern, path)]
        assert len(rows) == 1, path
        assert len(rows[0]) in (0, leaf.ndim), path
        assert [row[0] for row in llama.HUGGINGFACE].count(path) == 1, path
        assert leaf.dtype == jnp.float32
    specs(tree, llama.SHARDING)


def test_no_row_is_dead():
    known = set().union(*(paths(shapes(config)) for config in llama.PRESETS.values()))
    for pattern, _ in llama.SHARDING:
        assert any(re.fullmatch(pattern, path) for path in known), pattern
    assert {row[0] for row in llama.HUGGINGFACE} == known


def test_matrices_are_cut_over_fsdp_and_tensor():
    """All but the norms must shrink with the mesh, or a large model does not fit."""
    tree = shapes(llama.PRESETS["llama_7b"])
    mesh = make_mesh("fsdp=4,tensor=2")
    for path, place in paths(shardings(tree, llama.SHARDING, mesh)).items():
        whole = paths(tree)[path]
        assert np.prod(place.shard_shape(whole.shape)) * (1 if "norm" in path else 8) == whole.size, path


@pytest.mark.parametrize(
    ("preset", "mesh", "parts"),
    [
        ("smollm2_135m", "tensor=8", ("'layers/attention/k'", "3 is not a multiple of 8 (tensor)")),
        ("tiny", "fsdp=1,tensor=8", ("'layers/attention/k'", "4 is not a multiple of 8 (tensor)")),
        ("llama32_1b", "fsdp=-1", ()),
    ],
)
def test_a_mesh_that_does_not_divide_is_one_line(preset, mesh, parts, refused):
    if not parts:
        abstract_params(llama, llama.PRESETS[preset], make_mesh(mesh))
        return
    with refused(ValueError, "does not divide parameter", *parts):
        abstract_params(llama, llama.PRESETS[preset], make_mesh(mesh))


@pytest.mark.parametrize(
    ("preset", "millions"),
    [("smollm2_135m", 134.5), ("llama_7b", 6738.4), ("llama_13b", 13015.9), ("llama32_1b", 1235.8)],
)
def test_presets_have_the_published_sizes(preset, millions):
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes(llama.PRESETS[preset])))
    assert round(count / 1e6, 1) == millions


# ----------------------------------------------------------------------------------------------------------------------
# Packing
# ----------------------------------------------------------------------------------------------------------------------


def test_packed_dialogues_equal_each_alone(params):
    lengths = (5, 1, 9, 5, 9)
    row = packed(*lengths, padding=4)
    together = logits(params, *row)[0]
    start = 0
    for length in lengths:
        alone = [array[:, start : start + length] for array in row]
        np.testing.assert_array_equal(alone[1][0], np.arange(length))
        np.testing.assert_allclose(together[start : start + length], logits(params, *alone)[0], atol=1e-5, rtol=0)
        start += length
    assert np.isfinite(together).all()


def test_nothing_leaks_between_segments(params):
    tokens, positions, segments = packed(6, 8, 5, padding=3)
    before = np.asarray(logits(params, tokens, positions, segments))[0]
    for changed in (0, 1, 2, 3):
        other = np.where(segments == changed, (tokens + 1) % CONFIG.vocab_size, tokens)
        after = np.asarray(logits(params, other, positions, segments))[0]
        same = segments[0] != changed
        np.testing.assert_array_equal(before[same], after[same])
        assert (before[~same] != after[~same]).any(axis=-1).all()


def test_nothing_leaks_back_from_later_tokens(params):
    tokens, positions, segments = packed(12)
    before = np.asarray(logits(params, tokens, positions, segments))[0]
    tokens[0, 7] += 1
    after = np.asarray(logits(params, tokens, positions, segments))[0]
    np.testing.assert_array_equal(before[:7], after[:7])
    assert (before[7:] != after[7:]).any(axis=-1).all()


def test_a_mesh_changes_nothing(params):
    rows = [np.repeat(array, 2, axis=0) for array in packed(6, 7, padding=3)]
    expected = logits(params, *rows)
    mesh = make_mesh("fsdp=2,sequence=2,tensor=2")
    placed = jax.device_put(params, shardings(params, llama.SHARDING, mesh))
    rows = [jax.device_put(array, jax.sharding.NamedSharding(mesh, BATCH)) for array in rows]
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(logits(placed, *rows), expected, atol=1e-5, rtol=0)


# ----------------------------------------------------------------------------------------------------------------------
# The backward pass, and compiling
# ----------------------------------------------------------------------------------------------------------------------


def compile_gradient(layers, remat):
    config = dataclasses.replace(CONFIG, num_hidden_layers=layers)

    def loss(params, tokens, positions, segments):
        x = decoder.hidden(config, params, tokens, positions, segments, remat=remat)
        return jnp.mean(jax.nn.log_softmax(decoder.logits(params, x))[..., 3])

    row = [jax.ShapeDtypeStruct((1, 64), jnp.int32)] * 3
    return jax.jit(jax.grad(loss)).lower(shapes(config), *row).compile()


@pytest.fixture(scope="module")
def gradients():
    return {remat: compile_gradient(CONFIG.num_hidden_layers, remat) for remat in REMAT_POLICIES}


def test_what_is_recomputed_does_not_change_gradients(params, gradients):
    row = packed(26, 30, padding=8)
    expected = paths(gradients["none"](params, *row))
    assert set(gradients) == {"full", "offload", "dots", "none"}
    for remat in ("full", "offload", "dots"):
        for path, got in paths(gradients[remat](params, *row)).items():
            size = np.abs(expected[path]).max()
            assert size > 0, path
            np.testing.assert_allclose(got, expected[path], atol=1e-5 * size, rtol=0, err_msg=path)


def test_recomputing_saves_memory(gradients):
    full, dots, none = (gradients[name].memory_analysis().temp_size_in_bytes for name in ("full", "dots", "none"))
    assert full < dots < none


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu, of the extra [tpu]")
def test_on_a_tpu_layer_inputs_wait_in_the_host_s_memory(monkeypatch):
    for variable, value in QUIET.items():
        monkeypatch.setenv(variable, value)
    config = llama.LlamaConfig(512, 256, 512, 24, 4, 4, 64, 1024)
    mesh = make_mesh("fsdp=4", topology_devices("v5e:2x2"))

    def memory(remat):
        def loss(params, tokens, positions, segments):
            row = (tokens, positions, segments)
            return jnp.mean(decoder.hidden(config, params, *row, dtype=jnp.bfloat16, remat=remat))

        rows = [jax.ShapeDtypeStruct((64, 1024), jnp.int32, sharding=jax.NamedSharding(mesh, BATCH))] * 3
        with jax.set_mesh(mesh):
            compiled = jax.jit(jax.grad(loss)).lower(abstract_params(llama, config, mesh), *rows).compile()
        return compiled.memory_analysis()

    full, offload = memory("full"), memory("offload")
    inputs = 24 * 16 * 1024 * 256 * 2  # layers, a chip's rows, positions, D, bytes
    assert full.host_temp_size_in_bytes == 0 and offload.host_temp_size_in_bytes >= inputs
    assert offload.temp_size_in_bytes < full.temp_size_in_bytes - inputs / 2


def test_compiled_size_does_not_grow_with_depth(gradients):
    def instructions(compiled):
        return len(re.findall(r"^\s+(?:ROOT )?%?\S+ = ", compiled.as_text(), re.MULTILINE))

    shallow, deep = instructions(gradients["full"]), instructions(compile_gradient(12, "full"))
    assert shallow > 100
    assert abs(deep - shallow) < 0.03 * shallow


def test_bfloat16_computes_near_float32(params):
    row = packed(6, 8)
    x = jax.jit(lambda params, *row: decoder.hidden(CONFIG, params, *row, dtype=jnp.bfloat16))(params, *row)
    assert x.dtype == jnp.bfloat16
    got, expected = decoder.logits(params, x), logits(params, *row)
    assert got.dtype == jnp.float32
    # 8 bits of mantissa: errors of a few thousandths of the largest logit.
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


def test_fresh_parameters():
    fresh = paths(jax.jit(lambda key: decoder.init(CONFIG, key))(jax.random.key(1)))
    assert fresh.keys() == paths(shapes(CONFIG)).keys()
    for path, leaf in fresh.items():
        if "norm" in path:
            np.testing.assert_array_equal(leaf, 1.0)
        else:
            assert abs(np.std(leaf) - 0.02) < 0.002, path
    layers = fresh["layers/mlp/up"]
    assert all((layers[0] != layers[number]).any() for number in (1, 2))


# ----------------------------------------------------------------------------------------------------------------------
# config.json
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", llama.PRESETS)
def test_a_config_survives_its_json(preset):
    config = llama.PRESETS[preset]
    assert llama.config_from_hf(llama.config_to_hf(config)) == config


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_configs_of_both_generations_of_transformers_agree(name):
    five = oracles()["configs"][name]
    four = {key: value for key, value in five.items() if key not in ("rope_parameters", "head_dim")}
    rope = dict(five["rope_parameters"])
    four["rope_theta"] = rope.pop("rope_theta")
    four["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    if name == "llama3_rope":  # version 4 leaves out what follows from the rest, and only here it does not
        four["head_dim"] = 16
    config = llama.config_from_hf(five)
    assert llama.config_from_hf(four) == config
    fields = ARCHITECTURES[name]
    assert config.rope_theta == fields["rope_parameters"]["rope_theta"]
    assert config.head_dim == fields.get("head_dim", fields["hidden_size"] // fields["num_attention_heads"])
    assert (config.rope_scaling is None) == (fields["rope_parameters"]["rope_type"] == "default")
