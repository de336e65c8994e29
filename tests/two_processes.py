"""What test_loss.py starts by torchrun: our loss and stock TRL's on two processes with different idle rows."""

import os
import sys
from pathlib import Path

import torch
from trainer_fixtures import hard_or_even_reward, make_trainer, sampled_inputs
from trl import GRPOTrainer


def gradients(trainer, loss: torch.Tensor) -> list[torch.Tensor]:
    """What both processes step with: the mean of their own gradients, as DDP has it."""
    trainer.model.zero_grad()
    loss.backward()
    return [trainer.accelerator.reduce(weight.grad, reduction="mean") for weight in trainer.model.parameters()]


def check(trainer) -> None:
    inputs = sampled_inputs(trainer)
    moving = trainer.accelerator.gather((inputs["advantages"] != 0).sum())
    assert moving.unique().numel() == 2, f"the processes have the same number of rows to train: {moving}"
    rows = []
    hook = trainer.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    ours = gradients(trainer, trainer._compute_loss(trainer.model, inputs))
    stock = gradients(trainer, GRPOTrainer._compute_loss(trainer, trainer.model, inputs))
    hook.remove()
    assert rows == [moving.max(), 12]
    for our_gradient, stock_gradient in zip(ours, stock, strict=True):
        torch.testing.assert_close(our_gradient, stock_gradient, atol=1e-6, rtol=1e-4)


def main(folder: Path) -> None:
    folder = folder / os.environ["RANK"]
    folder.mkdir()
    for loss_type in ("grpo", "dapo", "bnpo"):
        changes = dict(loss_type=loss_type, per_device_train_batch_size=12)
        trainer = make_trainer(folder, reward_funcs=hard_or_even_reward, **changes)
        check(trainer)
        trainer.train()
        print(f"{loss_type}: {trainer.state.global_step} updates", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
