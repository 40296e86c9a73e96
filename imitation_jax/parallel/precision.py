"""The dtype of a computation, and the precision of its products."""

from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp


def compute_dtype(name: str, platform: str = "") -> Any:
    """The dtype that `name` means on a platform, where jax runs unless given.

    "auto" is bfloat16 where the hardware multiplies it, else float32.

    Raises:
      ValueError: another name.
    """
    if name == "auto":
        name = "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"dtype={name!r} is none of auto, float32, bfloat16")
    return jnp.dtype(name)


def matmul_precision(dtype: Any) -> AbstractContextManager:
    """What a program that computes in `dtype` is traced under: `start`'s precision, which bfloat16 does not need.

    TPU kernels refuse it: their bfloat16 products are exact as they are.
    """
    return jax.default_matmul_precision("highest" if jnp.dtype(dtype) == jnp.float32 else "default")
