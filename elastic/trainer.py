"""ElasticGRPOTrainer: TRL's GRPO on budget-constrained rollouts (E1, arXiv 2505.05315, section 3)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import requests
import torch
from accelerate.utils import gather_object
from transformers.integrations import WandbCallback
from transformers.trainer_callback import ProgressCallback

from elastic.budget import Budget, ReasoningTokens
from elastic.config import ElasticConfig
from elastic.engines.engine import Engine, OnRollout, OnStep
from elastic.grading import (
    GradingError,
    RewardFailures,
    UngradedWatch,
    guarded,
    reason_columns,
    reward_name,
    started,
    ungraded_reason,
)
from elastic.metrics import budget_metrics, summed_rewards
from elastic.micro_batches import (
    loss_mask,
    moving_rows,
    ordered_by_length,
    scored_by_length,
    term_of_the_micro_batch,
    trimmed,
    weighted,
    without_idle_rows,
)
from elastic.progress import TrainingProgress
from elastic.rollout import Rollout, segment_texts
from elastic.rollout_func import budgeted_rollouts
from elastic.staged import StagedGRPOTrainer
from elastic.stages import most_inserted, with_columns
from elastic.tracking import WandbMetrics

# TRL's means over a micro-batch: over tokens, over what importance_sampling_level says, and over rows.
_TOKEN_MEANS = {"entropy", "kl"}
_RATIO_MEANS = {"clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "cispo_clip_ratio"}
_ROW_MEANS = {"vespo/phi_seq_mean"}
# Columns of the table of rollouts that are not for a reward to write.
_TABLE_COLUMNS = {"step", "prompt", "completion", "advantage", "thinking", "solution", "thinking_stop_reason"}


class ElasticGRPOTrainer(StagedGRPOTrainer):
    """GRPO whose rollouts are sampled under separate thinking and solution budgets.

    What changes with respect to StagedGRPOTrainer and TRL's GRPOTrainer:

    - rollouts come from `budgeted_rollouts`, through TRL's `rollout_func`; its `env_mask` masks what was inserted
    - `_generate_and_score_completions` assigns the rows their budgets and the rewards their weights, and logs the
      budget metrics
    - `_calculate_rewards` stops the run when a reward fails (on_reward_error: drop counts the rows on which it does, in
      `faults/reward_errors`, and leaves them out), leaves out rows that one of the rewards could not grade
      and stops when they are many, applies `solution_truncated_reward: zero`, and keeps the rewards for those metrics
    - `_prepare_inputs` orders the rows of an update by length before they are cut into micro-batches
    - `sampled`, `loss_masks` and `settle_advantages` are what another way of sampling and crediting overrides
    - `_compute_loss` leaves out rows that cannot move the policy, and padding that no remaining row needs;
      `_get_per_token_logps_and_entropies` scores a generation batch by length
    - `training_step` times the update without the rollouts, and weighs the metrics of its micro-batches
    - `log` adds the seconds of CPU, and writes no empty table of rollouts
    - `_log_completion_extra` writes no column of that table twice
    - `position` and `go_to` keep which rows could not be graded; StagedGRPOTrainer and ResumableGRPOTrainer say what
      else a run has and survives

    The entropy, KL and clip metrics are therefore means over what is trained of an update.

    Args:
        grade_ahead: each called with the `solution_text` of a rollout and the data set's columns as soon as it is
            sampled, so that a reward may begin to grade it while others are sampled.
    """

    _tag_names = ("trl", "grpo", "elastic-reasoning")

    def __init__(
        self,
        model,
        reward_funcs,
        args: ElasticConfig,
        train_dataset,
        *,
        grade_ahead: Sequence[Callable[..., None]] = (),
        **kwargs,
    ):
        if kwargs.get("tools") or kwargs.get("environment_factory"):
            raise ValueError("tools and environments are not supported: with them TRL ignores what env_mask masks.")
        self._failures = RewardFailures(args.on_reward_error, Path(args.output_dir, "failed_rewards.jsonl"))
        given = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        functions = [reward if _is_model(reward) else guarded(reward, self._failures) for reward in given]
        try:
            super().__init__(
                model=model,
                reward_funcs=functions,
                args=args,
                train_dataset=train_dataset,
                rollout_func=budgeted_rollouts,
                **kwargs,
            )
        except requests.ConnectionError as error:
            raise ValueError(f"vllm_mode is server, but there is none: {error}") from None
        self.reasoning_tokens = ReasoningTokens.from_tokenizer(
            self._tokenizer,
            reasoning_start_str=args.reasoning_start_str,
            reasoning_end_str=args.reasoning_end_str,
            wrap_up_str=args.wrap_up_str,
            reminder_every=args.reminder_every,
            reminder_str=args.reminder_str,
            eos_token_ids=self.eos_token_ids,
        )
        if self.max_completion_length is None:
            stages = with_columns(args.run_stages, train_dataset)
            self.max_completion_length = args.longest_of(stages) + most_inserted(stages, self.reasoning_tokens)
        if not args.disable_tqdm:
            self.remove_callback(ProgressCallback)
            self.add_callback(TrainingProgress(self))
        if "wandb" in args.report_to:
            self.remove_callback(WandbCallback)
            self.add_callback(WandbMetrics())
        logging.getLogger("trl.trainer.grpo_trainer").addFilter(_is_no_dump_of_a_row)
        self._starts_of_grading = grade_ahead
        self._ungraded_watch = UngradedWatch(args.max_ungraded_rate)
        self._rows: list[dict] = []
        self._rollouts: list[Rollout] = []
        self._rewards_per_func = torch.empty(0)
        self._orders_by_length = self._is_exact_in_any_order(args)
        self._sampling_seconds = 0.0
        self._reward_seconds = 0.0
        self._update_seconds = 0.0
        self._counted_cpu_seconds: float | None = None
        self._update_sizes: list[tuple[int, int]] = []

    def _generate_and_score_completions(self, inputs):
        self._rows = inputs = self.assigned(inputs)
        self._failures.forget()
        mode = "train" if self.model.training else "eval"
        self.reward_weights = torch.tensor(self.stage.reward_weights or [1.0] * len(self.reward_funcs))
        output = super()._generate_and_score_completions(inputs)
        sampled_tokens = int(self.accelerator.gather(loss_mask(output).sum()).sum())
        self.settle_advantages(output)
        self._leave_out_of_loss(output)
        metrics = budget_metrics(self._rollouts, self._rewards_per_func, self.reward_weights, self.accelerator)
        metrics["time/generation_s"], metrics["time/reward_s"] = self._slowest(
            self._sampling_seconds, self._reward_seconds
        )
        metrics["throughput/sampled_tokens_per_s"] = sampled_tokens / metrics["time/generation_s"]
        if self.model.training:
            self.rollout_tokens += sampled_tokens
        for name, value in metrics.items():
            self._metrics[mode][name].append(value)
        return output

    def _slowest(self, *seconds: float) -> list[float]:
        """Each of them as the process has it that took longest."""
        own = torch.tensor([seconds], device=self.accelerator.device)
        return self.accelerator.gather(own).amax(dim=0).tolist()

    def sampled(
        self,
        engine: Engine,
        prompts: Sequence[Sequence[int]],
        budgets: Sequence[Budget],
        *,
        streams: Sequence[int],
        on_rollout: OnRollout | None,
        on_step: OnStep | None,
    ) -> list[Rollout]:
        """A rollout for each prompt under its budget; the arguments are those of `Engine.generate`."""
        return engine.generate(
            prompts,
            budgets,
            self.args.sampling,
            seed=self.rollout_seed(),
            streams=streams,
            on_rollout=on_rollout,
            on_step=on_step,
        )

    def loss_masks(self, rollouts: Sequence[Rollout]) -> list[list[int]]:
        """1 for each completion token that is trained, as TRL takes it for `env_mask`: each sampled token once."""
        return [rollout.env_mask for rollout in rollouts]

    def settle_advantages(self, output: dict) -> None:
        """Make the advantages of groups whose rewards are all equal exactly 0, where rounding left some 1e-4 of one.

        Not where rewards are normalized over the batch: there such a group has an advantage, which it keeps.
        """
        if self.args.multi_objective_aggregation != "sum_then_normalize":
            return
        size = self.num_generations if self.model.training else self.num_generations_eval
        rewards_NG = summed_rewards(self._rewards_per_func, self.reward_weights).view(-1, size)
        highest_N = rewards_NG.nan_to_num(nan=-torch.inf).amax(dim=1)
        lowest_N = rewards_NG.nan_to_num(nan=torch.inf).amin(dim=1)
        equal_B = (highest_N <= lowest_N).repeat_interleave(size)
        output["advantages"] = output["advantages"].masked_fill(self._own(equal_B), 0.0)

    def _own(self, gathered: torch.Tensor) -> torch.Tensor:
        """This process's rows of a tensor over those of all processes."""
        start = self.accelerator.process_index * len(self._rollouts)
        return gathered[start : start + len(self._rollouts)]

    def _leave_out_of_loss(self, output):
        """Mask the rows that could not be graded and, where the recipe says so, those that were cut."""
        masks_truncated = self.args.solution_truncated_reward == "mask"
        ungraded_B = self._rewards_per_func.isnan().any(dim=1)
        if not masks_truncated and not ungraded_B.any():
            return
        left_out_B = self._own(ungraded_B)
        if masks_truncated:
            left_out_B = left_out_B | self._truncated()
        output["tool_mask"] = output["tool_mask"] * ~left_out_B[:, None]
        loss_mask = output["completion_mask"] * output["tool_mask"]
        # Some losses divide by it, and all rows may have been left out.
        output["num_items_in_batch"] = self.accelerator.gather(loss_mask.sum()).sum().clamp(min=1)

    def _truncated(self) -> torch.Tensor:
        truncated = [rollout.solution_truncated for rollout in self._rollouts]
        return torch.tensor(truncated, device=self.accelerator.device)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        start = time.perf_counter()
        self._failures.place = {"step": self.state.global_step + 1, "process": self.accelerator.process_index}
        rewards_BF = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if stops := gather_object(self._failures.stops):
            raise GradingError(stops[0])
        self.faults["reward_errors"] += sum(gather_object([len(self._failures.rows)]))
        self._ungraded_watch.add(self._ungraded_reasons(rewards_BF))
        rewards_BF = rewards_BF.masked_fill(rewards_BF.isnan().any(dim=1, keepdim=True), torch.nan)
        if self.args.solution_truncated_reward == "zero":
            truncated_B = self.accelerator.gather(self._truncated())
            rewards_BF = torch.where(truncated_B[:, None] & ~rewards_BF.isnan(), 0.0, rewards_BF)
        self._rewards_per_func = rewards_BF
        self._reward_seconds = time.perf_counter() - start
        return rewards_BF

    def _ungraded_reasons(self, rewards_BF: torch.Tensor) -> list[str | None]:
        """For each row of all processes None, or why it could not be graded."""
        if not rewards_BF.isnan().any():
            return [None] * len(rewards_BF)
        reasons, raised = reason_columns(self._pending_extra_logs), self._failures.rows
        own: list[str | None] = []
        for row, missing_F in enumerate(self._own(rewards_BF).isnan().tolist()):
            without_grade = [name for name, missing in zip(self.reward_func_names, missing_F, strict=True) if missing]
            if row in raised:
                own.append(f"{' and '.join(without_grade)} {raised[row]}")
            else:
                own.append(ungraded_reason(row, reasons, without_grade) if without_grade else None)
        return gather_object(own)

    def _log_completion_extra(self, column, values):
        # TRL appends to a column that is written twice, and its table would then have columns of two lengths.
        if len(values) != len(self._rollouts):
            raise ValueError(f"it logged {len(values)} values of {column} for {len(self._rollouts)} rows")
        taken = column in _TABLE_COLUMNS or column in self.reward_func_names
        self._pending_extra_logs[f"{column}_of_reward" if taken else column] = list(values)

    def start_grading(self, row: int, rollout: Rollout) -> None:
        """Tell the rewards that grade ahead of the finished rollout of a row."""
        if not self._starts_of_grading:
            return
        _, (solution_text,) = segment_texts([rollout], self._tokenizer)
        columns = self._rows[row]
        for start in self._starts_of_grading:
            try:
                started(start, **columns | {"solution_text": solution_text})
            except GradingError as error:  # said with the failures of the rewards, where all processes meet
                self._failures.write(reward_name(start), row, error.__cause__, columns)
                self._failures.stops.append(str(error))

    def _prepare_inputs(self, generation_batch):
        buffered = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self._orders_by_length or not self.model.training or self._buffered_inputs is buffered:
            return inputs
        # Micro-batches that are sure to be in one update, whichever of the two numbers is the larger.
        together = math.gcd(self.args.steps_per_generation, self.args.gradient_accumulation_steps)
        self._buffered_inputs = ordered_by_length(
            self._buffered_inputs, together, idle_rows_are_free=self._idle_rows_are_free
        )
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _is_exact_in_any_order(self, args: ElasticConfig) -> bool:
        if self.aux_loss_enabled and args.length_aware_micro_batches:
            raise ValueError(
                f"length_aware_micro_batches is true, but the router's loss (router_aux_loss_coef "
                f"{self.router_aux_loss_coef}) depends on which rows share a micro-batch: leave it unset, or set "
                f"router_aux_loss_coef to 0."
            )
        wanted = args.length_aware_micro_batches is not False
        return wanted and not self.aux_loss_enabled and term_of_the_micro_batch(args) is None

    def _compute_loss(self, model, inputs):
        share = 1.0
        if self._idle_rows_are_free:
            rows = max(1, int(self.accelerator.gather(moving_rows(inputs).sum()).max()))
            inputs, share = without_idle_rows(inputs, rows, self.loss_type)
        if self._idle_rows_are_free or (self.model.training and self._orders_by_length):
            inputs = trimmed(inputs, self.pad_to_multiple_of or 1)
        if self.model.training:
            tokens = self.accelerator.reduce(loss_mask(inputs).sum(), reduction="sum").item()
            self._update_sizes.append((tokens, len(inputs["advantages"])))
        return super()._compute_loss(model, inputs) * share

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **kwargs
    ):
        """With a `batch_size`, as for old and reference log-probabilities, by length; else TRL's."""
        score = super()._get_per_token_logps_and_entropies
        if batch_size is None or self.args.length_aware_micro_batches is False:
            return score(model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs)
        logprobs = scored_by_length(
            lambda ids, mask, width: score(model, ids, mask, width, **kwargs)[0],
            *(input_ids, attention_mask, logits_to_keep, batch_size),
            multiple=self.pad_to_multiple_of or 1,
        )
        return logprobs, None, None

    @property
    def _idle_rows_are_free(self) -> bool:
        """Whether a row without advantage adds nothing to the loss: no KL, entropy or router term, no quantile."""
        terms = self.beta != 0 or self._entropy_bonus_enabled or self.aux_loss_enabled
        return self.model.training and not terms and self.top_entropy_quantile == 1.0

    def training_step(self, model, inputs, num_items_in_batch=None):
        self._sampling_seconds = self._reward_seconds = 0.0
        if self._counted_cpu_seconds is None:
            self._counted_cpu_seconds = time.process_time()
        start = time.perf_counter()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._update_seconds += time.perf_counter() - start - self._sampling_seconds - self._reward_seconds
        if self.accelerator.sync_gradients:
            self._metrics["train"]["time/training_s"].append(self._update_seconds)
            self._update_seconds = 0.0
            self._weigh_means()
        return loss

    def _weigh_means(self):
        """Make the mean of an update's micro-batches the mean of its tokens or rows, in the metrics that are means."""
        metrics, (tokens, rows) = self._metrics["train"], zip(*self._update_sizes, strict=True)
        by_token = _TOKEN_MEANS | (_RATIO_MEANS if self.importance_sampling_level == "token" else set())
        for name in (_TOKEN_MEANS | _RATIO_MEANS | _ROW_MEANS) & metrics.keys():
            metrics[name][-len(rows) :] = weighted(metrics[name][-len(rows) :], tokens if name in by_token else rows)
        self._update_sizes = []

    def position(self):
        return super().position() | {"ungraded": self._ungraded_watch.rows}

    def go_to(self, position):
        super().go_to(position)
        self._ungraded_watch.rows = position["ungraded"]

    def log(self, logs, start_time=None):
        # A finished run that is resumed has no rollouts: TRL would put an empty table in the place of its last one.
        if self.model.training:
            logs |= self._cpu_seconds_since_last_log()
        wanted, self.log_completions = self.log_completions, self.log_completions and bool(self._logs["prompt"])
        super().log(logs, start_time)
        self.log_completions = wanted

    def _cpu_seconds_since_last_log(self) -> dict[str, float]:
        """Of this process, from the first training step on; nothing before it."""
        if self._counted_cpu_seconds is None:
            return {}
        before, self._counted_cpu_seconds = self._counted_cpu_seconds, time.process_time()
        return {"time/cpu_s": self._counted_cpu_seconds - before}


def _is_model(reward: object) -> bool:
    """Whether it is a reward model, or the name of one, which TRL calls in its own way."""
    return isinstance(reward, str | torch.nn.Module)


def _is_no_dump_of_a_row(record: logging.LogRecord) -> bool:
    """TRL logs every column of the first row without a grade, its tests too; here such rows are counted by reason."""
    return "All reward functions returned None" not in str(record.msg)
