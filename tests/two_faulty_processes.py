"""What test_faults.py starts by torchrun: faults that one of two processes meets, and what both make of them."""

import copy
import errno
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
from trainer_fixtures import copied_weights, even_reward, make_trainer

from elastic.checkpoints import check_same_checkpoint, checkpoint_to_resume, complete_checkpoints
from elastic.faults import NonFiniteError
from elastic.stopping import StopOnSigterm

RANK = int(os.environ.get("RANK", 0))
# An epoch of 7 problems is 3 generation batches of 2 updates.
SCHEDULE = dict(steps_per_generation=2, per_device_train_batch_size=2, max_steps=8, save_strategy="steps", save_steps=1)


def trainer_in(folder: Path, **changes):
    """Both processes write into one run folder; each has a model of its own, which it saves before it knows of both."""
    own = Path(sys.argv[1], f"process-{RANK}")
    own.mkdir(exist_ok=True)
    changes = SCHEDULE | {"thinking_token_budget": "{uniform: [2, 9]}"} | changes
    return make_trainer(own, **changes, output_dir=str(folder / "run"))


def history(trainer) -> list[dict]:
    logs = [log for log in trainer.state.log_history if "loss" in log]
    timed = ("time/", "throughput/", "step_time")
    return [{name: log[name] for name in log if not name.startswith(timed)} for log in logs]


def check_equal(trainer, reference) -> None:
    assert history(trainer) == history(reference), (history(trainer), history(reference))
    weights, expected = copied_weights(trainer.model), copied_weights(reference.model)
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def found(folder: Path) -> list[int]:
    complete, partial = complete_checkpoints(folder / "run")
    assert partial == []
    return [int(path.name.split("-")[1]) for path in complete]


def resumed(folder: Path, **changes):
    checkpoint = checkpoint_to_resume("auto", str(folder / "run"), processes=2)
    check_same_checkpoint(checkpoint)
    trainer = trainer_in(folder, **changes)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    return trainer


def resumes_from_every_step(folder: Path, reference) -> None:
    for step in (1, 6, 7):
        copy_of_one = folder / f"from-{step}"
        if RANK == 0:
            shutil.copytree(
                folder / "reference" / "run" / f"checkpoint-{step}", copy_of_one / "run" / f"checkpoint-{step}"
            )
        reference.accelerator.wait_for_everyone()
        check_equal(resumed(copy_of_one), reference)


def stops_together(folder: Path, reference) -> None:
    """SIGTERM to one of them, in the midst of the rollouts for updates 5 and 6."""
    trainer, check, tokens = trainer_in(folder, save_steps=3), StopOnSigterm.check, []

    def counted(self):
        if trainer.state.global_step == 4:
            tokens.append(self)
            if RANK == 1 and len(tokens) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
        check(self)

    StopOnSigterm.check = counted
    trainer.train()
    StopOnSigterm.check = check
    assert trainer.stop.stopped and trainer.saved_step == 4 and found(folder) == [3, 4]
    assert (len(tokens) == 2) == (RANK == 1)
    check_equal(resumed(folder, save_steps=3), reference)


def loses_one_checkpoint(folder: Path, reference) -> None:
    trainer = trainer_in(folder, save_steps=2)
    save = trainer._save_rng_state

    def full_on_one(output_dir):
        if RANK == 1 and trainer.state.global_step == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(output_dir)

    trainer._save_rng_state = full_on_one
    trainer.train()
    assert found(folder) == [2, 6, 8] and trainer.faults["failed_saves"] == 1
    weights, expected = copied_weights(trainer.model), copied_weights(reference.model)
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def poisoned(trainer, steps):
    compute_loss = trainer._compute_loss

    def with_nan(model, inputs):
        loss = compute_loss(model, inputs)
        return loss * torch.nan if RANK == 1 and trainer.state.global_step + 1 in steps else loss

    trainer._compute_loss = with_nan
    return trainer


def skips_together(folder: Path) -> None:
    trainer, states = poisoned(trainer_in(folder, save_strategy="no"), {2, 4}), []
    log = trainer._maybe_log_save_evaluate

    def noted(*args, **kwargs):
        states.append((copied_weights(trainer.model), copy.deepcopy(trainer.optimizer.state_dict()["state"])))
        log(*args, **kwargs)

    trainer._maybe_log_save_evaluate = noted
    trainer.train()
    for step in range(2, 6):
        (before, moments_before), (after, moments_after) = states[step - 2 : step]
        moved = not all(torch.equal(before[name], after[name]) for name in before)
        counted = moments_before[0]["step"] != moments_after[0]["step"]
        assert moved == counted == (step not in (2, 4)), step
    assert trainer.faults["skipped_steps"] == 2
    sums = trainer.accelerator.gather(sum(weight.double().sum() for weight in trainer.model.parameters())[None])
    assert sums[0] == sums[1]


def stops_at_the_third(folder: Path) -> None:
    try:
        poisoned(trainer_in(folder, save_strategy="no"), {3, 4, 5}).train()
    except NonFiniteError as error:
        assert "up to step 5" in str(error)
    else:
        raise AssertionError("it went on")
    (part,) = torch.load(folder / "run" / f"nan_batch-step5-process{RANK}.pt", weights_only=True)
    assert torch.tensor(part["loss"]).isnan() == (RANK == 1)


def drops_a_row(folder: Path) -> None:
    def stumbling(completions, solution_text, trainer_state, **columns):
        if RANK == 1 and trainer_state.global_step == 2 and not all(even_reward(completions, solution_text)):
            raise KeyError("one process alone")
        return even_reward(completions, solution_text)

    trainer = trainer_in(folder, reward_funcs=stumbling, on_reward_error="drop", save_strategy="no")
    trainer.train()
    lines = (folder / "run" / "failed_rewards.jsonl").read_text().splitlines()
    assert trainer.faults["reward_errors"] == len(lines) > 0
    assert [log["faults/reward_errors"] for log in history(trainer)][:3] == [0, 0, len(lines)]


def main(folder: Path) -> None:
    reference = trainer_in(folder / "reference")
    reference.train()
    for fault in (resumes_from_every_step, stops_together, loses_one_checkpoint):
        fault(folder if fault is resumes_from_every_step else folder / fault.__name__, reference)
        print(f"{fault.__name__}: as it should be", flush=True)
    for fault in (skips_together, stops_at_the_third, drops_a_row):
        fault(folder / fault.__name__)
        print(f"{fault.__name__}: as it should be", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
