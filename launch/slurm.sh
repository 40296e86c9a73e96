#!/usr/bin/env bash
#SBATCH --job-name=imitation_jax
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@300
# Runs a command of this project under Slurm, from the root of the repository, which all nodes must see:
#   sbatch [sbatch's flags] launch/slurm.sh COMMAND...
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh python -m imitation_jax.train --config=...
# One task for each GPU: task n of a node takes its GPU n, as jax does by itself under Slurm, so bind no GPUs to tasks.
# The job is queued again after a checkpoint, which SIGTERM starts 300 s before the time limit and when it is preempted,
# and when a node was lost or a task crashed, up to 8 times. Any other failure, as a wrong config key, ends it.
# scancel JOB ends it, after a checkpoint if that takes no longer than Slurm's KillWait.
#   IMITATION_PYTHON   interpreter to use; default: the newest CPython 3.11-3.13 that runs
#   IMITATION_EXTRAS   what is installed into .venv with it; default demo, and cuda where there is an NVIDIA GPU
set -eu
launch=$(dirname "$0") # but Slurm runs a copy of this file, which lies elsewhere
if [ -n "${SLURM_JOB_ID:-}" ]; then launch=$SLURM_SUBMIT_DIR/launch; fi
# shellcheck source=launch/setup.sh
source "$launch/setup.sh"
[ $# -gt 0 ] || fail "no command; launch/slurm.sh --help tells more"
[ -n "${SLURM_JOB_ID:-}" ] || fail "launch/slurm.sh is started with sbatch; --help tells more"
install_project "$(device_extras)"
PATH=$(dirname "$PYTHON"):$PATH

job=$SLURM_JOB_ID
# By a task's name: the bare number of one task of an array is that of the whole array, all of which would start again.
if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
code=0
srun --kill-on-bad-exit=0 "$@" || code=$? # each task ends by itself when it misses another
echo "launch/slurm.sh: ended with exit $code" >&2
if [ "$code" = 75 ] || { starts_again "$code" && [ "${SLURM_RESTART_COUNT:-0}" -lt 8 ]; }; then
  scontrol requeue "$job"
fi
exit "$code"
