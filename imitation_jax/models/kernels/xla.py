"""The plain programs, which XLA compiles for every platform and cuts over every mesh by itself.

Legend: B rows, S queries or keys, T cache slots, H query heads, N key/value heads, G = H / N query heads a key head,
K head size, J keys of a block.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

LEAST = float(jnp.finfo(jnp.float32).min)  # a logit that weighs nothing beside any other, and makes no nan alone


def attention(
    q_BSHK: jax.Array, k_BSNK: jax.Array, v_BSNK: jax.Array, positions_BS: jax.Array, segments_BS: jax.Array
) -> jax.Array:
    """See `attention.attention`; all logits of a layer exist at a time, (B, H, S, S) in float32."""
    B, S, H, K = q_BSHK.shape
    q_BSNGK = q_BSHK.reshape(B, S, k_BSNK.shape[2], -1, K) * K**-0.5
    logits_BNGSS = jnp.einsum("bsngk,btnk->bngst", q_BSNGK, k_BSNK, preferred_element_type=jnp.float32)
    logits_BNGSS = jnp.where(causal_mask(positions_BS, segments_BS)[:, None, None], logits_BNGSS, LEAST)
    weights_BNGSS = jax.nn.softmax(logits_BNGSS, axis=-1).astype(v_BSNK.dtype)
    return jnp.einsum("bngst,btnk->bsngk", weights_BNGSS, v_BSNK).reshape(B, S, H, K)


def causal_mask(positions_BS: jax.Array, segments_BS: jax.Array) -> jax.Array:
    """(B, S, S) bool: the queries (second axis) that see each key. Positions restart in every segment."""
    mask_BSS = positions_BS[:, :, None] >= positions_BS[:, None, :]
    return mask_BSS & (segments_BS[:, :, None] == segments_BS[:, None, :])


def map_heads(
    one_head: Callable,
    heads_BN: tuple[jax.Array, ...],
    rows_B: tuple[jax.Array, ...],
    past: dict[str, jax.Array],
    layer: jax.Array,
    block: int,
) -> jax.Array:
    """`one_head` of every row and key/value head.

    Args:
      one_head: (*one of heads_BN, *one of rows_B, read) -> array, where `read(name, slot)` gives the head's part of the
        past, (J, K) from a slot on.
      heads_BN, rows_B: arrays with these leading axes.
      past: a key/value cache of one row, "k" and "v" of (L, 1, N, T, K).
      layer: int32.
      block: J.

    Returns:
      (B, N, ...).
    """

    def of_head(past, *args):
        def read(name, slot):
            size = (1, 1, block, past[name].shape[-1])
            return jax.lax.dynamic_slice(past[name], (layer, 0, slot, 0), size)[0, 0]

        return one_head(*args, read)

    heads, rows = (0,) * len(heads_BN), (0,) * len(rows_B)
    of_row = jax.vmap(of_head, (2, *heads, *(None for _ in rows)))
    return jax.vmap(of_row, (None, *heads, *rows))(past, *heads_BN, *rows_B)


@jax.custom_vjp
def linear(x: jax.Array, w: jax.Array) -> jax.Array:
    """See `decoder.linear`; by hand for the gradient of `w`: XLA would add it up across devices in the dtype of `x`."""
    return jnp.tensordot(x, _rounded(w, x.dtype), x.ndim - 2)


def _linear_forward(x, w):
    return linear(x, w), (x, w)


def _linear_backward(saved, dy):
    x, w = saved
    inputs, outputs = x.ndim - 2, dy.ndim - 2
    back = (range(2, 2 + outputs), range(inputs, inputs + outputs))
    dx = jax.lax.dot_general(dy, _rounded(w, x.dtype), (back, ((), ())))
    dw = jax.lax.dot_general(x, dy, (((0, 1), (0, 1)), ((), ())), preferred_element_type=w.dtype)
    return dx, dw


linear.defvjp(_linear_forward, _linear_backward)


def _rounded(w, dtype):
    # A cast alone XLA moves out of the loop over the layers, and keeps the whole model's weights in bfloat16 as well.
    if w.dtype == jnp.float32 and dtype == jnp.bfloat16:
        w = jax.lax.reduce_precision(w, exponent_bits=8, mantissa_bits=7)
    return w.astype(dtype)
