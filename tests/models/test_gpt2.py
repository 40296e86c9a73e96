import functools
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from safetensors.numpy import load_file
from tiny_models import GPT2, LOGITS, tokens, weights

from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, ScoreRequest
from imitation_jax.models import decoder, huggingface
from imitation_jax.models.families import gpt2
from imitation_jax.models.load import LoadedModel, abstract_params, load_model, save_model
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.sharding import BATCH, path_of, shardings
from imitation_jax.training import config as training
from imitation_jax.training import initial
from imitation_jax.training.optimizer import make_optimizer, make_schedule
from imitation_jax.training.step import loss_sums, make_train_step, state_shardings

CONFIG = gpt2.GPT2Config(103, 32, 128, 2, 4, 128)
TIE = 1e-4
NO_STOP = frozenset()


def shapes(config):
    return jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))


def paths(tree):
    return {path_of(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def draw(config, matrices):
    """Every part large enough to show in the logits; matrices are normal with `matrices`, embeddings with 0.1."""
    random = np.random.default_rng(0)

    def leaf(key, like):
        path = path_of(key)
        drawn = random.standard_normal(like.shape, np.float32)
        if path.endswith("norm"):
            drawn = 1 + drawn / 8
        else:
            drawn *= np.float32(0.1 if path.endswith(("bias", "embed", "positions")) else matrices)
        return jnp.asarray(drawn)

    return jax.tree_util.tree_map_with_path(leaf, shapes(config))


@pytest.fixture(scope="module")
def params():
    return draw(CONFIG, 0.25)


@pytest.fixture(scope="module")
def model(params, word_tokenizer):
    return LoadedModel(gpt2, CONFIG, params, word_tokenizer(CONFIG.vocab_size), None)


@jax.jit
def logits(params, tokens, positions, segments):
    return decoder.logits(params, decoder.hidden(CONFIG, params, tokens, positions, segments))


def packed(*lengths, padding=0):
    """One row of segments of these lengths: tokens, positions, segment ids, each (1, S)."""
    positions = np.concatenate([*map(np.arange, lengths), np.zeros(padding, int)])
    segments = np.concatenate([np.repeat(np.arange(len(lengths)) + 1, lengths), np.zeros(padding, int)])
    tokens = np.random.default_rng(7).integers(0, CONFIG.vocab_size, sum(lengths) + padding) * (segments > 0)
    return tuple(array.astype(np.int32)[None] for array in (tokens, positions, segments))


# ----------------------------------------------------------------------------------------------------------------------
# Tables
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", gpt2.PRESETS)
def test_every_parameter_matches_one_row_of_each_table(preset):
    tree = paths(shapes(gpt2.PRESETS[preset]))
    for path, leaf in tree.items():
        rows = [spec for pattern, spec in gpt2.SHARDING if re.fullmatch(pattern, path)]
        assert len(rows) == 1 and len(rows[0]) in (0, leaf.ndim), path
        assert leaf.dtype == jnp.float32
    assert sorted(row[0] for row in gpt2.HUGGINGFACE) == sorted(tree)
    for pattern, _ in gpt2.SHARDING:
        assert any(re.fullmatch(pattern, path) for path in tree), pattern


def test_all_but_vectors_are_cut_over_fsdp():
    tree = shapes(gpt2.PRESETS["gpt2_1_5b"])
    for path, place in paths(shardings(tree, gpt2.SHARDING, make_mesh("fsdp=8"))).items():
        whole = paths(tree)[path]
        assert np.prod(place.shard_shape(whole.shape)) * (1 if path.endswith(("norm", "bias")) else 8) == whole.size


def test_a_mesh_that_does_not_divide_the_heads_is_one_line(refused):
    mesh = make_mesh("fsdp=-1,tensor=2")
    abstract_params(gpt2, gpt2.PRESETS["gpt2_774m"], mesh)
    with refused(ValueError, "'layers/attention/o'", "25 is not a multiple of 2 (tensor)"):
        abstract_params(gpt2, gpt2.PRESETS["gpt2_1_5b"], mesh)


def test_fresh_parameters():
    """GPT-2, section 2.3: what is added to the residual stream starts smaller by the root of how often that is done."""
    fresh = paths(jax.jit(lambda key: decoder.init(CONFIG, key))(jax.random.key(1)))
    for path, leaf in fresh.items():
        if path.endswith(("norm", "bias")):
            np.testing.assert_array_equal(leaf, float(path.endswith("norm")))
        else:
            expected = 0.01 if path in ("layers/attention/o", "layers/mlp/down") else 0.02
            assert abs(np.std(leaf) - expected) < 0.1 * expected, path


# ----------------------------------------------------------------------------------------------------------------------
# Hugging Face's folders
# ----------------------------------------------------------------------------------------------------------------------


def equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_logits_equal_those_of_transformers(hf_folder, logits_of, one_device):
    model = load_model(f"hf:{hf_folder('gpt2')}", one_device)
    assert model.family is gpt2
    expected = np.load(LOGITS)["gpt2"]
    got = logits_of(model, tokens(GPT2))[0]
    assert expected.shape == got.shape and expected.std() > 1
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)


def test_round_trip(hf_folder, tmp_path, as_hf):
    model = load_model(f"hf:{hf_folder('gpt2')}", make_mesh("fsdp=4,tensor=2"))
    equal(as_hf(model), weights(GPT2))
    save_model(model, f"hf:{tmp_path}/out")
    equal(load_file(tmp_path / "out/model.safetensors"), weights(GPT2))
    save_model(model, f"orbax:{tmp_path}/run")
    for source in (f"hf:{tmp_path}/out", f"orbax:{tmp_path}/run"):
        again = load_model(source)
        assert again.family is gpt2 and again.config == model.config
        equal(as_hf(again), weights(GPT2))
        assert again.tokenizer.files() == model.tokenizer.files()


def test_openais_own_weights_have_no_head_and_the_causal_mask(hf_folder, as_hf):
    """As they lie on the hub: names without "transformer.", and the mask of each layer among the weights."""
    tensors = {name.removeprefix("transformer."): array for name, array in weights(GPT2).items()}
    mask = np.tril(np.ones((1, 1, 64, 64), np.float32))
    tensors |= {f"h.{layer}.attn.bias": mask for layer in range(3)}
    equal(as_hf(load_model(f"hf:{hf_folder('gpt2', tensors=tensors)}")), weights(GPT2))


def test_a_matrix_the_wrong_way_round_is_refused(hf_folder, refused):
    tensors = weights(GPT2)
    name = "transformer.h.1.mlp.c_fc.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    folder = hf_folder("gpt2", tensors=tensors)
    with refused(ValueError, folder, name, "(192, 48) where the config asks for (48, 192)"):
        load_model(f"hf:{folder}")


@pytest.mark.parametrize("preset", gpt2.PRESETS)
def test_a_config_survives_its_json(preset):
    config = gpt2.PRESETS[preset]
    assert gpt2.config_from_hf(json.loads(json.dumps(gpt2.config_to_hf(config)))) == config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("activation_function", "relu"),
        ("activation_function", "gelu"),
        ("tie_word_embeddings", False),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
    ],
)
def test_another_architecture_is_refused_by_its_key(key, value, hf_folder, refused):
    folder = hf_folder("gpt2", **{key: value})
    with refused(ValueError, folder, f"{key}={value!r} is not supported"):
        load_model(f"hf:{folder}")


# ----------------------------------------------------------------------------------------------------------------------
# Packing, meshes, the backward pass
# ----------------------------------------------------------------------------------------------------------------------


def test_packed_dialogues_equal_each_alone(params):
    lengths = (5, 1, 9, 5, 9)
    row = packed(*lengths, padding=3)
    together = logits(params, *row)[0]
    start = 0
    for length in lengths:
        alone = [array[:, start : start + length] for array in row]
        np.testing.assert_allclose(together[start : start + length], logits(params, *alone)[0], atol=1e-5, rtol=0)
        start += length


def test_a_mesh_changes_nothing(params):
    rows = [np.repeat(array, 2, axis=0) for array in packed(6, 7, padding=3)]
    expected = logits(params, *rows)
    mesh = make_mesh("fsdp=2,sequence=2,tensor=2")
    placed = jax.device_put(params, shardings(params, gpt2.SHARDING, mesh))
    rows = [jax.device_put(array, NamedSharding(mesh, BATCH)) for array in rows]
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(logits(placed, *rows), expected, atol=1e-5, rtol=0)


def test_bfloat16_computes_near_float32(params):
    row = packed(6, 8)
    x = jax.jit(lambda params, *row: decoder.hidden(CONFIG, params, *row, dtype=jnp.bfloat16))(params, *row)
    assert x.dtype == jnp.bfloat16
    got, expected = decoder.logits(params, x), logits(params, *row)
    assert got.dtype == jnp.float32 and np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


def test_what_is_recomputed_does_not_change_gradients(params):
    tokens, positions, segments = packed(26, 30, padding=8)
    batch = {"tokens": tokens, "positions": positions, "segment_ids": segments, "targets": np.roll(tokens, -1, 1)}
    batch["loss_mask"] = (segments > 0).astype(np.float32)

    @functools.partial(jax.jit, static_argnames="remat")
    @jax.grad
    def gradients(params, batch, remat):
        return loss_sums(CONFIG, params, batch, dtype=jnp.float32, remat=remat, chunk=64)[0]

    expected = paths(gradients(params, batch, remat="none"))
    for path, got in paths(gradients(params, batch, remat="full")).items():
        size = np.abs(expected[path]).max()
        assert size > 0, path
        np.testing.assert_allclose(got, expected[path], atol=1e-5 * size, rtol=0, err_msg=path)


def steps(mesh, params, batches):
    """Weights and loss after each step."""
    config = training.get_config().optimizer
    config.update(learning_rate=1e-2, schedule="constant", warmup_fraction=0.0, weight_decay=0.1, eps=1e-4)
    schedule = make_schedule(config, 10)
    optimizer = make_optimizer(config, schedule)
    sharding = state_shardings(optimizer, abstract_params(gpt2, CONFIG, mesh), mesh)
    options = {"dtype": jnp.float32, "remat": "full", "chunk": 24, "accumulation": 1, "schedule": schedule}
    step = make_train_step(CONFIG, optimizer, state_sharding=sharding, mesh=mesh, **options)
    state = {"params": params, "optimizer": optimizer.init(params)}
    state = jax.device_put(jax.tree.map(np.array, state), sharding)  # copies, which the step may use up
    found = []
    with jax.set_mesh(mesh):
        for batch in batches:
            state, metrics = step(state, jax.device_put(batch, NamedSharding(mesh, BATCH)))
            found.append(jax.device_get((state["params"], metrics["loss"])))
    return found, state


def test_eight_devices_train_as_one_does(params, one_device):
    random = np.random.default_rng(3)
    lengths = [(9, 20, 15), (40,), (30, 5), (1, 43)] * 2
    rows = [packed(*each, padding=48 - sum(each)) for each in lengths]
    tokens, positions, segments = (np.concatenate(arrays) for arrays in zip(*rows, strict=True))
    tokens = random.integers(0, CONFIG.vocab_size, tokens.shape).astype(np.int32)
    mask = ((segments > 0) & (random.random(tokens.shape) < 0.5)).astype(np.float32)
    batch = {"tokens": tokens, "targets": np.roll(tokens, -1, 1), "loss_mask": mask}
    batches = [batch | {"positions": positions, "segment_ids": segments}] * 2
    expected, _ = steps(one_device, params, batches)
    assert expected[1][1] < expected[0][1]
    got, state = steps(make_mesh("fsdp=4,tensor=2"), params, batches)
    for (ours, loss), (wanted, wanted_loss) in zip(got, expected, strict=True):
        assert loss == pytest.approx(wanted_loss, rel=1e-5)
        for path, leaf in paths(ours).items():
            np.testing.assert_allclose(leaf, paths(wanted)[path], atol=1e-5, rtol=0, err_msg=path)
    assert state["params"]["layers"]["mlp"]["up"].addressable_shards[0].data.size * 8 == 2 * 32 * 128


def test_weight_decay_leaves_norms_and_biases_alone(params):
    config = training.get_config().optimizer
    for name in ("adamw", "weight_magnitude"):
        config.update(name=name, weight_decay=0.5, schedule="constant", warmup_fraction=0.0)
        optimizer = make_optimizer(config, make_schedule(config, 10))
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, _ = jax.jit(optimizer.update)(zeros, optimizer.init(params), params)
        still = {path for path, leaf in paths(updates).items() if not np.any(leaf)}
        assert still == {path for path in paths(params) if path.endswith(("norm", "bias"))}


# ----------------------------------------------------------------------------------------------------------------------
# Learned positions
# ----------------------------------------------------------------------------------------------------------------------


def test_rows_longer_than_the_learned_positions_are_refused(hf_folder, one_device, refused):
    config = training.get_config()
    config.model.preset, config.model.tokenizer = "gpt2_1_5b", "/nowhere"
    with refused(ValueError, "data.seq_len=2048: the model has learned 1024 positions; choose 1024 or less"):
        initial.new_model(config, one_device)
    config.model.preset, config.model.tokenizer = "", ""
    config.model.init = f"hf:{hf_folder('gpt2')}"
    with refused(ValueError, "data.seq_len=2048: the model has learned 64 positions"):
        initial.new_model(config, one_device)
    config.data.seq_len = 64
    assert initial.new_model(config, one_device).config.max_position_embeddings == 64


def test_a_model_of_the_other_family_is_refused_by_what_differs(hf_folder, one_device, refused):
    config = training.get_config()
    config.model.preset, config.model.init, config.data.seq_len = "llama_7b", f"hf:{hf_folder('gpt2')}", 64
    with refused(ValueError, "is not a llama_7b: vocab_size 101 is not 32000"):
        initial.new_model(config, one_device)


# ----------------------------------------------------------------------------------------------------------------------
# The engine
# ----------------------------------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def next_logits(config, params, ids_S, length):
    x = decoder.hidden(config, params, ids_S[None], jnp.arange(len(ids_S))[None], jnp.zeros_like(ids_S)[None])
    return decoder.logits(params, x[:, length - 1][:, None])[0, 0]


def recomputed(model, prompt, count, size):
    """Greedy ids without a cache, and the gap between the two best logits before each."""
    ids, gaps = list(prompt), []
    for _ in range(count):
        padded = np.zeros(size, np.int32)
        padded[: len(ids)] = ids
        found = np.asarray(next_logits(model.config, model.params, padded, len(ids)))
        last, best = np.sort(found)[-2:]
        gaps.append(best - last)
        ids.append(int(found.argmax()))
    return ids[len(prompt) :], gaps


@pytest.mark.parametrize("spec", ["", "fsdp=2,tensor=2"])
def test_greedy_generation_equals_recomputation(model, spec):
    random = np.random.default_rng(4)
    lengths = ((1, 40), (30, 30), (3, 20), (100, 28))  # the last up to the last position
    requests = [GenerateRequest(random.integers(0, 103, n).tolist(), new, stop_ids=NO_STOP) for n, new in lengths]
    requests[2] = GenerateRequest([*requests[1].prompt[:20], 5, 6], 25, stop_ids=NO_STOP)  # shares its beginning
    mesh = make_mesh(spec, jax.devices()[: 4 if spec else 1])
    for request, text in zip(requests, Engine(model, mesh, batch_size=2).generate(requests), strict=True):
        expected, gaps = recomputed(model, request.prompt, request.max_new_tokens, CONFIG.max_position_embeddings)
        assert min(gaps) > TIE  # so no mismatch can be a tie
        assert text.ids == expected


def test_scores_with_a_shared_prefix_equal_those_without(model, one_device):
    random = np.random.default_rng(5)
    shared = random.integers(0, 103, 70).tolist()
    requests = [
        ScoreRequest([*shared, *random.integers(0, 103, length).tolist()], [i, i + 1])
        for length in (3, 20, 56)
        for i in range(4)
    ]
    engine = Engine(model, one_device, batch_size=2)
    together = engine.score(requests)
    assert engine.tokens_forwarded < sum(len(request.context) for request in requests) / 2
    for request, score in zip(requests, together, strict=True):
        [alone] = Engine(model, one_device, batch_size=2).score([request])
        read = np.zeros(CONFIG.max_position_embeddings, np.int32)
        ids = [*request.context, *request.continuation]
        read[: len(ids) - 1] = ids[:-1]
        by_hand = 0.0
        for place in range(len(request.context), len(ids)):
            found = next_logits(model.config, model.params, read, place)
            by_hand += float(jax.nn.log_softmax(found)[ids[place]])
        assert score.logprob == pytest.approx(alone.logprob, abs=1e-5) == pytest.approx(by_hand, abs=1e-5)
        assert score.greedy == alone.greedy


def test_what_does_not_fit_the_positions_is_refused(model, one_device):
    with pytest.raises(ValueError, match="do not fit the model's 128 positions; shorten the prompt"):
        Engine(model, one_device).generate([GenerateRequest([1] * 129, 4)])


# ----------------------------------------------------------------------------------------------------------------------
# All four sizes against transformers
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("preset", gpt2.PRESETS)
def test_each_size_has_transformers_logits_and_tokens(
    preset, transformers, logits_of, one_device, word_tokenizer, tmp_path, monkeypatch
):
    """Random weights: exported, read by transformers, read back here. The smallest over all positions."""
    monkeypatch.setattr(huggingface, "SHARD_BYTES", 10**9)  # the largest fits 11 GB of memory
    config = gpt2.PRESETS[preset]
    folder, length, new = tmp_path / "model", 1024 if preset == "gpt2_124m" else 128, 12
    ids = np.random.default_rng(6).integers(0, config.vocab_size, (1, length)).tolist()
    prompt = ids[0][:20]
    tokenizer = word_tokenizer(config.vocab_size, template=None)
    try:
        save_model(LoadedModel(gpt2, config, draw(config, 0.02), tokenizer, None), f"hf:{folder}")
        expected = np.load(transformers(folder, ids) / "0.npy")
        them = json.loads((transformers(folder, [prompt], new) / "0.json").read_text())
        model = load_model(f"hf:{folder}", one_device)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    difference = np.abs(logits_of(model, ids)[0] - expected)
    print(f"{preset}: largest difference {difference.max():.3g}, logits' deviation {expected.std():.3g}")
    assert expected.std() > 1 and difference.max() <= 1e-4
    [ours] = Engine(model, one_device).generate([GenerateRequest(prompt, new, stop_ids=NO_STOP)])
    assert ours.ids == them["ids"]
