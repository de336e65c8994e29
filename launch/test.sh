#!/usr/bin/env bash
# bash launch/test.sh [pytest arguments]
# Makes the environment, or re-uses it, and runs the style checks and the tests: all of them, or those that are named.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"
python -m ruff check
python -m ruff format --check
exec python -m pytest "$@"
