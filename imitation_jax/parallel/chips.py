"""What one accelerator chip can do at most: the figures of its maker, each in one place."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak figures of a chip; a link figure counts one direction.

    Attributes:
      flops: dense bfloat16 FLOP/s.
      hbm_bandwidth: bytes/s of its memory, whose size `plan` asks the compiler.
      link_bandwidth: bytes/s one way over one link of the interconnect; NaN where there is none to plan for.
      links: of a chip, two for each dimension of its torus.
      network_bandwidth: bytes/s one way over the data-centre network between slices.
      dollars: list price of a chip hour, on demand in the cheapest region of the USA; None where there is none.
      devices: how many devices jax makes of a chip.
    """

    flops: float
    hbm_bandwidth: float
    link_bandwidth: float = float("nan")
    links: int = 0
    network_bandwidth: float = float("nan")
    dollars: float | None = None
    devices: int = 1


# TPUs: docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e, /tpu7x, tables "key specifications" (read 2026). Their
# "bidirectional ICI bandwidth per chip" (v5e 400, v5p 1,200, v6e 800, tpu7x 1,200 GB/s) counts both directions of all
# links, v4's 2,400 Gbit/s one, as v5p's 4,800 did before. Data-centre network: v5p's page gives 50 Gbit/s a chip, v5e's
# 6.4 Tbit/s a pod of 256, v6e's hosts have 4 x 200 Gbit/s for 8 chips; v4 and tpu7x, whose pages give none, are counted
# as v5p.
# Prices: cloud.google.com/tpu/pricing, as listed in 2025 (v5p and v6e also so in SkyPilot's catalog); they change, and
# `plan --price` overrides them.
# NVIDIA: data sheets of A100 80GB SXM, H100 SXM, H200 SXM.
CHIPS = {
    "TPU v4": Chip(275e12, 1200e9, 50e9, 6, 6.25e9, 3.22),
    "TPU v5 lite": Chip(197e12, 819e9, 50e9, 4, 3.125e9, 1.20),
    "TPU v5": Chip(459e12, 2765e9, 100e9, 6, 6.25e9, 4.20),
    "TPU v6 lite": Chip(918e12, 1638e9, 100e9, 4, 12.5e9, 2.70),
    "TPU7x": Chip(2307e12, 7380e9, 100e9, 6, 6.25e9, devices=2),
    "NVIDIA A100": Chip(312e12, 2039e9),
    "NVIDIA H100": Chip(989e12, 3350e9),
    "NVIDIA H200": Chip(989e12, 4800e9),
}
# What else jax calls them.
ALSO = {"TPU v5e": "TPU v5 lite", "TPU v5p": "TPU v5", "TPU v6e": "TPU v6 lite"}


def chip_of(device_kind: str) -> Chip | None:
    """The chip that a device is of, or is a part of, by what jax calls its kind; None where the table has none."""
    names = {**{name: name for name in CHIPS}, **ALSO}
    found = [name for name in names if device_kind.startswith(name)]
    return CHIPS[names[max(found, key=len)]] if found else None
