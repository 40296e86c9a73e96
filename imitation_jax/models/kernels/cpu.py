"""One CPU: plain matrices one after the other, whose parts stay in its cache.

XLA multiplies plain matrices there several times faster than batches of them. On a mesh of several devices the rows
of a batch cannot be merged or taken in turn, so there xla.py is used.

Legend: B rows, S positions, H query heads, N key/value heads, G = H / N query heads a key head, K head size, Q queries
of a block, X blocks of queries, R = B x N, M = G x Q or B x S.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from imitation_jax.models.kernels import xla

QUERY_BLOCK = 256  # 128 and 512 are slower forward or backward at 2,048 positions


def takes(mesh: jax.sharding.AbstractMesh) -> bool:
    """A single device."""
    return mesh.size <= 1


def attention(
    q_BSHK: jax.Array, k_BSNK: jax.Array, v_BSNK: jax.Array, positions_BS: jax.Array, segments_BS: jax.Array
) -> jax.Array:
    """As xla.py's, by row, key head and block of queries, recomputed in the backward pass.

    4 to 7 times as fast at 4 x 512 positions of SmolLM2-135M; the blocks are worth 4 times again at 2,048 positions.
    """
    B, S, H, K = q_BSHK.shape
    N = k_BSNK.shape[2]
    Q = QUERY_BLOCK if S % QUERY_BLOCK == 0 else S
    q_BXQNGK = q_BSHK.reshape(B, S // Q, Q, N, H // N, K) * K**-0.5
    q_RXMK = jnp.transpose(q_BXQNGK, (0, 3, 1, 4, 2, 5)).reshape(B * N, S // Q, -1, K)
    k_RSK, v_RSK = (jnp.moveaxis(x, 2, 1).reshape(B * N, S, K) for x in (k_BSNK, v_BSNK))
    mask_BXQS = xla.causal_mask(positions_BS, segments_BS).reshape(B, S // Q, Q, S)

    def one_head(head):
        q_XMK, k_SK, v_SK, index = head

        @jax.checkpoint
        def one_block(block):
            q_MK, mask_QS = block
            logits_MS = jnp.matmul(q_MK, k_SK.T, preferred_element_type=jnp.float32)
            logits_GQS = jnp.where(mask_QS, logits_MS.reshape(-1, Q, S), xla.LEAST)
            return jax.nn.softmax(logits_GQS, axis=-1).astype(v_SK.dtype).reshape(-1, S) @ v_SK

        return jax.lax.map(one_block, (q_XMK, mask_BXQS[index // N]))

    out_RXMK = jax.lax.map(one_head, (q_RXMK, k_RSK, v_RSK, jnp.arange(B * N)))
    out_BNXGQK = out_RXMK.reshape(B, N, S // Q, H // N, Q, K)
    return jnp.transpose(out_BNXGQK, (0, 2, 4, 1, 3, 5)).reshape(B, S, H, K)


def map_heads(
    one_head: Callable,
    heads_BN: tuple[jax.Array, ...],
    rows_B: tuple[jax.Array, ...],
    past: dict[str, jax.Array],
    layer: jax.Array,
    block: int,
) -> jax.Array:
    """As xla.py's, one head after the other, each reading its blocks of the past in place."""
    B, N = heads_BN[0].shape[:2]

    def of_index(args):
        *head, index = args

        def read(name, slot):
            size = (1, 1, 1, block, past[name].shape[-1])
            return jax.lax.dynamic_slice(past[name], (layer, 0, index % N, slot, 0), size)[0, 0, 0]

        return one_head(*head, *(row[index // N] for row in rows_B), read)

    heads_R = (x.reshape(B * N, *x.shape[2:]) for x in heads_BN)
    out = jax.lax.map(of_index, (*heads_R, jnp.arange(B * N)))
    return out.reshape(B, N, *out.shape[1:])


def linear(x: jax.Array, w: jax.Array) -> jax.Array:
    """As xla.py's of plain matrices, whose gradient is twice as fast."""
    outputs = w.shape[x.ndim - 2 :]
    x_1MD = x.reshape(1, x.shape[0] * x.shape[1], -1)
    return xla.linear(x_1MD, w.reshape(x_1MD.shape[2], -1)).reshape(*x.shape[:2], *outputs)
