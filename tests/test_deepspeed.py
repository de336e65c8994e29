"""Training on two processes on a CPU, by every launcher: it is the run of one process, and rewards are asked once."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from trainer_fixtures import config_fields, save_model, write_problems
from transformers import AutoModelForCausalLM
from trl import ModelConfig

from elastic import train
from elastic.machine import read_machine
from elastic.memory import Work, states
from elastic.planning import model_sizes

ROOT = Path(__file__).parents[1]
STEPS, ROWS, GROUP = 4, 16, 4
TIMES = ("time/", "throughput/", "step_time")
# Without dropout, whose random numbers are those of a process.
LORA = ("--use_peft=true", "--lora_r=4", "--lora_dropout=0", "--lora_target_modules", "q_proj", "v_proj")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def accelerate(launch_file):
    return ["accelerate", "launch", "--config_file", f"launch/{launch_file}", "--main_process_port", str(free_port())]


# The words before `elastic.train`, and after them.
LAUNCHERS = {
    "torchrun": lambda: (["torchrun", "--standalone", "--nproc_per_node", "2", "-m", "elastic.train"], []),
    "cpu_zero2.yaml": lambda: ([*accelerate("cpu_zero2.yaml"), "-m", "elastic.train"], []),
    "cpu_zero3.yaml": lambda: ([*accelerate("cpu_zero3.yaml"), "-m", "elastic.train"], []),
    "deepspeed": lambda: (
        ["deepspeed", "--num_gpus", "2", "--master_port", str(free_port()), "--module", "elastic.train"],
        ["--deepspeed", "launch/deepspeed_zero3.json"],
    ),
    "slurm.sh": lambda: (["bash", "launch/slurm.sh"], []),
}

# Starts the tasks of a step as Slurm does, all of them here.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do
    case $1 in --nodes=*) nodes=${1#*=} ;; --ntasks-per-node=*) tasks=${1#*=} ;; esac
    shift
done
export SLURM_NTASKS=$((nodes * tasks))
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$((task % tasks)) "$@" &
    started+=($!)
done
code=0
for process in "${started[@]}"; do wait "$process" || code=$?; done
exit "$code"
"""


def finished(command, **environment):
    """With time for DeepSpeed to compile its extension, where that has not been done."""
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


class Run:
    """A training run in a folder of its own: 3 batches of 4 prompts an epoch, updates of 2 micro-batches."""

    def __init__(self, folder, *more):
        folder.mkdir()
        self.folder, self.dir, self.calls = folder, folder / "run", folder / "calls"
        self.calls.mkdir()
        self.more = more

    def arguments(self, processes, **changes):
        rows = ROWS // 2 // processes
        fields = dict(per_device_train_batch_size=rows, gradient_accumulation_steps=2, max_steps=STEPS, beta=0.01)
        fields |= dict(save_strategy="steps", save_steps=2, log_completions=True, num_completions_to_print=0)
        fields |= dict(thinking_token_budget="{uniform: [2, 9]}", reward_funcs="trainer_fixtures.counted_reward")
        fields = config_fields(self.folder, **(fields | changes))
        del fields["use_cpu"]  # each launcher has to find out by itself
        return [
            *(f"--{name}={value}" for name, value in fields.items()),
            f"--model_name_or_path={self.folder.parent / 'model'}",
            f"--dataset_name={self.folder.parent / 'problems.jsonl'}",
            *self.more,
        ]

    def alone(self, monkeypatch):
        monkeypatch.setenv("CALLS", str(self.calls))
        train.main(self.arguments(1))

    def launched(self, launcher):
        before, after = LAUNCHERS[launcher]()
        programs = self.folder / "programs"
        programs.mkdir(exist_ok=True)
        for name, text in {"srun": SRUN, "scontrol": "#!/bin/sh\necho localhost\n"}.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        environment = dict(
            PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}",
            PATH=f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            CALLS=str(self.calls),
        )
        environment |= dict(SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(ROOT), SLURM_JOB_NODELIST="here")
        environment |= dict(SLURM_GPUS_ON_NODE="2", MASTER_PORT=str(free_port()))
        return finished([*before, *after, *self.arguments(2)], **environment)

    def logged(self, step=STEPS):
        state = json.loads((self.dir / f"checkpoint-{step}" / "trainer_state.json").read_text())
        return [log for log in state["log_history"] if "loss" in log]

    def rollouts(self, step):
        table = pandas.read_parquet(self.dir / "completions" / f"completions_{step:05d}.parquet")
        columns = ("thinking", "solution", "thinking_stop_reason", "counted_reward")
        return list(zip(*(table[column] for column in columns), strict=True))

    def graded(self):
        """By process, what each call of the reward was about: the step and the rows."""
        files = sorted(self.calls.iterdir())
        return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]

    @property
    def weights(self):
        return load_file(next(self.dir.glob("*model.safetensors")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    save_model(folder / "model")
    write_problems(folder / "problems.jsonl", 12)
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    with pytest.MonkeyPatch.context() as patch:
        run = Run(folder / "alone")
        run.alone(patch)
    return run


@pytest.fixture(scope="module")
def launched(folder):
    """Each launcher's run, made once."""
    runs = {}

    def get(launcher):
        if launcher not in runs:
            runs[launcher] = Run(folder / launcher.partition(".")[0])
            runs[launcher].launched(launcher)
        return runs[launcher]

    return get


def assert_same_training(run, alone):
    logs, expected_logs = run.logged(), alone.logged()
    assert [log["step"] for log in logs] == list(range(1, STEPS + 1))
    for log, expected in zip(logs, expected_logs, strict=True):
        assert log.keys() == expected.keys()
        for name in log.keys() - {name for name in log if name.startswith(TIMES)}:
            assert log[name] == pytest.approx(expected[name], abs=1e-4), (name, log["step"])
    weights, expected_weights = run.weights, alone.weights
    assert weights.keys() == expected_weights.keys()
    for name, weight in weights.items():
        assert weight.dtype == torch.float32 and weight.numel() > 0
        torch.testing.assert_close(weight, expected_weights[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_run_is_that_of_one_process(alone, launched, launcher):
    run = launched(launcher)
    assert_same_training(run, alone)
    for step in range(1, STEPS + 1):
        rollouts = run.rollouts(step)
        assert len(rollouts) == ROWS and rollouts == alone.rollouts(step)
    reasons = Counter(reason for step in range(1, STEPS + 1) for _, _, reason, _ in run.rollouts(step))
    assert reasons["budget"] > 4 and reasons["eos"] > 4


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_reward_is_asked_once_for_a_sample_and_on_its_own_process(launched, launcher):
    run = launched(launcher)
    own = run.graded()
    assert [len(calls) for calls in own] == [STEPS, STEPS]
    for step, calls in enumerate(zip(*own, strict=True)):
        assert [call["step"] for call in calls] == [step, step]
        solutions = [text for call in calls for text in call["solutions"]]
        assert solutions == [solution for _, solution, _, _ in run.rollouts(step + 1)]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_tokens_are_counted_once(launched, launcher):
    for log in launched(launcher).logged():
        sampled = ROWS * (log["budget/thinking_tokens"] + log["budget/solution_tokens"])
        assert log["throughput/sampled_tokens_per_s"] * log["time/generation_s"] == pytest.approx(sampled, rel=1e-3)


def test_zero3_saves_a_model_that_transformers_loads(alone, launched):
    model = AutoModelForCausalLM.from_pretrained(launched("cpu_zero3.yaml").dir)
    expected = AutoModelForCausalLM.from_pretrained(alone.dir)
    ids = torch.tensor([[1, 5, 9, 12]])
    torch.testing.assert_close(model(ids).logits, expected(ids).logits, atol=1e-3, rtol=0)


def test_a_run_with_zero3_resumes_as_if_it_had_not_been_interrupted(folder, launched):
    undisturbed = launched("cpu_zero3.yaml")
    run = Run(folder / "resumed")
    shutil.copytree(undisturbed.dir, run.dir)
    shutil.rmtree(run.dir / f"checkpoint-{STEPS}")
    (run.dir / "model.safetensors").unlink()
    said = run.launched("cpu_zero3.yaml").stdout
    assert f"Resuming from {run.dir}/checkpoint-2: the data go on in the order that they had." in said
    assert [[call["step"] for call in calls] for calls in run.graded()] == [[2, 3], [2, 3]]
    for log, expected in zip(run.logged(), undisturbed.logged(), strict=True):
        timed = {name for name in log if name.startswith(TIMES)}
        assert {name: log[name] for name in log.keys() - timed} == {name: expected[name] for name in log.keys() - timed}
    assert all(torch.equal(weight, undisturbed.weights[name]) for name, weight in run.weights.items())


def test_lora_with_zero3_is_lora_on_one_process(folder, monkeypatch):
    alone, run = Run(folder / "lora-alone", *LORA), Run(folder / "lora-zero3", *LORA)
    alone.alone(monkeypatch)
    run.launched("cpu_zero3.yaml")
    assert_same_training(run, alone)
    assert max(weight.abs().max() for name, weight in run.weights.items() if "lora_B" in name) > 0
    ids = torch.tensor([[1, 5, 9, 12]])
    models = [AutoPeftModelForCausalLM.from_pretrained(one.dir) for one in (run, alone)]
    torch.testing.assert_close(models[0](ids).logits, models[1](ids).logits, atol=1e-3, rtol=0)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_process_holds_the_bytes_that_the_plan_says(folder, tmp_path, stage):
    for name in ("model", "problems.jsonl"):
        (tmp_path / name).symlink_to(folder / name)
    command = [*accelerate(f"cpu_zero{stage}.yaml"), "tests/zero_states.py", str(tmp_path)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = finished(command, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}", PATH=path).stdout
    (held,) = [json.loads(line.removeprefix("held: ")) for line in said.splitlines() if line.startswith("held: ")]
    work = Work(4, 4, 20, 10, loaded_bytes=4, mixed=True, checkpointing=False, reference=True)
    machine = read_machine(str(ROOT / "launch" / f"cpu_zero{stage}.yaml"))
    parts = states(model_sizes(ModelConfig(), str(folder / "model")), work, machine)
    assert {part.name: part.bytes for part in parts if part.name in held} == held
    assert len(held) == (4 if stage == 3 else 3)
