"""Compiled programs, kept in the cache folder by what they were compiled from.

`plan` compiles a program once and keeps what the compiler said of it, so that an interrupted `plan --all` goes on; with
--save it keeps the executable too, which `train` loads instead of compiling.
"""

import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import os
import pickle
import re
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jax.experimental import serialize_executable
from jax.sharding import Mesh

from imitation_jax.core.files import cache_dir, write_bytes
from imitation_jax.parallel.sharding import replicated

# What the compiler reads beside the program.
SETTINGS = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler said of a program for a slice; bytes are those of one device.

    Attributes:
      peak: the most memory that is in use at a time, arguments and outputs included.
      arguments: of them.
      seconds: of compiling.
      module: the compiled module as text; empty where the program does not fit.
      fits: whether the compiler found room for it.
    """

    peak: int
    arguments: int
    seconds: float
    module: str
    fits: bool


def key(lowered: jax.stages.Lowered, mesh: Mesh) -> str:
    """A name that another program, another slice, another compiler or other settings of it do not have."""
    device = mesh.devices.flat[0]
    compiler = "libtpu" if device.platform == "tpu" else "jaxlib"
    versions = [jax.__version__, importlib.metadata.version(compiler)]
    places = [
        (getattr(d, "coords", d.id), getattr(d, "core_on_chip", 0), getattr(d, "slice_index", 0) or 0)
        for d in mesh.devices.flat
    ]
    # How many devices a host makes of itself is in the mesh already.
    settings = [re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get(s, "")) for s in SETTINGS]
    about = repr((device.device_kind, places, versions, [sorted(text.split()) for text in settings]))
    return hashlib.sha256((lowered.as_text() + about).encode()).hexdigest()[:32]


def compile_once(lowered: jax.stages.Lowered, mesh: Mesh, held: int, folder: Path, save: bool = False) -> Compiled:
    """Compiles a program unless `folder` has what came of it; the process may be killed at any time.

    Args:
      held: bytes of the arguments on a device, which a compiler that finds no room does not tell.
      folder: the cache.
      save: keep the executable too, for `load`.

    Raises:
      RuntimeError: the compiler fails for another reason than memory.
    """
    place = _entry(folder, lowered, mesh)
    facts_file, module_file, executable = place / "facts.json", place / "module.txt.gz", place / "executable"
    if facts_file.exists():
        kept = json.loads(facts_file.read_text())
        if executable.exists() or not (save and kept["fits"]):
            return Compiled(**kept, module=gzip.decompress(module_file.read_bytes()).decode())
    start, module = time.monotonic(), ""
    try:
        compiled = lowered.compile()
        stats, module = compiled.memory_analysis(), compiled.as_text()
        facts = {"peak": _peak(stats), "arguments": stats.argument_size_in_bytes, "fits": True}
        if save:
            write_bytes(executable, pickle.dumps(serialize_executable.serialize(compiled)))
            logging.info("saved %s", executable)
    except jax.errors.JaxRuntimeError as error:
        facts = {"peak": out_of_memory(str(error))[0], "arguments": held, "fits": False}
    facts["seconds"] = round(time.monotonic() - start, 1)
    write_bytes(module_file, gzip.compress(module.encode(), 5))
    write_bytes(facts_file, json.dumps(facts).encode())  # the last: with it the entry is whole
    return Compiled(**facts, module=module)


def load(step: Any, arguments: tuple, mesh: Mesh) -> Any:
    """The jitted `step` as `plan --save` compiled it for these arguments; where nothing is saved, `step` itself.

    Args:
      step: jitted.
      arguments: what it will be called with, as ShapeDtypeStructs with shardings.
    """
    folder = cache_dir()
    if not any(folder.glob("plans/*/executable")):
        return step
    lowered = step.lower(*arguments)
    try:
        path = _entry(folder, lowered, mesh) / "executable"
        saved = pickle.loads(path.read_bytes())
        devices = list(mesh.devices.flat)
        loaded = serialize_executable.deserialize_and_load(*saved, devices[0].client, devices)
    except FileNotFoundError:
        logging.info("%s/plans: no executable there is of this train step; it is compiled", folder)
        return lowered.compile()
    except Exception as error:  # of another machine, or damaged, or the compiler's version cannot be told
        why = str(error).partition("\n")[0]
        logging.warning("%s/plans: what is saved there cannot be loaded (%s); the train step is compiled", folder, why)
        return lowered.compile()
    logging.info("the train step is loaded from %s", path)
    return loaded


def _entry(folder: Path, lowered: jax.stages.Lowered, mesh: Mesh) -> Path:
    return folder / "plans" / key(lowered, mesh)


def _peak(stats: object) -> int:
    """The heap's peak as the compiler laid it out.

    Not arguments + temporaries + outputs - aliased: the "temporaries" count buffers in other memories than HBM as well,
    and memory that outputs use after arguments (as on v5e: 1.22 GiB where 0.92 are allocated). CPUs only have that.
    """
    allocated = max(getattr(stats, "total_allocation_bytes", 0), stats.peak_memory_in_bytes)
    held = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return allocated or held + stats.temp_size_in_bytes


def out_of_memory(message: str) -> tuple[int, int]:
    """Bytes that a program needs and bytes that a device has, from what the TPU compiler says of one that is too large.

    Raises:
      RuntimeError: it says something else.
    """
    sizes = re.search(r"Used ([\d.]+)([KMGTP]?) of ([\d.]+)([KMGTP]?) hbm", message)
    sizes = sizes or re.search(r"\(([\d.]+)([KMGTP]?)\) exceeds available HBM \(([\d.]+)([KMGTP]?)", message)
    if not sizes:
        raise RuntimeError(f"the compiler failed: {message.strip().partition(chr(10))[0][:300]}")
    return round(float(sizes[1]) * UNITS[sizes[2]]), round(float(sizes[3]) * UNITS[sizes[4]])


def limit_gib(mesh: Mesh) -> float:
    """Memory of a device that programs may use: of a TPU as its compiler says, else a share of the host's."""
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / UNITS["G"] / mesh.size
    too_large = jax.ShapeDtypeStruct((2**10, 2**30), jnp.float32, sharding=replicated(mesh))
    try:
        jax.jit(lambda x: x[::2]).lower(too_large).compile()
    except jax.errors.JaxRuntimeError as error:
        return out_of_memory(str(error))[1] / UNITS["G"]
    raise RuntimeError(f"{device.device_kind}: the compiler found room for 4 TiB")
