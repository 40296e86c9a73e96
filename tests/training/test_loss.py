import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imitation_jax.models.families import llama
from imitation_jax.models.load import abstract_params
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.sharding import BATCH
from imitation_jax.training import config as training
from imitation_jax.training.loss import cross_entropy
from imitation_jax.training.optimizer import make_optimizer, make_schedule
from imitation_jax.training.step import abstract_state, make_train_step, state_shardings

B, D, V = 3, 16, 101


def inputs(S, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    x_BSD = jax.random.normal(keys[0], (B, S, D))
    unembed_VD = 0.5 * jax.random.normal(keys[1], (V, D))
    targets_BS = jax.random.randint(keys[2], (B, S), 0, V)
    best_BS = jnp.argmax(jnp.einsum("bsd,vd->bsv", x_BSD, unembed_VD), -1)
    targets_BS = jnp.where(jnp.arange(S) % 3 == 0, best_BS, targets_BS)  # a third is ranked first
    mask_BS = (jax.random.uniform(keys[3], (B, S)) < 0.6).astype(jnp.float32)
    return x_BSD, unembed_VD, targets_BS, mask_BS


def plain(x_BSD, unembed_VD, targets_BS, mask_BS):
    logits_BSV = jnp.einsum("bsd,vd->bsv", x_BSD, unembed_VD)
    losses_BS = optax.softmax_cross_entropy_with_integer_labels(logits_BSV, targets_BS)
    return jnp.sum(losses_BS * mask_BS), jnp.sum((jnp.argmax(logits_BSV, -1) == targets_BS) * mask_BS)


@pytest.mark.parametrize("S, chunk", [(32, 8), (33, 8), (5, 8)])
def test_the_plain_loss_whatever_the_chunk(S, chunk, assert_close):
    x, unembed, targets, mask = inputs(S)

    def chunked(x, unembed):
        return cross_entropy(x, unembed, targets, mask, chunk=chunk)

    @jax.jit
    def both(x, unembed):
        def scaled(loss_fn):
            # A factor behind the loss must come through the hand-written gradient.
            grad = jax.grad(lambda *args: 3.0 * loss_fn(*args)[0], argnums=(0, 1))
            return loss_fn(x, unembed), grad(x, unembed)

        return scaled(chunked), scaled(lambda x, unembed: plain(x, unembed, targets, mask))

    (got, got_grads), (wanted, wanted_grads) = both(x, unembed)
    assert wanted[0] > 0 and wanted[1] > 0
    assert_close(got, wanted, 1e-6)
    assert_close(got_grads, wanted_grads, 2e-6)


def test_large_logits_do_not_overflow(assert_close):
    x, unembed, targets, mask = inputs(16)
    grad = jax.jit(jax.value_and_grad(lambda x: cross_entropy(x, unembed, targets, mask, chunk=4)[0]))
    loss, dx = grad(200.0 * x)
    assert np.isfinite(loss) and np.isfinite(dx).all()
    assert_close(loss, plain(200.0 * x, unembed, targets, mask)[0])


def test_without_loss_bearing_tokens_the_loss_and_gradients_are_0():
    x, unembed, targets, mask = inputs(20)
    grad = jax.value_and_grad(lambda x, u: cross_entropy(x, u, targets, 0 * mask, chunk=8)[0], argnums=(0, 1))
    loss, grads = jax.jit(grad)(x, unembed)
    assert loss == 0 and all((g == 0).all() for g in grads)


def test_bfloat16_states_give_float32_sums_and_a_float32_gradient_of_the_weights():
    x, unembed, targets, mask = inputs(64)
    x = x.astype(jnp.bfloat16)
    loss_fn = jax.value_and_grad(lambda x, u: cross_entropy(x, u, targets, mask, chunk=16)[0], argnums=(0, 1))
    loss, (dx, dunembed) = jax.jit(loss_fn)(x, unembed)
    assert (loss.dtype, dx.dtype, dunembed.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    rounded = unembed.astype(jnp.bfloat16).astype(jnp.float32)
    wanted = plain(x.astype(jnp.float32), rounded, targets, mask)[0]
    assert abs(loss - wanted) < 1e-5 * wanted


@pytest.fixture
def full_optimization():
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.usefixtures("full_optimization")
@pytest.mark.parametrize("spec, accumulation", [("fsdp=1", 1), ("fsdp=4,tensor=2", 2)])
def test_the_step_never_holds_all_logits(spec, accumulation):
    """Neither a buffer of the compiled train step nor all its temporary memory is as large as float32 (B, S, V)."""
    config = llama.LlamaConfig(16024, 16, 32, 2, 4, 2, 8)
    rows, S, chunk = 8, 256, 8
    devices = jax.devices()[: 1 if spec == "fsdp=1" else 8]
    mesh = make_mesh(spec, devices)
    jax.set_mesh(mesh)
    abstract = abstract_params(llama, config, mesh)
    optimizer_config = training.get_config().optimizer
    schedule = make_schedule(optimizer_config, 10)
    optimizer = make_optimizer(optimizer_config, schedule)
    sharding = state_shardings(optimizer, abstract, mesh)
    train_step = make_train_step(
        config,
        optimizer,
        dtype=jnp.float32,
        remat="full",
        chunk=chunk,
        accumulation=accumulation,
        schedule=schedule,
        state_sharding=sharding,
        mesh=mesh,
    )
    place = jax.sharding.NamedSharding(mesh, BATCH)
    batch = {
        name: jax.ShapeDtypeStruct((rows, S), jnp.float32 if name == "loss_mask" else jnp.int32, sharding=place)
        for name in ("tokens", "targets", "loss_mask", "positions", "segment_ids")
    }
    compiled = train_step.lower(abstract_state(optimizer.init, abstract, sharding), batch).compile()
    # Of one microbatch on one device.
    logits = rows * S * config.vocab_size // (mesh.size * accumulation)
    shapes = re.findall(r"\w+\[([\d,]+)\]", compiled.as_text())
    sizes = [math.prod(int(size) for size in shape.split(",")) for shape in shapes]
    assert sizes and max(sizes) < logits / 2
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * logits / 2
