"""The plan of a config on a slice: does it fit, what does it send, how long does it take, what does it cost."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from absl import logging

from imitation_jax.inference.memory import GIB
from imitation_jax.parallel.executables import limit_gib
from imitation_jax.parallel.precision import compute_dtype
from imitation_jax.planning import fit, programs
from imitation_jax.planning.collectives import Collective, Module, collectives, pallas_calls
from imitation_jax.planning.programs import PROGRAMS, Lowered
from imitation_jax.planning.roofline import Work, forward_work, roofline, train_work
from imitation_jax.planning.run_length import Length, run_length
from imitation_jax.planning.target import Target

Plan = dict[str, Any]


def plan(
    target: Target, cache_dir: Path, names: Sequence[str] = PROGRAMS, save: bool = False, price: float | None = None
) -> Plan:
    """Compiles the programs and says what came of it, as JSON has it.

    Args:
      cache_dir: what is compiled already is found there.
      names: of `PROGRAMS`.
      save: keep the train step's executable.
      price: dollars of a chip hour; None for the list price.

    Raises:
      ValueError: a mesh that does not divide a parameter, a sequence that does not fit the memory, unknown names.
      RuntimeError: the compiler fails for another reason than memory.
    """
    if unknown := [name for name in names if name not in PROGRAMS]:
        raise ValueError(f"--programs: {unknown[0]!r} is none of {', '.join(PROGRAMS)}")
    length = run_length(target.config, cache_dir)
    limit = limit_gib(target.mesh)
    compiled = {name: _program(target, name, length, limit, cache_dir, save) for name in names}
    most = max(program["hbm_gib"] for program in compiled.values())
    fits = all(program["fits"] for program in compiled.values())
    chips = len(target.devices) // (target.chip.devices if target.chip else 1)
    return {
        "config": target.config.model.preset,
        "topology": target.topology,
        "chips": chips,
        "mesh": {axis: size for axis, size in target.mesh.shape.items() if size > 1},
        "fits": fits,
        "hbm_gib": most,
        "limit_gib": limit,
        "spare_gib": limit - most,
        "programs": compiled,
        "proposals": [] if fits else fit.proposals(target, compiled, length.steps, cache_dir),
        "run": _run(target, length, compiled["train"].get("roofline"), chips, price) if "train" in names else None,
    }


def _program(target: Target, name: str, length: Length, limit: float, cache_dir: Path, save: bool) -> Plan:
    try:
        lowered = target.lower(name, length.steps, limit)
    except programs.TooLarge as error:
        return {"fits": False, "hbm_gib": error.gib, "memory_gib": error.holds}
    compiled = lowered.compile(cache_dir, save and name == "train")
    gib = compiled.peak / GIB
    logging.info(
        "%s, %s: %.2f of %.2f GiB, compiled in %.0f s", target.config.model.preset, name, gib, limit, compiled.seconds
    )
    rest = max(0, compiled.peak - sum(lowered.holds.values()))
    facts: Plan = {
        "fits": compiled.fits,
        "hbm_gib": gib,
        "memory_gib": {what: size / GIB for what, size in (lowered.holds | {"activations": rest}).items()},
        "shape": lowered.shape,
        "compile_seconds": compiled.seconds,
        "pallas_calls": {},
        "collectives": [],
        "roofline": None,
    }
    if compiled.fits:
        module = Module(compiled.module)
        sent = collectives(module, dict(lowered.mesh.shape))
        facts["pallas_calls"] = pallas_calls(module)
        facts["collectives"] = _by_axes(sent)
        if target.chip:
            bound = roofline(_work(target, name, lowered), sent, lowered.mesh, target.chip)
            facts["roofline"] = dataclasses.asdict(bound)
            facts["tokens_per_second"] = lowered.positions / bound.seconds
    return facts


def _work(target: Target, name: str, lowered: Lowered) -> Work:
    model, mesh = target.model_config, dict(lowered.mesh.shape)
    if name == "train":
        dtype = compute_dtype(target.config.dtype, target.devices[0].platform)
        return train_work(target.config, model, mesh, jnp.dtype(dtype).itemsize)
    # Of a text that is read or written from its beginning, a position sees half on average.
    seen = target.longest // 2
    return forward_work(model, lowered.positions, seen, mesh, programs.EVALUATE_DTYPE, lowered.holds["cache"] // 2)


def _by_axes(sent: list[Collective]) -> list[Plan]:
    """What goes along the same axes in the same way, together; the most first."""
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for one in sent:
        sums[one.axes, one.kind][0] += one.turns
        sums[one.axes, one.kind][1] += one.sent
    lines = [
        {"axes": axes, "kind": kind, "turns": turns, "gib": size / GIB} for (axes, kind), (turns, size) in sums.items()
    ]
    return sorted(lines, key=lambda line: -line["gib"])


def _run(target: Target, length: Length, bound: dict | None, chips: int, price: float | None) -> Plan:
    """The configured run, at the bound."""
    tokens = target.config.batch_size * target.config.data.seq_len
    run: Plan = {"steps": length.steps, "steps_from": length.source, "tokens_per_step": tokens}
    if bound is None:
        return run
    hours = length.steps * bound["seconds"] / 3600
    price = target.chip.dollars if price is None else price
    return run | {
        "step_seconds": bound["seconds"],
        "tokens_per_second": tokens / bound["seconds"],
        "mfu": bound["mfu"],
        "binds": bound["binds"],
        "hours": hours,
        "dollars_per_chip_hour": price,
        "dollars": None if price is None else hours * chips * price,
    }
