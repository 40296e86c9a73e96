"""The validation loss: the training loss, over dialogues that are not trained on."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from imitation_jax.data.stream import Stream
from imitation_jax.models.load import LoadedModel
from imitation_jax.parallel.sharding import BATCH
from imitation_jax.parallel.start import matmul_precision
from imitation_jax.progress import progress
from imitation_jax.training.step import loss_sums


def make_validation(
    model: LoadedModel, stream: Stream, *, dtype: Any, kernel: str = "auto", chunk: int, mesh: Mesh
) -> Callable:
    """An evaluator of the loss and accuracy over every loss-bearing token of the stream's one epoch."""

    sharding = NamedSharding(mesh, BATCH)

    @jax.jit
    def sums(params, batch):
        with matmul_precision(dtype):
            loss, correct = loss_sums(
                model.family, model.config, params, batch, dtype=dtype, remat="none", kernel=kernel, chunk=chunk
            )
        return jnp.stack([loss, correct, jnp.sum(batch["loss_mask"])])

    def batches() -> Iterator[dict[str, jax.Array]]:
        for local in stream.iterator():
            yield jax.tree.map(functools.partial(jax.make_array_from_process_local_data, sharding), local)

    def evaluate(current: LoadedModel, step: int) -> tuple[dict[str, float], dict[str, str]]:
        del step
        total = np.zeros(3)
        for batch in progress(batches(), total=stream.total_steps, desc="validation", unit="batch"):
            total += np.asarray(sums(current.params, batch), np.float64)
        return {"validation_loss": total[0] / total[2], "validation_accuracy": total[1] / total[2]}, {}

    return evaluate
