"""The jitted generation loop: fill a key/value cache, then choose tokens one position at a time.

Legend: B rows, S positions, V vocabulary, C steps of a chunk.
"""

import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from imitation_jax.inference.sampling import choose
from imitation_jax.parallel.sharding import constrain

# Steps on the device between two looks of the host at what was written.
CHUNK = 16
NOTHING = -1


@functools.partial(jax.jit, static_argnames=("family", "config", "rows", "slots", "dtype"))
def empty_cache(family: ModuleType, config: Any, *, rows: int, slots: int, dtype: Any) -> dict[str, jax.Array]:
    """A cache that is born on the mesh."""
    return family.init_cache(config, rows, slots, dtype)


@functools.partial(jax.jit, static_argnames=("family", "config", "dtype"), donate_argnames="cache")
def prefill(
    family: ModuleType,
    config: Any,
    params: Any,
    cache: dict[str, jax.Array],
    rows: dict[str, jax.Array],
    at: jax.Array,
    *,
    dtype: Any,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Computes a step of `prefixes.plan`; the arguments are those of `score_step`.

    Returns:
      The cache of one row, and the keys and values of the step's tokens, for `fill`.
    """
    _, new = family.hidden_branches(
        config, params, rows["tokens"], rows["positions"], rows["ends"], rows["seen"], cache, dtype=dtype
    )
    return family.continue_cache(cache, new, at), new


@functools.partial(jax.jit, static_argnames="family", donate_argnames="cache")
def fill(family: ModuleType, cache: dict[str, jax.Array], row: jax.Array, *branch: Any) -> dict[str, jax.Array]:
    """The family's `fill_cache` in place."""
    return family.fill_cache(cache, row, *branch)


@functools.partial(jax.jit, static_argnames=("family", "config", "dtype"), donate_argnames="cache")
def decode(
    family: ModuleType,
    config: Any,
    params: Any,
    cache: dict[str, jax.Array],
    rows: dict[str, jax.Array],
    pauses_BV: jax.Array,
    most: jax.Array,
    enough: jax.Array,
    *,
    dtype: Any,
) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
    """Further tokens of each row.

    Args:
      family, config, params: the model, as in LoadedModel.
      cache: holds each row's slots before its `position`; given up to this call.
      rows: (B,) arrays: int32 "token", the last one known, and "position", its position; int32 "last", the position
        from which the row's last token is chosen; bool "done"; and "temperature", "top_p", "seed" as `choose` takes
        them.
      pauses_BV: bool; tokens after which a row waits for the host, which knows whether the text ends there.
      most: int32, so many tokens, CHUNK or less.
      enough: int32; stops early when so many rows are done or wait.
      dtype: of the computation.

    Returns:
      The cache, (B, C) int32 tokens with NOTHING after a row's pause, and their (B, C) float32 log-probabilities.
    """
    count = rows["token"].shape[0]

    def body(state):
        step, token_B, position_B, done_B, cache, tokens_BC, logprobs_BC = state
        x_BSD, new = family.hidden_cached(config, params, token_B, position_B, cache, dtype=dtype)
        cache = family.extend_cache(cache, new, position_B)
        logits_BV = family.logits(params, x_BSD)[:, 0]
        token_B, logprob_B = choose(logits_BV, rows["temperature"], rows["top_p"], rows["seed"], position_B + 1)
        tokens_BC = tokens_BC.at[:, step].set(jnp.where(done_B, NOTHING, token_B))
        logprobs_BC = logprobs_BC.at[:, step].set(logprob_B)
        done_B |= pauses_BV[jnp.arange(count), token_B] | (position_B >= rows["last"])
        return step + 1, token_B, position_B + 1, done_B, cache, tokens_BC, logprobs_BC

    state = (
        0,
        rows["token"],
        rows["position"],
        rows["done"],
        cache,
        jnp.full((count, CHUNK), NOTHING, jnp.int32),
        jnp.zeros((count, CHUNK), jnp.float32),
    )
    state = jax.lax.while_loop(lambda state: (state[0] < most) & (jnp.sum(state[3]) < enough), body, state)
    *_, cache, tokens_BC, logprobs_BC = state
    return cache, constrain(tokens_BC, P()), constrain(logprobs_BC, P())
