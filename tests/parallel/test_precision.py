import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from imitation_jax.parallel.precision import compute_dtype

COMPILE = """
import pathlib, sys
import jax
from imitation_jax.parallel.precision import configure_jax
configure_jax(pathlib.Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((8, 8)))
print(len(hits) > 0)
"""


def test_a_second_start_compiles_nothing(tmp_path):
    # In processes of their own: the cache is a setting of the whole process.
    def hits():
        return subprocess.run(
            [sys.executable, "-c", COMPILE, tmp_path],
            env=os.environ | {"XLA_FLAGS": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    assert hits() == "False"
    assert list((tmp_path / "xla").iterdir())
    assert hits() == "True"


def test_compute_dtype():
    assert compute_dtype("float32") == jnp.float32
    assert compute_dtype("bfloat16") == jnp.bfloat16
    assert compute_dtype("auto") == jnp.float32  # the tests run on CPU


def test_another_dtype_is_one_line():
    with pytest.raises(ValueError, match="^dtype='fp16' is none of auto, float32, bfloat16$"):
        compute_dtype("fp16")
