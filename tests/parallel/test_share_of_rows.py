"""Which rows a process reads; how several make a batch of theirs is seen in training/test_processes.py."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from imitation_jax.parallel.global_batch import global_batch, share_of_rows
from imitation_jax.parallel.mesh import make_mesh


def mesh_of(processes, **sizes):
    """A mesh as `share_of_rows` sees it, whose devices belong to these processes."""
    shape = {"data": 1, "fsdp": 1, "sequence": 1, "tensor": 1} | sizes
    devices = np.array([SimpleNamespace(process_index=process) for process in processes], object)
    return SimpleNamespace(shape=shape, devices=devices.reshape(tuple(shape.values())))


@pytest.mark.parametrize(
    "processes, sizes, shares",
    [
        ([0, 0, 1, 1, 2, 2], {"fsdp": 6}, [(0, 3), (1, 3), (2, 3)]),
        # A torus of 4 x 4 in hosts of 2 x 2, in rows: no host's devices are neighbours on the axis.
        ([0, 0, 1, 1] * 2 + [2, 2, 3, 3] * 2, {"data": 2, "fsdp": 8}, [(0, 4), (1, 4), (2, 4), (3, 4)]),
        # Hosts that hold parts of the same rows read the same ones.
        ([0, 0, 1, 1, 2, 2, 3, 3], {"fsdp": 2, "tensor": 4}, [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ([0, 1, 0, 1], {"data": 2, "sequence": 2}, [(0, 1), (0, 1)]),
    ],
)
def test_shares_cover_every_row_once(monkeypatch, processes, sizes, shares):
    for index, share in enumerate(shares):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        assert share_of_rows(mesh_of(processes, **sizes)) == share


@pytest.mark.parametrize(
    "processes, sizes", [([0, 0, 1, 1, 2, 2], {"fsdp": 2, "tensor": 3}), ([0, 0, 0, 1], {"fsdp": 4})]
)
def test_rows_that_do_not_divide_are_one_line(processes, sizes):
    with pytest.raises(ValueError, match="the rows of a batch do not divide by the . processes; choose data x fsdp"):
        share_of_rows(mesh_of(processes, **sizes))


def test_one_process_has_all_rows():
    mesh = make_mesh("data=2,fsdp=2,sequence=2")
    assert share_of_rows(mesh) == (0, 1)
    rows_BS = np.arange(32).reshape(8, 4)
    batch = global_batch({"tokens": rows_BS}, mesh)["tokens"]
    np.testing.assert_array_equal(batch, rows_BS)
    assert batch.sharding.shard_shape(batch.shape) == (2, 2)
