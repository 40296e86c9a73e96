"""Attention of packed rows by the fastest kernel of each platform, cut over a mesh by hand.

A kernel is opaque to XLA's partitioner, so each device is told its share: its rows, its heads, and of a sequence that
is cut its queries, which see the keys of all the others (gathered once a layer).

Legend: B rows, S positions, H query heads, N key/value heads, K head size.
"""

import warnings

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imitation_jax.parallel.sharding import platform

with warnings.catch_warnings():
    # It recommends tokamax, whose 0.0.12 needs a profiler's server to be imported; this one needs jax alone.
    warnings.simplefilter("ignore", DeprecationWarning)
    from jax.experimental.pallas.ops.gpu import attention as triton

LANES = 128  # a TPU's vector registers are so wide, a GPU's default blocks so long: lengths are multiples of it
BLOCKS = (512, 256, LANES)  # splash's, of queries and of keys; the largest that divides a device's share
ROWS = ("data", "fsdp")


def splash_attention(q_BSHK: jax.Array, k_BSNK: jax.Array, v_BSNK: jax.Array, segments_BS: jax.Array) -> jax.Array:
    """Causal attention within segments by JAX's splash kernel for TPUs; elsewhere it is interpreted, for tests.

    Blocks above the diagonal are not computed, and no logits reach the memory, forward or backward.

    Returns:
      (B, S, H, K) in the dtype of `q_BSHK`.
    """
    _, S, H, K = q_BSHK.shape
    mesh = jax.sharding.get_abstract_mesh()
    heads, cuts = (1, 1) if mesh.empty else (mesh.shape["tensor"], mesh.shape["sequence"])
    q_BSHK, k_BSNK, v_BSNK, segments_BS = _padded(LANES * cuts, q_BSHK, k_BSNK, v_BSNK, segments_BS)
    length = segments_BS.shape[1]
    block = next(size for size in BLOCKS if length // cuts % size == 0)
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.CausalMask((length, length), shard_count=cuts)] * H),
        block_sizes=splash.BlockSizes(*(block,) * 8),
        head_shards=heads,
        q_seq_shards=cuts,
        interpret=platform() != "tpu",
    )

    def attend(kernel, q_BSHK, k_BSNK, v_BSNK, q_segments_BS, segments_BS):
        heads_first = (x.swapaxes(1, 2) for x in (q_BSHK * K**-0.5, k_BSNK, v_BSNK))
        return jax.vmap(kernel)(*heads_first, splash.SegmentIds(q_segments_BS, segments_BS)).swapaxes(1, 2)

    if not mesh.empty:
        share, whole = P(ROWS, "sequence", "tensor"), P(ROWS, None, "tensor")
        kernel_spec = kernel.manual_sharding_spec(NamedSharding(mesh, P("tensor", "sequence")))
        in_specs = (kernel_spec, share, whole, whole, P(ROWS, "sequence"), P(ROWS))
        attend = jax.shard_map(attend, in_specs=in_specs, out_specs=share, check_vma=False)
    return attend(kernel, q_BSHK, k_BSNK, v_BSNK, segments_BS, segments_BS)[:, :S]


def triton_attention(q_BSHK: jax.Array, k_BSNK: jax.Array, v_BSNK: jax.Array, segments_BS: jax.Array) -> jax.Array:
    """The same by JAX's Triton kernel for GPUs, where no sequence is cut.

    Returns:
      (B, S, H, K) in the dtype of `q_BSHK`.

    Raises:
      ValueError: a mesh that cuts sequences.
    """
    S, K = q_BSHK.shape[1], q_BSHK.shape[3]
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.shape["sequence"] > 1:
        raise ValueError(f"attention=triton: a sequence cannot be cut in {mesh.shape['sequence']}; use attention=xla")
    args = _padded(LANES, q_BSHK, k_BSNK, v_BSNK, segments_BS)

    def attend(q_BSHK, k_BSNK, v_BSNK, segments_BS):
        k_BSHK, v_BSHK = (jnp.repeat(x, q_BSHK.shape[2] // x.shape[2], axis=2) for x in (k_BSNK, v_BSNK))
        return triton.mha(q_BSHK, k_BSHK, v_BSHK, segments_BS, K**-0.5, True, interpret=platform() != "gpu")

    if not mesh.empty:
        share = P(ROWS, None, "tensor")
        attend = jax.shard_map(attend, in_specs=(share, share, share, P(ROWS)), out_specs=share, check_vma=False)
    return attend(*args)[:, :S]


def _padded(multiple: int, *arrays_BS: jax.Array) -> tuple[jax.Array, ...]:
    """Zeros behind every query that counts, where causality hides them."""
    pad = -arrays_BS[0].shape[1] % multiple
    return tuple(jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2)) for x in arrays_BS)
