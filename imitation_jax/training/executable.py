"""Compiled programs by what they were compiled from: `plan` keeps them, `train` loads its own instead of compiling."""

import hashlib
import importlib.metadata
import os
import pickle
import re
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax.experimental import serialize_executable
from jax.sharding import Mesh

from imitation_jax.core.files import cache_dir, write_bytes

# What the compiler reads beside the program.
SETTINGS = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")


def store(folder: Path) -> Path:
    """The folder of compiled programs in the cache: one folder each, called by its `key`."""
    return folder / "plans"


def key(lowered: jax.stages.Lowered, mesh: Mesh) -> str:
    """A name that another program, another slice, another compiler or other settings of it do not have."""
    compiler = "libtpu" if mesh.devices.flat[0].platform == "tpu" else "jaxlib"
    versions = [jax.__version__, importlib.metadata.version(compiler)]
    places = [(getattr(d, "coords", d.id), getattr(d, "core_on_chip", 0), _slice(d)) for d in mesh.devices.flat]
    # How many devices a host makes of itself is in the mesh already.
    settings = [re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get(s, "")) for s in SETTINGS]
    kind = mesh.devices.flat[0].device_kind
    about = repr((kind, places, versions, [sorted(text.split()) for text in settings]))
    return hashlib.sha256((lowered.as_text() + about).encode()).hexdigest()[:32]


def _slice(device: jax.Device) -> int:
    return getattr(device, "slice_index", 0) or 0


def save(folder: Path, compiled: jax.stages.Compiled) -> None:
    """Writes `folder`/executable, whole or not at all."""
    write_bytes(folder / "executable", pickle.dumps(serialize_executable.serialize(compiled)))


def load(step: Any, arguments: tuple, mesh: Mesh) -> Any:
    """The jitted `step` as `plan --save` compiled it for these arguments; where nothing is saved, `step` itself.

    Args:
      step: jitted.
      arguments: what it will be called with, as ShapeDtypeStructs with shardings.
    """
    folder = store(cache_dir())
    if not any(folder.glob("*/executable")):
        return step
    lowered = step.lower(*arguments)
    try:
        path = folder / key(lowered, mesh) / "executable"
        saved = pickle.loads(path.read_bytes())
        devices = list(mesh.devices.flat)
        loaded = serialize_executable.deserialize_and_load(*saved, devices[0].client, devices)
    except FileNotFoundError:
        logging.info("%s: no executable there is of this train step; it is compiled", folder)
        return lowered.compile()
    except Exception as error:  # of another machine, or damaged, or the compiler's version cannot be told
        why = str(error).partition("\n")[0]
        logging.warning("%s: what is saved there cannot be loaded (%s); the train step is compiled", folder, why)
        return lowered.compile()
    logging.info("the train step is loaded from %s", path)
    return loaded
