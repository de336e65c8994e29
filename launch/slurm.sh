#!/usr/bin/env bash
# sbatch --nodes=3 launch/slurm.sh --config recipes/e1_math_7b.yaml
#SBATCH --job-name=elastic
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@600
# Trains on the nodes of a job with ZeRO-3, one process a GPU. Of several nodes the last one serves the rollouts by vLLM;
# with ROLLOUT_SERVER=no all of them train. Submit it from the checkout with the environment active, and give the options
# of elastic.train after it. There is no launcher between Slurm and the processes, so that SIGTERM reaches them and they
# have all of the 600 s to save; then the job is queued again, and goes on from there.
set -euo pipefail

if [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "slurm.sh: this is no Slurm job: start it by sbatch --nodes=N launch/slurm.sh --config RECIPE." >&2
    exit 2
fi
cd "$SLURM_SUBMIT_DIR"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
gpus=$SLURM_GPUS_ON_NODE
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
training_step=0
training=
rollouts=()
asked=no stopping=no

on_term() {
    asked=yes stopping=yes
    if [ -n "$training" ]; then
        scancel --signal=TERM "$SLURM_JOB_ID.$training_step"
    else # the server is starting, and there is nothing to save
        scontrol requeue "$SLURM_JOB_ID"
        exit 143
    fi
}

model_of_recipe() {
    python - "$@" <<'PYTHON'
import argparse, pathlib
from elastic.parsing import read_recipe
parser = argparse.ArgumentParser()
parser.add_argument("--config", type=pathlib.Path)
parser.add_argument("--model_name_or_path")
options, _ = parser.parse_known_args()
print(options.model_name_or_path or read_recipe(options.config)["model_name_or_path"])
PYTHON
}

trap on_term TERM
if [ "${#nodes[@]}" -gt 1 ] && [ "${ROLLOUT_SERVER:-yes}" = yes ]; then
    server_node=${nodes[-1]}
    unset 'nodes[-1]'
    model=$(model_of_recipe "$@")
    # What TRL's server mode asks of the server: its development endpoints, weights by NCCL, log-probabilities as sampled.
    VLLM_SERVER_DEV_MODE=1 srun --nodes=1 --ntasks-per-node=1 --nodelist="$server_node" --gpus-per-node="$gpus" \
        vllm serve "$model" --data-parallel-size "$gpus" --weight-transfer-config '{"backend": "nccl"}' \
        --logprobs-mode processed_logprobs --max-logprobs -1 &
    server=$!
    trap 'kill "$server" 2>/dev/null || true' EXIT
    until curl --silent --fail --output /dev/null "http://$server_node:8000/health"; do
        kill -0 "$server" 2>/dev/null || { echo "slurm.sh: the vLLM server on $server_node has ended." >&2; exit 1; }
        sleep 5
    done
    training_step=1
    rollouts=(--use_vllm true --vllm_mode server --vllm_server_host "$server_node")
fi

export MASTER_ADDR=${nodes[0]} MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
# shellcheck disable=SC2016
srun --nodes="${#nodes[@]}" --ntasks-per-node="$gpus" --nodelist="$(IFS=,; echo "${nodes[*]}")" \
    --gpus-per-node="$gpus" --kill-on-bad-exit=1 \
    bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS exec python -m elastic.train "$@"' \
    elastic.train --deepspeed launch/deepspeed_zero3.json "${rollouts[@]}" "$@" &
training=$!
while true; do
    code=0
    wait "$training" || code=$?
    [ "$asked" = yes ] || break
    asked=no # the signal has interrupted the waiting, not the training
done
if [ "$code" -eq 143 ] || { [ "$stopping" = yes ] && [ "$code" -ne 0 ]; }; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
