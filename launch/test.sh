#!/usr/bin/env bash
# Installs what is needed and runs the tests; arguments go to pytest: launch/test.sh -m slow tests/training
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"
install_project dev
fetch_smollm2 || echo "SmolLM2 could not be fetched; the tests that need it will be skipped" >&2
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
case " $* " in
  *" -m "*) exec "$PYTHON" -m pytest "$@" ;;
  *) exec "$PYTHON" -m pytest -m "not slow" "$@" ;;
esac
