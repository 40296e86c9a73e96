"""The jitted generation loop: fill a key/value cache, then choose tokens one position at a time, or check a guess.

Legend: B rows, S positions, V vocabulary, C steps of a chunk, R rows whose texts are guessed.
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
# When no more rows than these are left, what they will say is guessed, so many tokens with the last one known.
GUESSED_ROWS = 4
GUESS = 16


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
      cache: holds each row's slots before its `position`, and perhaps more rows; given up to this call.
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
        x_BSD, new = family.hidden_cached(config, params, token_B[:, None], position_B, cache, dtype=dtype)
        cache = family.extend_cache(cache, new, jnp.arange(count), position_B)
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


@functools.partial(jax.jit, static_argnames=("family", "config", "dtype"), donate_argnames="cache")
def check(
    family: ModuleType,
    config: Any,
    params: Any,
    cache: dict[str, jax.Array],
    row_R: jax.Array,
    tokens_RS: jax.Array,
    rows: dict[str, jax.Array],
    *,
    dtype: Any,
) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
    """What follows each of some given tokens, in one step: as long as that is the next one given, `decode` says it too.

    Args:
      family, config, params, cache: as in `decode`.
      row_R: int32, which rows of the cache.
      tokens_RS: int32, the last token known of each, and a guess of those after it.
      rows: as in `decode`, (R,) arrays.
      dtype: of the computation.

    Returns:
      The cache with all of these tokens, (R, S) int32 tokens, and their (R, S) float32 log-probabilities.
    """
    R, S = tokens_RS.shape
    past = {name: leaf[:, row_R] for name, leaf in cache.items()}
    x_RSD, new = family.hidden_cached(config, params, tokens_RS, rows["position"], past, dtype=dtype)
    cache = family.extend_cache(cache, new, row_R, rows["position"])
    logits_RSV = family.logits(params, x_RSD)
    position_RS = rows["position"][:, None] + 1 + jnp.arange(S)
    how = [jnp.repeat(rows[name], S) for name in ("temperature", "top_p", "seed")]
    chosen = choose(logits_RSV.reshape(R * S, -1), *how, position_RS.reshape(-1))
    tokens_RS, logprobs_RS = (constrain(each.reshape(R, S), P()) for each in chosen)
    return cache, tokens_RS, logprobs_RS
