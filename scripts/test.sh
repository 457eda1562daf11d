#!/usr/bin/env bash
# Installs what is missing, builds the release, and runs every test: units, golden vectors, the command line, scripts.
# Arguments go to ctest, for example: scripts/test.sh -R layers
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

scripts/setup.sh
scripts/build.sh release >/dev/null
ctest --test-dir build --output-on-failure --no-tests=error "$@"
