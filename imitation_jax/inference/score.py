"""The jitted scoring loop: log-probabilities of given tokens after given contexts.

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
CHUNK = 128


@functools.partial(jax.jit, static_argnames=("family", "config", "dtype"))
def score_batch(
    family: ModuleType,
    config: Any,
    params: Any,
    tokens_BS: jax.Array,
    asked_M: dict[str, jax.Array],
    count: jax.Array,
    *,
    dtype: Any,
) -> tuple[jax.Array, jax.Array]:
    """Scores tokens that may follow a place in a row. Logits exist for asked places only, `CHUNK` at a time.

    Args:
      family, config, params: the model, as in LoadedModel.
      tokens_BS: int32, one sequence a row from position 0 on, padded on the right with anything.
      asked_M: int32 "row", "place" and "target": what is the log-probability of `target` after tokens_BS[row, place]?
        M is a multiple of CHUNK; entries from `count` on are padding.
      count: how many are asked.
      dtype: of the computation.

    Returns:
      (M,) float32 log-probabilities, and whether `target` is the most likely token there; zeros in padding.
    """
    positions_BS = jnp.broadcast_to(jnp.arange(tokens_BS.shape[1]), tokens_BS.shape)
    # Padding comes last, so that causality alone keeps it out of sight.
    x_BSD = family.hidden(config, params, tokens_BS, positions_BS, jnp.zeros_like(tokens_BS), dtype=dtype)

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
    return constrain(logprob_M, P()), constrain(greedy_M, P())
