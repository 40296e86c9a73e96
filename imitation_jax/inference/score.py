"""The jitted scoring step: log-probabilities of given tokens at given places of a step's rows.

Legend: B rows, S positions, D model, V vocabulary, M asked tokens, C asked tokens at a time.
"""

import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from imitation_jax.inference.sampling import log_probability, most_likely
from imitation_jax.parallel.sharding import constrain

# Asked tokens whose logits exist at a time.
CHUNK = 64


@functools.partial(jax.jit, static_argnames=("family", "config", "dtype"), donate_argnames="cache")
def score_step(
    family: ModuleType,
    config: Any,
    params: Any,
    cache: dict[str, jax.Array],
    rows: dict[str, jax.Array],
    at: jax.Array,
    asked_M: dict[str, jax.Array],
    count: jax.Array,
    *,
    dtype: Any,
) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
    """Computes a step of `prefixes.plan`. Logits exist for asked places only, `CHUNK` at a time.

    Args:
      family, config, params: the model, as in LoadedModel.
      cache: of one row, as `hidden_branches` takes it; given up to this call.
      rows: int32 (B, S) "tokens", "positions", "ends" and "seen", as `hidden_branches` takes them.
      at: int32, the slot from which on the first row is kept in the cache.
      asked_M: int32 "row", "place" and "target": what is the log-probability of `target` after the token at
        (row, place)? M is a multiple of CHUNK; entries from `count` on are padding.
      count: how many are asked.
      dtype: of the computation.

    Returns:
      The cache, (M,) float32 log-probabilities, and whether `target` is the most likely token there; zeros in padding.
    """
    x_BSD, new = family.hidden_branches(
        config, params, rows["tokens"], rows["positions"], rows["ends"], rows["seen"], cache, dtype=dtype
    )

    def body(state):
        start, logprob_M, greedy_M = state
        asked_C = {name: jax.lax.dynamic_slice_in_dim(ids, start, CHUNK) for name, ids in asked_M.items()}
        x_CD = x_BSD[asked_C["row"], asked_C["place"]]
        logits_CV = family.logits(params, x_CD[:, None])[:, 0]
        logprob_C = log_probability(logits_CV, asked_C["target"])
        greedy_C = most_likely(logits_CV) == asked_C["target"]
        return (
            start + CHUNK,
            jax.lax.dynamic_update_slice_in_dim(logprob_M, logprob_C, start, 0),
            jax.lax.dynamic_update_slice_in_dim(greedy_M, greedy_C, start, 0),
        )

    size = asked_M["row"].shape[0]
    state = (jnp.int32(0), jnp.zeros(size, jnp.float32), jnp.zeros(size, bool))
    _, logprob_M, greedy_M = jax.lax.while_loop(lambda state: state[0] < count, body, state)
    return family.continue_cache(cache, new, at), constrain(logprob_M, P()), constrain(greedy_M, P())
