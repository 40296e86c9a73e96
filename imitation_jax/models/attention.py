"""Causal attention with grouped-query heads: within segments, after a cache, and in trees that branch off a cache.

Legend: B rows, S queries, T cache slots, H query heads, N key/value heads, G = H / N query heads a key head,
K head size, Q queries of a block, X blocks of queries, J keys of a block, R = B x N, M = G x Q or S x G.
"""

import jax
import jax.numpy as jnp

from imitation_jax.parallel.sharding import on_one_cpu, platform

QUERY_BLOCK = 256  # on a CPU; 128 and 512 are slower forward or backward at 2,048 positions
KEY_BLOCK = 256
LEAST = float(jnp.finfo(jnp.float32).min)  # a logit that weighs nothing beside any other, and makes no nan alone

KERNELS = ("auto", "xla", "splash", "triton")

Past = dict[str, jax.Array]


def attention(
    q_BSHK: jax.Array,
    k_BSNK: jax.Array,
    v_BSNK: jax.Array,
    *,
    positions_BS: jax.Array,
    segments_BS: jax.Array | None = None,
    kernel: str = "auto",
) -> jax.Array:
    """Softmax attention in which a query sees the keys of its own segment at its own or an earlier position.

    Positions restart in every segment of a packed row, so causality is a comparison of positions. Logits and softmax
    are float32 whatever the inputs are.

    Args:
      kernel: of `KERNELS`; "auto" is the platform's own, and "xla" where it has none. Other kernels than "xla" take the
        positions of a segment to be consecutive, as packing makes them.

    Returns:
      (B, S, H, K) in the dtype of `q_BSHK`; what padding (segment 0) gets differs among kernels.
    """
    if kernel == "auto":
        kernel = {"tpu": "splash", "gpu": "triton"}.get(platform(), "xla")
        if kernel == "triton" and jax.sharding.get_abstract_mesh().shape.get("sequence", 1) > 1:
            kernel = "xla"  # which can cut sequences there
    if kernel != "xla":
        from imitation_jax.models import kernels  # Pallas takes a while to import

        segments_BS = jnp.ones_like(positions_BS) if segments_BS is None else segments_BS
        flash = kernels.splash_attention if kernel == "splash" else kernels.triton_attention
        return flash(q_BSHK, k_BSNK, v_BSNK, segments_BS)
    *_, heads, head_dim = q_BSHK.shape
    kv_heads = k_BSNK.shape[2]
    mask_BSS = positions_BS[:, :, None] >= positions_BS[:, None, :]
    if segments_BS is not None:
        mask_BSS &= segments_BS[:, :, None] == segments_BS[:, None, :]
    if on_one_cpu():
        return _attention_by_head(q_BSHK, k_BSNK, v_BSNK, mask_BSS)
    q_BSNGK = q_BSHK.reshape(*q_BSHK.shape[:2], kv_heads, heads // kv_heads, head_dim) * head_dim**-0.5
    logits_BNGSS = jnp.einsum("bsngk,btnk->bngst", q_BSNGK, k_BSNK, preferred_element_type=jnp.float32)
    logits_BNGSS = jnp.where(mask_BSS[:, None, None], logits_BNGSS, LEAST)
    weights_BNGSS = jax.nn.softmax(logits_BNGSS, axis=-1).astype(v_BSNK.dtype)
    return jnp.einsum("bngst,btnk->bsngk", weights_BNGSS, v_BSNK).reshape(q_BSHK.shape)


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

    def look(y, state):
        block = (layer, 0, 0, y * J, 0), (1, B, N, J, K)
        k_BNJK, v_BNJK = (jax.lax.dynamic_slice(past[name], *block)[0] for name in ("k", "v"))
        logits_BNMJ = jnp.einsum("bnmk,bnjk->bnmj", q_BNMK, k_BNJK, preferred_element_type=jnp.float32)
        seen_BJ = y * J + jnp.arange(J) < position_B[:, None]
        logits_BNMJ = jnp.where(seen_BJ[:, None, None], logits_BNMJ, LEAST)
        return _go_on(
            state, logits_BNMJ, lambda w: jnp.einsum("bnmj,bnjk->bnmk", w, v_BNJK, preferred_element_type=jnp.float32)
        )

    own_BNMS = jnp.einsum("bnmk,bsnk->bnms", q_BNMK, k_BSNK, preferred_element_type=jnp.float32)
    own_BNMS = jnp.where(jnp.arange(S) <= jnp.arange(S * G)[:, None] // G, own_BNMS, LEAST)
    top_BNM1 = jnp.max(own_BNMS, axis=-1, keepdims=True)
    weights_BNMS = jnp.exp(own_BNMS - top_BNM1)
    out_BNMK = jnp.einsum("bnms,bsnk->bnmk", weights_BNMS, v_BSNK, preferred_element_type=jnp.float32)
    state = (top_BNM1, jnp.sum(weights_BNMS, axis=-1, keepdims=True), out_BNMK)
    _, sum_BNM1, out_BNMK = jax.lax.fori_loop(0, -(-jnp.max(jnp.minimum(position_B, T)) // J), look, state)
    out_BNSGK = (out_BNMK / sum_BNM1).astype(q_BSHK.dtype).reshape(B, N, S, G, K)
    return out_BNSGK.swapaxes(1, 2).reshape(B, S, H, K)


def _go_on(state, logits, times_values):
    """Softmax goes along with blocks of keys (Milakov and Gimelshein 2018, arXiv 1805.02867), in float32.

    The state is the largest logit so far, the sum of the weights that belong to it, and the sum of weighted values.
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

    def look(state, q_MK, k_JK, v_JK, mask_QJ):
        """Goes on with a block of keys; the queries of `mask_QJ` come once for each of the G heads."""
        logits_MJ = jnp.matmul(q_MK, k_JK.T, preferred_element_type=jnp.float32)
        logits_XGQJ = logits_MJ.reshape(-1, G, Q, k_JK.shape[0])
        logits_MJ = jnp.where(mask_QJ.reshape(-1, 1, *mask_QJ.shape[-2:]), logits_XGQJ, LEAST).reshape(logits_MJ.shape)
        return _go_on(
            state, logits_MJ, lambda w: jnp.matmul(w.astype(v_JK.dtype), v_JK, preferred_element_type=jnp.float32)
        )

    def one_head(q_XMK, k_SK, v_SK, read, ends_S, seen_S):
        def past_block(y, state):
            k_JK, v_JK = (read(name, y * J).reshape(J, K) for name in ("k", "v"))
            slots_J = y * J + jnp.arange(J)
            return look(state, q_XMK.reshape(-1, K), k_JK, v_JK, (slots_J < seen_S[:, None]).reshape(X, Q, -1))

        def one_block(block):
            x, q_MK, state = block
            queries_Q = x * Q + jnp.arange(Q)

            def own_block(y, state):
                k_JK, v_JK, ends_J = (jax.lax.dynamic_slice_in_dim(a, y * Q, Q) for a in (k_SK, v_SK, ends_S))
                keys_J = y * Q + jnp.arange(Q)
                return look(state, q_MK, k_JK, v_JK, (keys_J <= queries_Q[:, None]) & (queries_Q[:, None] < ends_J))

            _, sum_M1, out_MK = jax.lax.fori_loop(first_X[x], x + 1, own_block, state)
            return (out_MK / sum_M1).astype(q_MK.dtype)

        # What a query does not see weighs something only until its first key comes; its own comes last.
        count = X * G * Q
        state = (jnp.full((count, 1), LEAST), jnp.zeros((count, 1)), jnp.zeros((count, K)))
        state = jax.lax.fori_loop(0, past_blocks, past_block, state)
        state = jax.tree.map(lambda leaf: leaf.reshape(X, G * Q, -1), state)
        return jax.lax.map(one_block, (jnp.arange(X), q_XMK, state))

    heads = (q_BNXMK, k_BNSK, v_BNSK)
    if on_one_cpu():  # plain matrices, one after the other: see _attention_by_head
        heads = [head.reshape(B * N, *head.shape[2:]) for head in heads]

        def of_index(args):
            *head, index = args

            def read(name, slot):
                return jax.lax.dynamic_slice(past[name], (layer, 0, index % N, slot, 0), (1, 1, 1, J, K))

            return one_head(*head, read, ends_BS[index // N], seen_BS[index // N])

        out_BNXMK = jax.lax.map(of_index, (*heads, jnp.arange(B * N)))
    else:

        def of_head(q_XMK, k_SK, v_SK, past, ends_S, seen_S):
            def read(name, slot):
                return jax.lax.dynamic_slice(past[name], (layer, 0, slot, 0), (1, 1, J, K))

            return one_head(q_XMK, k_SK, v_SK, read, ends_S, seen_S)

        of_row = jax.vmap(of_head, (0, 0, 0, 2, None, None))
        out_BNXMK = jax.vmap(of_row, (0, 0, 0, None, 0, 0))(*heads, past, ends_BS, seen_BS)
    out_BNXGQK = out_BNXMK.reshape(B, N, X, G, Q, K)
    return out_BNXGQK.transpose(0, 2, 4, 1, 3, 5).reshape(B, S, H, K)


def _attention_by_head(q_BSHK, k_BSNK, v_BSNK, mask_BSS):
    """The same, one row, key head and block of queries after the other, recomputed in the backward pass.

    What one block needs stays in a CPU's cache, and XLA multiplies plain matrices there several times faster than
    batches of them: 4 to 7 times at 4 x 512 positions of SmolLM2-135M, 4 times again by blocks at 2,048 positions.
    """
    B, S, H, K = q_BSHK.shape
    N = k_BSNK.shape[2]
    Q = QUERY_BLOCK if S % QUERY_BLOCK == 0 else S
    q_BXQNGK = q_BSHK.reshape(B, S // Q, Q, N, H // N, K) * K**-0.5
    q_RXMK = jnp.transpose(q_BXQNGK, (0, 3, 1, 4, 2, 5)).reshape(B * N, S // Q, -1, K)
    k_RSK = jnp.moveaxis(k_BSNK, 2, 1).reshape(B * N, S, K)
    v_RSK = jnp.moveaxis(v_BSNK, 2, 1).reshape(B * N, S, K)
    mask_BXQS = mask_BSS.reshape(B, S // Q, Q, S)

    def one_head(head):
        q_XMK, k_SK, v_SK, index = head

        @jax.checkpoint
        def one_block(block):
            q_MK, mask_QS = block
            logits_MS = jnp.matmul(q_MK, k_SK.T, preferred_element_type=jnp.float32)
            logits_GQS = jnp.where(mask_QS, logits_MS.reshape(-1, Q, S), LEAST)
            return jax.nn.softmax(logits_GQS, axis=-1).astype(v_SK.dtype).reshape(-1, S) @ v_SK

        return jax.lax.map(one_block, (q_XMK, mask_BXQS[index // N]))

    out_RXMK = jax.lax.map(one_head, (q_RXMK, k_RSK, v_RSK, jnp.arange(B * N)))
    out_BNXGQK = out_RXMK.reshape(B, N, S // Q, H // N, Q, K)
    return jnp.transpose(out_BNXGQK, (0, 2, 4, 1, 3, 5)).reshape(B, S, H, K)
