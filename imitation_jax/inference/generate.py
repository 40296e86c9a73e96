"""The jitted steps of generation: prefill reads prompts, decode writes tokens, verify checks drafted tokens.

All work on a key/value cache with a row for each text; session.py decides which text has which row.

Legend: B rows, S positions, V vocabulary, C decoded tokens of a row, R rows with a draft.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from imitation_jax.inference.sampling import choose
from imitation_jax.models import decoder, kv_cache
from imitation_jax.models.kv_cache import Cache
from imitation_jax.parallel.sharding import constrain

# Steps on the device before the host looks at what was written.
CHUNK = 16
NO_TOKEN = -1
# When no more rows than these are left, their next tokens are drafted: so many, with the last known one in front.
DRAFT_ROWS = 4
DRAFT_LENGTH = 16


# A cache that is born on the mesh, and one that is filled in place.
empty_cache = jax.jit(kv_cache.init_cache, static_argnums=(0, 1, 2, 3))
fill = jax.jit(kv_cache.fill_cache, donate_argnames="cache")


@functools.partial(jax.jit, static_argnames=("config", "dtype"), donate_argnames="cache")
def prefill(
    config: Any, params: Any, cache: Cache, rows: dict[str, jax.Array], slot: jax.Array, *, dtype: Any
) -> tuple[Cache, Cache]:
    """Computes a step of `prefixes.plan`; the arguments are those of `score_step`.

    Returns:
      The cache of one row, and the keys and values of the step's tokens, for `fill`.
    """
    _, new = decoder.hidden_branches(
        config, params, rows["tokens"], rows["positions"], rows["ends"], rows["seen"], cache, dtype=dtype
    )
    return kv_cache.continue_cache(cache, new, slot), new


@functools.partial(jax.jit, static_argnames=("config", "dtype"), donate_argnames="cache")
def decode(
    config: Any,
    params: Any,
    cache: Cache,
    rows: dict[str, jax.Array],
    stop_mask_BV: jax.Array,
    max_steps: jax.Array,
    enough_done: jax.Array,
    *,
    dtype: Any,
) -> tuple[Cache, jax.Array, jax.Array]:
    """Up to `max_steps` further tokens of each row.

    Args:
      config, params: the model.
      cache: holds each row's slots before its `position`, and perhaps more rows; donated.
      rows: (B,) arrays: int32 "token", the last one known, and "position", its position; int32 "last", the position
        from which the row's last token is chosen; bool "done"; and "temperature", "top_p", "seed" as `choose` takes
        them.
      stop_mask_BV: bool; tokens after which a row waits for the host, which knows whether the text ends there.
      max_steps: int32, at most CHUNK.
      enough_done: int32; decoding stops early when so many rows are done or wait.
      dtype: of the computation.

    Returns:
      The cache, (B, C) int32 tokens with NO_TOKEN after a row's stop, and their (B, C) float32 log-probabilities.
    """
    B = rows["token"].shape[0]

    def body(state):
        step, token_B, position_B, done_B, cache, tokens_BC, logprobs_BC = state
        x_BSD, new = decoder.hidden_cached(config, params, token_B[:, None], position_B, cache, dtype=dtype)
        cache = kv_cache.extend_cache(cache, new, jnp.arange(B), position_B)
        logits_BV = decoder.logits(params, x_BSD)[:, 0]
        token_B, logprob_B = choose(logits_BV, rows["temperature"], rows["top_p"], rows["seed"], position_B + 1)
        tokens_BC = tokens_BC.at[:, step].set(jnp.where(done_B, NO_TOKEN, token_B))
        logprobs_BC = logprobs_BC.at[:, step].set(logprob_B)
        done_B |= stop_mask_BV[jnp.arange(B), token_B] | (position_B >= rows["last"])
        return step + 1, token_B, position_B + 1, done_B, cache, tokens_BC, logprobs_BC

    tokens_BC, logprobs_BC = jnp.full((B, CHUNK), NO_TOKEN, jnp.int32), jnp.zeros((B, CHUNK), jnp.float32)
    state = (0, rows["token"], rows["position"], rows["done"], cache, tokens_BC, logprobs_BC)
    state = jax.lax.while_loop(lambda state: (state[0] < max_steps) & (jnp.sum(state[3]) < enough_done), body, state)
    *_, cache, tokens_BC, logprobs_BC = state
    return cache, constrain(tokens_BC, P()), constrain(logprobs_BC, P())


@functools.partial(jax.jit, static_argnames=("config", "dtype"), donate_argnames="cache")
def verify(
    config: Any,
    params: Any,
    cache: Cache,
    row_R: jax.Array,
    draft_RS: jax.Array,
    rows: dict[str, jax.Array],
    *,
    dtype: Any,
) -> tuple[Cache, jax.Array, jax.Array]:
    """What the model itself chooses after each token of a draft, in one step (speculative decoding).

    As long as the token it chooses is the next one of the draft, `decode` would have written it too.

    Args:
      config, params, cache: as in `decode`.
      row_R: int32, which rows of the cache.
      draft_RS: int32, the last token known of each, and the drafted ones after it.
      rows: as in `decode`, (R,) arrays.
      dtype: of the computation.

    Returns:
      The cache with all tokens of the draft, (R, S) int32 tokens, and their (R, S) float32 log-probabilities.
    """
    R, S = draft_RS.shape
    past = {name: leaf[:, row_R] for name, leaf in cache.items()}
    x_RSD, new = decoder.hidden_cached(config, params, draft_RS, rows["position"], past, dtype=dtype)
    cache = kv_cache.extend_cache(cache, new, row_R, rows["position"])
    logits_RSV = decoder.logits(params, x_RSD)
    position_RS = rows["position"][:, None] + 1 + jnp.arange(S)
    settings = [jnp.repeat(rows[name], S) for name in ("temperature", "top_p", "seed")]
    chosen = choose(logits_RSV.reshape(R * S, -1), *settings, position_RS.reshape(-1))
    tokens_RS, logprobs_RS = (constrain(each.reshape(R, S), P()) for each in chosen)
    return cache, tokens_RS, logprobs_RS
