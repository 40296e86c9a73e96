"""Causal attention with grouped-query heads: within segments, after a cache, and in trees that branch off a cache.

Legend: B rows, S queries, T cache slots, H query heads, N key/value heads, G = H / N query heads a key head,
K head size, Q queries of a block, X blocks of queries, J keys of a block, M = G x Q or S x G.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from imitation_jax.models import kernels
from imitation_jax.models.kernels.xla import LEAST

QUERY_BLOCK = 256
KEY_BLOCK = 256

Past = dict[str, jax.Array]
Softmax = tuple[jax.Array, jax.Array, jax.Array]


def attention(
    q_BSHK: jax.Array,
    k_BSNK: jax.Array,
    v_BSNK: jax.Array,
    *,
    positions_BS: jax.Array,
    segments_BS: jax.Array,
    kernel: str = "auto",
) -> jax.Array:
    """Softmax attention in which a query sees the keys of its own segment at its own or an earlier position.

    Positions restart in every segment of a packed row, so causality is a comparison of positions. Logits and softmax
    are float32 whatever the inputs are.

    Args:
      kernel: of `KERNELS`; "auto" is the platform's own. Splash and Triton take the positions of a segment to be
        consecutive, as packing makes them.

    Returns:
      (B, S, H, K) in the dtype of `q_BSHK`; what padding (segment 0) gets differs among kernels.

    Raises:
      ValueError: the kernel does not work on the mesh.
    """
    return kernels.function("attention", kernel)(q_BSHK, k_BSNK, v_BSNK, positions_BS, segments_BS)


def next_attention(
    q_BSHK: jax.Array, k_BSNK: jax.Array, v_BSNK: jax.Array, *, position_B: jax.Array, past: Past, layer: jax.Array
) -> jax.Array:
    """Softmax attention of the next tokens of each row, a few at most.

    Args:
      position_B: int32, of a row's first token; a token's slot is its position, so a row sees the slots before that,
        and its own tokens up to each.
      past: a key/value cache, "k" and "v" of (L, B, N, T, K), of which only slots that some row sees are read.
      layer: int32.

    Returns:
      (B, S, H, K) in the dtype of `q_BSHK`.
    """
    B, S, H, K = q_BSHK.shape
    N, T = past["k"].shape[2:4]
    J = min(KEY_BLOCK, T)
    G = H // N
    q_BNMK = q_BSHK.reshape(B, S, N, G, K).swapaxes(1, 2).reshape(B, N, S * G, K) * K**-0.5

    def past_block(y, state):
        block = (layer, 0, 0, y * J, 0), (1, B, N, J, K)
        k_BNJK, v_BNJK = (jax.lax.dynamic_slice(past[name], *block)[0] for name in ("k", "v"))
        logits_BNMJ = jnp.einsum("bnmk,bnjk->bnmj", q_BNMK, k_BNJK, preferred_element_type=jnp.float32)
        seen_BJ = y * J + jnp.arange(J) < position_B[:, None]
        logits_BNMJ = jnp.where(seen_BJ[:, None, None], logits_BNMJ, LEAST)
        return _accumulate(
            state, logits_BNMJ, lambda w: jnp.einsum("bnmj,bnjk->bnmk", w, v_BNJK, preferred_element_type=jnp.float32)
        )

    own_BNMS = jnp.einsum("bnmk,bsnk->bnms", q_BNMK, k_BSNK, preferred_element_type=jnp.float32)
    own_BNMS = jnp.where(jnp.arange(S) <= jnp.arange(S * G)[:, None] // G, own_BNMS, LEAST)
    top_BNM1 = jnp.max(own_BNMS, axis=-1, keepdims=True)
    weights_BNMS = jnp.exp(own_BNMS - top_BNM1)
    out_BNMK = jnp.einsum("bnms,bsnk->bnmk", weights_BNMS, v_BSNK, preferred_element_type=jnp.float32)
    state = (top_BNM1, jnp.sum(weights_BNMS, axis=-1, keepdims=True), out_BNMK)
    _, sum_BNM1, out_BNMK = jax.lax.fori_loop(0, -(-jnp.max(jnp.minimum(position_B, T)) // J), past_block, state)
    out_BNSGK = (out_BNMK / sum_BNM1).astype(q_BSHK.dtype).reshape(B, N, S, G, K)
    return out_BNSGK.swapaxes(1, 2).reshape(B, S, H, K)


def _accumulate(state: Softmax, logits: jax.Array, times_values: Callable) -> Softmax:
    """One more block of keys in a softmax that takes them in turn (Milakov and Gimelshein 2018, arXiv 1805.02867).

    The state is the largest logit so far, the sum of the weights that belong to it, and the sum of weighted values, in
    float32; `times_values` multiplies the block's weights with its values.
    """
    top, total, out = state
    new = jnp.maximum(top, jnp.max(logits, axis=-1, keepdims=True))
    weights, scale = jnp.exp(logits - new), jnp.exp(top - new)
    return new, scale * total + jnp.sum(weights, axis=-1, keepdims=True), scale * out + times_values(weights)


def branch_attention(
    q_BSHK: jax.Array,
    k_BSNK: jax.Array,
    v_BSNK: jax.Array,
    *,
    ends_BS: jax.Array,
    seen_BS: jax.Array,
    past: Past,
    layer: jax.Array,
) -> jax.Array:
    """Softmax attention in trees of tokens, depth first in their rows, that branch off one cached sequence.

    Blocks of keys that no query of a block sees are not read, so rows of many small trees cost what the trees cost, and
    one program serves pasts of all lengths.

    Args:
      ends_BS: int32; the key at s is seen by the queries from s to ends_BS[s] - 1.
      seen_BS: int32; how many slots of the past each query sees.
      past: a key/value cache of one row, "k" and "v" of (L, 1, N, T, K), T a multiple of KEY_BLOCK or less than it.
      layer: int32.

    Returns:
      (B, S, H, K) in the dtype of `q_BSHK`.
    """
    B, S, H, K = q_BSHK.shape
    N = k_BSNK.shape[2]
    G = H // N
    Q = min(QUERY_BLOCK, S)
    X = S // Q
    J = min(KEY_BLOCK, past["k"].shape[3])
    q_BNXMK = (q_BSHK * K**-0.5).reshape(B, X, Q, N, G, K).transpose(0, 3, 1, 4, 2, 5).reshape(B, N, X, G * Q, K)
    k_BNSK, v_BNSK = jnp.moveaxis(k_BSNK, 2, 1), jnp.moveaxis(v_BSNK, 2, 1)
    # The same bounds for all rows, so that no loop's length differs among devices.
    past_blocks = -(-jnp.max(seen_BS) // J)
    first_X = jnp.argmax(jnp.max(ends_BS.reshape(B, X, Q), (0, 2)) > jnp.arange(X)[:, None] * Q, axis=1)

    def attend_block(state, q_MK, k_JK, v_JK, mask_QJ):
        """The queries of `mask_QJ` come once for each of the G heads."""
        logits_MJ = jnp.matmul(q_MK, k_JK.T, preferred_element_type=jnp.float32)
        logits_XGQJ = logits_MJ.reshape(-1, G, Q, k_JK.shape[0])
        logits_MJ = jnp.where(mask_QJ.reshape(-1, 1, *mask_QJ.shape[-2:]), logits_XGQJ, LEAST).reshape(logits_MJ.shape)
        return _accumulate(
            state, logits_MJ, lambda w: jnp.matmul(w.astype(v_JK.dtype), v_JK, preferred_element_type=jnp.float32)
        )

    def one_head(q_XMK, k_SK, v_SK, ends_S, seen_S, read):
        def past_block(y, state):
            k_JK, v_JK = read("k", y * J), read("v", y * J)
            slots_J = y * J + jnp.arange(J)
            mask_XQJ = (slots_J < seen_S[:, None]).reshape(X, Q, -1)
            return attend_block(state, q_XMK.reshape(-1, K), k_JK, v_JK, mask_XQJ)

        def query_block(block):
            x, q_MK, state = block
            queries_Q = x * Q + jnp.arange(Q)

            def own_block(y, state):
                k_JK, v_JK, ends_J = (jax.lax.dynamic_slice_in_dim(a, y * Q, Q) for a in (k_SK, v_SK, ends_S))
                keys_J = y * Q + jnp.arange(Q)
                mask_QJ = (keys_J <= queries_Q[:, None]) & (queries_Q[:, None] < ends_J)
                return attend_block(state, q_MK, k_JK, v_JK, mask_QJ)

            _, sum_M1, out_MK = jax.lax.fori_loop(first_X[x], x + 1, own_block, state)
            return (out_MK / sum_M1).astype(q_MK.dtype)

        # What a query does not see weighs something only until its first key comes; its own comes last.
        count = X * G * Q
        state = (jnp.full((count, 1), LEAST), jnp.zeros((count, 1)), jnp.zeros((count, K)))
        state = jax.lax.fori_loop(0, past_blocks, past_block, state)
        state = jax.tree.map(lambda leaf: leaf.reshape(X, G * Q, -1), state)
        return jax.lax.map(query_block, (jnp.arange(X), q_XMK, state))

    map_heads = kernels.function("map_heads")
    out_BNXMK = map_heads(one_head, (q_BNXMK, k_BNSK, v_BNSK), (ends_BS, seen_BS), past, layer, J)
    out_BNXGQK = out_BNXMK.reshape(B, N, X, G, Q, K)
    return out_BNXGQK.transpose(0, 2, 4, 1, 3, 5).reshape(B, S, H, K)
