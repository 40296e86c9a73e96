#!/usr/bin/env bash
# Runs a command of this project on one machine, be it a laptop, a GPU machine or a TPU VM, until it is whole:
#   launch/run.sh python -m imitation_jax.train --config=configs/smollm2_135m.py --config.data.path=... --workdir=RUN
# It is started again after a checkpoint on SIGTERM (exit 75), when another host of its run was lost (exit 76), and
# when it was killed or crashed, unless that happens 8 times in a row soon after the start. Any other failure,
# as a wrong config key, ends it. Ctrl-C and SIGTERM to this script reach the command, which checkpoints, and end both.
# One process takes all GPUs of a machine or all chips of a TPU host; how several machines find each other by hand,
# imitation_jax.train --help tells. The project is installed into .venv first.
#   IMITATION_PYTHON   interpreter to use; default: the newest CPython 3.11-3.13 that runs
#   IMITATION_EXTRAS   what is installed with it: tpu on a TPU VM; default demo, and cuda where there is an NVIDIA GPU
#   IMITATION_PAUSE    seconds before another start; default 10
here=$PWD
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"
[ $# -gt 0 ] || fail "no command; launch/run.sh --help tells more"
install_project "$(device_extras)"
cd "$here" # paths in the command are the caller's
PATH=$(dirname "$PYTHON"):$PATH

ended=""
# shellcheck disable=SC2317,SC2329 # the traps call it
pass() { # pass SIGNAL: to the command
  ended=$1 signalled=1
  if [ -n "${child:-}" ]; then kill -s "$1" "$child" 2>/dev/null || true; fi
}
trap 'pass TERM' TERM
trap 'pass INT' INT
set -m # else a command in the background would not hear Ctrl-C

failures=0
# Longer than a process waits for one that never comes.
lasting=$((${IMITATION_JOIN_SECONDS:-50} + 120))
while :; do
  begin=$SECONDS
  "$@" &
  child=$!
  signalled=1
  while [ -n "$signalled" ]; do # a signal ends wait before the command has ended
    signalled="" code=0
    wait "$child" || code=$?
  done
  child=""
  if [ -n "$ended" ] || ! starts_again "$code"; then break; fi
  if [ "$code" = 75 ] || [ $((SECONDS - begin)) -ge "$lasting" ]; then failures=0; else failures=$((failures + 1)); fi
  if [ "$failures" = 8 ]; then
    echo "launch/run.sh: $failures starts in a row ended within $lasting s; giving up" >&2
    break
  fi
  echo "launch/run.sh: exit $code after $((SECONDS - begin)) s; starting again" >&2
  sleep "${IMITATION_PAUSE:-10}" || true
  if [ -n "$ended" ]; then break; fi
done
echo "launch/run.sh: ended with exit $code" >&2
exit "$code"
