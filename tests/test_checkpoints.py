"""Runs that are killed, stopped and resumed, and the folders they leave."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from runs import Run, assert_equal_runs, assert_equal_weights
from trainer_fixtures import write_problems

from elastic import checkpoints
from elastic.arguments import RunArguments
from elastic.checkpoints import (
    check_counts_tokens,
    checkpoint_to_resume,
    claim_output_dir,
    clear_unfinished,
    complete_checkpoints,
    put_in_place,
    remove_old_checkpoints,
    run_identity,
    unfinished_folder,
)
from elastic.compare.runs import training_cost
from elastic.files import replace_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def undisturbed(folder):
    run = Run(folder / "undisturbed")
    run.start()
    return run


def copied(run, folder, *, without=()):
    """The same command in a copy of its folder, as if it had died before the checkpoints of `without`."""
    copy = Run(folder)
    shutil.copytree(run.dir, copy.dir)
    for step in without:
        shutil.rmtree(copy.dir / f"checkpoint-{step}")
    (copy.dir / "model.safetensors").unlink()
    return copy


def test_a_comparison_reads_what_a_run_cost(undisturbed):
    cost = training_cost(undisturbed.dir)
    assert cost["updates"] == undisturbed.steps
    assert cost["rollout_tokens"] == undisturbed.history[-1]["budget/rollout_tokens"] > 0
    assert cost["update_cpu_seconds"] > 0


def test_a_run_sees_its_problems_in_another_order_in_each_epoch(undisturbed):
    epochs = [
        [prompt for step in steps for prompt, *_ in undisturbed.rollouts(step)[::4]] for steps in ((1, 2), (3, 4))
    ]
    assert [len(set(epoch)) for epoch in epochs] == [4, 4]
    assert epochs[0] != epochs[1]


def test_killed_between_two_checkpoints_it_goes_on_from_the_last_with_the_same_data(undisturbed, folder, capfd):
    run = Run(folder / "killed")
    killed = run.killed_after(5)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert run.checkpoints == [2, 4] and not (run.dir / "model.safetensors").exists()
    assert run.rollouts(5) == undisturbed.rollouts(5)
    run.start()
    assert f"Resuming from {run.dir}/checkpoint-4: the data go on in the order that they had." in capfd.readouterr().out
    assert_equal_runs(run, undisturbed)


def test_sigterm_saves_a_checkpoint_first(undisturbed, folder, capfd, monkeypatch):
    run, handler = Run(folder / "stopped"), signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("INTERRUPT", "SIGTERM 4")
    with pytest.raises(SystemExit) as stopped:
        run.start()
    assert stopped.value.code == 143
    assert "Stopped by SIGTERM after step 5; the same command goes on from step 5." in capfd.readouterr().out
    assert run.checkpoints == [2, 4, 5] and not (run.dir / "model.safetensors").exists()
    assert (run.dir / "stopped").read_text().startswith("Stopped by SIGTERM after step 5;")
    assert signal.getsignal(signal.SIGTERM) is handler
    monkeypatch.delenv("INTERRUPT")
    run.start()
    assert_equal_runs(run, undisturbed)
    assert not (run.dir / "stopped").exists()


@pytest.mark.parametrize("last", [2, 6])
def test_it_resumes_at_the_end_of_an_epoch_and_of_several(undisturbed, folder, last):
    run = copied(undisturbed, folder / f"after-{last}", without=[step for step in (4, 6, 8, 9) if step > last])
    run.start()
    assert_equal_runs(run, undisturbed)


@pytest.mark.parametrize(
    "schedule",
    [
        dict(gradient_accumulation_steps=2, steps_per_generation=4, per_device_train_batch_size=2),
        dict(num_iterations=2),
        dict(gradient_accumulation_steps=2, steps_per_generation=1),  # an epoch of 3 batches is 2 updates
        dict(steps_per_generation=3, logging_steps=2, beta=0.1),
        dict(
            max_rollout_tokens=100_000,
            unbudgeted_share=0.5,
            max_completion_length=20,
            stages={"a": {"share": 0.001}, "b": {"share": 0.999, "thinking_token_budget": 2}},
        ),
    ],
    ids=["two updates a batch", "two passes", "an epoch that is no whole number of updates", "three", "by tokens"],
)
def test_it_resumes_exactly_from_every_step_under_other_schedules(folder, tmp_path, schedule):
    problems = write_problems(folder / "seven.jsonl", 7)
    changes = dict(save_steps=1, max_steps=6, dataset_name=problems) | schedule
    undisturbed = Run(folder / tmp_path.name, **changes)
    undisturbed.start()
    assert undisturbed.checkpoints == [1, 2, 3, 4, 5, 6]
    for last in range(1, 6):
        run = Run(folder / f"{tmp_path.name}-{last}", **changes)
        run.dir.mkdir()
        shutil.copy(undisturbed.dir / "elastic_run.json", run.dir)
        shutil.copytree(undisturbed.dir / f"checkpoint-{last}", run.dir / f"checkpoint-{last}")
        run.start()
        assert run.history == undisturbed.history and run.history[-1]["step"] == 6
        assert_equal_weights(run, undisturbed)


def test_stopped_between_two_updates_of_a_batch_it_keeps_its_rollouts(folder, monkeypatch):
    runs = [Run(folder / f"mid-batch-{i}", steps_per_generation=2, max_steps=6) for i in range(2)]
    runs[0].start()
    monkeypatch.setenv("INTERRUPT", "SIGTERM 2")  # while the second batch is graded, for updates 3 and 4
    with pytest.raises(SystemExit):
        runs[1].start()
    assert runs[1].checkpoints == [2, 3]
    monkeypatch.delenv("INTERRUPT")
    runs[1].start()
    sampled = [log["step"] for log in runs[1].history if "budget/forced_rate" in log]
    assert sampled == [1, 3, 5]
    assert runs[1].history == runs[0].history
    assert_equal_weights(*runs)


def test_a_partial_checkpoint_is_skipped_with_a_sentence(undisturbed, folder, capfd):
    run = copied(undisturbed, folder / "partial", without=(8, 9))
    (run.dir / "checkpoint-6" / "elastic_files.json").unlink()
    (run.dir / "checkpoint-6" / "optimizer.pt").unlink()
    run.start()
    said = capfd.readouterr().out
    assert f"Skipping {run.dir}/checkpoint-6: it was not saved completely." in said
    assert f"Resuming from {run.dir}/checkpoint-4" in said
    assert_equal_runs(run, undisturbed)


def test_a_finished_run_ends_at_once_and_well(undisturbed, folder):
    run = copied(undisturbed, folder / "finished")
    modified = (run.dir / "checkpoint-9" / "model.safetensors").stat().st_mtime_ns
    run.start()
    assert run.checkpoints == [2, 4, 6, 8, 9]
    assert (run.dir / "checkpoint-9" / "model.safetensors").stat().st_mtime_ns == modified
    assert_equal_runs(run, undisturbed)


def test_a_checkpoint_may_be_named_and_more_steps_asked_for(undisturbed, folder):
    run = copied(undisturbed, folder / "named", without=(9,))
    run.start("--resume", str(run.dir / "checkpoint-8"), "--max_steps", "10")
    assert [log["step"] for log in run.history] == list(range(1, 11))
    assert [log["loss"] for log in run.history[:9]] == [log["loss"] for log in undisturbed.history]


def test_a_checkpoint_from_before_tokens_were_counted_is_no_way_on_where_they_end_the_run(tmp_path):
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    torch.save({"micro_steps": 3}, checkpoint / "elastic_position_1.pt")
    check_counts_tokens(None, 500, process=1)
    check_counts_tokens(checkpoint, None, process=1)
    with pytest.raises(ValueError, match=r"max_rollout_tokens is 500, and .*checkpoint-3 is of an earlier version"):
        check_counts_tokens(checkpoint, 500, process=1)
    torch.save({"rollout_tokens": 0}, checkpoint / "elastic_position_1.pt")
    check_counts_tokens(checkpoint, 500, process=1)


def test_going_back_to_an_earlier_step_sets_the_later_ones_aside(undisturbed, folder, capfd):
    run = copied(undisturbed, folder / "back")
    (run.dir / "aside1-checkpoint-8").mkdir()
    capfd.readouterr()
    back = ("--resume", os.path.relpath(run.dir / "checkpoint-2"), "--max_steps", "5", "--save_total_limit", "2")
    run.start(*back)
    names = [f"aside{number}-checkpoint-{step}" for number, step in ((1, 4), (1, 6), (2, 8), (1, 9))]
    assert f"The later checkpoints are set aside: {', '.join(names)}." in capfd.readouterr().out
    assert run.checkpoints == [4, 5] and all((run.dir / name).is_dir() for name in names)
    assert (run.dir / names[-1] / "model.safetensors").read_bytes() == (
        undisturbed.dir / "checkpoint-9" / "model.safetensors"
    ).read_bytes()
    assert checkpoint_to_resume("auto", str(run.dir)) == run.dir / "checkpoint-5"


def refused(capfd, run, *more):
    with pytest.raises(SystemExit) as stopped:
        run.start(*more)
    assert stopped.value.code == 2
    (sentence,) = [line for line in capfd.readouterr().err.splitlines() if "Loading" not in line]
    return sentence.removeprefix("python -m elastic.train: error: ")


def test_what_is_refused_before_a_folder_is_touched(undisturbed, folder, capfd, monkeypatch):
    monkeypatch.setattr("trl.trainer.grpo_trainer.create_model_from_path", None)  # no model is loaded
    capfd.readouterr()
    output_dir = repr(str(undisturbed.dir))
    assert refused(capfd, undisturbed, "--resume", "never") == (
        f"resume is never, but output_dir {output_dir} holds checkpoints: choose another one."
    )
    assert refused(capfd, undisturbed, "--temperature", "0.5", "--learning_rate", "3") == (
        f"output_dir {output_dir} belongs to another run: learning_rate was 0.001 there and is 3.0 now (and "
        f"temperature); choose another output_dir, or put the setting back."
    )
    assert refused(capfd, undisturbed, "--resume", str(folder)) == (
        f"resume is {str(folder)!r}: give auto, never, or the path of a complete checkpoint."
    )
    assert undisturbed.checkpoints == [2, 4, 6, 8, 9]


def checkpoint(folder, step, *, complete=True):
    folder.mkdir(exist_ok=True)
    clear_unfinished(str(folder))
    written = unfinished_folder(str(folder)) / f"checkpoint-{step}"
    (written / "global_step").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "global_step/shard.pt"):
        (written / name).write_text(f"{name} of {step}")
    put_in_place(str(folder), step, processes=1)
    if not complete:
        (folder / f"checkpoint-{step}" / "elastic_files.json").unlink()


def test_checkpoints_are_ordered_by_step(tmp_path):
    for step in (10, 9, 100):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 101, complete=False)
    (tmp_path / "checkpoint-best").mkdir()
    complete, partial = complete_checkpoints(tmp_path)
    assert [path.name for path in complete] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]
    assert [path.name for path in partial] == ["checkpoint-101"]
    assert checkpoint_to_resume("auto", str(tmp_path)) == tmp_path / "checkpoint-100"
    assert checkpoint_to_resume("auto", str(tmp_path / "none")) is None
    assert checkpoint_to_resume("never", str(tmp_path / "none")) is None


def test_old_checkpoints_are_removed_and_the_newest_and_best_stay(tmp_path):
    for step in (2, 4, 6, 8):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 7, complete=False)
    remove_old_checkpoints(str(tmp_path), None)
    assert len(list(tmp_path.iterdir())) == 5
    remove_old_checkpoints(str(tmp_path), 2, best=str(tmp_path / "checkpoint-2"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-6", "checkpoint-8"]


def test_a_checkpoint_that_is_half_removed_is_not_complete(tmp_path, monkeypatch):
    for step in (2, 4):
        checkpoint(tmp_path, step)

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_old_checkpoints(str(tmp_path), 1)
    assert [[path.name for path in paths] for paths in complete_checkpoints(tmp_path)] == [
        ["checkpoint-4"],
        ["checkpoint-2"],
    ]


def test_save_total_limit_keeps_the_newest_complete_checkpoint(folder):
    run = Run(folder / "limited", save_total_limit=1, max_steps=4)
    run.start()
    assert run.checkpoints == [4]
    assert len(complete_checkpoints(run.dir)[0]) == 1


def change(path):
    path.write_text("other")


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("optimizer.pt", Path.unlink, "is missing"),
        ("global_step/shard.pt", Path.unlink, "is missing"),
        ("model.safetensors", change, "has 5 bytes and was saved with 22"),
    ],
)
def test_a_checkpoint_that_lost_a_file_since_is_an_error(tmp_path, name, harm, said):
    for step in (2, 4):
        checkpoint(tmp_path, step)
    last = tmp_path / "checkpoint-4"
    harm(last / name)
    for resume in ("auto", str(last)):
        with pytest.raises(ValueError) as error:
            checkpoint_to_resume(resume, str(tmp_path))
        assert str(error.value) == (
            f"{last / name} {said}: put back the file as it was saved, or remove {last} to go on from an earlier one."
        )
    shutil.rmtree(last)
    assert checkpoint_to_resume("auto", str(tmp_path)) == tmp_path / "checkpoint-2"


@pytest.mark.parametrize("left", [b"", b'{"files": {"mo', bytes(50), b"\xff"])
def test_notes_that_are_cut_short(tmp_path, capsys, left):
    folder, record = str(tmp_path), tmp_path / "elastic_run.json"
    claim_output_dir(folder, {"seed": 1})
    for step in (2, 4):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-4" / "elastic_files.json").write_bytes(left)
    assert checkpoint_to_resume("auto", folder) == tmp_path / "checkpoint-2"
    assert capsys.readouterr().out == f"Skipping {tmp_path}/checkpoint-4: it was not saved completely.\n"
    with pytest.raises(ValueError, match="give auto, never, or the path of a complete checkpoint"):
        checkpoint_to_resume(str(tmp_path / "checkpoint-4"), folder)
    record.write_bytes(left)
    with pytest.raises(ValueError, match=f"^{str(record)!r} is cut short, .*: put the file back, or choose another"):
        claim_output_dir(folder, {"seed": 1})


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []
    monkeypatch.setattr("elastic.files.sync", lambda beside: synced.append((beside.read_text(), path.exists())))
    replace_file(path, lambda beside: beside.write_text("new"))
    assert synced == [("new", False)] and path.read_text() == "new"


def test_another_number_of_processes_is_refused(tmp_path):
    checkpoint(tmp_path, 2)
    with pytest.raises(ValueError, match="checkpoint-2 was saved by 1 processes, and this run has 2: start as many"):
        checkpoint_to_resume("auto", str(tmp_path), processes=2)


def test_a_save_takes_the_place_of_a_partial_one_and_leaves_nothing_beside(tmp_path, capsys):
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4, complete=False)
    (tmp_path / "checkpoint-4" / "stale").touch()
    unfinished = unfinished_folder(str(tmp_path)) / "checkpoint-4"
    unfinished.mkdir(parents=True)
    assert checkpoint_to_resume("auto", str(tmp_path)) == tmp_path / "checkpoint-2"
    assert capsys.readouterr().out.splitlines() == [
        f"Skipping {path}: it was not saved completely." for path in (tmp_path / "checkpoint-4", unfinished)
    ]
    checkpoint(tmp_path, 4)
    assert checkpoint_to_resume("auto", str(tmp_path)) == tmp_path / "checkpoint-4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    assert not (tmp_path / "checkpoint-4" / "stale").exists()


def test_a_checkpoint_without_its_optimizer_does_not_start_a_fresh_one(undisturbed, folder, capfd):
    run = copied(undisturbed, folder / "no-optimizer", without=(9,))
    (run.dir / "checkpoint-8" / "optimizer.pt").unlink()
    capfd.readouterr()
    assert refused(capfd, run).startswith(f"{run.dir}/checkpoint-8/optimizer.pt is missing: put back the file as it")


def test_an_output_folder_belongs_to_one_run(tmp_path):
    folder = str(tmp_path / "new" / "run")
    claim_output_dir(folder, {"seed": 1, "lr": 0.1})
    checkpoint(Path(folder), 2)
    claim_output_dir(folder, {"seed": 1, "lr": 0.1})
    claim_output_dir(folder, {"seed": 1, "added_since": None})
    with pytest.raises(ValueError, match=r"belongs to another run: seed was 1 there and is 2 now; choose"):
        claim_output_dir(folder, {"seed": 2, "lr": 0.1})
    with pytest.raises(ValueError, match=r"lr was 0\.1 there and is 1 now \(and seed\)"):
        claim_output_dir(folder, {"seed": 2, "lr": 1})


@pytest.mark.parametrize("left", ["checkpoint-2/elastic_files.json", "checkpoint-2/optimizer.pt", "model.safetensors"])
def test_a_run_that_left_no_weights_keeps_no_folder(tmp_path, left):
    claim_output_dir(str(tmp_path), {"seed": 1})
    (tmp_path / "README.md").touch()
    claim_output_dir(str(tmp_path), {"seed": 2})
    path = tmp_path / left
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(ValueError, match="seed was 2 there and is 1 now"):
        claim_output_dir(str(tmp_path), {"seed": 1})


def out_of_memory(*args, **kwargs):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_start_that_fails_does_not_keep_the_folder(folder, monkeypatch):
    run = Run(folder / "mended", max_steps=1, save_steps=1)
    monkeypatch.setattr("elastic.trainer.ElasticGRPOTrainer.training_step", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        run.start()
    monkeypatch.undo()
    run.start("--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2")
    assert run.checkpoints == [1]


def test_a_folder_that_is_not_a_runs_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "tracked" / "wandb").mkdir(parents=True)
    for name in ("file", "file/below"):
        with pytest.raises(ValueError, match=rf"^output_dir is '.*', but '{tmp_path}/file' is a file: choose another"):
            claim_output_dir(str(tmp_path / name), {})
    with pytest.raises(
        ValueError, match=r"full' is not empty .* \(it holds thesis\.tex\): choose another output_dir\.$"
    ):
        claim_output_dir(str(tmp_path / "full"), {})
    claim_output_dir(str(tmp_path / "tracked"), {})


def test_where_and_how_a_run_is_watched_does_not_make_it_another():
    first = SimpleNamespace(seed=1, output_dir="a", report_to=["wandb"], max_steps=3, save_steps=2, resume="auto")
    second = SimpleNamespace(seed=1, output_dir="b", report_to=[], max_steps=9, save_steps=4, resume="never")
    first.activation_checkpointing, second.activation_checkpointing = False, True
    assert run_identity(first) == run_identity(second) == {"seed": 1}


CHILD = """
import pathlib, signal, sys, time
from elastic.stopping import stop_with_launcher
stop_with_launcher()
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1], "terminated").touch(), sys.exit()))
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal on the death of a parent is Linux's")
def test_a_launcher_that_is_killed_has_its_process_stopped(tmp_path):
    start = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    environment = os.environ | {"ACCELERATE_MIXED_PRECISION": "no"}
    launcher = subprocess.Popen([sys.executable, "-c", start, CHILD, str(tmp_path)], env=environment)
    wait_for(tmp_path / "ready")
    launcher.kill()
    launcher.wait()
    wait_for(tmp_path / "terminated")


def test_where_answers_are_graded_makes_no_other_run():
    def identity(**settings):
        return run_identity(RunArguments(code_reward=settings or None))

    assert identity(sandbox="landlock", workers=3) == identity(workers=1) == identity()
    assert identity(mode="fraction", sandbox="landlock") == identity(mode="fraction") != identity()


# Starts one process and waits for it: a program, and the arguments after its first.
CHAIN = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[{first}:]])"
COUNTING_CHILD = CHILD.replace('"ready").touch()', '"threads").write_text(str(threading.active_count()))').replace(
    "time.sleep(60)", 'pathlib.Path(sys.argv[1], "ready").touch()\ntime.sleep(60)'
)


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are looked up in /proc")
@pytest.mark.parametrize(
    ("name", "signum"), [("deepspeed", signal.SIGTERM), ("deepspeed", signal.SIGKILL), ("sh", None)]
)
def test_a_run_under_deepspeeds_two_launchers_is_stopped_without_the_first(tmp_path, name, signum):
    (tmp_path / name).write_text(CHAIN.format(first=1))
    command = [CHAIN.format(first=2), "deepspeed.launcher.launch", f"import threading{COUNTING_CHILD}", str(tmp_path)]
    first = subprocess.Popen([sys.executable, str(tmp_path / name), *command], start_new_session=True)
    wait_for(tmp_path / "ready")
    if signum is None:  # a shell may end before what it started
        assert (tmp_path / "threads").read_text() == "1"
        os.killpg(first.pid, signal.SIGKILL)
    else:
        first.send_signal(signum)
    assert first.wait() != 0
    if signum is not None:
        wait_for(tmp_path / "terminated")
