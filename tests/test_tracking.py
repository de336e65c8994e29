"""W&B: what a run without a key leaves on the disk, and a W&B that fails."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from statistics import mean, quantiles

import pandas
import pytest
import wandb
from trainer_fixtures import config_fields, even_reward, save_model, write_problems
from wandb.proto import wandb_internal_pb2

from elastic import train
from elastic.tracking import start_wandb
from rewards.grades import Reason

BLOCK_BYTES, HEADER_BYTES = 32768, 7


def records(path: Path):
    """The records of a .wandb file: a LevelDB log (blocks of fragments: checksum, length, type) after 7 bytes."""
    data, position, parts = path.read_bytes(), HEADER_BYTES, b""
    assert data[:4] == b":W&B"
    while position + HEADER_BYTES <= len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < HEADER_BYTES:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER_BYTES])
        position += HEADER_BYTES
        parts += data[position : position + length]
        position += length
        if kind in (1, 4):  # a whole record, or its last fragment
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def history(path: Path) -> list[dict]:
    """The logged rows, with the names that W&B shows."""
    rows = [record.history.item for record in records(path) if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


def arguments(folder: Path, **changes) -> list[str]:
    fields = config_fields(folder, report_to="wandb", log_completions=True, num_completions_to_print=0) | changes
    fields |= dict(model_name_or_path=save_model(folder / "model"), dataset_name=write_problems(folder / "p.jsonl"))
    return [f"--{name}={value}" for name, value in fields.items()]


@pytest.fixture(scope="module")
def no_key(tmp_path_factory):
    """An environment as a person has it who never heard of W&B."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_DIR"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("NETRC", str(tmp_path_factory.getbasetemp() / "no_netrc"))
        yield patch
        wandb.teardown()


@pytest.fixture(scope="module")
def run(no_key, tmp_path_factory):
    """The folder of a run of three steps that varies its budgets."""
    folder = tmp_path_factory.mktemp("tracked")
    options = dict(thinking_token_budget="{choices: [3, 12]}", per_device_train_batch_size=24, max_steps=3)
    train.main(arguments(folder, **options, reward_funcs="trainer_fixtures.even_reward"))
    wandb.teardown()  # which waits until the last block is on the disk
    return folder / "run"


def logged(run):
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    return [row for row in history(path) if "budget/forced_rate" in row]


NAMES = {
    *("budget/forced_rate", "budget/eos_in_thinking_rate", "budget/solution_truncated_rate", "budget/reopened_rate"),
    *("budget/thinking_tokens", "budget/thinking_tokens_p50", "budget/thinking_tokens_p95", "budget/solution_tokens"),
    *("reward/natural", "reward/forced", "reward/thinking_budget_to_4", "reward/thinking_budget_to_16"),
    *("time/generation_s", "time/reward_s", "time/training_s", "throughput/sampled_tokens_per_s"),
    *("faults/failed_saves", "faults/skipped_steps", "faults/reward_errors"),
}


def test_a_run_without_a_key_keeps_every_metric_offline(run):
    rows = logged(run)
    assert [row["train/global_step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert NAMES - {"reward/natural"} <= row.keys()
        assert {"train/loss", "train/reward", "train/entropy", "train/completions/mean_length"} <= row.keys()
    assert any("reward/natural" in row for row in rows)


def rollout_tables(run):
    """By step: the table of rollouts that W&B has."""
    tables = {}
    for path in run.glob("wandb/offline-run-*/files/media/table/*.json"):
        content = json.loads(path.read_text())
        table = pandas.DataFrame(content["data"], columns=content["columns"])
        tables[int(table["step"][0])] = table
    return tables


def test_the_table_of_rollouts_is_there_and_the_metrics_are_its_means(run):
    tables = rollout_tables(run)
    assert tables.keys() == {1, 2, 3}
    for row in logged(run):
        table = tables[row["train/global_step"]]
        assert {"prompt", "thinking", "solution", "thinking_stop_reason", "even_reward"} <= set(table.columns)
        assert len(table) == 24
        reason, reward = table["thinking_stop_reason"], table["even_reward"]
        assert reward.tolist() == even_reward(None, table["solution"])
        # A word is a token, and the marker or EOS that ends the thinking is one more, if the policy sampled it.
        thinking = (table["thinking"].str.split().str.len() + reason.isin(["natural", "eos"])).tolist()
        assert row["budget/forced_rate"] == pytest.approx(mean(reason == "budget"))
        assert row["budget/eos_in_thinking_rate"] == pytest.approx(mean(reason == "eos"))
        assert row["budget/thinking_tokens"] == pytest.approx(mean(thinking))
        percentiles = quantiles(thinking, n=20, method="inclusive")
        assert row["budget/thinking_tokens_p50"] == pytest.approx(percentiles[9])
        assert row["budget/thinking_tokens_p95"] == pytest.approx(percentiles[18])
        for name, stop in (("reward/natural", "natural"), ("reward/forced", "budget")):
            rewards = reward[reason == stop].tolist()
            assert row.get(name) == (pytest.approx(mean(rewards)) if rewards else None)
        assert row["train/reward"] == pytest.approx(mean(reward))


def test_reasons_are_rates_and_a_column_of_the_table(no_key, tmp_path):
    options = dict(per_device_train_batch_size=24, max_steps=2, solution_token_budget=2)
    train.main(arguments(tmp_path, **options, reward_funcs="exact"))
    wandb.teardown()
    tables = rollout_tables(tmp_path / "run")
    found = set()
    for row in logged(tmp_path / "run"):
        reasons = tables[row["train/global_step"]]["exact_reason"].tolist()
        assert len(reasons) == 24
        for reason in [*Reason, "ungraded"]:
            assert row[f"reward/exact/{reason}"] == pytest.approx(reasons.count(str(reason)) / 24)
        assert row["reward/ungraded_rate"] == 0.0
        found |= set(reasons)
    assert {"no_answer", "wrong_answer"} <= found <= {"no_answer", "wrong_answer", "correct"}


def test_times_and_throughput_fit_together(run):
    for row, table in zip(logged(run), (table for _, table in sorted(rollout_tables(run).items())), strict=True):
        assert 0 < row["time/generation_s"] < 60 and 0 < row["time/training_s"] < 60
        assert row["time/generation_s"] + row["time/reward_s"] + row["time/training_s"] == pytest.approx(
            row["train/step_time"], rel=0.05
        )
        sampled = row["throughput/sampled_tokens_per_s"] * row["time/generation_s"]
        assert sampled == pytest.approx(len(table) * row["train/completions/mean_length"], rel=1e-3)


@pytest.mark.parametrize("error", [wandb.errors.CommError("no answer"), OSError("read-only"), ValueError("bad mode")])
def test_a_run_goes_on_when_wandb_cannot_start(no_key, tmp_path, monkeypatch, capfd, caplog, error):
    def fail(**settings):
        raise error

    monkeypatch.setattr(wandb, "init", fail)
    train.main(arguments(tmp_path, reward_funcs="trainer_fixtures.even_reward"))
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert f"W&B could not start with mode offline: {error}" in caplog.text
    assert "The run goes on without W&B." in caplog.text


@pytest.mark.parametrize("failing", ["login", "start"])
def test_a_run_that_cannot_be_tracked_online_is_kept_offline(no_key, tmp_path, monkeypatch, caplog, failing):
    modes = []

    def login(prompt):
        if failing == "login":
            raise wandb.errors.AuthenticationError("no network")
        return True

    def init(mode, **settings):
        modes.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("no network")

    monkeypatch.setattr(wandb, "login", login)
    monkeypatch.setattr(wandb, "init", init)
    report_to = ["wandb"]
    start_wandb(report_to, project=None, entity=None, name=None, folder=str(tmp_path), resumed=False)
    assert modes == (["offline"] if failing == "login" else ["online", "offline"])
    assert report_to == ["wandb"] and "no network" in caplog.text


def test_project_and_name_are_the_recipes_and_the_environments_after(no_key, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(wandb, "init", lambda **settings: started.append(settings))
    monkeypatch.setenv("WANDB_PROJECT", "environments")
    for project in ("recipes", None):
        start_wandb(["wandb"], project=project, entity=None, name="first", folder=str(tmp_path), resumed=False)
    start_wandb([], project="recipes", entity=None, name="first", folder=str(tmp_path), resumed=False)
    assert [settings["project"] for settings in started] == ["recipes", "environments"]
    assert started[0] | {"project": None, "id": None} == dict(
        project=None, entity=None, name="first", dir=str(tmp_path), mode="offline", id=None, resume=None
    )


def test_a_run_that_is_resumed_goes_on_in_its_run_of_wandb(no_key, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(wandb, "init", lambda **settings: started.append(settings))
    monkeypatch.setenv("WANDB_MODE", "online")
    for resumed in (False, True, True, False):
        start_wandb(["wandb"], project=None, entity=None, name=None, folder=str(tmp_path), resumed=resumed)
    first, second, third, anew = (settings["id"] for settings in started)
    assert first == second == third and first and anew not in (first, None)
    assert {settings["resume"] for settings in started} == {"allow"}


def test_a_command_that_is_given_again_resumes_its_run_of_wandb(no_key, tmp_path):
    for steps in (1, 2):
        options = dict(max_steps=steps, save_strategy="steps", save_steps=1)
        train.main(arguments(tmp_path, **options, reward_funcs="trainer_fixtures.even_reward"))
        wandb.teardown()
    names = [path.stem for path in (tmp_path / "run").glob("wandb/offline-run-*/*.wandb")]
    assert len(set(names)) == 1 and names[0] == f"run-{(tmp_path / 'run' / 'wandb_run_id').read_text()}"


def trained_in_a_process(options: list[str], **environment: str) -> subprocess.CompletedProcess:
    """Not in this process, whose W&B has been asked already, and whose environment has the address of its service."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return subprocess.run(
        [sys.executable, "-m", "elastic.train", *options],
        env=own | {"PYTHONPATH": str(Path(__file__).parent)} | environment,
        capture_output=True,
        text=True,
    )


def test_a_run_outlives_the_process_that_writes_wandbs_files(no_key, tmp_path):
    options = arguments(tmp_path, max_steps=3, reward_funcs="trainer_fixtures.reward_that_kills_wandb")
    done = trained_in_a_process(options)
    assert (done.returncode, "W&B failed, and the run goes on without it" in done.stderr) == (0, True)
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_run_whose_wandb_cannot_be_reached_is_kept_offline(no_key, tmp_path):
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    done = trained_in_a_process(arguments(tmp_path, reward_funcs="trainer_fixtures.even_reward"), **nobody)
    assert done.returncode == 0 and (tmp_path / "run" / "model.safetensors").is_file()
    assert "W&B could not log in, so that the run is kept offline" in done.stderr
    assert [row["train/global_step"] for row in logged(tmp_path / "run")] == [1, 2]
