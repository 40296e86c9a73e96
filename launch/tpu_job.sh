#!/usr/bin/env bash
# Runs one job on a TPU slice of its own, from its creation to its end, and gives the slice back; what `study
# --launcher=tpu` calls for each of its jobs. Called again with the same name it goes on watching, and resumes after
# preemption.
#   launch/tpu_job.sh NAME SLICE [gcloud's FLAG...] -- COMMAND...
#   launch/tpu_job.sh NAME        gives the slice back, as what was run there is known to have ended
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"
[ $# = 1 ] || [ $# -ge 4 ] || fail "launch/tpu_job.sh NAME SLICE [FLAG...] -- COMMAND...; --help tells more"
name=$1 slice=${2:-} flags=()
asked=${IMITATION_CACHE:-$HOME/.cache/imitation_jax}/tpu/$name

# Where `study` is killed, SIGTERM comes to this script alone: all that it has started, in a process group of their own,
# must end with it, or there would be two that watch one slice. Signals are heeded while it waits in the background.
trap 'trap "" TERM; kill -TERM 0; exit 143' TERM INT
tpu() { launch/tpu.sh "$@" & wait $!; }
give_back() { tpu delete "$name"; rm -f "$asked.run"; }

if [ $# = 1 ]; then give_back; exit; fi
shift 2
while [ "$1" != -- ]; do
  flags+=("$1")
  shift
  [ $# -gt 1 ] || fail "no command after --; --help tells more"
done
shift
if [ ! -e "$asked.run" ]; then
  tpu delete "$name" # what a killed start had begun
  tpu create "$name" "$slice" ${flags[@]+"${flags[@]}"}
  tpu setup "$name"
  tpu run "$name" "$@"
fi
code=0
tpu watch "$name" || code=$?
give_back
exit "$code"
