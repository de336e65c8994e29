"""A run of `elastic.train` on a tiny model, and what it left: for the tests of runs that are stopped and go on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import torch
from safetensors.torch import load_file
from trainer_fixtures import config_fields, save_model, write_problems

from elastic import train


class Run:
    """A command line in a folder of its own, and what a run of it left there.

    5 problems, 2 a batch: an epoch is 2 updates, a checkpoint comes every 2, and the last update is mid-epoch.
    """

    def __init__(self, folder: Path, **changes):
        folder.mkdir(exist_ok=True)
        fields = dict(max_steps=9, save_strategy="steps", save_steps=2, log_completions=True)
        fields |= dict(thinking_token_budget="{uniform: [2, 9]}", num_completions_to_print=0)
        fields |= dict(reward_funcs="trainer_fixtures.interrupted_reward") | changes
        self.dir, self.steps = folder / "run", fields["max_steps"]
        model, data = folder.parent / "model", folder.parent / "problems.jsonl"
        self.arguments = [
            *(f"--{name}={value}" for name, value in config_fields(folder, **fields).items()),
            f"--model_name_or_path={model if model.exists() else save_model(model)}",
            *([] if "dataset_name" in changes else [f"--dataset_name={write_problems(data, 5)}"]),
        ]

    def start(self, *more):
        train.main([*self.arguments, *more])

    def killed_after(self, updates):
        """The process that got SIGKILL while it graded the next batch."""
        return subprocess.run(
            [sys.executable, "-m", "elastic.train", *self.arguments],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "INTERRUPT": f"SIGKILL {updates}"},
            capture_output=True,
            text=True,
        )

    @property
    def checkpoints(self):
        return sorted(int(path.name.split("-")[1]) for path in self.dir.glob("checkpoint-*"))

    @property
    def history(self):
        """What was logged at each update, but for times."""
        state = json.loads((self.dir / f"checkpoint-{self.checkpoints[-1]}" / "trainer_state.json").read_text())
        timed = ("time/", "throughput/", "step_time")
        return [
            {name: value for name, value in log.items() if not name.startswith(timed)}
            for log in state["log_history"]
            if "loss" in log
        ]

    @property
    def weights(self):
        return load_file(self.dir / "model.safetensors")

    def rollouts(self, step):
        """(prompt, thinking, solution, advantage) of each rollout of an update."""
        table = pandas.read_parquet(self.dir / "completions" / f"completions_{step:05d}.parquet")
        prompts = [prompt[0]["content"] for prompt in table["prompt"]]
        return list(zip(prompts, table["thinking"], table["solution"], table["advantage"], strict=True))


def assert_equal_runs(run, other):
    steps = range(1, other.steps + 1)
    assert [log["step"] for log in run.history] == list(steps)
    assert run.history == other.history
    assert all(run.rollouts(step) == other.rollouts(step) for step in steps)
    assert_equal_weights(run, other)


def assert_equal_weights(run, other):
    weights, others = run.weights, other.weights
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
