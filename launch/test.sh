#!/usr/bin/env bash
# bash launch/test.sh [pytest arguments]
# Makes the environment, or re-uses it, and runs the style checks and the tests: all of them, or those that are named.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"
python -m ruff check
python -m ruff format --check
if [ $# = 0 ]; then
    # Two at a time, each file in one process: its tests share what they train and load.
    set -- -n 2 --dist loadfile
fi
exec python -m pytest "$@"
