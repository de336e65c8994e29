"""What test_loss.py starts by torchrun: our loss and stock TRL's on two processes with different idle rows."""

import os
import sys
from pathlib import Path

import torch
from trainer_fixtures import hard_or_even_reward, make_trainer, sampled_inputs, updates_of_ours_and_of_stock
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


def check_updates(folder: Path, loss_type: str) -> None:
    """Length-aware micro-batches: the updates are stock TRL's, with fewer tokens and as many rows on both processes."""
    trainer = make_trainer(
        folder,
        reward_funcs=hard_or_even_reward,
        loss_type=loss_type,
        per_device_train_batch_size=6,
        gradient_accumulation_steps=2,
        thinking_token_budget={"uniform": [1, 30]},
    )
    inputs = sampled_inputs(trainer)
    shapes = []
    trainer.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    (ours,), (stock,) = updates_of_ours_and_of_stock(trainer, inputs)
    torch.testing.assert_close(ours, stock, atol=1e-6, rtol=1e-4)
    assert stock.norm() > 1e-3
    (*our_shapes, _, _), (*_, first, second) = shapes, shapes
    rows = trainer.accelerator.gather(torch.tensor([shape[0] for shape in our_shapes])).view(2, 2)
    assert (rows[0] == rows[1]).all(), f"the processes have different numbers of rows: {rows}"
    assert sum(shape.numel() for shape in our_shapes) < first.numel() + second.numel()


def main(folder: Path) -> None:
    folder = folder / os.environ["RANK"]
    folder.mkdir()
    for loss_type in ("grpo", "dapo", "bnpo"):
        changes = dict(loss_type=loss_type, per_device_train_batch_size=12)
        trainer = make_trainer(folder, reward_funcs=hard_or_even_reward, **changes)
        check(trainer)
        trainer.train()
        print(f"{loss_type}: {trainer.state.global_step} updates", flush=True)
    for loss_type in ("grpo", "dapo"):
        check_updates(folder, loss_type)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
