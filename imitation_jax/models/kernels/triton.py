"""GPU: JAX's flash attention in Triton, where no sequence is cut; elsewhere it is interpreted, for tests.

Legend: B rows, S positions, H query heads, N key/value heads, K head size.
"""

import warnings

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from imitation_jax.models.kernels.splash import pad_rows
from imitation_jax.parallel.sharding import BATCH, platform

with warnings.catch_warnings():
    # It recommends tokamax, whose 0.0.12 needs a profiler's server to be imported; this one needs jax alone.
    warnings.simplefilter("ignore", DeprecationWarning)
    from jax.experimental.pallas.ops.gpu import attention as triton

BLOCK = 128  # its blocks of queries and keys are so long: lengths are multiples of it


def takes(mesh: jax.sharding.AbstractMesh) -> bool:
    """A mesh that cuts no sequence."""
    return mesh.shape.get("sequence", 1) == 1


def attention(
    q_BSHK: jax.Array, k_BSNK: jax.Array, v_BSNK: jax.Array, positions_BS: jax.Array, segments_BS: jax.Array
) -> jax.Array:
    """As xla.py's for consecutive positions: no logits reach the memory."""
    del positions_BS
    S, K = q_BSHK.shape[1], q_BSHK.shape[3]
    args = pad_rows(BLOCK, q_BSHK, k_BSNK, v_BSNK, segments_BS)

    def attend(q_BSHK, k_BSNK, v_BSNK, segments_BS):
        k_BSHK, v_BSHK = (jnp.repeat(x, q_BSHK.shape[2] // x.shape[2], axis=2) for x in (k_BSNK, v_BSNK))
        return triton.mha(q_BSHK, k_BSHK, v_BSHK, segments_BS, K**-0.5, True, interpret=platform() != "gpu")

    if not jax.sharding.get_abstract_mesh().empty:
        share = P(BATCH[0], None, "tensor")
        attend = jax.shard_map(attend, in_specs=(share, share, share, P(BATCH[0])), out_specs=share, check_vma=False)
    return attend(*args)[:, :S]
