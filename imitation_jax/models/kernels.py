"""Attention of packed rows by the fastest kernel of each platform, cut over a mesh by hand.

A kernel is opaque to XLA's partitioner, so each device is told its share: its rows, its heads, and of a sequence that
is cut its queries, which see the keys of all the others (gathered once a layer).

Legend: B rows, S positions, H query heads, N key/value heads, K head size.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imitation_jax.parallel.sharding import platform

LANES = 128  # a TPU's vector registers are so wide: lengths are multiples of it
BLOCKS = (512, 256, LANES)  # of queries and of keys; the largest that divides a device's share


def splash_attention(q_BSHK: jax.Array, k_BSNK: jax.Array, v_BSNK: jax.Array, segments_BS: jax.Array) -> jax.Array:
    """Causal attention within segments by JAX's splash kernel for TPUs; elsewhere it is interpreted, for tests.

    Blocks above the diagonal are not computed, and no logits reach the memory, forward or backward.

    Returns:
      (B, S, H, K) in the dtype of `q_BSHK`.
    """
    B, S, H, K = q_BSHK.shape
    mesh = jax.sharding.get_abstract_mesh()
    ways = dict(mesh.shape) if not mesh.empty else {"sequence": 1, "tensor": 1}
    # Padding stands behind every query that counts, so causality hides it; its segment is padding's.
    pad = ((0, 0), (0, -S % (LANES * ways["sequence"])))
    segments_BS = jnp.pad(segments_BS, pad)
    q_BSHK, k_BSNK, v_BSNK = (jnp.pad(x, (*pad, (0, 0), (0, 0))) for x in (q_BSHK, k_BSNK, v_BSNK))
    length = segments_BS.shape[1]
    block = next(size for size in BLOCKS if length // ways["sequence"] % size == 0)
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.CausalMask((length, length), shard_count=ways["sequence"])] * H),
        block_sizes=splash.BlockSizes(*(block,) * 8),
        head_shards=ways["tensor"],
        q_seq_shards=ways["sequence"],
        interpret=platform() != "tpu",
    )

    def attend(kernel, q_BSHK, k_BSNK, v_BSNK, q_segments_BS, segments_BS):
        heads_first = (x.swapaxes(1, 2) for x in (q_BSHK * K**-0.5, k_BSNK, v_BSNK))
        out_BHSK = jax.vmap(kernel)(*heads_first, splash.SegmentIds(q_segments_BS, segments_BS))
        return out_BHSK.swapaxes(1, 2)

    if not mesh.empty:
        rows = ("data", "fsdp")
        share, whole = P(rows, "sequence", "tensor"), P(rows, None, "tensor")
        kernel_spec = kernel.manual_sharding_spec(NamedSharding(mesh, P("tensor", "sequence")))
        in_specs = (kernel_spec, share, whole, whole, P(rows, "sequence"), P(rows))
        attend = jax.shard_map(attend, in_specs=in_specs, out_specs=share, check_vma=False)
    return attend(kernel, q_BSHK, k_BSNK, v_BSNK, segments_BS, segments_BS)[:, :S]
