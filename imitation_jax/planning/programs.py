"""What a run does on a slice, lowered for it: the train step, and the scoring and generation steps of `evaluate`."""

import dataclasses
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from imitation_jax.inference import generate, score
from imitation_jax.inference.batches import Runner
from imitation_jax.inference.memory import GIB, power
from imitation_jax.models.attention import KEY_BLOCK
from imitation_jax.models.loaded_model import LoadedModel, abstract_params
from imitation_jax.parallel import executables
from imitation_jax.training.program import make_program

PROGRAMS = ("train", "score", "generate")
# Of `evaluate`: its defaults (evaluation/config.py).
EVALUATE_BATCH, EVALUATE_DTYPE = 16, "float32"


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A program for a mesh.

    Attributes:
      holds: bytes on a device of its arguments, by what they are.
      shape: what it computes at a time, for people.
      positions: tokens that a run of it computes.
    """

    lowered: jax.stages.Lowered
    mesh: Mesh
    holds: dict[str, int]
    shape: str
    positions: int

    def compile(self, cache_dir: Path, save: bool = False) -> executables.Compiled:
        """Compiles it, once; see `executables.compile_once`."""
        return executables.compile_once(self.lowered, self.mesh, sum(self.holds.values()), cache_dir, save)


class TooLarge(Exception):
    """The weights, and what the smallest batch of `evaluate` needs beside them, take more than there is.

    Attributes:
      gib: how much, of a device.
      holds: GiB by what it is.
    """

    def __init__(self, runner: Runner, length: int):
        weights = bytes_of(runner.model[1]) / GIB
        needed = runner.memory.needed(64, power(length + 64, KEY_BLOCK)) / GIB
        super().__init__(f"{weights:.2f} GiB of weights and {needed:.2f} GiB for the smallest batch")
        self.gib, self.holds = weights + needed, {"parameters": weights, "activations": needed}


def lower_train(config: ConfigDict, family: ModuleType, model_config: Any, mesh: Mesh, total_steps: int) -> Lowered:
    """The train step.

    Raises:
      ValueError: a mesh that does not divide a parameter.
    """
    program = make_program(config, family, model_config, mesh, total_steps)
    with jax.set_mesh(mesh):
        lowered = program.step.lower(program.state, program.batch)
    holds = {
        "parameters": bytes_of(program.state["params"]),
        "optimizer": bytes_of(program.state["optimizer"]),
        "batch": bytes_of(program.batch),
    }
    rows = f"{config.batch_size} x {config.data.seq_len}"
    return Lowered(lowered, mesh, holds, rows, config.batch_size * config.data.seq_len)


def lower_score(family: ModuleType, model_config: Any, mesh: Mesh, limit_gib: float, length: int) -> Lowered:
    """A full scoring step of sequences of `length` tokens, as `evaluate` makes it where a device has so much memory.

    Raises:
      TooLarge: the smallest batch does not fit.
    """
    runner = _runner(family, model_config, mesh, limit_gib)
    keys = _sequences(runner.ways, length)
    try:
        *_, capacity, slots = runner.plan(keys, dict.fromkeys(keys, 0))
    except ValueError as error:
        raise TooLarge(runner, length) from error
    shape = (runner.ways, capacity)
    rows = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in ("tokens", "positions", "ends", "seen")}
    places = -(-math.prod(shape) // score.CHUNK) * score.CHUNK
    asked = {name: jax.ShapeDtypeStruct((places,), jnp.int32) for name in ("row", "place", "target")}
    number = jax.ShapeDtypeStruct((), jnp.int32)
    cache = _cache(runner, 1, slots)
    with jax.set_mesh(runner.mesh):
        lowered = score.score_step.lower(*runner.model, cache, rows, number, asked, number, dtype=runner.dtype)
    holds = {"parameters": bytes_of(runner.model[1]), "cache": bytes_of(cache)}
    what = f"{shape[0]} x {shape[1]}, cache 1 x {slots}"
    return Lowered(lowered, runner.mesh, holds, what, math.prod(shape))


def lower_generate(family: ModuleType, model_config: Any, mesh: Mesh, limit_gib: float, length: int) -> Lowered:
    """A step of generation: next tokens of as many texts of up to `length` tokens as `evaluate` writes at a time.

    Raises:
      TooLarge: the weights do not fit.
    """
    runner = _runner(family, model_config, mesh, limit_gib)
    slots = power(length, 128)
    count = runner.fitting_rows(runner.batch_size, slots)
    kinds = dict.fromkeys(("token", "position", "last", "seed"), jnp.int32)
    kinds |= {"done": jnp.bool_, "temperature": jnp.float32, "top_p": jnp.float32}
    rows = {name: jax.ShapeDtypeStruct((count,), kind) for name, kind in kinds.items()}
    stop_mask = jax.ShapeDtypeStruct((count, runner.model[0].vocab_size), jnp.bool_)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    cache = _cache(runner, count, slots)
    with jax.set_mesh(runner.mesh):
        lowered = generate.decode.lower(*runner.model, cache, rows, stop_mask, number, number, dtype=runner.dtype)
    holds = {"parameters": bytes_of(runner.model[1]), "cache": bytes_of(cache)}
    return Lowered(lowered, runner.mesh, holds, f"{count} x {generate.CHUNK}, cache {count} x {slots}", count)


def _runner(family: ModuleType, model_config: Any, mesh: Mesh, limit_gib: float) -> Runner:
    """What `evaluate` makes on `mesh`, else with its defaults; the weights are abstract."""
    model = LoadedModel(family, model_config, abstract_params(family, model_config, mesh), None, None)
    left = limit_gib - bytes_of(model.params) / GIB
    # Half of it, as on a device: see `memory.Memory`.
    runner = Runner(model, mesh, EVALUATE_BATCH, max(left, 1e-9) / 2, EVALUATE_DTYPE)
    if left <= 0:
        raise TooLarge(runner, 0)
    return runner


def bytes_of(tree: Any) -> int:
    """Bytes that ShapeDtypeStructs with shardings take on a device."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def _sequences(count: int, length: int) -> dict[bytes, list]:
    """Twice as many sequences as there are rows, the first half of all the same: a step after it has all rows full."""
    rows = np.zeros((2 * count, length), np.int32)
    rows[:, length // 2 :] = np.arange(2 * count)[:, None]
    return {row.tobytes(): [] for row in rows}


def _cache(runner: Runner, rows: int, slots: int) -> Any:
    """`runner.empty_cache`, where the compiler would put it."""
    with jax.set_mesh(runner.mesh):
        lowered = generate.empty_cache.lower(runner.model[0], rows, slots, runner.dtype)
    places = lowered.compile().output_shardings
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), lowered.out_info, places
    )
