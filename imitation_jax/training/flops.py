"""Analytic training FLOPs and the devices' peak rates, for model FLOPs utilisation (MFU)."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from imitation_jax.parallel.chips import chip_of


def training_flops_per_token(config: Any, seq_len: int) -> float:
    """FLOPs of forward and backward a position: 6 a matrix weight, 12 L S H K for attention (PaLM, appendix B).

    Recomputation is not counted, as in MFU; the embedding look-up is free and the unembedding is a matrix.
    """
    L, H, K = config.num_hidden_layers, config.num_attention_heads, config.head_dim
    return 6.0 * config.matrix_weights + 12.0 * L * seq_len * H * K


@functools.cache
def peak_flops(device_kind: str) -> float:
    """FLOP/s of one device: the table's; of a CPU its float32 matrix-product rate, measured in ~0.3 s; else NaN."""
    if chip := chip_of(device_kind):
        return chip.flops / chip.devices
    if device_kind != "cpu":
        return float("nan")
    x = jnp.ones((2048, 2048), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    start = time.perf_counter()
    for _ in range(3):
        product(x, x).block_until_ready()
    # Host devices that XLA was told to split one CPU into share its rate.
    return 3 * 2 * 2048**3 / (time.perf_counter() - start) / jax.local_device_count()
