"""What test_faults.py starts by torchrun or accelerate: faults that one of two processes meets, and what both do."""

import errno
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from trainer_fixtures import even_reward, make_trainer, write_problems

from elastic.checkpoints import check_same_checkpoint, checkpoint_to_resume, complete_checkpoints
from elastic.faults import NonFiniteError
from elastic.stopping import StopOnSigterm

RANK = int(os.environ.get("RANK", 0))
DEEPSPEED = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
# An epoch of 5 problems is 2 generation batches of 2 updates.
SCHEDULE = dict(steps_per_generation=2, per_device_train_batch_size=2, max_steps=8, save_strategy="steps", save_steps=1)


def trainer_in(folder: Path, **changes):
    """Both processes write into one run folder; each has a model of its own, which it saves before it knows of both."""
    own = Path(sys.argv[1], f"process-{RANK}")
    own.mkdir(exist_ok=True)
    changes = SCHEDULE | {"thinking_token_budget": "{uniform: [2, 9]}", "use_cpu": not DEEPSPEED} | changes
    return make_trainer(own, problems=write_problems(own / "five.jsonl", 5), **changes, output_dir=str(folder / "run"))


def history(trainer) -> list[dict]:
    logs = [log for log in trainer.state.log_history if "loss" in log]
    timed = ("time/", "throughput/", "step_time")
    return [{name: log[name] for name in log if not name.startswith(timed)} for log in logs]


def weights_of(trainer) -> dict[str, torch.Tensor]:
    """Whole ones, on the main process alone where ZeRO-3 has divided them."""
    return copied(trainer.accelerator.get_state_dict(trainer.model_wrapped) or {})


def copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def equal(tensors: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


def check_equal(trainer, expected: tuple[list[dict], dict[str, torch.Tensor]]) -> None:
    logs, weights = expected
    assert history(trainer) == logs, (history(trainer), logs)
    assert equal(weights_of(trainer), weights)


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


def resumes_from_every_step(folder: Path, expected) -> None:
    for step in (1, 4, 7):
        copy_of_one = folder / f"from-{step}"
        if RANK == 0:
            shutil.copytree(
                folder / "reference" / "run" / f"checkpoint-{step}", copy_of_one / "run" / f"checkpoint-{step}"
            )
        PartialState().wait_for_everyone()
        check_equal(resumed(copy_of_one), expected)


def stops_together(folder: Path, expected) -> None:
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
    check_equal(resumed(folder, save_steps=3), expected)


def loses_one_checkpoint(folder: Path, expected) -> None:
    """One of them cannot write its random states; under DeepSpeed, its shard of the optimizer."""
    trainer = trainer_in(folder, save_steps=2)
    write_checkpoint, save = trainer._write_checkpoint, trainer._save_rng_state

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_on_one(model, trial):
        if RANK != 1 or trainer.state.global_step != 4:
            return write_checkpoint(model, trial)
        if not DEEPSPEED:
            trainer._save_rng_state = full
            try:
                return write_checkpoint(model, trial)
            finally:
                trainer._save_rng_state = save
        engine = trainer.model_wrapped.checkpoint_engine
        write, engine.save = engine.save, full
        try:
            return write_checkpoint(model, trial)
        finally:
            engine.save = write

    trainer._write_checkpoint = full_on_one
    trainer.train()
    assert found(folder) == [2, 6, 8] and trainer.faults["failed_saves"] == 1
    assert equal(weights_of(trainer), expected[1])


def poisoned(trainer, steps):
    compute_loss = trainer._compute_loss

    def with_nan(model, inputs):
        loss = compute_loss(model, inputs)
        return loss * torch.nan if RANK == 1 and trainer.state.global_step + 1 in steps else loss

    trainer._compute_loss = with_nan
    return trainer


def skips_together(folder: Path) -> None:
    trainer, states, rates = poisoned(trainer_in(folder, save_strategy="no"), {2, 4}), {}, {}
    log = trainer._maybe_log_save_evaluate

    def noted(*args, **kwargs):
        states[trainer.state.global_step] = weights_of(trainer)
        rates[trainer.state.global_step] = trainer.lr_scheduler.get_last_lr()[0]
        log(*args, **kwargs)

    trainer._maybe_log_save_evaluate = noted
    trainer.train()
    if states[1]:
        assert [step for step in range(2, 9) if equal(states[step - 1], states[step])] == [2, 4]
    assert rates == {step: 1e-3 * (1 - step / 8) for step in range(1, 9)}, rates
    assert trainer.faults["skipped_steps"] == 2


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


def finds_other_checkpoints(folder: Path) -> None:
    """As two machines do that have a disk each."""
    try:
        check_same_checkpoint(folder / f"checkpoint-{RANK}")
    except ValueError as error:
        assert "different checkpoints to go on from (checkpoint-0, checkpoint-1)" in str(error)
    else:
        raise AssertionError("they went on")


def main(folder: Path, names: list[str]) -> None:
    """Let both meet the faults of these names; without one, all faults."""
    faults = (resumes_from_every_step, stops_together, loses_one_checkpoint)
    if chosen := [fault for fault in faults if fault.__name__ in names or not names]:
        reference = trainer_in(folder / "reference")
        reference.train()
        expected = history(reference), weights_of(reference)
    for fault in chosen:
        fault(folder if fault is resumes_from_every_step else folder / fault.__name__, expected)
        print(f"{fault.__name__}: as it should be", flush=True)
    for fault in (skips_together, stops_at_the_third, drops_a_row, finds_other_checkpoints):
        if fault.__name__ in names or not names:
            fault(folder / fault.__name__)
            print(f"{fault.__name__}: as it should be", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
