"""The jitted generation loop: fill a key/value cache, then choose tokens one position at a time.

Legend: B rows, S positions, V vocabulary, T key/value slots, C steps of a chunk, E stop ids of a row.
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
    tokens_BS: jax.Array,
    rows_B: jax.Array,
    *,
    dtype: Any,
) -> dict[str, jax.Array]:
    """The cache with sequences in the rows `rows_B`, from position 0 on.

    Args:
      family, config, params: the model, as in LoadedModel.
      cache: given up to this call; may have more rows than there are sequences here.
      tokens_BS: int32, padded on the right. What padding leaves in its slots is written over before any query sees it.
      rows_B: int32; a row past the last is left out.
      dtype: of the computation.
    """
    positions_BS = jnp.broadcast_to(jnp.arange(tokens_BS.shape[1]), tokens_BS.shape)
    nothing = family.init_cache(config, tokens_BS.shape[0], 0, dtype)
    _, new = family.hidden_cached(config, params, tokens_BS, positions_BS, nothing, dtype=dtype)
    return family.fill_cache(cache, new, rows_B)


@functools.partial(jax.jit, static_argnames=("family", "config", "dtype"), donate_argnames="cache")
def decode(
    family: ModuleType, config: Any, params: Any, cache: dict[str, jax.Array], rows: dict[str, jax.Array], *, dtype: Any
) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
    """Up to `CHUNK` further tokens a row; stops early when no row is left.

    Args:
      family, config, params: the model, as in LoadedModel.
      cache: holds each row's slots before its `position`; given up to this call.
      rows: (B,) arrays: int32 "token", the last one known, and "position", its position; int32 "last", the position
        from which the row's last token is chosen; bool "done"; and "temperature", "top_p", "seed" as `choose` takes
        them; and (B, E) int32 "stop_ids", filled with NOTHING.
      dtype: of the computation.

    Returns:
      The cache, (B, C) int32 tokens with NOTHING after a row's end (a stop id is the last token of its row), and their
      (B, C) float32 log-probabilities.
    """
    count = rows["token"].shape[0]

    def body(state):
        step, token_B, position_B, done_B, cache, tokens_BC, logprobs_BC = state
        x_BSD, new = family.hidden_cached(config, params, token_B[:, None], position_B[:, None], cache, dtype=dtype)
        cache = family.extend_cache(cache, new, position_B)
        logits_BV = family.logits(params, x_BSD)[:, 0]
        token_B, logprob_B = choose(logits_BV, rows["temperature"], rows["top_p"], rows["seed"], position_B + 1)
        tokens_BC = tokens_BC.at[:, step].set(jnp.where(done_B, NOTHING, token_B))
        logprobs_BC = logprobs_BC.at[:, step].set(logprob_B)
        done_B |= jnp.any(token_B[:, None] == rows["stop_ids"], axis=1) | (position_B >= rows["last"])
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
    state = jax.lax.while_loop(lambda state: (state[0] < CHUNK) & ~jnp.all(state[3]), body, state)
    *_, cache, tokens_BC, logprobs_BC = state
    return cache, constrain(tokens_BC, P()), constrain(logprobs_BC, P())
