"""The numerical law: the loss is sum / number over the global batch, whatever packing, accumulation and mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imitation_jax.models.families import llama
from imitation_jax.models.load import LoadedModel, abstract_params
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.sharding import BATCH, path_of, shardings
from imitation_jax.training import config as training
from imitation_jax.training.initial import random_params
from imitation_jax.training.optimizer import STATE_DTYPES, make_optimizer, make_schedule
from imitation_jax.training.step import abstract_state, gradients, loss_sums, make_train_step, state_shardings

STUDENT = dataclasses.replace(llama.PRESETS["tiny"], num_hidden_layers=2)
ROWS = 16


@functools.partial(jax.jit, static_argnums=2)
def grads_of(params, batch, accumulation=1):
    loss_fn = functools.partial(loss_sums, STUDENT, dtype=jnp.float32, remat="full", chunk=40)
    return gradients(loss_fn, params, batch, accumulation)


@functools.cache
def trainer(mesh, name, accumulation=1, remat="full", state_dtype="float32"):
    """The optimiser, the jitted step on a mesh, and the abstract state it takes."""
    config = training.get_config().optimizer
    config.update(name=name, learning_rate=1e-2, schedule="constant", warmup_fraction=0.0, weight_decay=0.1, eps=1e-4)
    config.state_dtype = state_dtype
    schedule = make_schedule(config, 10)
    optimizer = make_optimizer(config, schedule)
    abstract = abstract_params(llama, STUDENT, mesh)
    sharding = state_shardings(optimizer, abstract, mesh)
    step = make_train_step(
        STUDENT,
        optimizer,
        dtype=jnp.float32,
        remat=remat,
        chunk=40,
        accumulation=accumulation,
        schedule=schedule,
        state_sharding=sharding,
        mesh=mesh,
    )
    return optimizer, step, abstract_state(optimizer.init, abstract, sharding)


def run(mesh, params, batches, **options):
    """State on the host and metrics after each step."""
    jax.set_mesh(mesh)
    optimizer, train_step, abstract = trainer(mesh, **options)
    start = {"params": params, "optimizer": optimizer.init(params)}
    state = jax.tree.map(lambda leaf, like: jax.device_put(np.array(leaf), like.sharding), start, abstract)
    history = []
    for batch in batches:
        state, metrics = train_step(state, jax.device_put(batch, NamedSharding(mesh, BATCH)))
        history.append(jax.device_get((state, metrics)))
    return history


# ----------------------------------------------------------------------------------------------------------------------
# Packing, accumulation
# ----------------------------------------------------------------------------------------------------------------------


def test_packed_and_unpacked_gradients_are_equal(params, open_stream, write_dialogues, tmp_path, assert_close):
    few = write_dialogues(tmp_path / "few.jsonl", 12, seed=1)
    packed, unpacked = open_stream(ROWS, path=few), open_stream(ROWS, packing=False, path=few)
    assert packed.total_steps == unpacked.total_steps == 1
    assert packed.stats["rows"] < unpacked.stats["rows"] / 1.3
    got, wanted = grads_of(params, packed[0]), grads_of(params, unpacked[0])
    assert got[1]["loss_tokens"] == packed.stats["loss_tokens"]
    assert_close(got, wanted)


def uneven(batch):
    """One row bears a single loss, three none at all."""
    mask = batch["loss_mask"].copy()
    mask[[0, 3, 6]] = 0
    mask[5] *= np.cumsum(mask[5]) == 1
    return batch | {"loss_mask": mask}


def test_accumulated_microbatches_are_the_whole_batch(params, open_stream, assert_close):
    batch = uneven(open_stream(ROWS)[0])
    bearing = batch["loss_mask"].sum(axis=1)
    assert sorted(bearing)[:4] == [0, 0, 0, 1] and bearing.max() > 20
    assert_close(grads_of(params, batch, 4), grads_of(params, batch))


def test_a_batch_of_padding_changes_only_what_decay_and_momentum_change(params, open_stream):
    empty = jax.tree.map(np.zeros_like, open_stream(ROWS)[0])
    grads, metrics = grads_of(params, empty)
    assert metrics["loss"] == 0 and all((leaf == 0).all() for leaf in jax.tree.leaves(grads))


# ----------------------------------------------------------------------------------------------------------------------
# Meshes
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(params, open_stream, one_device):
    """Four steps on one device, by optimiser."""
    stream = open_stream(ROWS)
    batches = [uneven(stream[step % stream.total_steps]) for step in range(4)]
    before = jax.sharding.get_mesh()
    histories = {name: run(one_device, params, batches, name=name) for name in ("adamw", "weight_magnitude")}
    jax.set_mesh(before)
    return batches, histories


@pytest.mark.parametrize(
    "spec, name, accumulation",
    [("fsdp=8", "weight_magnitude", 2), ("fsdp=4,tensor=2", "weight_magnitude", 1), ("data=2,fsdp=4", "adamw", 1)],
)
def test_eight_devices_do_what_one_does(spec, name, accumulation, params, alone, assert_close):
    batches, histories = alone
    history = run(make_mesh(spec), params, batches, name=name, accumulation=accumulation)
    for (state, metrics), (wanted_state, wanted_metrics) in zip(history, histories[name], strict=True):
        assert_close(metrics, wanted_metrics)
        assert_close(state["params"], wanted_state["params"])
    # Further on, normalised updates keep what round-off makes of gradients next to 0.
    assert_close(history[0][0], histories[name][0][0])


@pytest.mark.slow
def test_a_long_packed_row_on_four_devices_is_that_of_one(params, open_stream, write_dialogues, tmp_path, assert_close):
    many = write_dialogues(tmp_path / "many.jsonl", 600, seed=1)
    batch = open_stream(1, path=many, seq_len=8192)[0]
    assert batch["tokens"].shape == (1, 8192) and batch["segment_ids"].max() > 50
    found = []
    for devices in (1, 4):
        mesh = make_mesh(f"sequence={devices}", jax.devices()[:devices])
        with jax.set_mesh(mesh):
            placed = jax.device_put(params, shardings(params, llama.SHARDING, mesh))
            found.append(jax.device_get(grads_of(placed, jax.device_put(batch, NamedSharding(mesh, BATCH)))))
    assert_close(found[1], found[0])


def test_layer_inputs_that_wait_in_the_host_s_memory_are_the_same(params, alone, assert_close):
    batches, histories = alone
    ((state, metrics),) = run(make_mesh("fsdp=4,tensor=2"), params, batches[:1], name="adamw", remat="offload")
    assert_close(metrics, histories["adamw"][0][1])
    assert_close(state, histories["adamw"][0][0])


def split(state):
    """Path and leaf of all that must be split: weights and what the optimiser keeps for each; norms are small."""
    leaves = [(path_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]
    leaves = [(path, leaf) for path, leaf in leaves if leaf.ndim > 1 and not path.endswith("norm")]
    assert len(leaves) == 3 * 9  # weights, two moments
    return leaves


@pytest.mark.parametrize("name", ["adamw", "weight_magnitude"])
@pytest.mark.parametrize("spec", ["fsdp=8", "fsdp=4,tensor=2", "data=2,fsdp=4"])
def test_no_device_holds_a_whole_weight(spec, name):
    mesh = make_mesh(spec)
    for path, leaf in split(trainer(mesh, name)[2]):
        ways = mesh.shape["fsdp"] * mesh.shape["tensor"]
        assert np.prod(leaf.sharding.shard_shape(leaf.shape)) * ways == leaf.size, path


@pytest.mark.parametrize("state_dtype", STATE_DTYPES)
def test_the_state_is_born_sharded(one_device, state_dtype):
    mesh = make_mesh("fsdp=4,tensor=2")
    optimizer, _, abstract = trainer(mesh, "weight_magnitude", state_dtype=state_dtype)
    place = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    model = LoadedModel(llama, STUDENT, None, None, None)
    params = random_params(model, place["params"], seed=0)
    optimizer_state = jax.jit(optimizer.init, out_shardings=place["optimizer"])(params)
    for path, leaf in split({"params": params, "optimizer": optimizer_state}):
        assert {shard.data.size for shard in leaf.addressable_shards} == {leaf.size // 8}, path
    # They are the weights of one device.
    alone = random_params(model, jax.tree.map(lambda _: NamedSharding(one_device, P()), place["params"]), seed=0)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(params), jax.device_get(alone))


# ----------------------------------------------------------------------------------------------------------------------
# NaN guard
# ----------------------------------------------------------------------------------------------------------------------


def test_a_gradient_that_is_not_finite_changes_nothing(params, alone, one_device):
    (good, *_), _ = alone
    mask = good["loss_mask"].copy()
    mask[2, np.flatnonzero(mask[2])[0]] = np.inf
    history = run(one_device, params, [good, good | {"loss_mask": mask}, good], name="adamw")
    (before, first), (after, bad), (last, third) = history
    assert [step["skipped"] for step in (first, bad, third)] == [0, 1, 0] and not np.isfinite(bad["grad_norm"])
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(after), strict=True))
