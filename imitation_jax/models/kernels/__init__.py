"""Kernels: what a platform computes in a faster way of its own than the plain program that XLA compiles everywhere.

To add one: a module in this folder with one or more of the functions of xla.py, with their arguments and results; what
it lacks is taken from there. Where it does not work on every mesh, `takes(mesh)` says on which. A line in `PLATFORMS`
makes it what "auto" means on its platform; without one, `--config.attention=NAME` chooses it.
tests/models/test_kernels.py holds each against xla.py, values and gradients.
"""

import importlib
import pkgutil
from collections.abc import Callable

import jax

from imitation_jax.models.kernels import xla
from imitation_jax.parallel.sharding import platform

PLATFORMS = {"tpu": "splash", "gpu": "triton", "cpu": "cpu"}
KERNELS = ("auto", *sorted(module.name for module in pkgutil.iter_modules(__path__)))


def function(name: str, kernel: str = "auto") -> Callable:
    """A kernel's function, or that of xla.py where the kernel has none.

    Args:
      name: one that xla.py has.
      kernel: of `KERNELS`; "auto" is the platform's where that takes the mesh of `jax.set_mesh`, else "xla".

    Raises:
      ValueError: a kernel asked for by name does not take the mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    # Imported late: Pallas takes a while.
    module = importlib.import_module(f"{__name__}.{PLATFORMS[platform()] if kernel == 'auto' else kernel}")
    if hasattr(module, "takes") and not module.takes(mesh):
        if kernel != "auto":
            cut = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1)
            raise ValueError(f"attention={kernel}: does not work on a mesh of {cut}; use attention=xla")
        module = xla
    return getattr(module, name, getattr(xla, name))
