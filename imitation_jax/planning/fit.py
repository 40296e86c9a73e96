"""What to change where a plan does not fit: the nearest settings that do, each compiled."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.inference.memory import GIB
from imitation_jax.parallel.executables import limit_gib
from imitation_jax.planning.programs import TooLarge
from imitation_jax.planning.target import Target, make_target

LEAST_CHUNK = 64
LARGER = 3  # slices that are tried, each twice the one before


class Proposal(NamedTuple):
    """Flags to add, and the target that they make."""

    flags: list[str]
    config: ConfigDict
    topology: str


def proposals(target: Target, programs: dict[str, Any], steps: int, cache_dir: Path) -> list[dict[str, Any]]:
    """The first change that fits on the same slice, and the first larger slice that fits without any.

    Args:
      programs: the target's programs, as `plan` says them; where one does not fit.
      steps: of the run.

    Returns:
      {"flags", "hbm_gib", "limit_gib"} of each.
    """
    failed = [name for name, program in programs.items() if not program["fits"]]
    proposed = []
    if failed == ["train"]:
        held = programs["train"]["memory_gib"]
        if held["parameters"] + held["optimizer"] < limit_gib(target.mesh):  # else only more chips help
            proposed += _first(_same_slice(target), failed, steps, cache_dir)
    return proposed + _first(_larger_slices(target), failed, steps, cache_dir)


def _first(changes: Iterator[Proposal], failed: list[str], steps: int, cache_dir: Path) -> list[dict[str, Any]]:
    for change in changes:
        flags = " ".join(change.flags)
        try:
            target = make_target(change.config, change.topology)
            limit = limit_gib(target.mesh)
            compiled = [target.lower(name, steps, limit).compile(cache_dir) for name in failed]
        except (ValueError, RuntimeError, TooLarge) as error:  # does not divide, a compiler's failure, far too large
            logging.info("%s: %s", flags, error)
            continue
        gib = max(program.peak for program in compiled) / GIB
        fits = all(program.fits for program in compiled)
        logging.info("%s: %.2f of %.2f GiB%s", flags, gib, limit, "" if fits else ", does not fit")
        if fits:
            return [{"flags": change.flags, "hbm_gib": gib, "limit_gib": limit}]
    return []


def _same_slice(target: Target) -> Iterator[Proposal]:
    """Changes upon changes: what costs little and alters no number first, a smaller batch last."""
    config, mesh = target.config, target.mesh.shape
    changed: dict[str, object] = {}

    def change(**keys: object) -> Proposal:
        changed.update(keys)
        made = config.copy_and_resolve_references()
        made.update(changed)
        return Proposal([f"--config.{key}={value}" for key, value in changed.items()], made, target.topology)

    if config.loss_chunk > LEAST_CHUNK:
        yield change(loss_chunk=LEAST_CHUNK)
    rows = config.batch_size // (mesh["data"] * mesh["fsdp"])
    for accumulation in _doubled(config.accumulation, rows):
        yield change(accumulation=accumulation)
    for remat in {"full": ("offload",), "offload": ()}.get(config.remat, ("full", "offload")):
        yield change(remat=remat)
    for tensor in _doubled(mesh["tensor"], min(mesh["tensor"] * mesh["fsdp"], 8)):
        others = [f"{axis}={mesh[axis]}" for axis in ("data", "sequence") if mesh[axis] > 1]
        yield change(mesh=",".join((*others, "fsdp=-1", f"tensor={tensor}")))
        del changed["mesh"]
    batch = config.batch_size
    while batch % 2 == 0:
        batch //= 2
        changed.pop("accumulation", None)
        yield change(batch_size=batch)


def _doubled(value: int, most: int) -> Iterator[int]:
    while value * 2 <= most:
        value *= 2
        yield value


def _larger_slices(target: Target) -> Iterator[Proposal]:
    """The same kind, its smallest dimension doubled, as Cloud TPU slices grow."""
    match = re.fullmatch(r"((?:\d+\*)?\w+):(\d+(?:x\d+)+)", target.topology)
    if not match:
        return
    sizes = sorted(int(size) for size in match[2].split("x"))
    for _ in range(LARGER):
        sizes = sorted([2 * sizes[0], *sizes[1:]])
        topology = f"{match[1]}:{'x'.join(map(str, sizes))}"
        yield Proposal([f"--topology={topology}"], target.config, topology)
