# shellcheck shell=bash disable=SC2034
# Sourced by tpu.sh and gke.sh: what a slice's name in the configs' docstrings, as v5e:8x8 or 2*v4:4x4x4, is to Google.
#   kind      gcloud, XPK         software version       GKE label              docs of Cloud TPU and GKE
#   v4        v4-<cores>          tpu-ubuntu2204-base    tpu-v4-podslice        /tpu/docs/v4, a chip has 2 cores
#   v5e       v5litepod-<chips>   v2-alpha-tpuv5-lite    tpu-v5-lite-podslice   /tpu/docs/v5e
#   v5p, v5   v5p-<cores>         v2-alpha-tpuv5         tpu-v5p-slice          /tpu/docs/v5p, a chip has 2 cores
#   v6e       v6e-<chips>         v2-alpha-tpuv6e        tpu-v6e-slice          /tpu/docs/v6e
# Versions: /tpu/docs/runtimes; labels: /kubernetes-engine/docs/concepts/tpus. gcloud takes a shape for v4 alone
# (--type, --topology); the other types name the usual shape of so many chips.

slice() { # slice NAME: sets SLICES, KIND, SHAPE, CHIPS, TYPE (v5litepod-64), VERSION, LABEL
  local crosses dimensions=3
  [[ $1 =~ ^(([1-9][0-9]*)\*)?(v[0-9]+[a-z]?):([1-9][0-9]*(x[1-9][0-9]*)*)$ ]] ||
    fail "slice $1: write KIND:AxB, as v5e:8x8, v4:4x4x4 or 2*v5e:8x8"
  SLICES=${BASH_REMATCH[2]:-1} KIND=${BASH_REMATCH[3]} SHAPE=${BASH_REMATCH[4]}
  CHIPS=$((${SHAPE//x/*}))
  case $KIND in
    v4) TYPE=v4-$((2 * CHIPS)) VERSION=tpu-ubuntu2204-base LABEL=tpu-v4-podslice ;;
    v5e) TYPE=v5litepod-$CHIPS VERSION=v2-alpha-tpuv5-lite LABEL=tpu-v5-lite-podslice dimensions=2 ;;
    v5p | v5) TYPE=v5p-$((2 * CHIPS)) VERSION=v2-alpha-tpuv5 LABEL=tpu-v5p-slice ;;
    v6e) TYPE=v6e-$CHIPS VERSION=v2-alpha-tpuv6e LABEL=tpu-v6e-slice dimensions=2 ;;
    *) fail "slice $1: unknown kind $KIND; there are v4, v5e, v5p and v6e" ;;
  esac
  crosses=${SHAPE//[0-9]/}
  [ $((${#crosses} + 1)) = $dimensions ] || fail "slice $1: $KIND slices have $dimensions dimensions"
}
