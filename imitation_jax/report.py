"""Writes WORKDIR/report: one page with tables and figures, the figures as PNG and SVG, table.csv and tables.tex, from
result files alone.

    python -m imitation_jax.report --workdir=RUN

Reads WORKDIR/eval/*/*.json with the samples beside them, the data cards in WORKDIR/data, and WORKDIR/metrics.jsonl for
the training curve; of a study (WORKDIR/study.json) the runs' own metrics in WORKDIR/runs.
"""

from imitation_jax.core import command

WORKDIR = command.define_string("workdir", None, "Folder of a run, local or gs://.", required=True)
WATTS = command.define_float("watts", 100.0, "What the machine is assumed to draw, for the estimate of energy.")
PRICE = command.define_float("price", 0.0, "Dollars of an hour of the machine, for the estimate of cost; 0 for none.")
SHAREABLE = command.define_boolean(
    "shareable",
    "Leave out prompts and answers, which may be others' or private, and the names of this machine's folders.",
)


def main() -> int:
    try:
        from imitation_jax.reporting import page
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise OSError("the figures need matplotlib; pip install 'imitation_jax[demo]'") from None

    for name, value in (("watts", WATTS.value), ("price", PRICE.value)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"--{name}={value}: must be 0 or more")
    path, text = page.write_report(WORKDIR.value, WATTS.value, PRICE.value, SHAREABLE.value)
    print(f"{text}\n\nreport: {path}")
    return 0


if __name__ == "__main__":
    command.run(main)
