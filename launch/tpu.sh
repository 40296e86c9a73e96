#!/usr/bin/env bash
# Runs a command of this project on a TPU VM or a TPU pod slice: asks Cloud TPU's queue for the slice, installs the
# project on all its hosts, starts the command on each, and brings both back after a preemption.
#   launch/tpu.sh create NAME SLICE [FLAG...]   waits until it is there. SLICE as the configs name it: v5e:8x8,
#                                               v4:4x4x4, 2*v5e:8x8. FLAGs are gcloud's: --spot, --network=..., ...
#   launch/tpu.sh setup NAME [GIT_URL [REF]]    installs this working tree, or what is at GIT_URL, on every host
#   launch/tpu.sh run NAME COMMAND...           starts COMMAND on every host and leaves it there, under launch/run.sh
#   launch/tpu.sh status NAME                   state of the slice, and of COMMAND on every host
#   launch/tpu.sh logs NAME [HOST]              follows the log of a host; default 0
#   launch/tpu.sh stop NAME                     SIGTERM: COMMAND checkpoints and ends, the slice stays
#   launch/tpu.sh resume NAME                   makes a slice that was preempted anew, and runs what was run last
#   launch/tpu.sh watch NAME                    resumes it whenever that is needed, until COMMAND is whole or has failed
#   launch/tpu.sh delete NAME                   gives the slice back
# For example: launch/tpu.sh create run1 v5e:8x8 --spot && launch/tpu.sh setup run1 && launch/tpu.sh run run1 \
#   python -m imitation_jax.train --config=configs/llama_7b.py --config.data.path=gs://... --workdir=gs://BUCKET/run1
# Project and zone are gcloud's: CLOUDSDK_CORE_PROJECT and CLOUDSDK_COMPUTE_ZONE, or gcloud config set compute/zone.
# What was asked for stands in ~/.cache/imitation_jax/tpu, so that resume can ask again.
#   IMITATION_POLL   seconds between two looks at the queue; default 30
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"
# shellcheck source=launch/slices.sh
source launch/slices.sh
verb=${1:-} name=${2:-}
case $name in "" | -*) fail "launch/tpu.sh VERB NAME ...; --help tells more" ;; esac
shift 2
poll=${IMITATION_POLL:-30}
asked=${IMITATION_CACHE:-$HOME/.cache/imitation_jax}/tpu/$name

queue() { gcloud compute tpus queued-resources "$@"; }
on_hosts() { queue ssh "$name" --node=all --worker=all --quiet --command="$1"; }
host() { on_hosts "imitation_jax/launch/host.sh $(printf '%q ' "$@")"; } # host VERB ARGUMENT...: launch/host.sh on each
state() { queue list --filter="name~/$name$" --format="value(state.state)"; } # nothing where there is no such slice
note() { # note VERB [ARGUMENT...]
  mkdir -p "$(dirname "$asked")"
  local file=$asked.$1
  shift
  if [ $# -gt 0 ]; then printf '%q ' "$@"; fi >"$file"
}
again() { # again VERB: as it was asked for last
  [ -e "$asked.$1" ] || fail "$name: this machine has not called launch/tpu.sh $1 $name; do it by hand"
  eval "$1 $(cat "$asked.$1")"
}

create() { # create SLICE [FLAG...]
  slice "$1"
  local flags=(--accelerator-type="$TYPE")
  if [ "$KIND" = v4 ]; then flags=(--type=v4 --topology="$SHAPE"); fi
  if [ "$SLICES" = 1 ]; then flags+=(--node-id="$name"); else flags+=(--node-count="$SLICES" --node-prefix="$name"); fi
  queue create "$name" --runtime-version="$VERSION" "${flags[@]}" "${@:2}"
  wait_for_hosts
}

wait_for_hosts() {
  local now
  while :; do
    now=$(state)
    case $now in
      ACTIVE) break ;;
      FAILED | SUSPEND* | "") fail "$name is ${now:-not in the queue}; delete it and create it again" ;;
    esac
    echo "$name is $now" >&2
    sleep "$poll"
  done
  for _ in 1 2 3 4 5 6 7 8 9 10; do # hosts answer some time after the queue calls them there
    if on_hosts true; then return; fi
    sleep "$poll"
  done
  fail "$name is ACTIVE, but its hosts do not answer; gcloud's own message is above"
}

setup() { # setup [GIT_URL [REF]]
  if [ $# -gt 0 ]; then
    on_hosts "mkdir -p imitation_jax && cd imitation_jax && git init --quiet &&
      git fetch --quiet --depth=1 $(printf '%q %q' "$1" "${2:-HEAD}") && git checkout --quiet --force FETCH_HEAD"
  else
    local folder file
    folder=$(mktemp -d)
    git ls-files --cached --others --exclude-standard | while read -r file; do
      if [ -e "$file" ]; then echo "$file"; fi # not what was deleted and not committed
    done | tar -czf "$folder/imitation_jax.tgz" -T -
    queue scp "$folder/imitation_jax.tgz" "$name:" --node=all --worker=all --quiet
    rm -r "$folder"
    on_hosts "mkdir -p imitation_jax && tar -xzf imitation_jax.tgz -C imitation_jax"
  fi
  host install
}

run() { host start "$@"; } # run COMMAND...

delete() {
  local now
  now=$(state)
  while [[ $now =~ ^(SUSPENDING|DELETING)$ ]]; do sleep "$poll"; now=$(state); done
  if [ -n "$now" ]; then queue delete "$name" --force --quiet; fi
}

resume() {
  local now
  now=$(state)
  case $now in
    ACTIVE) ;;
    ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING | CREATING) wait_for_hosts; again setup ;; # it keeps its place
    *) delete; again create; again setup ;;
  esac
  again run
}

case $verb in
  create) [ $# -gt 0 ] || fail "create NAME SLICE; --help tells more"; note create "$@"; create "$@" ;;
  setup) note setup "$@"; setup "$@" ;;
  run) [ $# -gt 0 ] || fail "run NAME COMMAND...; --help tells more"; note run "$@"; run "$@" ;;
  status) echo "$name: $(state)"; host state ;;
  logs) queue ssh "$name" --worker="${1:-0}" --quiet --command="tail -n 100 -F imitation_jax.log" ;;
  stop) host stop ;;
  resume) resume ;;
  watch)
    failures=0 ended=0 looks=4 # before an end that is none of exit 0 is believed
    while [ "$failures" -lt 8 ]; do
      now=$(state) || now=ACTIVE # gcloud could not be asked: the hosts tell
      if [ "$now" != ACTIVE ]; then
        if launch/tpu.sh resume "$name"; then failures=0 ended=0; else failures=$((failures + 1)); fi
      elif now=$(host state) && ! grep -q ": running" <<<"$now"; then
        if ! grep ": " <<<"$now" | grep -vq "ended with exit 0$"; then echo "$now"; exit 0; fi
        # A slice that is taken away ends its commands some time before the queue says so.
        ended=$((ended + 1))
        if [ "$ended" = "$looks" ]; then echo "$now"; exit 1; fi
      fi
      sleep "$poll"
    done
    fail "$name could not be resumed $failures times in a row; gcloud's own message is above"
    ;;
  delete) delete ;;
  *) fail "there is no $verb; launch/tpu.sh --help tells what there is" ;;
esac
