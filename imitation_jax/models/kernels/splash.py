"""TPU: JAX's splash attention, a flash attention; elsewhere it is interpreted, for tests.

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

from imitation_jax.parallel.sharding import BATCH, platform

LANES = 128  # a TPU's vector registers are so wide: lengths are multiples of it
BLOCKS = (512, 256, LANES)  # of queries and of keys; the largest that divides a device's share


def attention(
    q_BSHK: jax.Array, k_BSNK: jax.Array, v_BSNK: jax.Array, positions_BS: jax.Array, segments_BS: jax.Array
) -> jax.Array:
    """As xla.py's for consecutive positions: blocks above the diagonal are not computed, no logits reach the memory."""
    del positions_BS
    _, S, H, K = q_BSHK.shape
    mesh = jax.sharding.get_abstract_mesh()
    head_shards, cuts = (1, 1) if mesh.empty else (mesh.shape["tensor"], mesh.shape["sequence"])
    q_BSHK, k_BSNK, v_BSNK, segments_BS = pad_rows(LANES * cuts, q_BSHK, k_BSNK, v_BSNK, segments_BS)
    length = segments_BS.shape[1]
    block = next(size for size in BLOCKS if length // cuts % size == 0)
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.CausalMask((length, length), shard_count=cuts)] * H),
        block_sizes=splash.BlockSizes(*(block,) * 8),
        head_shards=head_shards,
        q_seq_shards=cuts,
        interpret=platform() != "tpu",
    )

    def attend(kernel, q_BSHK, k_BSNK, v_BSNK, q_segments_BS, segments_BS):
        heads_first = (x.swapaxes(1, 2) for x in (q_BSHK * K**-0.5, k_BSNK, v_BSNK))
        return jax.vmap(kernel)(*heads_first, splash.SegmentIds(q_segments_BS, segments_BS)).swapaxes(1, 2)

    if not mesh.empty:
        share, whole = P(*BATCH, "tensor"), P(BATCH[0], None, "tensor")
        kernel_spec = kernel.manual_sharding_spec(NamedSharding(mesh, P("tensor", "sequence")))
        in_specs = (kernel_spec, share, whole, whole, BATCH, P(BATCH[0]))
        attend = jax.shard_map(attend, in_specs=in_specs, out_specs=share, check_vma=False)
    return attend(kernel, q_BSHK, k_BSNK, v_BSNK, segments_BS, segments_BS)[:, :S]


def pad_rows(multiple: int, *arrays_BS: jax.Array) -> tuple[jax.Array, ...]:
    """Zeros behind every query that counts, where causality hides them, up to a multiple of positions."""
    pad = -arrays_BS[0].shape[1] % multiple
    return tuple(jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2)) for x in arrays_BS)
