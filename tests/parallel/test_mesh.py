import jax
import numpy as np
import pytest

from imitation_jax.parallel.mesh import AXES, make_mesh, parse_mesh


@pytest.mark.parametrize(
    ("spec", "sizes"),
    [
        ("fsdp=-1", (1, 8, 1, 1)),
        ("fsdp=8", (1, 8, 1, 1)),
        ("fsdp=-1,tensor=4", (1, 2, 1, 4)),
        ("tensor=4,fsdp=-1", (1, 2, 1, 4)),
        ("data=2, fsdp=2, tensor=2,", (2, 2, 1, 2)),
        ("sequence=2,data=-1", (4, 1, 2, 1)),
        ("data=8,fsdp=-1", (8, 1, 1, 1)),
    ],
)
def test_the_flag(spec, sizes):
    assert tuple(parse_mesh(spec, 8).values()) == sizes
    mesh = make_mesh(spec)
    assert mesh.axis_names == AXES and mesh.devices.shape == sizes
    assert sorted(device.id for device in mesh.devices.flat) == sorted(device.id for device in jax.devices())


def test_no_flag_is_one_axis_of_whatever_there_is():
    assert dict(make_mesh().shape) == {"data": 1, "fsdp": 8, "sequence": 1, "tensor": 1}
    assert tuple(parse_mesh("", 1).values()) == (1, 1, 1, 1)


def test_a_mesh_of_some_devices():
    mesh = make_mesh("fsdp=2,tensor=-1", jax.devices()[4:])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 2, "sequence": 1, "tensor": 2}
    assert {device.id for device in np.ravel(mesh.devices)} == {device.id for device in jax.devices()[4:]}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("model=8", "unknown axis 'model'; the axes are data, fsdp, sequence, tensor"),
        ("8", "unknown axis '8'"),
        ("fsdp=4,fsdp=2", "axis 'fsdp' is given twice"),
        ("fsdp=-1,tensor=-1", "only one axis can be -1"),
        ("fsdp=two", "'fsdp=two' is not axis=number"),
        ("fsdp", "'fsdp' is not axis=number"),
        ("fsdp=2.0", "'fsdp=2.0' is not axis=number"),
        ("fsdp=0", "must be 1 or more, or -1"),
        ("fsdp=-2", "must be 1 or more, or -1"),
        ("fsdp=3", "does not divide the 8 devices here: the sizes multiply to 3"),
        ("fsdp=2,tensor=2", "does not divide the 8 devices here: the sizes multiply to 4"),
        ("fsdp=16", "does not divide the 8 devices here"),
        ("fsdp=-1,tensor=3", "does not divide the 8 devices here: the sizes multiply to 3 without the -1"),
        ("fsdp=-1,tensor=16", "does not divide the 8 devices here: the sizes multiply to 16 without the -1"),
    ],
)
def test_a_wrong_flag_is_one_line(spec, reason):
    with pytest.raises(ValueError) as caught:
        parse_mesh(spec, 8)
    assert repr(spec) in str(caught.value) and reason in str(caught.value) and "\n" not in str(caught.value)


class Gpu:
    platform, device_kind, process_index = "gpu", "NVIDIA H100", 0

    def __init__(self, number):
        self.id, self.slice_index = number, number // 2


def test_hosts_of_gpus_are_no_slices():
    """jax numbers them as slices, but any axis may go from one to the next."""
    assert dict(make_mesh("fsdp=-1", [Gpu(number) for number in range(4)]).shape)["fsdp"] == 4
