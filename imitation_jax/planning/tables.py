"""Plans as text: one config for a terminal, all of them as a Markdown table."""

from typing import Any

Plan = dict[str, Any]


def markdown(plans: list[Plan]) -> str:
    """A row for each config."""
    lines = ["| config | slice | train, GiB | score | generate | of | fits |", "|---|---|---|---|---|---|---|"]
    for plan in plans:
        if "error" in plan:
            lines.append(f"| {plan['config']} | {plan['topology']} | {plan['error']} | | | | no |")
            continue
        sizes = [f"{plan['programs'][name]['hbm_gib']:.2f}" for name in ("train", "score", "generate")]
        fits = "yes" if plan["fits"] else "no"
        cells = (plan["config"], plan["topology"], *sizes, f"{plan['limit_gib']:.2f}", fits)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
