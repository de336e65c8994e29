#!/usr/bin/env bash
# Serves a model by vLLM with separate token budgets for thinking and solution; `bash launch/serve.sh --help` says how.
set -euo pipefail
unset CDPATH

usage() {
    cat <<'HELP'
bash launch/serve.sh MODEL [arguments of vLLM]

Starts vLLM's OpenAI server, of the active environment, with the plug-in that budgets need. MODEL is a folder or a
hub id. Other markers than <think> and </think> are given by --reasoning-config, as here below.

At most 512 tokens of thinking:

  curl -s http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{
    "messages": [{"role": "user", "content": "What is 3 + 4?"}],
    "vllm_xargs": {"thinking_token_budget": 512}, "max_tokens": 1024}'

And at most 128 tokens of solution:

  curl -s http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{
    "messages": [{"role": "user", "content": "What is 3 + 4?"}],
    "vllm_xargs": {"thinking_token_budget": 512, "solution_token_budget": 128}}'
HELP
}

case ${1:-} in
    --help | -h)
        usage
        exit
        ;;
    "" | -*)
        echo "serve.sh: give the folder or the hub id of a model first: see --help." >&2
        exit 2
        ;;
esac
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH=$checkout${PYTHONPATH:+:$PYTHONPATH}
if ! python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("vllm") is None)' >/dev/null 2>&1; then
    echo "serve.sh: the active environment has no vLLM: activate one that has, or run pip install vllm." >&2
    exit 2
fi
exec python -m vllm.entrypoints.openai.api_server --model "$1" \
    --reasoning-config '{"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}' \
    --logits-processors elastic.serving.plugin:TokenBudgets "${@:2}"
