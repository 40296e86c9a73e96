"""Next-token cross-entropy in chunks: the logits of a whole batch never exist at once.

Legend: B rows, S positions, D model, V vocabulary, C positions of a chunk, M chunks.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from imitation_jax.parallel.sharding import constrain, on_one_cpu


def cross_entropy(
    x_BSD: jax.Array,
    unembed_VD: jax.Array,
    targets_BS: jax.Array,
    loss_mask_BS: jax.Array,
    *,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """Summed token losses, and how many of the loss-bearing targets have the highest logit.

    Under differentiation both gradients are computed beside the loss, while a chunk's logits are at hand, so the
    backward pass repeats no product with the vocabulary; the sum is linear in its cotangent, so this is exact.

    Args:
      x_BSD: final hidden states, in the compute dtype.
      unembed_VD: the output embedding; its gradient is accumulated in float32.
      targets_BS: int32 ids.
      loss_mask_BS: float32, 1 where the target bears loss.
      chunk: positions of each row whose logits exist at a time; rows stay whole on their devices.

    Returns:
      float32 scalars; no gradient flows through the second.
    """
    if on_one_cpu():  # one long row, so that every product is one of plain matrices
        chunk *= x_BSD.shape[0]
        x_BSD, targets_BS, loss_mask_BS = (a.reshape(1, -1, *a.shape[2:]) for a in (x_BSD, targets_BS, loss_mask_BS))
    return _cross_entropy(x_BSD, unembed_VD, targets_BS, loss_mask_BS, min(chunk, targets_BS.shape[1]))


def _split(chunk: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """(B, S, ...) -> (M, B, C, ...), zero-filled; zeros bear no loss."""

    def split(array):
        pad = -array.shape[1] % chunk
        array = jnp.pad(array, ((0, 0), (0, pad)) + ((0, 0),) * (array.ndim - 2))
        return jnp.moveaxis(array.reshape(array.shape[0], -1, chunk, *array.shape[2:]), 1, 0)

    return tuple(split(array) for array in arrays)


def _gathered(unembed_VD: jax.Array, dtype: Any) -> jax.Array:
    """The matrix that the chunks share, whole but for its vocabulary: gathered once, not for each chunk."""
    return constrain(unembed_VD.astype(dtype), P("tensor", None))


def _chunk_losses(x_BCD, unembed_VD, targets_BC, mask_BC):
    logits_BCV = jnp.einsum("bcd,vd->bcv", x_BCD, unembed_VD, preferred_element_type=jnp.float32)
    top_BC = jnp.max(logits_BCV, axis=-1)
    log_z_BC = top_BC + jnp.log(jnp.sum(jnp.exp(logits_BCV - top_BC[..., None]), axis=-1))
    gold_BC = jnp.take_along_axis(logits_BCV, targets_BC[..., None], axis=-1)[..., 0]
    loss = jnp.sum((log_z_BC - gold_BC) * mask_BC)
    correct = jnp.sum((gold_BC >= top_BC) * mask_BC)
    return loss, correct, logits_BCV, log_z_BC


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _cross_entropy(x_BSD, unembed_VD, targets_BS, mask_BS, chunk):
    unembed = _gathered(unembed_VD, x_BSD.dtype)

    def body(sums, xs):
        x_BCD, targets_BC, mask_BC = xs
        loss, correct, _, _ = _chunk_losses(x_BCD, unembed, targets_BC, mask_BC)
        return (sums[0] + loss, sums[1] + correct), None

    return jax.lax.scan(body, (jnp.float32(0), jnp.float32(0)), _split(chunk, x_BSD, targets_BS, mask_BS))[0]


def _forward(x_BSD, unembed_VD, targets_BS, mask_BS, chunk):
    unembed = _gathered(unembed_VD, x_BSD.dtype)

    def body(carry, xs):
        loss_sum, correct_sum, dunembed_VD = carry
        x_BCD, targets_BC, mask_BC = xs
        loss, correct, logits_BCV, log_z_BC = _chunk_losses(x_BCD, unembed, targets_BC, mask_BC)
        dlogits_BCV = jnp.exp(logits_BCV - log_z_BC[..., None])
        dlogits_BCV -= targets_BC[..., None] == jnp.arange(logits_BCV.shape[-1])
        dlogits_BCV = (dlogits_BCV * mask_BC[..., None]).astype(x_BCD.dtype)
        dx_BCD = jnp.einsum("bcv,vd->bcd", dlogits_BCV, unembed)
        dunembed_VD += jnp.einsum("bcv,bcd->vd", dlogits_BCV, x_BCD, preferred_element_type=jnp.float32)
        return (loss_sum + loss, correct_sum + correct, dunembed_VD), dx_BCD

    start = (jnp.float32(0), jnp.float32(0), jnp.zeros(unembed_VD.shape, jnp.float32))
    xs = _split(chunk, x_BSD, targets_BS, mask_BS)
    (loss, correct, dunembed_VD), dx_MBCD = jax.lax.scan(body, start, xs)
    B, S, D = x_BSD.shape
    dx_BSD = jnp.moveaxis(dx_MBCD, 0, 1).reshape(B, -1, D)[:, :S]
    return (loss, correct), (dx_BSD, dunembed_VD.astype(unembed_VD.dtype))


def _backward(chunk, residuals, cotangents):
    del chunk
    dx_BSD, dunembed_VD = residuals
    scale = cotangents[0]
    return dx_BSD * scale.astype(dx_BSD.dtype), dunembed_VD * scale.astype(dunembed_VD.dtype), None, None


_cross_entropy.defvjp(_forward, _backward)
