"""Writes WORKDIR/report: one page with tables and figures, PNG figures and table.csv, from result files alone.

    python -m imitation_jax.report --workdir=RUN

Reads WORKDIR/eval/*/*.json with the samples beside them, and WORKDIR/metrics.jsonl for the training curve.
"""

from imitation_jax import command

WORKDIR = command.define_string("workdir", None, "Folder of a run, local or gs://.", required=True)


def main() -> int:
    try:
        from imitation_jax.reporting import page
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise OSError("the figures need matplotlib; pip install 'imitation_jax[demo]'") from None

    path, text = page.write_report(WORKDIR.value)
    print(f"{text}\n\nreport: {path}")
    return 0


if __name__ == "__main__":
    command.run(main)
