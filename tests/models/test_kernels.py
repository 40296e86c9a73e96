"""The platforms' own kernels, interpreted, against plain attention: packed rows, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imitation_jax.models import gpt2, llama
from imitation_jax.models.attention import attention
from imitation_jax.parallel.mesh import make_mesh


def packed(rows, length, seed=0):
    """Segments of one row after the other, padding last, and their positions."""
    segments = np.sort(np.random.default_rng(seed).integers(1, 5, (rows, length)), axis=1)
    segments[0, -length // 5 :] = 0
    positions = np.arange(length) - np.argmax(segments[:, :, None] == segments[:, None, :], axis=-1)
    return jnp.asarray(segments), jnp.asarray(positions)


@pytest.mark.parametrize(
    "mesh", [None, "fsdp=2,sequence=2,tensor=2", "sequence=4,tensor=2", "data=2,sequence=4"], ids=str
)
@pytest.mark.parametrize(("length", "head_dim", "heads"), [(300, 16, (8, 4)), (512, 64, (4, 4))])
def test_splash_equals_plain_attention(mesh, length, head_dim, heads):
    random = np.random.default_rng(1)
    segments, positions = packed(4, length)
    q, k, v, cotangent = (
        jnp.asarray(random.normal(size=(4, length, count, head_dim)), jnp.float32)
        for count in (*heads, heads[1], heads[0])
    )
    cotangent *= (segments > 0)[:, :, None, None]

    def loss(q, k, v, kernel):
        out = attention(q, k, v, positions_BS=positions, segments_BS=segments, kernel=kernel)
        return jnp.sum(out * cotangent), out * (segments > 0)[:, :, None, None]

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True), static_argnums=3)
    plain = gradients(q, k, v, "xla")
    with jax.set_mesh(make_mesh(mesh) if mesh else make_mesh("", jax.devices()[:1])):
        ours = gradients(q, k, v, "splash")
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "config"),
    [(llama, llama.PRESETS["tiny"]), (gpt2, gpt2.GPT2Config(512, 64, 256, 2, 4, 256))],
    ids=["llama", "gpt2"],
)
def test_a_model_with_splash_equals_it_without(family, config):
    params = family.init(config, jax.random.key(0))
    segments, positions = packed(2, 256)
    tokens = jnp.asarray(np.random.default_rng(2).integers(0, config.vocab_size, (2, 256)))

    def loss(params, kernel):
        x = family.hidden(config, params, tokens, positions, segments, remat="full", kernel=kernel)
        return jnp.sum(jnp.square(family.logits(params, x)) * (segments > 0)[:, :, None])

    gradients = jax.jit(jax.grad(loss), static_argnums=1)
    for got, expected in zip(
        jax.tree.leaves(gradients(params, "splash")), jax.tree.leaves(gradients(params, "xla")), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * float(jnp.max(jnp.abs(expected))))
