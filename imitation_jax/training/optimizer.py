"""Schedules, AdamW, and the paper's update that is re-scaled by the magnitude of each weight."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from imitation_jax.parallel.sharding import path_of

OPTIMIZERS = ("adamw", "weight_magnitude")
SCHEDULES = ("constant", "cosine", "linear")
STATE_DTYPES = ("float32", "bfloat16")


def make_schedule(config: ConfigDict, total_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then constant, or cosine or linear down to `final_fraction` of the peak.

    Args:
      config: `learning_rate`, `schedule`, `warmup_steps` or, where that is 0, `warmup_fraction` of the run,
        `final_fraction`.
      total_steps: of the run.

    Raises:
      ValueError: an unknown schedule.
    """
    peak = config.learning_rate
    warmup = config.warmup_steps or round(config.warmup_fraction * total_steps)
    rest = max(total_steps - warmup, 1)
    if config.schedule == "constant":
        after = optax.constant_schedule(peak)
    elif config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, config.final_fraction)
    elif config.schedule == "linear":
        after = optax.linear_schedule(peak, peak * config.final_fraction, rest)
    else:
        raise ValueError(f"optimizer.schedule={config.schedule!r} is none of {', '.join(SCHEDULES)}")
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup]) if warmup else after


def make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The update rule: clip by global norm, then AdamW or the paper's.

    "weight_magnitude" is the paper's "gradients re-scaled by the magnitude of each weight": an unfactored Adafactor
    (Shazeer and Stern 2018, arXiv 1804.04235) without update clipping. Second moments decay with 1 - t^-0.95, updates
    are multiplied by the RMS of their weight tensor (at least 1e-3), and momentum runs over the learning-rate-scaled
    updates. Weight decay is decoupled in both and leaves norms and biases alone.

    Raises:
      ValueError: an unknown name or state dtype.
    """
    decay = optax.add_decayed_weights(config.weight_decay, mask=_decayed)
    if config.name == "adamw":
        update = [
            optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
            decay,
            optax.scale_by_learning_rate(schedule),
        ]
    elif config.name == "weight_magnitude":
        update = [
            scale_by_second_moment(config.decay_exponent),
            optax.scale_by_learning_rate(schedule, flip_sign=False),
            scale_by_weight_rms(config.min_rms),
            optax.ema(config.b1, debias=False),
            optax.scale(-1.0),
            add_scheduled_decay(config.weight_decay, schedule),
        ]
    else:
        raise ValueError(f"optimizer.name={config.name!r} is none of {', '.join(OPTIMIZERS)}")
    if config.state_dtype not in STATE_DTYPES:
        raise ValueError(f"optimizer.state_dtype={config.state_dtype!r} is none of {', '.join(STATE_DTYPES)}")
    rule = optax.chain(optax.clip_by_global_norm(config.clip_norm), *update)
    return rule if config.state_dtype == "float32" else in_bfloat16(rule)


def updates_made(state: Any) -> jax.Array:
    """How many updates an optimiser has made; all its parts count alike."""
    return optax.tree.get_all_with_path(state, "count")[0][1]


def _decayed(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: not path_of(path).endswith(("norm", "bias")), params)


class SecondMomentState(NamedTuple):
    count: jax.Array
    second_moment: Any


def scale_by_second_moment(exponent: float, eps: float = 1e-30) -> optax.GradientTransformation:
    """Divides by the root of a running mean of squares whose decay at step t = 1, 2, ... is 1 - t^-exponent."""

    def init(params):
        return SecondMomentState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        decay = 1.0 - count.astype(jnp.float32) ** -exponent
        moment = jax.tree.map(
            lambda v, g: decay * v + (1 - decay) * (jnp.square(g) + eps), state.second_moment, updates
        )
        updates = jax.tree.map(lambda g, v: g * jax.lax.rsqrt(v), updates, moment)
        return updates, SecondMomentState(count, moment)

    return optax.GradientTransformation(init, update)


def scale_by_weight_rms(min_rms: float) -> optax.GradientTransformation:
    """Multiplies by the RMS of the weight tensor, at least `min_rms`; stacked layers each have their own."""

    def scale(path, update, weight):
        axes = tuple(range(1 if path_of(path).startswith("layers/") else 0, weight.ndim))
        rms = jnp.sqrt(jnp.mean(jnp.square(weight), axis=axes, keepdims=True))
        return update * jnp.maximum(rms, min_rms)

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates, params))


def add_scheduled_decay(weight_decay: float, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adds -learning rate x weight_decay x weight, behind a momentum that must not see it."""

    def init(params):
        del params
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates, state, params):
        factor = -schedule(state.count) * weight_decay
        updates = jax.tree.map(lambda u, w, on: u + factor * w if on else u, updates, params, _decayed(params))
        return updates, optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(init, update)


def in_bfloat16(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """The rule with its moments stored in bfloat16; it still computes in float32, on float32 gradients and weights.

    Stored moments are rounded up or down at random, so that they are right on average (Gupta et al. 2015, arXiv
    1502.02551, section 3.1). To nearest, a mean whose decay is close to 1 stands still: what a step changes is less
    than half the distance to the next bfloat16 number, 2^-9 to 2^-8 of the value.
    """

    def init(params):
        return _cast_moments(rule.init(params), jnp.bfloat16)

    def update(updates, state, params=None):
        updates, new = rule.update(updates, _cast_moments(state, jnp.float32), params)
        leaves, tree = jax.tree.flatten(new)
        # Bits of the step alone, so that a run that is resumed rounds as one that was never stopped.
        step = updates_made(state)
        leaves = [round_stochastically(x, step, n) if _is_moment(x) else x for n, x in enumerate(leaves)]
        return updates, jax.tree.unflatten(tree, leaves)

    return optax.GradientTransformation(init, update)


def _is_moment(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _cast_moments(state: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if _is_moment(leaf) else leaf, state)


def round_stochastically(x: jax.Array, *seed: jax.Array | int) -> jax.Array:
    """Finite float32 `x` as one of the two nearest bfloat16 numbers, the nearer the likelier: `x` on average.

    What decides is a hash of the integers `seed` and of an element's place in `x`, on whatever device it lies.
    """
    # Not jax.random: its bits took eight times as long as the rest of the update on a CPU, and arrays to hold them.
    bits = jnp.uint32(0x9E3779B9)
    for number in (*seed, *(jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) for axis in range(x.ndim))):
        # The last step of MurmurHash3, which turns every bit of the result over half the time when one of these does.
        bits = bits ^ jnp.uint32(number)
        bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
        bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
        bits = bits ^ (bits >> 16)
    # A bfloat16 number is the upper half of a float32: noise in the lower half carries as often as that is large.
    upper = (jax.lax.bitcast_convert_type(x, jnp.uint32) + (bits >> 16)) & jnp.uint32(0xFFFF0000)
    return jax.lax.bitcast_convert_type(upper, jnp.float32).astype(jnp.bfloat16)
