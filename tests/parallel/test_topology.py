import importlib.util

import jax
import pytest

from imitation_jax.parallel.chips import CHIPS, chip_of
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.topology import KINDS, topology_devices

needs_libtpu = pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu, of the extra [tpu]")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("v5e", "write KIND:AxB, as v5e:8x8"),
        ("v5e:", "write KIND:AxB"),
        ("v5e:8x", "write KIND:AxB"),
        ("v5e:0x8", "write KIND:AxB"),
        ("0*v5e:8x8", "write KIND:AxB"),
        ("v5e:8x8 ", "write KIND:AxB"),
        ("cpu:0", "write KIND:AxB"),
        ("v9:2x2", "unknown kind 'v9'; there are v4, v5e, v5, v5p, v6e, tpu7x and cpu"),
        ("v5e:4x4x4", "v5e slices have 2 dimensions, as v5e:4x4"),
        ("v4:8x8", "v4 slices have 3 dimensions, as v4:4x4x4"),
        ("cpu:1000", "this process has 8 host devices; set XLA_FLAGS="),
    ],
)
def test_a_wrong_name_is_one_line(name, reason):
    with pytest.raises(ValueError) as caught:
        topology_devices(name)
    assert f"topology {name!r}: " in str(caught.value) and reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_libtpu_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(OSError, match=r"pip install 'imitation_jax\[tpu\]'") as caught:
        topology_devices("v5e:2x2")
    assert "\n" not in str(caught.value)


def test_the_host_s_own_devices():
    assert topology_devices("cpu:4") == jax.devices()[:4]


@needs_libtpu
def test_a_shape_that_libtpu_does_not_know_is_one_line():
    with pytest.raises(ValueError, match="topology 'v5e:3x3': libtpu has no such slice") as caught:
        topology_devices("v5e:3x3")
    assert "\n" not in str(caught.value)


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "count"),
    [("v4:2x2x2", 8), ("v5e:2x4", 8), ("v5:2x2x2", 8), ("v5p:2x2x2", 8), ("v6e:2x4", 8), ("tpu7x:2x2x2", 16)],
)
def test_every_kind_has_devices_of_a_chip_that_is_known(name, count):
    devices = topology_devices(name)
    chip = chip_of(devices[0].device_kind)
    assert len(devices) == count == 8 * chip.devices
    assert chip.links == 2 * KINDS[name.partition(":")[0]][1]


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("v4:4x4x4", "fsdp=-1,tensor=2"),
        ("v4:4x4x8", "fsdp=-1,tensor=2"),
        ("v5:4x4x4", "fsdp=-1,tensor=2"),
        ("v5e:8x8", "fsdp=-1,tensor=2"),
        ("v6e:8x8", "fsdp=4,sequence=4,tensor=4"),
        ("tpu7x:2x2x2", "fsdp=-1,tensor=2"),
    ],
)
def test_neighbours_on_the_last_axis_are_neighbours_on_the_torus(name, spec):
    """Also where an axis takes a part of a dimension, as 2 of 4."""
    mesh = make_mesh(spec, topology_devices(name))
    assert len({device.id for device in mesh.devices.flat}) == mesh.size
    for ring in mesh.devices.reshape(-1, mesh.shape["tensor"]):
        for one, next_ in zip(ring, ring[1:], strict=False):
            assert sum(abs(a - b) for a, b in zip(one.coords, next_.coords, strict=True)) <= 1


@needs_libtpu
def test_only_data_goes_across_slices():
    devices = topology_devices("2*v5e:2x4")
    mesh = make_mesh("data=4,fsdp=-1,tensor=2", devices)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "sequence": 1, "tensor": 2}
    assert {device.slice_index for device in mesh.devices[:2].flat} == {0}
    assert {device.slice_index for device in mesh.devices[2:].flat} == {1}
    for spec in ("fsdp=-1", "data=1,fsdp=-1", "fsdp=2,tensor=8"):
        with pytest.raises(ValueError, match="data=1 is not a multiple of the 2 slices, .*; write data=2"):
            make_mesh(spec, devices)


def test_kinds_by_whatever_jax_calls_them():
    assert chip_of("TPU v5 lite") is chip_of("TPU v5e") is CHIPS["TPU v5 lite"]
    assert chip_of("TPU v5p") is chip_of("TPU v5") is CHIPS["TPU v5"]
    assert chip_of("NVIDIA H100 80GB HBM3") is CHIPS["NVIDIA H100"]
    assert chip_of("cpu") is None
