"""The formulas against figures reckoned by hand."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
from jax.sharding import Mesh

from imitation_jax.models.families import gpt2, llama
from imitation_jax.parallel.chips import CHIPS
from imitation_jax.parallel.mesh import AXES, make_mesh
from imitation_jax.parallel.topology import topology_devices
from imitation_jax.planning.collectives import Collective
from imitation_jax.planning.roofline import Work, axis_bandwidth, forward_work, roofline, train_work
from imitation_jax.training import config as training

needs_libtpu = pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu, of the extra [tpu]")
ONE = dict.fromkeys(AXES, 1)
# D 8, F 24, 2 layers, 2 query heads and 1 key head of 4, vocabulary 32.
MODEL = llama.LlamaConfig(32, 8, 24, 2, 2, 1, 4)
LAYER = 8 * 4 * 2 * 2 + 8 * 4 * 1 * 2 + 3 * 8 * 24  # q and o, k and v, three of the MLP
WEIGHTS = 2 * LAYER + 32 * 8


def settings(**keys):
    config = training.get_config()
    config.batch_size, config.data.seq_len = 4, 16
    config.update(keys)
    return config


def test_the_model_has_the_weights_that_the_figures_below_count():
    assert MODEL.matrix_weights == WEIGHTS == 1792


@pytest.mark.parametrize(
    ("remat", "flops"),
    [
        # 64 positions: forward and backward are 3 x 2 a weight, attention 3 x 4 L S H K.
        ("none", 64 * (6 * WEIGHTS + 12 * 2 * 16 * 2 * 4)),
        # The scores again.
        ("dots", 64 * (6 * WEIGHTS + 16 * 2 * 16 * 2 * 4)),
        # The layers again, not the vocabulary.
        ("full", 64 * (8 * WEIGHTS - 2 * 32 * 8 + 16 * 2 * 16 * 2 * 4)),
        ("offload", 64 * (8 * WEIGHTS - 2 * 32 * 8 + 16 * 2 * 16 * 2 * 4)),
    ],
)
def test_flops_of_a_step(remat, flops):
    work = train_work(settings(remat=remat), MODEL, ONE, 2)
    assert work.flops == pytest.approx(flops)
    assert work.useful == 64 * (6 * WEIGHTS + 12 * 2 * 16 * 2 * 4) and work.passes == 1
    spread = train_work(settings(remat=remat), MODEL, ONE | {"fsdp": 4, "tensor": 2}, 2)
    assert spread.flops == pytest.approx(flops / 8)


def test_bytes_of_a_step():
    """Numbers of a layer a position: 8 -> 8 + 2 x 4, 8 + 2 x 4 -> 8, 8 -> 8, 8 -> 2 x 24, 24 -> 8."""
    layer = (8 + 16) + (16 + 8) + (8 + 8) + (8 + 48) + (24 + 8)
    passes = 4  # forward, recomputed, and twice in the backward
    weights = WEIGHTS * 2 * 3 + 2 * WEIGHTS * 2  # read in three passes; their gradient written and read
    expected = weights + 64 * 2 * layer * 2 * passes + 28 * WEIGHTS
    assert train_work(settings(), MODEL, ONE, 2).hbm == pytest.approx(expected)
    # Twice the microbatches read the weights twice; the positions are the same.
    twice = train_work(settings(accumulation=2), MODEL, ONE, 2)
    assert twice.hbm == pytest.approx(expected + weights)
    # Gathered weights are written before they are read, and an update is of a quarter.
    spread = train_work(settings(), MODEL, ONE | {"fsdp": 4}, 2)
    gathered = WEIGHTS * 2 * 3 * 2 + 2 * WEIGHTS * 2
    assert spread.hbm == pytest.approx(gathered + 16 * 2 * layer * 2 * passes + 28 * WEIGHTS / 4)


def test_a_tensor_axis_shares_the_heads_and_the_mlp_but_not_the_model_s_width():
    own = {"tensor": 2}
    one, two = (train_work(settings(), MODEL, ONE | axes, 2).hbm for axes in ({}, own))
    wide = 2 * 4 * 8 * 64 * 2 * 4  # 4 times D in and out, 2 layers, 64 positions, 2 bytes, 4 passes
    assert two == pytest.approx(wide + (one - wide) / 2)


def test_gpt2_has_two_matrices_in_its_mlp():
    """D 64, F 256: 64 -> 3 x 64, 3 x 64 -> 64, 64 -> 64, 64 -> 256, 256 -> 64 numbers a position."""
    model = gpt2.PRESETS["gpt2_124m"]
    D, F, L = 768, 3072, 12
    layer = (D + 3 * D) + (3 * D + D) + (D + D) + (D + F) + (F + D)
    with_one, with_two = (forward_work(model, count, 0, ONE, "bfloat16", 0).hbm for count in (1, 2))
    assert with_two - with_one == pytest.approx(L * layer * 2)


def test_a_step_that_only_reads():
    work = forward_work(MODEL, 10, 7, ONE, "float32", cache=1000)
    assert work.flops == work.useful == 10 * (2 * WEIGHTS + 4 * 2 * 2 * 4 * 7)
    layer = (8 + 16) + (16 + 8) + (8 + 8) + (8 + 48) + (24 + 8)
    assert work.hbm == pytest.approx(WEIGHTS * 4 + 10 * 2 * layer * 4 + 1000)
    assert work.passes == 6


def device(number, coords, core=0):
    return SimpleNamespace(id=number, coords=coords, core_on_chip=core, slice_index=0)


def torus(shape, mesh):
    """A mesh of stand-ins with coordinates; jax's own meshes are tried below, where there is a compiler."""
    made = [device(number, tuple(reversed(place))) for number, place in enumerate(np.ndindex(*reversed(shape)))]
    return SimpleNamespace(axis_names=AXES, devices=np.array(made, object).reshape(mesh))


@pytest.mark.parametrize(
    ("shape", "mesh", "axes", "kind", "links"),
    [
        ((4, 4, 4), (1, 64, 1, 1), ["fsdp"], "TPU v4", 6),  # three closed rings
        ((2, 2, 1), (1, 4, 1, 1), ["fsdp"], "TPU v4", 2),  # two lines
        ((4, 4, 4), (1, 32, 1, 2), ["tensor"], "TPU v4", 1),  # a part of one ring
        ((4, 4, 4), (1, 32, 1, 2), ["fsdp"], "TPU v4", 5),  # two rings and what is left of the third
        ((8, 8), (1, 64, 1, 1), ["fsdp"], "TPU v5 lite", 2),
        ((16, 16), (1, 256, 1, 1), ["fsdp"], "TPU v5 lite", 4),  # a dimension of 16 is closed
        ((16, 8), (1, 8, 1, 16), ["tensor"], "TPU v5 lite", 2),
        ((16, 8), (1, 8, 1, 16), ["fsdp"], "TPU v5 lite", 1),
        ((16, 8), (1, 8, 1, 16), ["fsdp", "tensor"], "TPU v5 lite", 3),
    ],
)
def test_links_of_an_axis(shape, mesh, axes, kind, links):
    chip = CHIPS[kind]
    assert axis_bandwidth(torus(shape, mesh), axes, chip) == links * chip.link_bandwidth


def test_between_slices_there_is_the_data_centre_network():
    mesh = torus((4, 4), (2, 8, 1, 1))
    for number, one in enumerate(mesh.devices.flat):
        one.slice_index = number // 8
    chip = CHIPS["TPU v5 lite"]
    assert axis_bandwidth(mesh, ["data"], chip) == chip.network_bandwidth
    assert axis_bandwidth(mesh, ["data", "fsdp"], chip) == chip.network_bandwidth
    assert axis_bandwidth(mesh, ["fsdp"], chip) == 2 * chip.link_bandwidth


def test_the_longest_part_binds():
    chip, mesh = CHIPS["TPU v5 lite"], torus((8, 8), (1, 32, 1, 2))
    work = Work(flops=197e12, useful=3 / 4 * 197e12, hbm=819e9 / 2, passes=1)
    few = [Collective("all-gather", "fsdp", 10e9, 1), Collective("all-reduce", "tensor", 5e9, 1)]
    bound = roofline(work, few, mesh, chip)
    assert (bound.products, bound.memory) == pytest.approx((1.0, 0.5))
    assert bound.links == pytest.approx({"fsdp": 0.1, "tensor": 0.1})
    assert (bound.seconds, bound.binds, bound.mfu) == (bound.products, "products", pytest.approx(0.75))
    many = roofline(work, [Collective("all-gather", "fsdp", 300e9, 1)], mesh, chip)
    assert (many.binds, many.mfu) == ("links", pytest.approx(0.75 / 3)) and many.seconds == pytest.approx(3.0)
    slow = roofline(Work(197e12, 197e12, 0, 6), [], mesh, chip)
    assert slow.seconds == pytest.approx(6.0) and slow.mfu == pytest.approx(1 / 6)


@needs_libtpu
def test_links_on_jax_s_own_meshes():
    chip = CHIPS["TPU v4"]
    mesh = make_mesh("fsdp=-1,tensor=2", topology_devices("v4:4x4x4"))
    assert axis_bandwidth(mesh, ["tensor"], chip) == chip.link_bandwidth
    assert axis_bandwidth(mesh, ["fsdp"], chip) == 5 * chip.link_bandwidth
    seven = CHIPS["TPU7x"]
    pairs = make_mesh("fsdp=-1,tensor=2", topology_devices("tpu7x:2x2x1"))
    assert isinstance(pairs, Mesh) and pairs.size == 8
    # The two devices of a chip reach each other as fast as all of its links; a device has half of them.
    assert axis_bandwidth(pairs, ["tensor"], seven) == 6 * seven.link_bandwidth / 2
    assert axis_bandwidth(pairs, ["fsdp"], seven) == 2 * seven.link_bandwidth / 2
