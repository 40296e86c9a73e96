import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imitation_jax.models.decoder import linear
from imitation_jax.models.families.gpt2 import plus
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.sharding import BATCH


def test_gradients_are_added_up_over_devices_in_float32():
    """256 + 511 x 1 is no number of bfloat16."""
    mesh = make_mesh("fsdp=8")
    rows = NamedSharding(mesh, BATCH)
    x_BSD = jax.device_put(jnp.ones((512, 1, 8), jnp.bfloat16), rows)
    weigh_BSF = jax.device_put(jnp.ones((512, 1, 2), jnp.bfloat16).at[0].set(256), rows)

    def loss(w_DF, bias_F):
        return jnp.sum(plus(linear(x_BSD, w_DF), bias_F).astype(jnp.float32) * weigh_BSF)

    with jax.set_mesh(mesh):
        out = NamedSharding(mesh, P("fsdp")), NamedSharding(mesh, P())
        gradients = jax.jit(jax.grad(loss, argnums=(0, 1)), out_shardings=out)(jnp.ones((8, 2)), jnp.zeros(2))
    for gradient in gradients:
        assert gradient.dtype == jnp.float32
        np.testing.assert_array_equal(gradient, np.full(gradient.shape, 256 + 511))


def test_weights_are_rounded_as_a_cast_rounds_them():
    bits = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint32)
    w_DF = jnp.asarray(bits.view(np.float32)).reshape(100, 100)
    w_DF = jnp.where(jnp.isfinite(w_DF) & (abs(w_DF) > 1.2e-38), w_DF, 1.0)  # a product takes less for 0
    with jax.set_mesh(make_mesh("fsdp=8")):
        rounded_BSF = jax.jit(linear)(jnp.eye(100, dtype=jnp.bfloat16)[None], w_DF)
    np.testing.assert_array_equal(rounded_BSF[0], w_DF.astype(jnp.bfloat16))
