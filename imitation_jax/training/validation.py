"""The validation loss: the training loss, over dialogues that are not trained on."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from imitation_jax.core.progress import progress
from imitation_jax.data.input.stream import Stream
from imitation_jax.models.loaded_model import LoadedModel
from imitation_jax.parallel import distributed
from imitation_jax.parallel.global_batch import global_batch
from imitation_jax.parallel.precision import matmul_precision
from imitation_jax.training.step import loss_sums


def make_validation(
    model: LoadedModel, stream: Stream, *, dtype: Any, kernel: str = "auto", chunk: int, mesh: Mesh
) -> Callable:
    """An evaluator of the loss and accuracy over every loss-bearing token of the stream's one epoch."""

    @jax.jit
    def sums(params, batch):
        with matmul_precision(dtype):
            loss, correct = loss_sums(
                model.config, params, batch, dtype=dtype, remat="none", kernel=kernel, chunk=chunk
            )
        return jnp.stack([loss, correct, jnp.sum(batch["loss_mask"])])

    def evaluate(current: LoadedModel, step: int) -> tuple[dict[str, float], dict[str, str]]:
        total = np.zeros(3)
        for local in progress(stream.iterator(), total=stream.total_steps, desc="validation", unit="batch"):
            distributed.heartbeat(f"validation at step {step}")
            total += np.asarray(sums(current.params, global_batch(local, mesh)), np.float64)
        return {"validation_loss": total[0] / total[2], "validation_accuracy": total[1] / total[2]}, {}

    return evaluate
