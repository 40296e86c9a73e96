"""How long a program takes at least, and what binds it: its products, its memory traffic or its links.

Each part alone, as if the others were hidden behind it; the longest is the bound (Williams et al. 2009, "Roofline").
Legend: D model, H query heads, N key/value heads, K head size, F feed-forward, V vocabulary, L layers.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from imitation_jax.parallel.chips import Chip
from imitation_jax.planning.collectives import Collective
from imitation_jax.training.flops import training_flops_per_token

# float32 products, at the precision that parallel/precision.py sets, are 6 of bfloat16 on a TPU ("highest", bf16_6x).
PASSES = {"bfloat16": 1, "float32": 6}
# AdamW reads weight, gradient and two moments, and writes weight and moments, float32 each.
UPDATE_BYTES = 4 * 4 + 3 * 4


@dataclasses.dataclass(frozen=True)
class Work:
    """What one run of a program does on each device.

    Attributes:
      flops: of its products, recomputation included.
      useful: without it, as MFU counts.
      hbm: bytes that it reads and writes.
      passes: products of bfloat16 that one product takes.
    """

    flops: float
    useful: float
    hbm: float
    passes: int


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of a run by part, and the bound that follows.

    Attributes:
      links: by the axes of the collectives.
      seconds: the longest part.
      binds: which it is: "products", "memory" or "links".
      mfu: the most model FLOPs utilisation that this allows.
    """

    products: float
    memory: float
    links: dict[str, float]
    seconds: float
    binds: str
    mfu: float


def roofline(work: Work, sent: Sequence[Collective], mesh: Mesh, chip: Chip) -> Roofline:
    """The bound of a program on a mesh of devices of one chip.

    products = FLOPs x passes / peak, memory = bytes / HBM bandwidth, links = sum over the axes of bytes sent /
    bandwidth of the links that the axis has (`axis_bandwidth`).
    """
    peak = chip.flops / chip.devices
    products = work.flops * work.passes / peak
    memory = work.hbm / (chip.hbm_bandwidth / chip.devices)
    links: dict[str, float] = {}
    for one in sent:
        links[one.axes] = links.get(one.axes, 0.0) + one.sent / axis_bandwidth(mesh, one.axes.split("+"), chip)
    parts = {"products": products, "memory": memory, "links": sum(links.values())}
    binds = max(parts, key=parts.__getitem__)
    return Roofline(products, memory, links, parts[binds], binds, work.useful / (parts[binds] * peak))


def axis_bandwidth(mesh: Mesh, axes: Sequence[str], chip: Chip) -> float:
    """Bytes/s that a device can send to the others that lie along some axes of a mesh.

    The links of the dimensions of the torus along which these devices differ: both of a dimension that they cover
    where it is closed to a ring, else one, since at the end of a line there is no other. Between slices it is the
    data-centre network's.
    """
    varied = tuple(name in axes for name in mesh.axis_names)
    group = mesh.devices[tuple(slice(None) if free else 0 for free in varied)].ravel()
    if len({getattr(device, "slice_index", None) for device in group}) > 1:
        return chip.network_bandwidth / chip.devices
    everywhere = np.array([device.coords for device in mesh.devices.flat])
    here = np.array([device.coords for device in group])
    size = everywhere.max(axis=0) - everywhere.min(axis=0) + 1
    links = 0
    for dimension, length in enumerate(size):
        covered = len(set(here[:, dimension]))
        if covered > 1:
            links += 2 if covered == length and _closed(size, dimension, chip) else 1
    # Two devices of one chip have no link between them, and reach each other as fast as all links together.
    return (links or chip.links) * chip.link_bandwidth / chip.devices


def _closed(size: np.ndarray, dimension: int, chip: Chip) -> bool:
    """Whether a dimension is a ring: of 3D slices made of whole 4 x 4 x 4 cubes all, of 2D slices one of 16 chips."""
    if chip.links == 6:
        return all(length % 4 == 0 for length in size)
    return size[dimension] == 16


# ----------------------------------------------------------------------------------------------------------------------
# What the programs do
# ----------------------------------------------------------------------------------------------------------------------


def train_work(config: Any, model: Any, mesh: Mapping[str, int], itemsize: int) -> Work:
    """A train step.

    FLOPs: those of `training_flops_per_token`; recomputing the layers adds their forward pass, a third of that without
    the unembedding, which is never recomputed ("dots" adds the attention alone).

    Bytes, in the compute dtype but for the update: of each microbatch, the weights once for each pass (forward,
    recomputed, backward), and where fsdp gathers them written once more; their gradients written and read; of each
    position what the products read and write, once for each pass and twice in the backward; and the update.

    Args:
      config: the training config.
      model: the model's config.
      mesh: sizes by axis.
      itemsize: bytes of the compute dtype.
    """
    tokens = config.batch_size * config.data.seq_len / math.prod(mesh.values())
    useful = training_flops_per_token(model, config.data.seq_len)
    attention = useful - training_flops_per_token(model, 0)
    unembedding = 6.0 * model.vocab_size * model.hidden_size
    again = {"none": 0.0, "dots": attention / 3}.get(config.remat, (useful - unembedding) / 3)
    recomputed = config.remat not in ("none", "dots")
    weights = model.matrix_weights / mesh["tensor"]
    moved = weights * itemsize * (2 if mesh["fsdp"] > 1 else 1)
    micro = moved * (2 + recomputed) + 2 * weights * itemsize
    activations = _traffic(model, mesh["tensor"]) * tokens * mesh["tensor"] * itemsize * (3 + recomputed)
    held = model.matrix_weights / (mesh["fsdp"] * mesh["tensor"])
    hbm = config.accumulation * micro + activations + UPDATE_BYTES * held
    return Work(tokens * (useful + again), tokens * useful, hbm, 1 if itemsize == 2 else PASSES["float32"])


def forward_work(model: Any, positions: int, seen: int, mesh: Mapping[str, int], dtype: str, cache: int) -> Work:
    """A step that only reads: scoring, or the next token of each row.

    FLOPs: 2 a matrix weight and 4 L H K for each key that a position sees. Bytes: the weights, written once more where
    fsdp gathers them, what the products read and write, and the cache.

    Args:
      positions: computed over all devices.
      seen: keys that one sees.
      cache: its bytes on a device.
    """
    itemsize = np.dtype(jax.numpy.dtype(dtype)).itemsize
    tokens = positions / math.prod(mesh.values())
    attention = 4.0 * model.num_hidden_layers * model.num_attention_heads * model.head_dim * seen
    flops = tokens * (2.0 * model.matrix_weights + attention)
    weights = model.matrix_weights / mesh["tensor"] * itemsize * (2 if mesh["fsdp"] > 1 else 1)
    hbm = weights + _traffic(model, mesh["tensor"]) * tokens * mesh["tensor"] * itemsize + cache
    return Work(flops, flops, hbm, PASSES[dtype])


def _traffic(model: Any, tensor: int) -> float:
    """Numbers that a device's products of all layers read and write a position: q, k, v; attention; o; and the MLP's.

    All devices of a tensor axis have the whole of D and a share of the heads and of the MLP, whose inner width is what
    its weights leave, so that two matrices (GPT-2) and three (SwiGLU) count as they are.
    """
    D, L = model.hidden_size, model.num_hidden_layers
    q, kv = (heads * model.head_dim for heads in (model.num_attention_heads, model.num_key_value_heads))
    inner = (model.matrix_weights - model.vocab_size * D) / L / D - 2 * q - 2 * kv  # sum of the MLP's inner widths
    shared = (q + 2 * kv) + (q + 2 * kv + q) + q + inner
    return L * (4 * D + shared / tensor)
