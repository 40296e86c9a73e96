#!/usr/bin/env bash
# Evaluates every checkpoint of a training run on a batch of tasks, on a laptop or a machine with a GPU. Called again it
# goes on where it was stopped, and evaluates only the checkpoints that are new.
#   BASE=gguf:SmolLM2.gguf launch/evaluate.sh RUN --config.only=mmlu,facts --config.tasks.mmlu.data_dir=MMLU ...
#   BASE     model that the checkpoints are compared with (hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]); none by default
#   BATCH    config file with the tasks; default configs/eval/all.py
# Further arguments go to evaluate (its --help lists them). Results go to RUN/eval.
set -eu
here=$PWD
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"
run=${1:-}
case $run in "" | -*) fail "the first argument is the folder of a training run" ;; esac
shift
install_project "$(device_extras)"
batch=${BATCH:-$PWD/configs/eval/all.py}
cd "$here" # paths in the arguments are the caller's
exec "$PYTHON" -m imitation_jax.evaluate --config="$batch" --model="${BASE:+$BASE,}orbax:$run@*" --workdir="$run" "$@"
