"""The device mesh, from one flag such as "fsdp=-1,tensor=4"."""

import math
from collections import defaultdict
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from imitation_jax.core.comma_list import comma_list

# Outermost first: neighbours on the last axis are neighbours on the interconnect, where tensor parallelism needs them.
AXES = ("data", "fsdp", "sequence", "tensor")


def parse_mesh(spec: str, num_devices: int) -> dict[str, int]:
    """Axis sizes by name, in the order of `AXES`; axes that `spec` leaves out are 1.

    Args:
      spec: comma-separated `axis=size`; one size may be -1, which takes the devices that the others leave.
      num_devices: how many devices the mesh must cover exactly.

    Raises:
      ValueError: an unknown axis, a size that is no number, or sizes that do not divide the devices.
    """
    sizes = dict.fromkeys(AXES, 1)
    named = set()
    for part in comma_list(spec):
        axis, _, size = part.partition("=")
        if axis not in AXES:
            raise ValueError(f"mesh {spec!r}: unknown axis {axis!r}; the axes are {', '.join(AXES)}")
        if axis in named:
            raise ValueError(f"mesh {spec!r}: axis {axis!r} is given twice")
        named.add(axis)
        try:
            sizes[axis] = int(size)
        except ValueError:
            raise ValueError(f"mesh {spec!r}: {part!r} is not axis=number, as in fsdp=8") from None
        if sizes[axis] < 1 and sizes[axis] != -1:
            raise ValueError(f"mesh {spec!r}: {part!r} must be 1 or more, or -1 for the rest")
    wild = [axis for axis, size in sizes.items() if size == -1]
    if len(wild) > 1:
        raise ValueError(f"mesh {spec!r}: only one axis can be -1")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if wild:
        sizes[wild[0]] = num_devices // fixed
    if math.prod(sizes.values()) != num_devices:
        raise ValueError(
            f"mesh {spec!r} does not divide the {num_devices} devices here: the sizes multiply to {fixed}"
            f"{' without the -1' if wild else ''}; choose sizes whose product is {num_devices}"
        )
    return sizes


def make_mesh(spec: str = "fsdp=-1", devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over `devices` (default: all) whose axes XLA's partitioner propagates (Auto).

    Devices of several TPU slices talk over the data-centre network: `data` goes across them, other axes stay inside.

    Raises:
      ValueError: see `parse_mesh`; or `data` is not a multiple of the slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = parse_mesh(spec, len(devices))
    by_slice = defaultdict(list)
    for device in devices:
        # GPU hosts have slice numbers too, one each, and a network between them that any axis may use.
        by_slice[getattr(device, "slice_index", None) if device.platform == "tpu" else None].append(device)
    if sizes["data"] % len(by_slice):
        raise ValueError(
            f"mesh {spec!r}: data={sizes['data']} is not a multiple of the {len(by_slice)} slices, which only that "
            f"axis connects; write data={len(by_slice)}"
        )
    inside = (sizes["data"] // len(by_slice), *(sizes[axis] for axis in AXES[1:]))
    # An axis may take a part of a dimension of the torus: 32 x 2 of 4 x 4 x 4.
    arranged = [
        mesh_utils.create_device_mesh(inside, of_slice, allow_split_physical_axes=True)
        for _, of_slice in sorted(by_slice.items())
    ]
    return Mesh(np.concatenate(arranged), AXES, axis_types=(AxisType.Auto,) * len(AXES))
