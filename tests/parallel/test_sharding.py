import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.sharding import BATCH, constrain, path_of, replicated, shardings, specs

TREE = {"embed": np.zeros((16, 8)), "layers": {"up": np.zeros((3, 8, 12)), "norms": [np.zeros(8), np.zeros(8)]}}
TABLE = (("embed", P("tensor", "fsdp")), ("layers/up", P(None, "fsdp", "tensor")), ("layers/norms/[01]", P()))


def test_paths_are_those_of_the_tables():
    paths = {path_of(key) for key, _ in jax.tree_util.tree_leaves_with_path(TREE)}
    assert paths == {"embed", "layers/up", "layers/norms/0", "layers/norms/1"}


def test_each_leaf_takes_its_row():
    expected = {"embed": TABLE[0][1], "layers": {"up": TABLE[1][1], "norms": [P(), P()]}}
    assert specs(TREE, TABLE) == expected


@pytest.mark.parametrize(("table", "count"), [(TABLE[1:], 0), ((*TABLE, ("emb.*", P())), 2), ((("mbed", P()),), 0)])
def test_no_row_or_two_rows_are_refused(table, count):
    with pytest.raises(ValueError, match=f"^sharding table: {count} rows match parameter 'embed' where one must$"):
        specs({"embed": TREE["embed"]}, table)


def test_an_array_is_cut_as_its_row_says():
    mesh = make_mesh("fsdp=4,tensor=2")
    placed = jax.device_put(TREE, shardings(TREE, TABLE, mesh))
    assert placed["embed"].addressable_shards[0].data.shape == (8, 2)
    assert placed["layers"]["up"].addressable_shards[0].data.shape == (3, 2, 6)
    assert placed["layers"]["norms"][0].addressable_shards[0].data.shape == (8,)


def test_a_mesh_that_does_not_divide_is_one_line():
    with pytest.raises(ValueError) as caught:
        shardings(TREE, TABLE, make_mesh("tensor=8"))
    text = str(caught.value)
    assert "'layers/up' of shape (3, 8, 12)" in text and "12 is not a multiple of 8 (tensor)" in text
    assert "'tensor': 8" in text and "\n" not in text


def test_two_axes_on_one_dimension_multiply():
    tree, mesh = {"x": np.zeros((4, 8))}, make_mesh("data=4,fsdp=2")
    with pytest.raises(ValueError, match=r"4 is not a multiple of 8 \(data x fsdp\)"):
        shardings(tree, (("x", BATCH),), mesh)
    assert shardings({"x": np.zeros((8, 4))}, (("x", BATCH),), mesh)["x"] == NamedSharding(mesh, BATCH)


def test_activations_are_pinned_only_under_a_mesh():
    pin = jax.jit(lambda x: constrain(x * 2, P("fsdp", None)))
    x = jnp.arange(16.0).reshape(8, 2)
    assert len(pin(x).sharding.device_set) == 1
    mesh = make_mesh("fsdp=8")
    with jax.set_mesh(mesh):
        pinned = pin(x)
    assert pinned.sharding.is_equivalent_to(NamedSharding(mesh, P("fsdp", None)), 2)
    np.testing.assert_array_equal(pinned, 2 * x)


def test_replicated_is_whole_on_every_device():
    whole = jax.device_put(np.ones((3, 5)), replicated(make_mesh("fsdp=4,tensor=2")))
    assert [shard.data.shape for shard in whole.addressable_shards] == [(3, 5)] * 8
