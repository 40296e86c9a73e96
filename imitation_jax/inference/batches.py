"""A model on its mesh, and steps of a prefix tree as batches of few static shapes within the memory that there is."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from imitation_jax.inference import generate, prefixes
from imitation_jax.inference.memory import Memory, power
from imitation_jax.inference.prefixes import Step, order
from imitation_jax.models.attention import KEY_BLOCK
from imitation_jax.models.loaded_model import LoadedModel
from imitation_jax.parallel.mesh import AXES, make_mesh
from imitation_jax.parallel.sharding import path_of, shardings

# Tokens that a step computes on each device of the batch axes, for every row of the batch size.
TOKENS_PER_ROW = 64


class Runner:
    """What scoring and generating share; the arguments are those of `Engine`.

    Attributes:
      model: (config, weights), what every jitted step begins with.
      mesh: without a sequence axis.
      dtype: of the computation.
      ways: devices of the batch axes.
      batch_size: rows that are generated at a time.
      tokens_forwarded: positions computed so far, padding included.
    """

    def __init__(self, model: LoadedModel, mesh: Mesh | None, batch_size: int, memory_gib: float, compute_dtype: str):
        self.mesh = _without_sequence_axis(mesh or _mesh_of(model.params))
        self.dtype = jnp.dtype(compute_dtype)
        self.batch_size = batch_size
        self.tokens_forwarded = 0
        self.model = (model.config, self._place(model))
        self.ways = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        self._memory_gib = memory_gib

    @functools.cached_property
    def memory(self) -> Memory:
        """As it is when the first batch is planned."""
        return Memory(*self.model, self.dtype, self.mesh, self.batch_size, self._memory_gib)

    def empty_cache(self, rows: int, slots: int) -> dict[str, jax.Array]:
        """A key/value cache on the mesh."""
        with jax.set_mesh(self.mesh):
            return generate.empty_cache(self.model[0], rows, slots, self.dtype)

    def plan(
        self, by_sequence: dict[bytes, list], first: dict[bytes, int], held: int = 0
    ) -> tuple[list[list], list[Step], int, int]:
        """Plans how sequences are read, in rows as long as the memory allows.

        Args:
          by_sequence: sequences, as the bytes of int32 ids, and what belongs to each.
          first: the first position of each whose Part is needed.
          held: bytes that are taken.

        Returns:
          What belongs to each sequence, as Parts number them; the steps; how many tokens a row holds; and how many
          slots the cache of one row has that the steps share.

        Raises:
          ValueError: one sequence does not fit the memory.
        """
        keys, arrays = list(by_sequence), [np.frombuffer(key, np.int32) for key in by_sequence]
        sorted_ = order(arrays)
        sequences, wanted = [arrays[i] for i in sorted_], [first[keys[i]] for i in sorted_]
        capacity = power(TOKENS_PER_ROW * self.batch_size, 64)
        while True:
            steps = list(prefixes.plan(sequences, wanted, capacity, self.ways))
            # What a step keeps lies behind the path; a few lengths serve all request sets.
            slots = power(max((step.slot for step in steps), default=0) + capacity, KEY_BLOCK)
            needed = held + self.memory.needed(capacity, slots)
            if needed <= self.memory.budget:
                break
            if capacity <= 64:
                self.memory.refuse(needed)
            capacity //= 2
        return [by_sequence[keys[i]] for i in sorted_], steps, capacity, slots

    def rows(self, step: Step) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
        """A step's rows as `hidden_branches` takes them, and their shape: a row for each device of the batch axes."""
        shape = (self.ways, power(max(len(row.tokens) for row in step.rows), 64))
        rows = {name: np.zeros(shape, np.int32) for name in ("tokens", "positions", "ends", "seen")}
        rows["ends"][:] = np.arange(1, shape[1] + 1)  # padding sees itself
        for number, row in enumerate(step.rows):
            for name, array in rows.items():
                array[number, : len(row.tokens)] = getattr(row, name)
        self.tokens_forwarded += shape[0] * shape[1]
        return rows, shape

    def fitting_rows(self, count: int, slots: int) -> int:
        """How many rows of `slots` slots are generated at a time: `count`, or so many that half of memory is left, and
        what the smallest step needs."""
        size = -(-power(count, 1) // self.ways) * self.ways
        least = self.memory.needed(64, power(slots + 64, KEY_BLOCK))
        most = min(self.memory.budget / 2, self.memory.budget - least)
        while size > self.ways and self.held(size, slots) > most:
            size = max(self.ways, size // 2 // self.ways * self.ways)
        return size

    def held(self, rows: int, slots: int) -> int:
        """Bytes of a cache on each device, and of the rows that `generate.verify` copies."""
        return (rows + min(rows, generate.DRAFT_ROWS)) * slots // self.ways * self.memory.slot

    def _place(self, model: LoadedModel) -> Any:
        """The weights on the mesh, those of matrix products in the compute dtype so that no step casts them again."""

        def place(path, leaf, where):
            dtype = leaf.dtype if path_of(path).endswith(("norm", "bias")) else self.dtype
            if isinstance(leaf, jax.ShapeDtypeStruct):  # of a plan
                return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=where)
            return jax.device_put(leaf, where).astype(dtype)

        places = shardings(model.params, model.family.SHARDING, self.mesh)
        return jax.tree_util.tree_map_with_path(place, model.params, places)


def _mesh_of(params: object) -> Mesh:
    sharding = jax.tree.leaves(params)[0].sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) else make_mesh()


def _without_sequence_axis(mesh: Mesh) -> Mesh:
    """The same devices with the sequence axis joined to data: one position at a time cannot be split."""
    devices = mesh.devices.transpose(0, 2, 1, 3)
    shape = (mesh.shape["data"] * mesh.shape["sequence"], mesh.shape["fsdp"], 1, mesh.shape["tensor"])
    return Mesh(devices.reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))
