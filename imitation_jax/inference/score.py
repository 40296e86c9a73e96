"""The jitted scoring step: log-probabilities of given tokens at given places of a step's rows.

Legend: B rows, S positions, D model, V vocabulary, M asked tokens, C asked tokens at a time, A alternatives.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from imitation_jax.inference.sampling import log_probability, most_likely
from imitation_jax.models import decoder, kv_cache
from imitation_jax.models.kv_cache import Cache
from imitation_jax.parallel.sharding import constrain

# Asked tokens whose logits exist at a time.
CHUNK = 64
# The most alternatives that a request may ask for.
ALTERNATIVES = 20


@functools.partial(jax.jit, static_argnames=("config", "alternatives", "dtype"), donate_argnames="cache")
def score_step(
    config: Any,
    params: Any,
    cache: Cache,
    rows: dict[str, jax.Array],
    slot: jax.Array,
    asked_M: dict[str, jax.Array],
    count: jax.Array,
    *,
    alternatives: int = 0,
    dtype: Any,
) -> tuple[Cache, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Computes a step of `prefixes.plan`. Logits exist for asked places only, `CHUNK` at a time.

    Args:
      config, params: the model.
      cache: of one row, as `hidden_branches` takes it; donated.
      rows: int32 (B, S) "tokens", "positions", "ends" and "seen", as `hidden_branches` takes them.
      slot: int32, from which on the first row is kept in the cache.
      asked_M: int32 "row", "place" and "target": what is the log-probability of `target` after the token at
        (row, place)? M is a multiple of CHUNK; entries from `count` on are padding.
      count: how many are asked.
      alternatives: how many of the most likely tokens are returned for each, A.
      dtype: of the computation.

    Returns:
      The cache, (M,) float32 log-probabilities, and whether `target` is the most likely token there; (M, A) int32 most
      likely tokens, falling, and their float32 log-probabilities. Zeros in padding.
    """
    x_BSD, new = decoder.hidden_branches(
        config, params, rows["tokens"], rows["positions"], rows["ends"], rows["seen"], cache, dtype=dtype
    )

    def body(state):
        start, *scored = state
        asked_C = {name: jax.lax.dynamic_slice_in_dim(ids, start, CHUNK) for name, ids in asked_M.items()}
        x_CD = x_BSD[asked_C["row"], asked_C["place"]]
        logits_CV = decoder.logits(params, x_CD[:, None])[:, 0]
        logprob_C = log_probability(logits_CV, asked_C["target"])
        greedy_C = most_likely(logits_CV) == asked_C["target"]
        likely_CA = jax.lax.top_k(logits_CV, alternatives)[1]
        likely_logprob_CA = jax.vmap(log_probability, (None, 1), 1)(logits_CV, likely_CA)
        of_chunk = (logprob_C, greedy_C, likely_CA, likely_logprob_CA)
        put = jax.lax.dynamic_update_slice_in_dim
        return start + CHUNK, *(put(whole, part, start, 0) for whole, part in zip(scored, of_chunk, strict=True))

    M = asked_M["row"].shape[0]
    state = (jnp.int32(0), jnp.zeros(M, jnp.float32), jnp.zeros(M, bool))
    state += (jnp.zeros((M, alternatives), jnp.int32), jnp.zeros((M, alternatives), jnp.float32))
    _, *scored = jax.lax.while_loop(lambda state: state[0] < count, body, state)
    return kv_cache.continue_cache(cache, new, slot), *(constrain(array, P()) for array in scored)
