"""How much of a device's memory caches and activations may take, and what batches need of it."""

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from imitation_jax.inference import generate, score
from imitation_jax.models import decoder, kv_cache

GIB = 2**30


class Memory:
    """The budget of a device beside the weights, and the sizes of what is held there, all in bytes.

    Attributes:
      budget: what caches and activations may take.
      slot: of one token's keys and values.
    """

    def __init__(self, config: Any, params: Any, dtype: Any, mesh: Mesh, batch_size: int, gib: float):
        """Args:
        config, params: the model.
        dtype: of the computation.
        batch_size: rows that are generated at a time.
        gib: the budget; 0 for half of what an accelerator has left, or a quarter of a machine's memory on its CPU.
        """
        tensor = mesh.shape["tensor"]
        cache = jax.eval_shape(lambda: kv_cache.init_cache(config, 1, 1, dtype))
        self.budget = gib * GIB or _available(mesh)
        self.slot = sum(map(_size, jax.tree.leaves(cache))) // tensor
        # Of a step's token: what the matrices of a layer return, twice in float32, and keys and values, thrice.
        weights = sum(leaf.size // leaf.shape[0] for leaf in jax.tree.leaves(params["layers"]))
        self._token = 8 * weights // config.hidden_size + 3 * self.slot
        # Of logits: three times a chunk's when scoring, six times the rows' when drawing.
        drawn = max(power(batch_size, 1), generate.DRAFT_ROWS * generate.DRAFT_LENGTH)
        self._fixed = 4 * max(3 * score.CHUNK, 6 * drawn) * config.vocab_size
        if mesh.shape["fsdp"] > 1:
            # Weights that a device gathers to use them: two layers and the embedding.
            layer = sum(_size(leaf) // leaf.shape[0] for leaf in jax.tree.leaves(params["layers"]))
            self._fixed += (2 * layer + _size(decoder.unembedding(params))) // tensor

    def needed(self, capacity: int, slots: int) -> int:
        """Of steps of `capacity` tokens a row and a cache of `slots` slots."""
        return slots * self.slot + capacity * self._token + self._fixed

    def refuse(self, needed: float) -> None:
        """Raises ValueError: the smallest batch needs so much."""
        raise ValueError(
            f"memory: the smallest batch needs {needed / GIB:.2f} GiB beside the weights and there are "
            f"{self.budget / GIB:.2f} (memory_gib); shorten the longest prompt, or give more memory or devices"
        )


def _size(leaf: Any) -> int:
    return leaf.size * leaf.dtype.itemsize


def _available(mesh: Mesh) -> float:
    stats = mesh.local_devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        available = (stats["bytes_limit"] - stats["bytes_in_use"]) / 2
    else:  # what is free now would count the disk's cache as taken
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 4 / len(mesh.local_devices)
    # Hosts must come to the same plan.
    return float(np.min(multihost_utils.process_allgather(np.float32(available))))


def power(count: int, least: int) -> int:
    """The smallest power of two times `least` that is `count` or more."""
    return least << max(0, (-(-count // least) - 1).bit_length())
