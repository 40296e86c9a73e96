"""Causal attention within segments, grouped-query heads.

Legend: B rows, S queries, T keys, P cache slots, H query heads, N key/value heads, G = H / N query heads a key head,
K head size, Q queries of a block, X blocks, R = B x N, M = G x Q.
"""

import jax
import jax.numpy as jnp

from imitation_jax.parallel.sharding import on_one_cpu

QUERY_BLOCK = 256  # on a CPU; 128 and 512 are slower forward or backward at 2,048 positions


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
      past: one layer of a key/value cache, "k" and "v" of (B, N, P, K). A token's slot is its position, so the slots
        before a row's first query hold what all its queries see; what is in the others does not count.

    Returns:
      (B, S, H, K) in the dtype of `q_BSHK`.
    """
    *_, heads, head_dim = q_BSHK.shape
    kv_heads = k_BTNK.shape[2]
    mask_BST = q_positions_BS[:, :, None] >= k_positions_BT[:, None, :]
    if q_segments_BS is not None:
        mask_BST &= q_segments_BS[:, :, None] == k_segments_BT[:, None, :]
    if past is None and on_one_cpu():
        return _attention_by_head(q_BSHK, k_BTNK, v_BTNK, mask_BST)
    q_BSNGK = q_BSHK.reshape(*q_BSHK.shape[:2], kv_heads, heads // kv_heads, head_dim) * head_dim**-0.5
    logits_BNGST = jnp.einsum("bsngk,btnk->bngst", q_BSNGK, k_BTNK, preferred_element_type=jnp.float32)
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
    out_BNGSK = jnp.einsum("bngsp,bnpk->bngsk", weights_BNGST[..., :slots], past["v"])
    out_BNGSK += jnp.einsum("bngst,btnk->bngsk", weights_BNGST[..., slots:], v_BTNK)
    return jnp.moveaxis(out_BNGSK, 3, 1).reshape(q_BSHK.shape)


def _attention_by_head(q_BSHK, k_BTNK, v_BTNK, mask_BST):
    """The same, one row, key head and block of queries after the other, recomputed in the backward pass.

    What one block needs stays in a CPU's cache, and XLA multiplies plain matrices there several times faster than
    batches of them: 4 to 7 times at 4 x 512 positions of SmolLM2-135M, 4 times again by blocks at 2,048 positions.
    """
    B, S, H, K = q_BSHK.shape
    T, N = k_BTNK.shape[1:3]
    Q = QUERY_BLOCK if S % QUERY_BLOCK == 0 else S
    q_BXQNGK = q_BSHK.reshape(B, S // Q, Q, N, H // N, K) * K**-0.5
    q_RXMK = jnp.transpose(q_BXQNGK, (0, 3, 1, 4, 2, 5)).reshape(B * N, S // Q, -1, K)
    k_RTK = jnp.moveaxis(k_BTNK, 2, 1).reshape(B * N, T, K)
    v_RTK = jnp.moveaxis(v_BTNK, 2, 1).reshape(B * N, T, K)
    mask_BXQT = mask_BST.reshape(B, S // Q, Q, T)

    def one_head(head):
        q_XMK, k_TK, v_TK, index = head

        @jax.checkpoint
        def one_block(block):
            q_MK, mask_QT = block
            logits_MT = jnp.matmul(q_MK, k_TK.T, preferred_element_type=jnp.float32)
            logits_GQT = jnp.where(mask_QT, logits_MT.reshape(-1, Q, T), jnp.finfo(jnp.float32).min)
            return jax.nn.softmax(logits_GQT, axis=-1).astype(v_TK.dtype).reshape(-1, T) @ v_TK

        return jax.lax.map(one_block, (q_XMK, mask_BXQT[index // N]))

    out_RXMK = jax.lax.map(one_head, (q_RXMK, k_RTK, v_RTK, jnp.arange(B * N)))
    out_BNXGQK = out_RXMK.reshape(B, N, S // Q, H // N, Q, K)
    return jnp.transpose(out_BNXGQK, (0, 2, 4, 1, 3, 5)).reshape(B, S, H, K)
