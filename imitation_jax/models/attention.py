"""Causal attention within segments, grouped-query heads.

Legend: B rows, S queries, T keys, P cache slots, H query heads, N key/value heads, G = H / N queries a key head, K head size.
"""

import jax
import jax.numpy as jnp


def attention(
    q_BSHK: jax.Array,
    k_BTNK: jax.Array,
    v_BTNK: jax.Array,
    *,
    q_positions_BS: jax.Array,
    k_positions_BT: jax.Array,
    q_segments_BS: jax.Array | None = None,
    k_segments_BT: jax.Array | None = None,
    past: dict[str, jax.Array] | None = None,
) -> jax.Array:
    """Softmax attention in which a query sees the keys of its own segment at its own or an earlier position.

    Positions restart in every segment of a packed row, so causality is a comparison of positions. Logits and softmax
    are float32 whatever the inputs are.

    Args:
      past: one layer of a key/value cache, "k" and "v" of (B, N, P, K). A token's slot is its position, so that the slots
        before a row's first query hold what every query of the row sees; the others are not read.

    Returns:
      (B, S, H, K) in the dtype of `q_BSHK`.
    """
    *_, heads, head_dim = q_BSHK.shape
    kv_heads = k_BTNK.shape[2]
    q_BSNGK = q_BSHK.reshape(*q_BSHK.shape[:2], kv_heads, heads // kv_heads, head_dim) * head_dim**-0.5
    logits_BNGST = jnp.einsum("bsngk,btnk->bngst", q_BSNGK, k_BTNK, preferred_element_type=jnp.float32)
    mask_BST = q_positions_BS[:, :, None] >= k_positions_BT[:, None, :]
    if q_segments_BS is not None:
        mask_BST &= q_segments_BS[:, :, None] == k_segments_BT[:, None, :]
    logits_BNGST = jnp.where(mask_BST[:, None, None], logits_BNGST, jnp.finfo(jnp.float32).min)
    if past is None:
        weights_BNGST = jax.nn.softmax(logits_BNGST, axis=-1).astype(v_BTNK.dtype)
        return jnp.einsum("bngst,btnk->bsngk", weights_BNGST, v_BTNK).reshape(q_BSHK.shape)
    # Logits are joined, not keys and values: a copy of the cache would take longer than all the rest.
    slots = past["k"].shape[2]
    past_BNGSP = jnp.einsum("bsngk,bnpk->bngsp", q_BSNGK, past["k"], preferred_element_type=jnp.float32)
    written_BP = jnp.arange(slots) < q_positions_BS[:, :1]
    past_BNGSP = jnp.where(written_BP[:, None, None, None], past_BNGSP, jnp.finfo(jnp.float32).min)
    logits_BNGST = jnp.concatenate([past_BNGSP, logits_BNGST], axis=-1)
    weights_BNGST = jax.nn.softmax(logits_BNGST, axis=-1).astype(v_BTNK.dtype)
    out_BSNGK = jnp.einsum("bngsp,bnpk->bsngk", weights_BNGST[..., :slots], past["v"])
    out_BSNGK += jnp.einsum("bngst,btnk->bsngk", weights_BNGST[..., slots:], v_BTNK)
    return out_BSNGK.reshape(q_BSHK.shape)
