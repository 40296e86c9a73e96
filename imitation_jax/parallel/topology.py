"""Devices of TPU slices that are not there: libtpu knows them by name, and compiles for them on any Linux machine."""

import contextlib
import importlib.util
import os
import re

import jax
from jax.experimental import topologies

# Name -> what libtpu calls it, dimensions of its torus, and settings. A v4 chip is one device ("megacore").
KINDS: dict[str, tuple[str, int, dict[str, str]]] = {
    "v4": ("v4", 3, {"chip_config_name": "megacore"}),
    "v5e": ("v5e", 2, {}),
    "v5": ("v5p", 3, {}),
    "v5p": ("v5p", 3, {}),
    "v6e": ("v6e", 2, {}),
    "tpu7x": ("tpu7x", 3, {}),
}
# libtpu asks a TPU VM's metadata server for these, and complains at length where there is none.
QUIET = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def plan_only() -> None:
    """Makes this process one that only compiles for accelerators and computes on the host; before jax does anything."""
    jax.config.update("jax_platforms", "cpu")
    # A program that came from jax's own cache cannot always be saved again.
    jax.config.update("jax_enable_compilation_cache", False)
    _quiet()  # libtpu may come in with the first backend


def topology_devices(name: str) -> list[jax.Device]:
    """The devices of a slice, for meshes to compile for.

    Args:
      name: `v5e:8x8` (kind and chips along each dimension of the torus), `2*v5e:8x8` for several slices over the
        data-centre network, or `cpu:8`, this machine's own processor as 8 devices, on which programs run as well.

    Raises:
      ValueError: a name that is malformed or that libtpu does not know.
      OSError: libtpu is not installed, or refuses to start.
    """
    if found := re.fullmatch(r"cpu:([1-9]\d*)", name):
        return _host_devices(int(found[1]), name)
    found = re.fullmatch(r"(?:([1-9]\d*)\*)?(\w+):([1-9]\d*(?:x[1-9]\d*)*)", name)
    if not found:
        raise ValueError(f"topology {name!r}: write KIND:AxB, as v5e:8x8 or v4:4x4x4, 2*v5e:8x8 or cpu:8")
    slices, kind, shape = int(found[1] or 1), found[2], found[3]
    if kind not in KINDS:
        raise ValueError(f"topology {name!r}: unknown kind {kind!r}; there are {', '.join(KINDS)} and cpu")
    theirs, dimensions, settings = KINDS[kind]
    if shape.count("x") + 1 != dimensions:
        raise ValueError(f"topology {name!r}: {kind} slices have {dimensions} dimensions, as {kind}:{_example(kind)}")
    if not importlib.util.find_spec("libtpu") and "TPU_LIBRARY_PATH" not in os.environ:
        raise OSError(f"topology {name!r}: needs the TPU compiler; pip install 'imitation_jax[tpu]' (Linux)")
    _quiet()
    several = {"num_slices": slices} if slices > 1 else {}
    try:
        described = topologies.get_topology_desc(f"{theirs}:{shape}", "tpu", **settings, **several)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if reason.startswith("INVALID_ARGUMENT"):
            raise ValueError(f"topology {name!r}: libtpu has no such slice ({reason})") from None
        raise OSError(f"topology {name!r}: libtpu cannot be used ({reason})") from None
    return described.devices


def _quiet() -> None:
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)


def _example(kind: str) -> str:
    return "x".join(["4"] * KINDS[kind][1])


def _host_devices(count: int, name: str) -> list[jax.Device]:
    if "--xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # jax has begun, and what it has is counted below
            jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ValueError(
            f"topology {name!r}: this process has {len(devices)} host devices; "
            f"set XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
    return devices[:count]
