import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imitation_jax.training import config as training
from imitation_jax.training.optimizer import make_optimizer, make_schedule

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
