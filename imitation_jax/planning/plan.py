"""The plan of a config on a slice: does it fit, what does it move, how long does it take, what does it cost."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from imitation_jax.models import load
from imitation_jax.parallel.chips import GIB
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.topology import topology_devices
from imitation_jax.planning import programs, store
from imitation_jax.planning.length import Length, run_length
from imitation_jax.planning.programs import PROGRAMS, Lowered
from imitation_jax.training.config import check_step
from imitation_jax.training.initial import check_length


@dataclasses.dataclass(frozen=True)
class Setting:
    """A config with what it names, on a slice."""

    config: ConfigDict
    family: ModuleType
    model_config: Any
    topology: str
    devices: list[jax.Device]
    mesh: Mesh
    length: Length

    def lower(self, name: str, limit_gib: float) -> Lowered:
        """One of `PROGRAMS`."""
        if name == "train":
            return programs.lower_train(self.config, self.family, self.model_config, self.mesh, self.length.steps)
        longest = min(self.config.data.seq_len, self.model_config.max_position_embeddings)
        runner = programs.make_runner(self.family, self.model_config, self.devices, limit_gib)
        return (programs.lower_score if name == "score" else programs.lower_generate)(runner, longest)


def make_setting(config: ConfigDict, topology: str = "") -> Setting:
    """What is to be planned, checked.

    Args:
      topology: as `topology_devices` takes it; "" is the config's own.

    Raises:
      ValueError, ImportError: one line with the key or flag that is wrong.
    """
    topology = topology or config.plan.topology
    if not topology:
        raise ValueError("--topology is required where the config has no plan.topology; as --topology=v5e:8x8")
    presets = {name: (family, cfg) for family in load.FAMILIES.values() for name, cfg in family.PRESETS.items()}
    if config.model.preset not in presets:
        raise ValueError(f"model.preset={config.model.preset!r} is none of {', '.join(presets)}")
    family, model_config = presets[config.model.preset]
    devices = topology_devices(topology)
    mesh = make_mesh(config.mesh, devices)
    check_step(config, mesh)
    check_length(model_config, config)
    return Setting(config, family, model_config, topology, devices, mesh, run_length(config))


def plan(
    setting: Setting, cache_dir: Path, names: Sequence[str] = PROGRAMS, save: bool = False, dollars: float = 0.0
) -> dict[str, Any]:
    """Compiles the programs and says what came of it, as JSON has it: see `README`.

    Args:
      cache_dir: what is compiled already is found there.
      names: of `PROGRAMS`.
      save: keep the train step's executable.
      dollars: of a chip hour; 0 for the list price.

    Raises:
      ValueError: a mesh that does not divide a parameter, or a sequence that does not fit the memory.
      RuntimeError: the compiler fails for another reason than memory.
    """
    limit = store.limit_gib(setting.mesh)
    found = {}
    for name in names:
        lowered = setting.lower(name, limit)
        compiled = store.compile_once(lowered, cache_dir, save and name == "train")
        gib = compiled.peak / GIB
        logging.info("%s %s: %.2f GiB of %.2f, %.0f s", setting.config.model.preset, name, gib, limit, compiled.seconds)
        found[name] = {
            "fits": compiled.fits,
            "hbm_gib": gib,
            "shape": lowered.shape,
            "holds_gib": {what: size / GIB for what, size in lowered.holds.items()},
            "compile_seconds": compiled.seconds,
        }
    return {
        "config": setting.config.model.preset,
        "topology": setting.topology,
        "limit_gib": limit,
        "fits": all(program["fits"] for program in found.values()),
        "hbm_gib": max(program["hbm_gib"] for program in found.values()),
        "programs": found,
    }
