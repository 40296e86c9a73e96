"""Which rows of a global batch a process reads, and how all processes' rows become one batch.

Legend: B rows of this process's share, S positions.
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from imitation_jax.parallel.sharding import BATCH


def share_of_rows(mesh: Mesh) -> tuple[int, int]:
    """(index, count): of `count` equal shares of the rows of each global batch, this process's devices hold that one.

    Processes whose devices hold the same rows, as with tensor=8 on hosts of 4, have the same index.

    Raises:
      ValueError: the shares are not equal, or overlap.
    """
    devices = mesh.devices.reshape(mesh.shape["data"] * mesh.shape["fsdp"], -1)
    held: dict[int, set[int]] = {}
    for place, of_place in enumerate(devices):
        for device in of_place:
            held.setdefault(device.process_index, set()).add(place)
    shares = sorted({tuple(sorted(places)) for places in held.values()})
    if sum(map(len, shares)) != len(devices) or len({len(share) for share in shares}) > 1:
        raise ValueError(
            f"mesh {dict(mesh.shape)}: the rows of a batch do not divide by the {len(held)} processes; choose "
            "data x fsdp or sequence x tensor a multiple of a process's devices"
        )
    return shares.index(tuple(sorted(held[jax.process_index()]))), len(shares)


def global_batch(local_BS: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The processes' shares, equal in shape, as one batch over the mesh."""
    sharding, (_, shares) = NamedSharding(mesh, BATCH), share_of_rows(mesh)

    def place(rows_BS: np.ndarray) -> jax.Array:
        shape = (shares * rows_BS.shape[0], rows_BS.shape[1])
        return jax.make_array_from_process_local_data(sharding, rows_BS, shape)

    return jax.tree.map(place, local_BS)
