"""The platforms' own kernels, interpreted, against plain attention: packed rows, values and gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from imitation_jax.models import decoder, kernels
from imitation_jax.models.attention import attention
from imitation_jax.models.families import gpt2, llama
from imitation_jax.models.kernels import xla
from imitation_jax.parallel.mesh import AXES, make_mesh


def packed(rows, length, seed=0):
    """Segments of one row after the other, padding last, and their positions."""
    segments = np.sort(np.random.default_rng(seed).integers(1, 5, (rows, length)), axis=1)
    segments[0, -length // 5 :] = 0
    positions = np.arange(length) - np.argmax(segments[:, :, None] == segments[:, None, :], axis=-1)
    return jnp.asarray(segments), jnp.asarray(positions)


@pytest.mark.parametrize(
    ("kernel", "mesh"),
    [
        ("splash", None),
        ("splash", "fsdp=2,sequence=2,tensor=2"),
        ("splash", "sequence=4,tensor=2"),
        ("triton", None),
        ("triton", "fsdp=4,tensor=2"),
    ],
)
@pytest.mark.parametrize(("length", "head_dim", "heads"), [(300, 16, (8, 4)), (256, 64, (4, 4))])
def test_a_kernel_equals_plain_attention(kernel, mesh, length, head_dim, heads):
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
        ours = gradients(q, k, v, kernel)
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [200, 512])
def test_blocks_of_queries_on_one_cpu_equal_plain_attention(length):
    """One block and two."""
    random = np.random.default_rng(0)
    q, k, v, cotangent = (
        jnp.asarray(random.normal(size=(2, length, heads, 16)), jnp.float32) for heads in (6, 2, 2, 6)
    )
    segments = jnp.asarray(np.sort(random.integers(0, 4, (2, length)), axis=1))
    positions = jnp.arange(length) - jnp.argmax(segments[:, :, None] == segments[:, None, :], axis=-1)

    def loss(q, k, v, kernel):
        out = attention(q, k, v, positions_BS=positions, segments_BS=segments, kernel=kernel)
        return jnp.sum(out * cotangent)

    gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)), static_argnums=3)
    for ours, plain in zip(
        jax.tree.leaves(gradients(q, k, v, "cpu")), jax.tree.leaves(gradients(q, k, v, "xla")), strict=True
    ):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("kernel", "spec"), [("cpu", "fsdp=8"), ("triton", "sequence=2,tensor=4")], ids=["cpu", "triton"]
)
def test_a_kernel_refuses_a_mesh_in_one_line_and_auto_does_without_it(kernel, spec, monkeypatch, refused):
    monkeypatch.setitem(kernels.PLATFORMS, "cpu", kernel)
    with jax.set_mesh(make_mesh(spec)):
        assert kernels.function("attention") is xla.attention
        with refused(ValueError, f"attention={kernel}: does not work on a mesh of {spec.replace(',', ', ')}"):
            kernels.function("attention", kernel)


def test_a_kernel_is_a_file_of_its_own(tmp_path, monkeypatch):
    """On the path of the folder, as a file in it is; what it lacks is XLA's."""
    (tmp_path / "toy.py").write_text("def linear(x, w):\n    return -x @ w\n")
    monkeypatch.setattr(kernels, "__path__", [*kernels.__path__, str(tmp_path)])
    x, w = jnp.ones((1, 1, 2)), jnp.ones((2, 3))
    np.testing.assert_array_equal(kernels.function("linear", "toy")(x, w), -2 * np.ones((1, 1, 3)))
    assert kernels.function("attention", "toy") is xla.attention


@pytest.mark.parametrize(
    ("family", "config"),
    [(llama, llama.PRESETS["tiny"]), (gpt2, gpt2.GPT2Config(512, 64, 256, 2, 4, 256))],
    ids=["llama", "gpt2"],
)
@pytest.mark.parametrize("kernel", ["splash", "triton"])
def test_a_model_with_a_kernel_equals_it_without(family, config, kernel):
    params = decoder.init(config, jax.random.key(0))
    segments, positions = packed(2, 256)
    tokens = jnp.asarray(np.random.default_rng(2).integers(0, config.vocab_size, (2, 256)))

    def loss(params, kernel):
        x = decoder.hidden(config, params, tokens, positions, segments, remat="full", kernel=kernel)
        return jnp.sum(jnp.square(decoder.logits(params, x)) * (segments > 0)[:, :, None])

    gradients = jax.jit(jax.grad(loss), static_argnums=1)
    for got, expected in zip(
        jax.tree.leaves(gradients(params, kernel)), jax.tree.leaves(gradients(params, "xla")), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * float(jnp.max(jnp.abs(expected))))


@pytest.mark.parametrize(
    ("device", "kind", "calls"), [("cuda", "NVIDIA H100 80GB HBM3", 3), ("tpu", "TPU v5 lite", 3)], ids=["gpu", "tpu"]
)
def test_each_platform_gets_its_own_kernel(device, kind, calls):
    """Lowered for a machine that is not here: one kernel forward and two backward, on each device's own rows."""
    abstract = AbstractDevice(device_kind=kind, num_cores=1, platform=device)
    mesh = AbstractMesh((1, 2, 1, 1), AXES, axis_types=(AxisType.Auto,) * 4, abstract_device=abstract)
    ids = jax.ShapeDtypeStruct((4, 256), jnp.int32)
    q, k = (jax.ShapeDtypeStruct((4, 256, heads, 64), jnp.bfloat16) for heads in (8, 4))

    def loss(q, k, v, positions, segments):
        out = attention(q, k, v, positions_BS=positions, segments_BS=segments)
        return jnp.sum(out.astype(jnp.float32))

    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k, ids, ids)
        lowered = traced.lower(lowering_platforms=(device,)).as_text()
    assert len(re.findall(r"custom_call @(__gpu|tpu_custom_call)", lowered)) == calls
