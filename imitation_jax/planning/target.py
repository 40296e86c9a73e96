"""What is planned: a training config on a slice of TPUs or another machine."""

import dataclasses
from types import ModuleType
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from imitation_jax.models import families
from imitation_jax.parallel.chips import Chip, chip_of
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.topology import topology_devices
from imitation_jax.planning import programs
from imitation_jax.planning.programs import Lowered
from imitation_jax.training.config import check_step
from imitation_jax.training.initial import check_length


@dataclasses.dataclass(frozen=True)
class Target:
    """A config with what it names, on a slice."""

    config: ConfigDict
    family: ModuleType
    model_config: Any
    topology: str
    devices: list[jax.Device]
    mesh: Mesh

    @property
    def chip(self) -> Chip | None:
        """None of a host's own devices."""
        return chip_of(self.devices[0].device_kind)

    def lower(self, name: str, steps: int, limit_gib: float) -> Lowered:
        """One of `programs.PROGRAMS`, for a run of so many steps, where a device has so much memory.

        Raises:
          ValueError: a mesh that does not divide a parameter.
          TooLarge: the weights alone, or with the smallest batch of `evaluate`.
        """
        if name == "train":
            return programs.lower_train(self.config, self.family, self.model_config, self.mesh, steps)
        lower = programs.lower_score if name == "score" else programs.lower_generate
        return lower(self.family, self.model_config, self.mesh, limit_gib, self.longest)

    @property
    def longest(self) -> int:
        """Tokens of the longest text that is scored or written: those of a row."""
        return min(self.config.data.seq_len, self.model_config.max_position_embeddings)


def make_target(config: ConfigDict, topology: str = "") -> Target:
    """What is to be planned, checked.

    Args:
      topology: as `topology_devices` takes it; "" is the config's own.

    Raises:
      ValueError, OSError: one line with the key or flag that is wrong.
    """
    topology = topology or config.plan.topology
    if not topology:
        raise ValueError("--topology is required where the config has no plan.topology; as --topology=v5e:8x8")
    family, model_config = families.preset(config.model.preset)
    check_length(model_config, config)
    devices = topology_devices(topology)
    mesh = make_mesh(config.mesh, devices)
    check_step(config, mesh)
    return Target(config, family, model_config, topology, devices, mesh)
