"""Runs a study: a grid of students, evaluated as the paper does, with a report at the end.

    python -m imitation_jax.study --config=configs/studies/smollm2.py --workdir=DIR [--scale=0.01]

The config names base models, data sets, token budgets, schedules and seeds, and what all of them are evaluated on;
every key with its meaning: imitation_jax/studies/config.py. The command makes the data, evaluates each base once,
trains and evaluates each cell, writes DIR/study.json and DIR/report, and shows a table of what it is doing. Killed and
started again it goes on where it was; what is done is not done again. A cell that fails is said, and the others go on.

--launcher=slurm hands bases and cells to a Slurm array (launch/slurm.sh) and --launcher=tpu to TPU slices, one for each
(launch/tpu.sh); then DIR is a folder or bucket that all of them see. --dry_run prints the cells and their commands.
"""

from imitation_jax.core import command

CONFIG = command.define_config("configs/studies/smollm2.py")
WORKDIR = command.define_string("workdir", None, "Folder of the study, local or gs://.", required=True)
SCALE = command.define_float("scale", 1.0, "Share of every token budget and evaluation limit.")
LAUNCHER = command.define_string(
    "launcher", "here", "Where bases and cells run: here, slurm or tpu (studies/launchers)."
)
DRY_RUN = command.define_boolean("dry_run", "Print what would be done.")


def main() -> int:
    from imitation_jax.studies import study

    if DRY_RUN.value:
        print(study.plan(CONFIG.value, WORKDIR.value, SCALE.value))
        return 0
    whole = study.study(CONFIG.value, WORKDIR.value, SCALE.value, LAUNCHER.value)
    return 0 if whole else command.PREEMPTED


if __name__ == "__main__":
    command.run(main)
