"""A tiny random model, problems and rewards for the tests of training; importable by the processes that they start."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from trl import GRPOTrainer

from elastic.config import ElasticConfig
from elastic.data import load_problems
from elastic.nano.chains import CHAINS
from elastic.nano.task import draw_problems
from elastic.nano.task import rows as problem_rows
from elastic.nano.tokenizer import make_tokenizer
from elastic.rollout import Rollout
from elastic.trainer import ElasticGRPOTrainer

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


def tiny_model(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama of some 10K parameters: all of its tokens are likely, so every stop reason turns up."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def save_model(folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
    tokenizer = tokenizer or make_tokenizer()
    tiny_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_problems(path: Path, count: int = 8, **columns: list) -> str:
    """`count` nano problems as .jsonl; each of `columns` has one value for each row."""
    rows = problem_rows(draw_problems(CHAINS, "train", count, seed=0))
    rows = [row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def even_reward(completions, solution_text, **columns) -> list[float]:
    """1.0 where the solution has an even number of words, else 0.0: a random model earns it now and then."""
    return [float(len(text.split()) % 2 == 0) for text in solution_text]


def hard_or_even_reward(completions, solution_text, answer, **columns) -> list[float]:
    """even_reward, but 0.0 throughout for the problems whose answer is below 4: groups of equal rewards."""
    even = even_reward(completions, solution_text)
    return [0.0 if int(a.split()[-1]) < 4 else reward for a, reward in zip(answer, even, strict=True)]


def failing_reward(completions, solution_text, trainer_state, log_extra, **columns) -> list[float | None]:
    """even_reward until one update is done; from then on, all rows but the first of a batch fail."""
    rewards = even_reward(completions, solution_text)
    failures = (len(rewards) - 1) * (trainer_state.global_step >= 1)
    log_extra("failing_reason", ["correct"] * (len(rewards) - failures) + ["grader_failed: it died"] * failures)
    return rewards[: len(rewards) - failures] + [None] * failures


def raising_reward(completions, solution_text, trainer_state, **columns) -> list[float]:
    """even_reward until one update is done; then it raises, on the last process alone where there are several."""
    if trainer_state.global_step >= 1 and int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1:
        raise KeyError("no such key")
    return even_reward(completions, solution_text)


async def patient_reward(completions, solution_text, **columns) -> list[float]:
    await asyncio.sleep(0.01)
    return even_reward(completions, solution_text)


def interrupted_reward(completions, solution_text, trainer_state, **columns) -> list[float]:
    """even_reward; the process gets the signal of INTERRUPT, such as `SIGKILL 4`, when that many updates are done."""
    name, _, updates = os.environ.get("INTERRUPT", "").partition(" ")
    if updates == str(trainer_state.global_step):
        os.kill(os.getpid(), signal.Signals[name])
    return even_reward(completions, solution_text)


def counted_reward(completions, solution_text, trainer_state, **columns) -> list[float]:
    """even_reward; each call is a line in a file of the process, in the folder of CALLS."""
    call = json.dumps({"step": trainer_state.global_step, "solutions": solution_text})
    with Path(os.environ["CALLS"], os.environ.get("RANK", "0")).open("a") as file:
        file.write(call + "\n")
    return even_reward(completions, solution_text)


def reward_that_kills_wandb(completions, solution_text, **columns) -> list[float]:
    """even_reward, once the process that writes W&B's files is killed."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("wandb"):
            process.kill()
    return even_reward(completions, solution_text)


def config_fields(folder: Path, **changes) -> dict:
    """Fields of a quick run on a CPU."""
    fields = dict(
        output_dir=str(folder / "run"),
        thinking_token_budget=6,
        solution_token_budget=3,
        per_device_train_batch_size=8,
        num_generations=4,
        max_steps=2,
        learning_rate=1e-3,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return fields | changes


def make_trainer(
    folder: Path,
    *,
    reward_funcs=even_reward,
    problems=None,
    tokenizer=None,
    peft_config=None,
    grade_ahead=(),
    trainer_class=ElasticGRPOTrainer,
    **changes,
) -> ElasticGRPOTrainer:
    """A trainer on a tiny model and problems in `folder`, built as `elastic.train` builds it."""
    tokenizer = tokenizer or make_tokenizer()
    changes = {"max_ungraded_rate": 1.0} | changes  # a batch of a test is small
    rows = load_problems(problems or write_problems(folder / "problems.jsonl"), answer_column="answer")
    return trainer_class(
        model=save_model(folder / "model", tokenizer),
        reward_funcs=reward_funcs,
        args=ElasticConfig(**config_fields(folder, **changes)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft_config,
        grade_ahead=grade_ahead,
    )


def sampled_inputs(trainer: ElasticGRPOTrainer) -> dict:
    """The first generation batch, scored, as TRL hands it to the loss when it is not split; no weight has moved."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    batch = next(iter(trainer.get_train_dataloader()))
    return trainer._generate_and_score_completions(batch)


def micro_batches(trainer: GRPOTrainer, inputs: dict, prepare: Callable) -> list[dict]:
    """What `prepare` (a `_prepare_inputs`) hands to the loss, micro-step by micro-step, up to the end of an update.

    Every generation batch is `inputs`, and shuffled by TRL in the same way.
    """
    args = trainer.args
    steps = math.lcm(args.steps_per_generation * args.num_iterations, args.gradient_accumulation_steps)
    trainer._generate_and_score_completions = lambda batch: dict(inputs)
    trainer._buffered_inputs, batches = None, []
    torch.manual_seed(3)
    try:
        for trainer._step in range(steps):
            batches.append(prepare([]))
    finally:
        trainer._step, trainer._buffered_inputs = 0, None
        del trainer._generate_and_score_completions
    return batches


def update_gradients(trainer: GRPOTrainer, batches: list[dict], compute_loss: Callable) -> list[torch.Tensor]:
    """Each update's gradient, all parameters in a row: summed over its micro-batches, the mean of the processes."""
    accumulated, gradients = trainer.args.gradient_accumulation_steps, []
    for start in range(0, len(batches), accumulated):
        trainer.model.zero_grad()
        for batch in batches[start : start + accumulated]:
            compute_loss(trainer.model, batch).backward()
        gradient = torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()])
        gradients.append(trainer.accelerator.reduce(gradient, reduction="mean"))
    return gradients


def updates_of_ours_and_of_stock(trainer: ElasticGRPOTrainer, inputs: dict) -> tuple[list, list]:
    """The gradients of the updates on one scored generation batch, by our trainer and by TRL's."""
    stock = partial(GRPOTrainer._prepare_inputs, trainer), partial(GRPOTrainer._compute_loss, trainer)
    ours = trainer._prepare_inputs, trainer._compute_loss
    return tuple(
        update_gradients(trainer, micro_batches(trainer, inputs, prepare), compute_loss)
        for prepare, compute_loss in (ours, stock)
    )


def rollouts_by_ids(rollouts: Iterable[Rollout]) -> dict[tuple, Rollout]:
    """Rollouts by all of their ids, under which the rows of a shuffled and padded batch find their own."""
    return {(*rollout.prompt_ids, *rollout.completion_ids): rollout for rollout in rollouts}


@dataclass
class Round:
    """A generation batch: its rollouts, and the weights that sampled it."""

    rollouts: list[Rollout]
    weights: dict[str, torch.Tensor]


@dataclass
class Update:
    """One call of the loss in training: what went in, with which weights, and what came out."""

    round: Round
    inputs: dict
    weights: dict[str, torch.Tensor]
    loss: float


def recorded_training(trainer: ElasticGRPOTrainer) -> list[Update]:
    """Train, and return each call of `_compute_loss`."""
    rounds, updates = [], []
    sample, compute_loss = trainer._generate_and_score_completions, trainer._compute_loss

    def recording_sample(inputs):
        weights = copied_weights(trainer.model)
        output = sample(inputs)
        rounds.append(Round(list(trainer._rollouts), weights))
        return output

    def recording_loss(model, inputs):
        weights = copied_weights(trainer.model)
        loss = compute_loss(model, inputs)
        updates.append(Update(rounds[-1], dict(inputs), weights, loss.item()))
        return loss

    trainer._generate_and_score_completions, trainer._compute_loss = recording_sample, recording_loss
    try:
        trainer.train()
    finally:
        trainer._generate_and_score_completions, trainer._compute_loss = sample, compute_loss
    return updates


def copied_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
