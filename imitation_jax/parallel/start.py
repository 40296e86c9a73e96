"""What a process settles before it computes: its place among several, precision, caches."""

from pathlib import Path

import jax

from imitation_jax.parallel import hosts


def start(cache_dir: Path, several: bool = False) -> None:
    """Keeps programs that took over a second to compile in `cache_dir`/xla, and makes float32 mean float32.

    Accelerators multiply float32 in TF32 or bfloat16 unless told otherwise; bfloat16 inputs are not affected.

    Args:
      several: the command works on several processes, which meet here; see `hosts.join` for what it raises.

    Raises:
      ValueError: there are several processes, and the command works on one.
    """
    if several:
        hosts.join()
    elif jax.process_count() > 1:
        raise ValueError(f"{jax.process_count()} processes: this command works on one, train and evaluate on several")
    jax.config.update("jax_default_matmul_precision", "highest")
    jax.config.update("jax_compilation_cache_dir", str(cache_dir / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
