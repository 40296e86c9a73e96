"""The dtype of a computation, the precision of its products, and the settings of JAX that every command begins with."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


def configure_jax(cache_dir: Path, several: bool = False) -> None:
    """Keeps programs that took over a second to compile in `cache_dir`/xla, and makes float32 mean float32.

    Accelerators multiply float32 in TF32 or bfloat16 unless told otherwise; bfloat16 inputs are not affected.

    Args:
      several: the command works on several processes, see `distributed.initialize`.

    Raises:
      ValueError: there are several processes, and the command works on one.
    """
    if not several and jax.process_count() > 1:
        raise ValueError(f"{jax.process_count()} processes: this command works on one, train and evaluate on several")
    jax.config.update("jax_default_matmul_precision", "highest")
    jax.config.update("jax_compilation_cache_dir", str(cache_dir / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


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
    """What a program that computes in `dtype` is traced under: what `configure_jax` sets, which bfloat16 does not need.

    TPU kernels refuse it: their bfloat16 products are exact as they are.
    """
    return jax.default_matmul_precision("highest" if jnp.dtype(dtype) == jnp.float32 else "default")
