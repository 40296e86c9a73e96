"""Next-token cross-entropy in chunks: the logits of a whole batch never exist at once.

Legend: B rows, S positions, D model, V vocabulary, C positions of a chunk (of all rows of a device), M chunks.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from imitation_jax.parallel.sharding import BATCH


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(
    x_BSD: jax.Array, unembed_VD: jax.Array, targets_BS: jax.Array, loss_mask_BS: jax.Array, chunk: int
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
    cut, vocab = _axes(len(unembed_VD))

    def local(unembed_VD, *rows):
        def body(sums, xs):
            loss, correct, _ = _chunk_losses(xs[0], unembed_VD, *xs[1:], vocab)
            return (sums[0] + loss, sums[1] + correct), None

        return jax.lax.psum(jax.lax.scan(body, (jnp.float32(0), jnp.float32(0)), _split(chunk, *rows))[0], cut)

    return _of_all_rows(local, P(), unembed_VD.astype(x_BSD.dtype), x_BSD, targets_BS, loss_mask_BS)


def _split(chunk: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """(B, S, ...) -> (M, C, ...) with C = B * chunk, zero-filled; zeros bear no loss.

    One long row, so that every product is one of plain matrices.
    """
    B, S = arrays[0].shape[:2]
    C = B * min(chunk, S)

    def split(array):
        array = array.reshape(B * S, *array.shape[2:])
        array = jnp.pad(array, ((0, -len(array) % C),) + ((0, 0),) * (array.ndim - 1))
        return array.reshape(-1, C, *array.shape[1:])

    return tuple(split(array) for array in arrays)


def _axes(vocab_size: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The mesh axes that cut the rows, and those that cut the vocabulary, where it can be cut."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return (), ()
    return ("data", "fsdp", "sequence"), ("tensor",) if vocab_size % mesh.shape["tensor"] == 0 else ()


def _of_all_rows(local: Callable, out_specs: Any, unembed_VD: jax.Array, *rows: jax.Array) -> Any:
    """What `local` makes of each device's part of the output embedding and of its own rows.

    By hand, so that the embedding is gathered once and its gradient added up across devices once, not for each chunk.
    """
    cut, vocab = _axes(len(unembed_VD))
    if not cut:
        return local(unembed_VD, *rows)
    in_specs = (P(vocab), *(P(*BATCH) for _ in rows))
    return jax.shard_map(local, in_specs=in_specs, out_specs=out_specs, check_vma=False)(unembed_VD, *rows)


def _chunk_losses(x_CD, unembed_VD, targets_C, mask_C, vocab):
    """Of a chunk, whose vocabulary is cut along the axes `vocab` (Shoeybi et al. 2019, arXiv 1909.08053, section 3)."""
    logits_CV = jnp.einsum("cd,vd->cv", x_CD, unembed_VD, preferred_element_type=jnp.float32)
    top_C = jax.lax.pmax(jnp.max(logits_CV, axis=-1), vocab)
    sum_C = jax.lax.psum(jnp.sum(jnp.exp(logits_CV - top_C[..., None]), axis=-1), vocab)
    log_z_C = top_C + jnp.log(sum_C)
    first = jax.lax.axis_index(vocab) * len(unembed_VD) if vocab else 0
    is_target_CV = (targets_C - first)[..., None] == jnp.arange(len(unembed_VD))
    gold_C = jax.lax.psum(jnp.sum(logits_CV * is_target_CV, axis=-1), vocab)
    loss = jnp.sum((log_z_C - gold_C) * mask_C)
    correct = jnp.sum((gold_C >= top_C) * mask_C)
    return loss, correct, (logits_CV, log_z_C, is_target_CV)


def _forward(x_BSD, unembed_VD, targets_BS, mask_BS, chunk):
    cut, vocab = _axes(len(unembed_VD))

    def local(unembed_VD, *rows):
        def body(carry, xs):
            loss_sum, correct_sum, dunembed_VD = carry
            x_CD, _, mask_C = xs
            loss, correct, (logits_CV, log_z_C, is_target_CV) = _chunk_losses(x_CD, unembed_VD, *xs[1:], vocab)
            dlogits_CV = jnp.exp(logits_CV - log_z_C[..., None]) - is_target_CV
            dlogits_CV = (dlogits_CV * mask_C[..., None]).astype(x_CD.dtype)
            dx_CD = jax.lax.psum(jnp.einsum("cv,vd->cd", dlogits_CV, unembed_VD), vocab)
            dunembed_VD += jnp.einsum("cv,cd->vd", dlogits_CV, x_CD, preferred_element_type=jnp.float32)
            return (loss_sum + loss, correct_sum + correct, dunembed_VD), dx_CD

        start = (jnp.float32(0), jnp.float32(0), jnp.zeros(unembed_VD.shape, jnp.float32))
        (*sums, dunembed_VD), dx_MCD = jax.lax.scan(body, start, _split(chunk, *rows))
        if cut:  # each device keeps the part that it keeps of the weights
            dunembed_VD = jax.lax.psum_scatter(dunembed_VD, "fsdp", scatter_dimension=1, tiled=True)
            dunembed_VD = jax.lax.psum(dunembed_VD, ("data", "sequence"))
        B, S, D = rows[0].shape
        dx_BSD = dx_MCD.reshape(-1, D)[: B * S].reshape(B, S, D)
        return jax.lax.psum(tuple(sums), cut), dunembed_VD, dx_BSD

    out_specs = (P(), P(vocab, "fsdp"), P(*BATCH))
    rows = (x_BSD, targets_BS, mask_BS)
    sums, dunembed_VD, dx_BSD = _of_all_rows(local, out_specs, unembed_VD.astype(x_BSD.dtype), *rows)
    # The gradient of the embedding is added up before the layers' backward pass, through which it would else be kept.
    dx_BSD, dunembed_VD = jax.lax.optimization_barrier((dx_BSD, dunembed_VD))
    return sums, (dx_BSD, dunembed_VD.astype(unembed_VD.dtype))


def _backward(chunk, residuals, cotangents):
    del chunk
    dx_BSD, dunembed_VD = residuals
    scale = cotangents[0]  # float32, and so is the product
    return (dx_BSD * scale).astype(dx_BSD.dtype), (dunembed_VD * scale).astype(dunembed_VD.dtype), None, None


cross_entropy.defvjp(_forward, _backward)
