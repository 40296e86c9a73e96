"""The key/value cache: keys and values of all layers, a token's slot being its position in its row.

Legend: B rows, S positions, N key/value heads, K head size, L layers, T slots, R some of the rows.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from imitation_jax.parallel.sharding import constrain

Cache = dict[str, jax.Array]
CACHE = P(None, ("data", "fsdp"), "tensor", None, None)


def init_cache(config: Any, batch: int, slots: int, dtype: Any = jnp.float32) -> Cache:
    """An empty key/value cache: "k" and "v", each (L, B, N, T, K). Every device has the whole of a single row."""
    shape = (config.num_hidden_layers, batch, config.num_key_value_heads, slots, config.head_dim)
    spec = CACHE if batch > 1 else P(None, None, *CACHE[2:])
    return {"k": constrain(jnp.zeros(shape, dtype), spec), "v": constrain(jnp.zeros(shape, dtype), spec)}


def extend_cache(cache: Cache, new: Cache, row_R: jax.Array, position_R: jax.Array) -> Cache:
    """The cache with what `hidden_cached` returned for some rows in the slots of each from `position_R` on.

    What is past the last slot is left out.
    """
    slots_RS = position_R[:, None] + jnp.arange(new["k"].shape[3])
    # Indices on both sides of a slice put the indexed dimensions first: (R, S, L, N, K).
    new = {name: new[name].transpose(1, 3, 0, 2, 4) for name in cache}
    return {name: cache[name].at[:, row_R[:, None], :, slots_RS].set(new[name]) for name in cache}


def continue_cache(cache: Cache, new: Cache, start: jax.Array) -> Cache:
    """A cache of one row with the first row of what `hidden_branches` returned in the slots from `start` on."""
    return {name: jax.lax.dynamic_update_slice_in_dim(cache[name], new[name][:, :1], start, axis=3) for name in cache}


def fill_cache(
    cache: Cache, row: jax.Array, past: Cache, seen: jax.Array, new: Cache, new_row: jax.Array, token_T: jax.Array
) -> Cache:
    """The cache with one branch in one of its rows.

    Args:
      cache: to fill.
      row: int32, which of its rows.
      past, seen: a cache of one row, and how many slots of it the branch sees: they become the first ones.
      new: what `hidden_branches` returned.
      new_row: int32, the row of `new` that the branch is in.
      token_T: int32, which token of that row stands in each slot. Entries below `seen` are ignored; entries past the
        branch's end are overwritten before any query sees them.
    """
    rows_B = jnp.arange(new["k"].shape[1])
    kept_T1 = (jnp.arange(token_T.shape[0]) < seen)[:, None]

    def fill(name):
        slots = cache[name].shape[3]
        # A sum over rows, since an index into a sharded axis would gather all of it on every device.
        new_LNSK = jnp.sum(jnp.where((rows_B == new_row)[:, None, None, None], new[name], 0), axis=1)
        branch = jnp.where(kept_T1, _slots(past[name][:, 0], slots), new_LNSK[:, :, token_T])
        return jax.lax.dynamic_update_slice_in_dim(cache[name], branch[:, None], row, axis=1)

    return {name: fill(name) for name in cache}


def _slots(past_LNTK, count):
    """The first `count` slots, zeros after the last."""
    past_LNTK = past_LNTK[:, :, :count]
    return jnp.pad(past_LNTK, ((0, 0), (0, 0), (0, count - past_LNTK.shape[2]), (0, 0)))
