"""One training step as a function of plain pytrees: loss, accumulation, update.

Legend: A accumulation steps, B rows, S positions.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from imitation_jax.models import decoder
from imitation_jax.parallel.precision import matmul_precision
from imitation_jax.parallel.sharding import replicated
from imitation_jax.training.loss import cross_entropy
from imitation_jax.training.optimizer import updates_made

Batch = dict[str, jax.Array]
State = dict[str, Any]  # "params", "optimizer"


def loss_sums(
    model_config: Any,
    params: Any,
    batch: Batch,
    *,
    dtype: Any,
    remat: str,
    kernel: str = "auto",
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """Summed loss over the loss-bearing targets of a packed batch, and how many of them are ranked first."""
    x_BSD = decoder.hidden(
        model_config,
        params,
        batch["tokens"],
        batch["positions"],
        batch["segment_ids"],
        dtype=dtype,
        remat=remat,
        kernel=kernel,
    )
    return cross_entropy(x_BSD, decoder.unembedding(params), batch["targets"], batch["loss_mask"], chunk=chunk)


def gradients(loss_fn: Callable, params: Any, batch: Batch, accumulation: int) -> tuple[Any, dict[str, jax.Array]]:
    """Gradients of sum of token losses / number of loss-bearing tokens, over the whole global batch.

    Args:
      loss_fn: (params, batch) -> (summed loss, summed correct).
      batch: arrays (B, S), B a multiple of `accumulation`.
      accumulation: into how many microbatches to cut; their sums are added in float32, so the result is the one of
        the whole batch wherever the loss-bearing tokens lie.

    Returns:
      The gradients (float32) and float32 scalars `loss`, `accuracy`, `loss_tokens`.
    """
    # A batch of padding alone has no loss; it must not divide by zero.
    loss_tokens = jnp.maximum(jnp.sum(batch["loss_mask"]), 1.0)
    grad_fn = jax.value_and_grad(lambda p, b: (lambda sums: (sums[0] / loss_tokens, sums))(loss_fn(p, b)), has_aux=True)

    if accumulation == 1:
        (_, sums), grads = grad_fn(params, batch)
    else:
        # Strided, so that every microbatch has rows of every device and none has to move.
        micro = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, accumulation, *x.shape[1:]), 1, 0), batch)

        def body(carry, micro_batch):
            grads, sums = carry
            (_, new_sums), new_grads = grad_fn(params, micro_batch)
            return (jax.tree.map(jnp.add, grads, new_grads), jax.tree.map(jnp.add, sums, new_sums)), None

        start = (jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params), (jnp.float32(0), jnp.float32(0)))
        (grads, sums), _ = jax.lax.scan(body, start, micro)
    return grads, {"loss": sums[0] / loss_tokens, "accuracy": sums[1] / loss_tokens, "loss_tokens": loss_tokens}


def make_train_step(
    model_config: Any,
    optimizer: optax.GradientTransformation,
    *,
    dtype: Any,
    remat: str,
    kernel: str = "auto",
    chunk: int,
    accumulation: int,
    schedule: optax.Schedule,
    state_sharding: Any,
    mesh: Mesh,
) -> Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]:
    """The jitted step; its state is donated.

    A step whose gradient is not finite changes nothing, the schedule's count included, and reports `skipped` 1.

    Args:
      kernel: of attention, one of `kernels.KERNELS`.
      schedule: the optimiser's, for reporting `learning_rate`.
    """

    def loss_fn(params, batch):
        return loss_sums(model_config, params, batch, dtype=dtype, remat=remat, kernel=kernel, chunk=chunk)

    def train_step(state: State, batch: Batch):
        with matmul_precision(dtype):
            grads, metrics = gradients(loss_fn, state["params"], batch, accumulation)
        grad_norm = optax.tree.norm(grads)
        updates, optimizer_state = optimizer.update(grads, state["optimizer"], state["params"])
        new = {"params": optax.apply_updates(state["params"], updates), "optimizer": optimizer_state}
        finite = jnp.isfinite(grad_norm) & jnp.isfinite(metrics["loss"])
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        metrics |= {
            "grad_norm": grad_norm,
            "learning_rate": schedule(updates_made(state["optimizer"])),
            "skipped": 1.0 - finite.astype(jnp.float32),
            "padding_share": jnp.mean((batch["segment_ids"] == 0).astype(jnp.float32)),
        }
        return new, metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=(state_sharding, replicated(mesh)))


def state_shardings(optimizer: optax.GradientTransformation, params: Any, mesh: Mesh) -> State:
    """Where the training state lives: what an optimiser keeps per weight lies where the weight lies.

    Args:
      params: the parameter tree of ShapeDtypeStructs with shardings.
    """
    params_sharding = jax.tree.map(lambda leaf: leaf.sharding, params)
    optimizer_sharding = optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, params),
        params_sharding,
        transform_non_params=lambda _: replicated(mesh),
    )
    return {"params": params_sharding, "optimizer": optimizer_sharding}


def abstract_state(init: Callable, params: Any, sharding: State) -> State:
    """The training state as ShapeDtypeStructs with shardings, from the optimiser's `init` and abstract parameters."""
    optimizer = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(init, params),
        sharding["optimizer"],
    )
    return {"params": params, "optimizer": optimizer}
