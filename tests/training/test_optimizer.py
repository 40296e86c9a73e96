import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.training import config as training
from imitation_jax.training.optimizer import (
    OPTIMIZERS,
    SecondMomentState,
    in_bfloat16,
    make_optimizer,
    make_schedule,
    round_stochastically,
    scale_by_second_moment,
)

LAYERS = 3


def options(**keys):
    config = training.get_config().optimizer
    config.update(keys)
    return config


def rates(total, **keys):
    schedule = make_schedule(options(learning_rate=1.0, **keys), total)
    return np.array([schedule(step) for step in range(total + 1)])


# ----------------------------------------------------------------------------------------------------------------------
# Schedules
# ----------------------------------------------------------------------------------------------------------------------


def test_constant_after_a_linear_warmup_from_0():
    got = rates(8, schedule="constant", warmup_steps=4, warmup_fraction=0.0)
    assert got == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_without_warmup_the_first_step_has_the_peak():
    assert rates(3, schedule="constant", warmup_fraction=0.0)[0] == 1
    assert rates(3, schedule="cosine", warmup_fraction=0.0)[0] == 1


@pytest.mark.parametrize("schedule, middle", [("linear", 0.6), ("cosine", 0.6)])
def test_decay_ends_at_the_final_fraction(schedule, middle):
    got = rates(30, schedule=schedule, warmup_steps=10, warmup_fraction=0.0, final_fraction=0.2)
    assert [got[0], got[5], got[10], got[20], got[30]] == pytest.approx([0, 0.5, 1, middle, 0.2])
    assert (np.diff(got[10:]) < 0).all()
    # They differ a quarter of the way down: cosine starts slowly.
    assert got[15] == pytest.approx(0.8 if schedule == "linear" else 0.2 + 0.8 * (1 + np.cos(np.pi / 4)) / 2)


def test_the_warmup_fraction_is_of_the_run():
    assert rates(100, schedule="constant", warmup_fraction=0.2) == pytest.approx(
        rates(100, schedule="constant", warmup_steps=20, warmup_fraction=0.0)
    )


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_a_run_shorter_than_the_warmup_never_leaves_it(schedule):
    """The paper's small runs: 5 of 1,000 warm-up steps."""
    got = rates(5, schedule=schedule, warmup_steps=1000, warmup_fraction=0.0)
    assert got == pytest.approx(np.arange(6) / 1000, abs=1e-7)


def test_warmup_steps_come_before_the_fraction():
    assert rates(100, schedule="constant", warmup_steps=10, warmup_fraction=0.5)[5] == pytest.approx(0.5)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="optimizer.schedule='step' is none of constant, cosine, linear"):
        make_schedule(options(schedule="step"), 100)
    with pytest.raises(ValueError, match="optimizer.name='sgd' is none of adamw, weight_magnitude"):
        make_optimizer(options(name="sgd"), optax.constant_schedule(1.0))
    with pytest.raises(ValueError, match="optimizer.state_dtype='float16' is none of float32, bfloat16"):
        make_optimizer(options(state_dtype="float16"), optax.constant_schedule(1.0))


# ----------------------------------------------------------------------------------------------------------------------
# Updates
# ----------------------------------------------------------------------------------------------------------------------


def stacked_params():
    """Layers of very different magnitude, one below the floor of the weight RMS, one of zeros."""
    random = np.random.default_rng(0)
    scales = np.array([1.0, 1e-4, 30.0], np.float32)

    def layers(*shape):
        return random.normal(0, 1, (LAYERS, *shape)).astype(np.float32) * scales.reshape(-1, *[1] * len(shape))

    return {
        "embed": random.normal(0, 0.02, (11, 6)).astype(np.float32),
        "final_norm": np.ones(6, np.float32),
        "layers": {
            "attention": {"q": layers(6, 2, 3)},
            "attention_norm": layers(6),
            "mlp": {"up": layers(6, 8), "down": np.zeros((LAYERS, 8, 6), np.float32)},
        },
    }


def unstack(tree):
    """Each layer's tensors under names of their own; what stands outside of layers as it is."""
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = "/".join(key.key for key in path)
        flat |= {f"{i}/{name}": leaf[i] for i in range(LAYERS)} if name.startswith("layers/") else {name: leaf}
    return flat


def gradients(step):
    """Of every size: their norm is far above and far below the clipping norm, and some are exactly 0."""
    random = np.random.default_rng(step)
    size = 10.0 ** random.uniform(-4, 2)

    def draw(leaf):
        return (size * random.normal(0, 1, leaf.shape) * (random.random(leaf.shape) > 0.1)).astype(np.float32)

    return jax.tree.map(draw, stacked_params())


def run(optimizer, params, grads, steps=6, extra=lambda params, step: params):
    """Parameters after each step."""
    state, history = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for step in range(steps):
        updates, state = update(grads(step), state, params)
        params = optax.apply_updates(extra(params, step), updates)
        history.append(params)
    return history


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_weight_magnitude_is_unfactored_adafactor_on_unstacked_parameters(weight_decay, assert_close):
    config = options(name="weight_magnitude", schedule="linear", learning_rate=0.05, warmup_fraction=0.5)
    config.weight_decay = weight_decay
    schedule = make_schedule(config, 6)
    got = run(make_optimizer(config, schedule), stacked_params(), gradients)
    reference = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adafactor(
            schedule,
            multiply_by_parameter_scale=True,
            momentum=0.9,
            decay_rate=0.95,
            factored=False,
            clipping_threshold=None,
        ),
    )

    def decay(params, step):
        factor = 1 - np.float32(schedule(step)) * np.float32(weight_decay)
        return {name: leaf if name.endswith("norm") else leaf * factor for name, leaf in params.items()}

    wanted = run(reference, unstack(stacked_params()), lambda step: unstack(gradients(step)), extra=decay)
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close(unstack(ours), theirs, 1e-6)


def test_adamw_on_stacked_is_adamw_on_unstacked(assert_close):
    config = options(weight_decay=0.1, learning_rate=0.05, schedule="linear", warmup_fraction=0.5)
    schedule = make_schedule(config, 6)
    got = run(make_optimizer(config, schedule), stacked_params(), gradients)

    def decayed(params):
        return {name: not name.endswith("norm") for name in params}

    reference = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1, mask=decayed),
    )
    wanted = run(reference, unstack(stacked_params()), lambda step: unstack(gradients(step)))
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close(unstack(ours), theirs, 1e-6)


def test_norms_are_not_decayed():
    config = options(weight_decay=0.5, schedule="constant", learning_rate=0.1, warmup_fraction=0.0)
    params = jax.tree.map(jnp.asarray, stacked_params())

    def zero_gradients(step):
        return jax.tree.map(jnp.zeros_like, params)

    for config.name in ("adamw", "weight_magnitude"):
        (after,) = run(make_optimizer(config, make_schedule(config, 1)), params, zero_gradients, steps=1)
        assert (after["final_norm"] == params["final_norm"]).all()
        assert (after["layers"]["attention_norm"] == params["layers"]["attention_norm"]).all()
        np.testing.assert_allclose(after["layers"]["mlp"]["up"], 0.95 * params["layers"]["mlp"]["up"], rtol=1e-6)


# ----------------------------------------------------------------------------------------------------------------------
# Moments in bfloat16
# ----------------------------------------------------------------------------------------------------------------------


def test_a_number_is_rounded_to_either_neighbour_and_is_right_on_average():
    x = np.float32([1.0, 1.001, -1.001, 3.0e-20, 2.0e20, 0.0, 1 + 2**-8, 1 + 2**-7])
    seeds = np.arange(20_000)
    got = jax.vmap(round_stochastically, in_axes=(None, 0))(x, seeds)
    assert got.dtype == jnp.bfloat16
    got = np.asarray(got, np.float64)
    step = 2.0 ** (np.floor(np.log2(np.abs(np.where(x, x, 1)))) - 7)  # bfloat16 has 7 bits behind the leading one
    down, up = np.floor(x / step) * step, np.ceil(x / step) * step
    assert ((got == down) | (got == up)).all()
    off = (got - x).mean(0) / step
    assert (np.abs(off) < 5 * 0.5 / np.sqrt(len(seeds))).all()
    assert (off[[0, 5, 7]] == 0).all()  # these are bfloat16 numbers


def test_layers_are_rounded_each_by_bits_of_its_own():
    up_LN = np.asarray(round_stochastically(jnp.full((LAYERS, 2048), 1 + 2**-8), 0) > 1)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(up_LN[i] == up_LN[j]) == pytest.approx(0.5, abs=0.06)


def test_a_mesh_rounds_as_one_device_does_and_without_a_word_between_devices():
    x = np.random.default_rng(0).normal(size=(LAYERS, 64, 32)).astype(np.float32)
    place = NamedSharding(make_mesh("fsdp=4,tensor=2"), P(None, "fsdp", "tensor"))
    compiled = jax.jit(round_stochastically, out_shardings=place).lower(jax.device_put(x, place), 7).compile()
    text = compiled.as_text()
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))
    got = compiled(jax.device_put(x, place), 7)
    assert {shard.data.shape for shard in got.addressable_shards} == {(LAYERS, 16, 16)}
    np.testing.assert_array_equal(got, round_stochastically(x, 7))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_layers_with_moments_in_bfloat16_go_where_unstacked_ones_in_float32_go(name):
    """Up to what rounding moves them, in each layer's tensor, however small beside the other layers'."""
    config = options(name=name, weight_decay=0.1, learning_rate=0.05, schedule="constant", warmup_fraction=0.0)
    schedule = make_schedule(config, 12)
    params = stacked_params()
    wanted = run(make_optimizer(config, schedule), params, gradients, 12)[-1]
    config.state_dtype = "bfloat16"
    optimizer = make_optimizer(config, schedule)
    moments = [leaf for leaf in jax.tree.leaves(optimizer.init(params)) if leaf.ndim]
    assert len(moments) == 2 * len(jax.tree.leaves(params))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in moments)
    got = run(optimizer, params, gradients, 12)[-1]
    start, ours, float32 = unstack(params), unstack(got), unstack(wanted)
    for path, weight in float32.items():
        assert ours[path].dtype == jnp.float32
        off = np.linalg.norm(ours[path] - weight) / np.linalg.norm(weight - start[path])
        assert 0 < off < 0.01, path


def test_a_slow_mean_moves_where_rounding_to_nearest_stands_still():
    """After 5,000 steps of the paper's rule a step changes its second moments by 3 in 10,000."""
    rule = scale_by_second_moment(0.95)
    grads = {"w": jnp.full(4096, 2.0)}

    def after(rule, dtype, cast=lambda moment: moment):
        state = SecondMomentState(jnp.int32(5000), {"w": jnp.ones(4096, dtype)})
        for _ in range(200):
            state = jax.jit(rule.update)(grads, state)[1]
            state = state._replace(second_moment=cast(state.second_moment))
        return np.asarray(state.second_moment["w"], np.float32)

    exact = after(rule, jnp.float32)
    assert exact[0] > 1.15
    assert after(in_bfloat16(rule), jnp.bfloat16).mean() == pytest.approx(exact[0], rel=2e-3)
    nearest = after(rule, jnp.float32, lambda moment: jax.tree.map(lambda x: x.astype(jnp.bfloat16) + 0.0, moment))
    assert (nearest == 1).all()
