"""TRL's `rollout_func`: from the prompts of a training step to budgeted rollouts, by whichever engine the run uses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from elastic.budget import Budget
from elastic.data import prompt_token_ids
from elastic.engines.requested import OnRollout
from elastic.engines.transformers import TransformersEngine
from elastic.rollout import Rollout, rollout_columns

_SHOWN_COLUMNS = {
    "thinking": "thinking_text",
    "solution": "solution_text",
    "thinking_stop_reason": "thinking_stop_reason",
}


def budgeted_rollouts(prompts: list, trainer: GRPOTrainer) -> dict[str, list]:
    """One budgeted rollout for each prompt, with the fields that rewards may ask for by name.

    Args:
        prompts: the conversations of this process's rows, each repeated for its group.
        trainer: an ElasticGRPOTrainer.
    """
    start = time.perf_counter()
    prompt_ids = tokenized(prompts, trainer)
    hidden = trainer.args.disable_tqdm or not trainer.accelerator.is_main_process
    with tqdm(total=len(prompts), desc="rollouts", leave=False, delay=5, disable=hidden) as bar:

        def finish(row: int, rollout: Rollout) -> None:
            bar.update()
            trainer.start_grading(row, rollout)

        with _engine(trainer) as engine, trainer.stop.rollouts():
            rollouts = _generate(engine, trainer, prompt_ids, trainer.budgets, finish)
        trainer.stop.meet()
    columns = rollout_columns(rollouts, trainer._tokenizer)
    trainer._rollouts = rollouts
    trainer._pending_extra_logs |= {name: list(columns[column]) for name, column in _SHOWN_COLUMNS.items()}
    trainer._sampling_seconds = time.perf_counter() - start
    return {
        "prompt_ids": [list(rollout.prompt_ids) for rollout in rollouts],
        "completion_ids": [rollout.completion_ids for rollout in rollouts],
        # Where they are given, TRL corrects for what another engine than the trained model has sampled.
        "logprobs": [rollout.completion_logprobs for rollout in rollouts] if trainer.use_vllm else None,
        "env_mask": trainer.loss_masks(rollouts),
        **columns,
    }


def _generate(
    engine, trainer: GRPOTrainer, prompts: list[list[int]], budgets: list[Budget], finish: OnRollout
) -> list[Rollout]:
    """This process's rollouts. Processes that share one model by tensor parallelism all sample the rows of all."""
    first, rows = trainer.accelerator.process_index * len(prompts), len(prompts)
    group = trainer.vllm_generation.tensor_parallel_size if trainer.use_vllm and trainer.vllm_mode == "colocate" else 1
    place = trainer.accelerator.process_index % group * rows
    if group > 1:
        prompts, budgets = _gathered(trainer.vllm_generation.tp_group, group, prompts, budgets)

    def finish_own(row: int, rollout: Rollout) -> None:
        if place <= row < place + rows:
            finish(row - place, rollout)

    rollouts = trainer.sampled(
        engine,
        prompts,
        budgets,
        streams=range(first - place, first - place + len(prompts)),
        on_rollout=finish_own,
        # Processes that sample together cannot be left by one of them.
        on_step=trainer.stop.check if group == 1 else None,
    )
    return rollouts[place : place + rows]


def _gathered(process_group, size: int, *columns: Sequence) -> list[list]:
    """Each of `columns`, joined over the processes of the group in their order."""
    parts: list[Any] = [None] * size
    torch.distributed.all_gather_object(parts, columns, group=process_group)
    return [[item for part in parts for item in part[place]] for place in range(len(columns))]


@contextmanager
def _engine(trainer: GRPOTrainer) -> Iterator[Any]:
    """The engine to sample with, whose weights are those of this step."""
    if not trainer.use_vllm:
        with unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as model:
            yield TransformersEngine(
                model,
                trainer.reasoning_tokens,
                pad_token_id=trainer._tokenizer.pad_token_id,
                max_batch_tokens=trainer.args.rollout_max_batch_tokens,
            )
    elif trainer.vllm_mode == "server":
        from elastic.engines.server import ServerEngine

        yield ServerEngine(trainer.args.server_url, trainer.reasoning_tokens, logprobs=True)
    else:
        with _awake(trainer.vllm_generation):
            from elastic.engines.vllm import VLLMEngine

            yield VLLMEngine(trainer.vllm_generation.llm, trainer.reasoning_tokens)


@contextmanager
def _awake(generation) -> Iterator[None]:
    """TRL's vLLM with its memory in place, which it gives to the training for the rest of the step where it may."""
    if not generation.enable_sleep_mode:
        yield
        return
    if generation._llm_weights_sleeping:
        generation.sync_weights()
    generation.llm.wake_up(tags=["kv_cache"])
    try:
        yield
    finally:
        generation.llm.sleep(level=2)
        generation._llm_weights_sleeping = True


def tokenized(prompts: list, trainer: GRPOTrainer) -> list[list[int]]:
    """Token ids of each prompt, its thinking opened; TRL repeats a prompt G times, and each is tokenized once."""
    seen: dict[str, list[int]] = {}
    for prompt in prompts:
        if (key := repr(prompt)) not in seen:
            ids = prompt_token_ids(prompt, trainer._tokenizer, trainer.chat_template_kwargs)
            seen[key] = trainer.reasoning_tokens.open(ids)
    return [seen[repr(prompt)] for prompt in prompts]
