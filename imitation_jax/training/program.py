"""The train step of a config on a mesh: what `train` runs and `plan` compiles."""

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from imitation_jax.models.loaded_model import abstract_params
from imitation_jax.parallel.precision import compute_dtype
from imitation_jax.parallel.sharding import BATCH
from imitation_jax.training.optimizer import make_optimizer, make_schedule
from imitation_jax.training.step import Batch, State, abstract_state, make_train_step, state_shardings


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted step with all that it takes, as ShapeDtypeStructs with shardings."""

    step: Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]
    optimizer: optax.GradientTransformation
    state: State
    batch: Batch

    @property
    def sharding(self) -> Any:
        """Where the state lives."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)


def make_program(config: ConfigDict, family: ModuleType, model_config: Any, mesh: Mesh, total_steps: int) -> Program:
    """The step of a training config; nothing is computed, so `mesh` may be of devices that are not there.

    Raises:
      ValueError: a mesh that does not divide a parameter.
    """
    schedule = make_schedule(config.optimizer, total_steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    params = abstract_params(family, model_config, mesh)
    sharding = state_shardings(optimizer, params, mesh)
    step = make_train_step(
        model_config,
        optimizer,
        dtype=compute_dtype(config.dtype, mesh.devices.flat[0].platform),
        remat=config.remat,
        kernel=config.attention,
        chunk=config.loss_chunk,
        accumulation=config.accumulation,
        schedule=schedule,
        state_sharding=sharding,
        mesh=mesh,
    )
    kinds = dict.fromkeys(("tokens", "targets", "positions", "segment_ids"), jnp.int32) | {"loss_mask": jnp.float32}
    shape, rows = (config.batch_size, config.data.seq_len), NamedSharding(mesh, BATCH)
    batch = {name: jax.ShapeDtypeStruct(shape, kind, sharding=rows) for name, kind in kinds.items()}
    return Program(step, optimizer, abstract_state(optimizer.init, params, sharding), batch)
