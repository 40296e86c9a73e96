"""How a table of (parameter path -> axes) becomes shardings, and how activations are pinned to the mesh."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Table = Sequence[tuple[str, P]]
# A global batch of rows: (batch, sequence).
BATCH = P(("data", "fsdp"), "sequence")


def path_of(key_path: tuple) -> str:
    """The path of a leaf as the tables write it: "layers/attention/q"."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in key_path)


def specs(tree: Any, table: Table) -> Any:
    """The tree of PartitionSpecs in which each leaf of `tree` takes the one row that fully matches its path.

    Raises:
      ValueError: a leaf that no row or more than one row matches.
    """

    def spec(key_path, leaf):
        path = path_of(key_path)
        rows = [spec for pattern, spec in table if re.fullmatch(pattern, path)]
        if len(rows) != 1:
            raise ValueError(f"sharding table: {len(rows)} rows match parameter {path!r} where one must")
        return rows[0]

    return jax.tree_util.tree_map_with_path(spec, tree)


def shardings(tree: Any, table: Table, mesh: Mesh) -> Any:
    """`specs` on a mesh, after checking that every sharded dimension divides.

    Args:
      tree: arrays or ShapeDtypeStructs.

    Raises:
      ValueError: a dimension that its mesh axes do not divide, with parameter, size and axes.
    """

    def sharding(key_path, leaf, spec):
        for dim, axes in zip(leaf.shape, spec, strict=False):
            axes = (axes,) if isinstance(axes, str) else axes or ()
            ways = 1
            for axis in axes:
                ways *= mesh.shape[axis]
            if dim % ways:
                raise ValueError(
                    f"mesh {dict(mesh.shape)} does not divide parameter {path_of(key_path)!r} of shape {leaf.shape}: "
                    f"{dim} is not a multiple of {ways} ({' x '.join(axes)}); choose a smaller {axes[-1]}"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, tree, specs(tree, table))


def constrain(x: jax.Array, spec: P) -> jax.Array:
    """Pins an activation to the mesh that `jax.set_mesh` holds; without one, does nothing."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec)


def platform() -> str:
    """Where what is traced will run: "cpu", "gpu" or "tpu", the mesh's, which may be another machine's."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.platform
    return {"cuda": "gpu", "rocm": "gpu"}.get(name, name)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of a value that every device holds whole."""
    return NamedSharding(mesh, P())
