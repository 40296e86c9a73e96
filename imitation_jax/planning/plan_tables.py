"""Plans as text: one config for a terminal, all of them as a Markdown table."""

from typing import Any

from imitation_jax.core.text_table import text_table
from imitation_jax.planning.programs import PROGRAMS

Plan = dict[str, Any]


def text(plan: Plan) -> str:
    """One plan: memory of each program, what it sends, how long it takes."""
    mesh = " x ".join(f"{axis}={size}" for axis, size in plan["mesh"].items()) or "one device"
    lines = [f"{plan['config']} on {plan['topology']}: {_counted(plan['chips'], 'chip')} as {mesh}", ""]
    rows = [_memory(name, program, plan["limit_gib"]) for name, program in plan["programs"].items()]
    lines.append(text_table([("program", "at a time", "GiB a device", "of", "", "compiled in"), *rows], left=6))
    for name, program in plan["programs"].items():
        held = ", ".join(f"{what} {gib:.2f}" for what, gib in program["memory_gib"].items() if gib >= 0.005)
        lines.append(f"  {name}: {held} GiB")
        if program.get("pallas_calls"):
            calls = ", ".join(f"{kernel} {count}" for kernel, count in program["pallas_calls"].items())
            lines.append(f"  {name}: Pallas kernels {calls}")
    for name, program in plan["programs"].items():
        if program.get("collectives"):
            sent = [
                (one["axes"], one["kind"], f"{one['turns']:,}", f"{1024 * one['gib']:,.1f}")
                for one in program["collectives"]
            ]
            lines += ["", text_table([(f"{name} sends along", "by", "times", "MiB a device"), *sent], left=4)]
    bounds = [_bound(name, program) for name, program in plan["programs"].items() if program.get("roofline")]
    if bounds:
        header = ("at least, ms", "products", "memory", "links", "bound by", "MFU at most", "tokens/s at most")
        lines += ["", text_table([header, *bounds], left=len(header))]
    if (run := plan["run"]) and "hours" in run:
        lines += ["", _run(run)]
    if plan["fits"]:
        lines += ["", f"fits: {plan['hbm_gib']:.2f} of {plan['limit_gib']:.2f} GiB, {plan['spare_gib']:.2f} to spare"]
    else:
        lines += ["", f"does not fit: {-plan['spare_gib']:.2f} GiB too much"]
        lines += [
            f"  fits with {' '.join(one['flags'])}: {one['hbm_gib']:.2f} of {one['limit_gib']:.2f} GiB"
            for one in plan["proposals"]
        ]
        if not plan["proposals"]:
            lines.append("  no change that was tried fits")
    return "\n".join(lines)


def markdown(plans: list[Plan]) -> str:
    """A row for each config: peak GiB a device of its programs, and its run at the bound."""
    header = ("config", "slice", "mesh", *(f"{name}, GiB" for name in PROGRAMS), "of", "fits", "step, s", "MFU at most")
    header += ("bound by", "tokens/s", "hours", "dollars")
    lines = [header, ("---",) * len(header)]
    for plan in plans:
        if "error" in plan:
            lines.append((plan["config"], plan["topology"], plan["error"], *("",) * 4, "no", *("",) * 6))
            continue
        programs = plan["programs"]
        mesh = " x ".join(f"{axis}={size}" for axis, size in plan["mesh"].items())
        sizes = [f"{programs[name]['hbm_gib']:.2f}" if name in programs else "" for name in PROGRAMS]
        fits = (f"{plan['limit_gib']:.2f}", "yes" if plan["fits"] else "no")
        lines.append((plan["config"], plan["topology"], mesh, *sizes, *fits, *_run_cells(plan["run"] or {})))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _run_cells(run: Plan) -> tuple[str, ...]:
    if "hours" not in run:
        return ("",) * 6
    cells = (f"{run['step_seconds']:.3f}", f"{run['mfu']:.0%}", run["binds"], f"{run['tokens_per_second']:,.0f}")
    return (*cells, f"{run['hours']:.2g}", "" if run["dollars"] is None else f"{run['dollars']:,.0f}")


def _run(run: Plan) -> str:
    cost = ""
    if run["dollars"] is not None:
        cost = f", ${run['dollars']:,.2f} at ${run['dollars_per_chip_hour']:.2f} a chip hour"
    return (
        f"{_counted(run['steps'], 'step')} ({run['steps_from']}) of {run['tokens_per_step']:,} tokens: at least "
        f"{run['step_seconds']:.3f} s a step, {run['hours']:.2g} hours{cost}"
    )


def _memory(name: str, program: Plan, limit: float) -> tuple[str, ...]:
    verdict = "fits" if program["fits"] else "does not fit"
    took = f"{program['compile_seconds']:.0f} s" if "compile_seconds" in program else ""
    return name, program.get("shape", ""), f"{program['hbm_gib']:.2f}", f"{limit:.2f}", verdict, took


def _bound(name: str, program: Plan) -> tuple[str, ...]:
    line = program["roofline"]
    parts = (line["products"], line["memory"], sum(line["links"].values()))
    times = [f"{1000 * seconds:.2f}" for seconds in parts]
    return name, *times, line["binds"], f"{line['mfu']:.0%}", f"{program['tokens_per_second']:,.0f}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
