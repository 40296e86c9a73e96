"""What a process does before it touches a device: the persistent compilation cache, the compute dtype it will use."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


def start(cache_dir: Path) -> None:
    """Keeps compiled programs in `cache_dir`/xla, so that a second start compiles nothing."""
    jax.config.update("jax_compilation_cache_dir", str(cache_dir / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def compute_dtype(name: str) -> Any:
    """The dtype that `name` means here: "auto" is bfloat16 where the hardware multiplies it, else float32.

    Raises:
      ValueError: another name.
    """
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"dtype={name!r} is none of auto, float32, bfloat16")
    return jnp.dtype(name)
