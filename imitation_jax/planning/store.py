"""Compiles programs once: what the compiler said of each is kept, so that an interrupted `plan --all` goes on."""

import dataclasses
import gzip
import json
import os
import re
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath
from jax.sharding import Mesh

from imitation_jax.core.files import write_bytes, write_text
from imitation_jax.inference.memory import GIB
from imitation_jax.parallel.sharding import replicated
from imitation_jax.planning.programs import Lowered
from imitation_jax.training import executable

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


def compile_once(program: Lowered, folder: Path, save: bool = False) -> Compiled:
    """Compiles a program unless `folder` has what came of it; the folder may be killed at any time.

    Args:
      folder: of the cache.
      save: keep the executable too, for `executable.load`.

    Raises:
      RuntimeError: the compiler fails for another reason than memory.
    """
    place = executable.store(folder) / executable.key(program.lowered, program.mesh)
    facts = place / "facts.json"
    if facts.exists():
        found = json.loads(facts.read_text())
        if not (save and found["fits"]) or (place / "executable").exists():
            return Compiled(**found, module=_read_module(place))
    start, module = time.monotonic(), ""
    try:
        compiled = program.lowered.compile()
        stats, fits = compiled.memory_analysis(), True
        peak, arguments = _peak(stats), stats.argument_size_in_bytes
        module = compiled.as_text()
        if save:
            executable.save(place, compiled)
            logging.info("saved %s", place / "executable")
    except jax.errors.JaxRuntimeError as error:
        peak, _ = out_of_memory(str(error))
        fits, arguments = False, sum(program.holds.values())
    found = Compiled(peak, arguments, round(time.monotonic() - start, 1), module, fits)
    write_bytes(place / "module.txt.gz", gzip.compress(module.encode(), 5))
    said = {field.name: getattr(found, field.name) for field in dataclasses.fields(found) if field.name != "module"}
    write_text(epath.Path(facts), json.dumps(said))  # the last: with it the entry is whole
    return found


def _read_module(place: Path) -> str:
    return gzip.decompress((place / "module.txt.gz").read_bytes()).decode()


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
    found = re.search(r"Used ([\d.]+)([KMGTP]?) of ([\d.]+)([KMGTP]?) hbm", message)
    found = found or re.search(r"\(([\d.]+)([KMGTP]?)\) exceeds available HBM \(([\d.]+)([KMGTP]?)", message)
    if not found:
        raise RuntimeError(f"the compiler failed: {message.strip().partition(chr(10))[0][:300]}")
    return round(float(found[1]) * UNITS[found[2]]), round(float(found[3]) * UNITS[found[4]])


def limit_gib(mesh: Mesh) -> float:
    """Memory of a device that programs may use: of a TPU as its compiler says, else a share of the host's."""
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB / mesh.size
    too_large = jax.ShapeDtypeStruct((2**10, 2**30), jnp.float32, sharding=replicated(mesh))
    try:
        jax.jit(lambda x: x[::2]).lower(too_large).compile()
    except jax.errors.JaxRuntimeError as error:
        return out_of_memory(str(error))[1] / GIB
    raise RuntimeError(f"{device.device_kind}: the compiler found room for 4 TiB")
