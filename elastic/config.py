"""ElasticConfig: TRL's GRPOConfig with budgets; every check of a contradiction is here, before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import yaml
from accelerate import PartialState
from accelerate.utils import patch_environment
from trl import GRPOConfig
from trl.import_utils import is_vllm_available

from elastic.anytime_arguments import AnytimeArguments, check_anytime
from elastic.arguments import BudgetArguments, GradingArguments, check_rate
from elastic.budget import UNLIMITED, Budget, BudgetDistribution
from elastic.micro_batches import term_of_the_micro_batch
from elastic.rollout import Sampling
from elastic.stages import FIELDS, Stage, read_stages

# TRL's options that a budgeted rollout has no meaning for yet, with what to do instead.
_REFUSED = {
    "use_transformers_continuous_batching": (False, "the engine drops finished rows by itself"),
    "vllm_structured_outputs_regex": (None, "the markers give a rollout its form"),
    "generation_kwargs": (None, "use temperature, top_p, top_k and min_p"),
    "repetition_penalty": (1.0, "use temperature, top_p, top_k and min_p"),
    "cache_implementation": (None, "the engine keeps a cache of its own"),
    "mask_truncated_completions": (False, "use solution_truncated_reward: mask"),
    "ds3_gather_for_generation": (True, "ranks take different numbers of decoding steps"),
}
# TRL's numbers that it divides or multiplies with before it looks at them, each with its least value.
_LEAST = {
    "seed": 0,
    "num_generations": 2,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "steps_per_generation": 1,
    "generation_batch_size": 1,
    "num_iterations": 1,
    "max_completion_length": 1,
    "rollout_max_batch_tokens": 1,
    "anytime_cuts": 1,
    "anytime_solutions": 1,
}
# TRL's names that it refuses only after the first rollouts.
_CHOICES = {
    "loss_type": ("grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "scale_rewards": ("group", "batch", "none"),
    "algorithm": ("grpo", "anytime"),
    "anytime_baseline": ("brpo", "group", "earlier", "none"),
}


@dataclass
class ElasticConfig(AnytimeArguments, BudgetArguments, GradingArguments, GRPOConfig):
    """GRPOConfig with the fields of AnytimeArguments, BudgetArguments and GradingArguments.

    `max_completion_length` may stay unset when both budgets have a largest value; where one is unlimited it caps the
    sampled tokens of a rollout.

    Raises:
        ValueError: names the field, the value and the mend.
    """

    max_completion_length: int | None = field(
        default=None,
        metadata={
            "help": "Most tokens of a rollout. Needed when a budget may be unlimited; else derived as the largest "
            "thinking budget, the inserted tokens and the largest solution budget."
        },
    )

    def __post_init__(self):
        self._check_least()
        self._join_processes_on_cpu()
        self._resolve()
        self._check_choices()
        for name in ("thinking_token_budget", "solution_token_budget", "target_tokens", "stages"):
            setattr(self, name, _as_value(vars(self)[name]))
        self._check_budgets()
        self.check_reminders()
        self._check_work()
        self._check_refused()
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}: GRPO compares different samples, so it must be > 0.")
        self.sampling  # noqa: B018  (Sampling checks the four values)
        if self.use_vllm:
            self._check_vllm()
        self._check_saving()
        self._check_micro_batches()
        check_rate(self.max_ungraded_rate, "max_ungraded_rate")
        check_anytime(self)

    @cached_property
    def run_stages(self) -> list[Stage]:
        """The parts of the run, in order; one where the recipe names none."""
        return read_stages(self.stages, {name: vars(self)[name] for name in FIELDS})

    @property
    def longest_rollout(self) -> int | None:
        """The most tokens that a rollout may sample; None where nothing says so."""
        return self.longest_of(self.run_stages)

    def longest_of(self, stages: Sequence[Stage]) -> int | None:
        """`longest_rollout`, were these the stages of the run."""
        bounds = [stage.total if self.unbudgeted_share else stage.longest for stage in stages]
        return self.max_completion_length if UNLIMITED in bounds else max(bounds)

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.top_k, self.min_p or 0.0)

    @property
    def prior(self) -> BudgetDistribution:
        """Of algorithm anytime: over the thinking budgets that chains are cut at."""
        return self.run_stages[0].thinking

    @property
    def cut_weights(self) -> tuple[float, ...]:
        """Of algorithm anytime: the share of the prior that each cut stands for, the smallest cut's first."""
        return tuple(self.prior.shares.values()) or (1 / self.anytime_cuts,) * self.anytime_cuts

    @property
    def anytime_chains(self) -> int:
        """Of algorithm anytime: chains of thought for each prompt."""
        return self.num_generations // (len(self.cut_weights) * self.anytime_solutions)

    def capped(self, budget: Budget) -> Budget:
        """`budget`, ended by `max_completion_length` where nothing of its own ends it."""
        bounded = budget.most_sampled_tokens != UNLIMITED
        return budget if bounded else replace(budget, total=self.max_completion_length)

    def _join_processes_on_cpu(self):
        """Tell accelerate what it does not find out by itself, so that each process on a CPU would train alone."""
        if torch.accelerator.is_available() and not self.use_cpu:
            return
        launched = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
        deepspeed = launched or self.deepspeed is not None
        if deepspeed and self.use_cpu:
            raise ValueError(
                "use_cpu is True, with which accelerate leaves DeepSpeed out: leave it unset, and hide the GPUs, if "
                "there are any, by CUDA_VISIBLE_DEVICES=''."
            )
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return
        self.use_cpu = not deepspeed
        self.ddp_backend = self.ddp_backend or "gloo"
        if deepspeed and not launched:  # TrainingArguments would not hand the backend on
            with patch_environment(ACCELERATE_USE_DEEPSPEED="true"):
                PartialState(backend=self.ddp_backend)
            self.accelerator_config = {**(self.accelerator_config or {}), "use_configured_state": True}

    def _resolve(self):
        """TRL's own checks and derived values; its sentence on groups is given its mend."""
        try:
            super().__post_init__()
        except ValueError as error:
            if "must be divisible by num_generations" not in str(error):
                raise
            raise ValueError(
                f"{str(error).rstrip('.')}: it is per_device_train_batch_size x processes x steps_per_generation "
                f"(unset, gradient_accumulation_steps), so change one of these."
            ) from None

    def _check_least(self):
        values = vars(self)
        for name, least in _LEAST.items():
            if values[name] is not None and values[name] < least:
                raise ValueError(f"{name} is {values[name]}: give a whole number of {least} or more.")

    def _check_choices(self):
        values = vars(self)
        for name, choices in _CHOICES.items():
            if values[name] not in choices:
                raise ValueError(f"{name} is {values[name]!r}: give one of {', '.join(choices)}.")

    def _check_budgets(self):
        length = self.max_completion_length
        check_rate(self.unbudgeted_share, "unbudgeted_share")
        if self.unbudgeted_share == 1:
            raise ValueError(
                "unbudgeted_share is 1, and no rollout would have a budget: give less, or leave it out with "
                "thinking_token_budget and solution_token_budget."
            )
        if self.unbudgeted_share and self.longest_rollout is None:
            raise ValueError(
                f"unbudgeted_share is {self.unbudgeted_share}, and nothing ends these rollouts: set "
                f"max_completion_length."
            )
        for stage in self.run_stages:
            where = f"stages.{stage.name}." if stage.name else ""
            if length is None and stage.longest == UNLIMITED:
                name = "thinking_token_budget" if stage.thinking.largest == UNLIMITED else "solution_token_budget"
                raise ValueError(
                    f"{where}{name} may be unlimited (-1): set it, or set max_completion_length to end every rollout."
                )
            if length is not None and stage.longest != UNLIMITED and length < stage.longest:
                t, s = stage.thinking.largest, stage.solution.largest
                largest = f"budgets are {t} thinking and {s} solution tokens"
                if stage.longest == stage.total:
                    largest = f"total_token_budget is {stage.total}"
                raise ValueError(
                    f"max_completion_length is {length}, but the largest {where}{largest}: leave it unset, or raise it "
                    f"to at least {stage.longest}."
                )

    def _check_work(self):
        if self.max_rollout_tokens is None:
            return
        if self.max_rollout_tokens < 1:
            raise ValueError(f"max_rollout_tokens is {self.max_rollout_tokens}: give a number of tokens, 1 or more.")
        if self.lr_scheduler_type == "reduce_lr_on_plateau":
            raise ValueError(
                "lr_scheduler_type is reduce_lr_on_plateau, which goes by no schedule that max_rollout_tokens could "
                "set: give another, or leave max_rollout_tokens out."
            )
        if self.warmup_steps >= 1:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps:g}, and the schedule goes by max_rollout_tokens: give the share "
                f"of the run, such as 0.05."
            )

    def _check_refused(self):
        values = vars(self)
        for name, (neutral, mend) in _REFUSED.items():
            if values[name] != neutral:
                raise ValueError(f"{name} is {values[name]!r}, which budgeted rollouts do not support: {mend}.")

    def _check_micro_batches(self):
        term = term_of_the_micro_batch(self)
        if self.length_aware_micro_batches and term is not None:
            raise ValueError(
                f"length_aware_micro_batches is true, but with {term} the loss depends on which rows share a "
                f"micro-batch: leave length_aware_micro_batches unset, or change that."
            )

    @property
    def server_url(self) -> str:
        """Where the vLLM server of `vllm_mode: server` is, as TRL finds it."""
        return self.vllm_server_base_url or f"http://{self.vllm_server_host}:{self.vllm_server_port}"

    def _check_vllm(self):
        if self.vllm_mode not in ("colocate", "server"):
            raise ValueError(f"vllm_mode is {self.vllm_mode!r}: give colocate or server.")
        if not is_vllm_available():
            raise ValueError("use_vllm is True, and vLLM is not installed: pip install -e '.[vllm]' in the checkout.")
        filters = {"top_p": self.top_p < 1, "top_k": self.sampling.top_k, "min_p": self.sampling.min_p}
        if any(filters.values()) and self.vllm_importance_sampling_correction:
            name = next(name for name in filters if filters[name])
            raise ValueError(
                f"{name} is {vars(self)[name]} with use_vllm: the importance-sampling correction "
                f"compares with log-probabilities of unfiltered sampling; leave it unset, or set "
                f"vllm_importance_sampling_correction: false."
            )

    def _check_saving(self):
        if self.save_only_model:
            raise ValueError(
                "save_only_model is True, which leaves out the optimizer, so that no run could be resumed from it: "
                "leave it false."
            )


def _as_value(spec):
    """A command line's text as the number or mapping it stands for, so that the saved configuration shows that."""
    return yaml.safe_load(spec) if isinstance(spec, str) and spec.strip() and _is_yaml(spec) else spec


def _is_yaml(text: str) -> bool:
    try:
        yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
        return False
    return True
