"""What TRL's trainer lacks to go through the stages of a recipe, by steps or by the tokens that are sampled."""

from __future__ import annotations

import random
from dataclasses import replace

from accelerate.utils import gather_object

from elastic.budget import Budget
from elastic.resumable import ResumableGRPOTrainer
from elastic.rollout_func import tokenized
from elastic.stages import Stage, assign, stage_at, unbudgeted_prompts

# As many as a schedule is drawn over that goes by sampled tokens, of which no step samples as many as another.
_SCHEDULE_STEPS = 10_000


class StagedGRPOTrainer(ResumableGRPOTrainer):
    """ResumableGRPOTrainer whose runs have stages, and may end by the tokens that they sample.

    What changes with respect to ResumableGRPOTrainer:

    - `is_over` and `create_scheduler` go by `max_rollout_tokens` where that is set; `train` says where it ended before
    - `position` and `go_to` keep how many tokens were sampled, and `log` writes it

    Its subclass samples the rows that `assigned` gives, under `budgets`, and adds to `rollout_tokens`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rollout_tokens = 0
        self.budgets: list[Budget] = []

    @property
    def generation_round(self) -> int:
        """Which generation batch this is; a resumed run counts on from the checkpoint's."""
        return self._step // self._micro_steps_of_a_batch

    def rollout_seed(self) -> int:
        """A seed for this round: a resumed run samples what the interrupted one would have, on any processes."""
        mode = "train" if self.model.training else "eval"
        return random.Random(f"{self.args.seed}/{mode}/{self.generation_round}").getrandbits(63)

    @property
    def progress(self) -> float:
        """The share of the run that is done, from 0 to 1: of max_rollout_tokens where that is set, else of steps."""
        most = self.args.max_rollout_tokens
        if most is None:
            return self.state.global_step / max(1, self.state.max_steps)
        return min(1.0, self.rollout_tokens / most)

    @property
    def stage(self) -> Stage:
        """The part of the run that the next rollouts are of."""
        return stage_at(self.args.run_stages, self.progress)

    def assigned(self, rows: list[dict]) -> list[dict]:
        """The rows of a generation batch with what they are told of their budgets, which are noted in `budgets`.

        A row's own columns go first; the rest is drawn once for each prompt and round.
        """
        args, stage, seed, draw = self.args, self.stage, self.args.seed, self.generation_round
        prompts = list(map(tuple, tokenized([row["prompt"] for row in rows], self)))
        chosen: set[tuple[int, ...]] = set()
        if args.unbudgeted_share:
            everywhere = gather_object(sorted(set(prompts)))
            chosen = unbudgeted_prompts(everywhere, args.unbudgeted_share, seed=seed, draw=draw)
        drawn = {
            prompt: assign(stage, prompt, seed=seed, draw=draw, unbudgeted=prompt in chosen) for prompt in set(prompts)
        }
        assigned = [drawn[prompt].of(row) for prompt, row in zip(prompts, rows, strict=True)]
        self.budgets = [args.capped(replace(one.budget, carry_over=args.carry_over)) for one in assigned]
        return [one.told_to(row, stage.instruction) for one, row in zip(assigned, rows, strict=True)]

    @property
    def is_over(self):
        most, at_the_end_of_a_batch = self.args.max_rollout_tokens, self._step % self._micro_steps_of_a_batch == 0
        return super().is_over or (most is not None and self.rollout_tokens >= most and at_the_end_of_a_batch)

    def create_scheduler(self, num_training_steps, optimizer=None):
        if self.args.max_rollout_tokens is None:
            return super().create_scheduler(num_training_steps, optimizer)
        scheduler = super().create_scheduler(_SCHEDULE_STEPS, optimizer)
        by_step = list(scheduler.lr_lambdas)
        scheduler.lr_lambdas = [lambda _, rate=rate: rate(self.progress * _SCHEDULE_STEPS) for rate in by_step]
        return scheduler

    def train(self, *args, **kwargs):
        output = super().train(*args, **kwargs)
        if self.args.max_rollout_tokens is not None and self.progress < 1 and not self.stop.stopped:
            self._say_that_it_ended_early()
        return output

    def _say_that_it_ended_early(self) -> None:
        args, stages = self.args, self.args.run_stages
        name = "max_steps" if args.max_steps > 0 else "num_train_epochs"
        missed = ", ".join(stage.name for stage in stages[stages.index(self.stage) + 1 :])
        self.say(
            f"{name} ({vars(args)[name]:g}) ended the training after {self.rollout_tokens:,} of the "
            f"{args.max_rollout_tokens:,} tokens of max_rollout_tokens, which its schedules go by"
            f"{missed and f'; of its stages {missed} never came'}: raise {name}."
        )

    def position(self):
        return super().position() | {"rollout_tokens": self.rollout_tokens}

    def go_to(self, position):
        super().go_to(position)
        # Of an earlier version; check_counts_tokens refuses it where the count matters.
        self.rollout_tokens = position.get("rollout_tokens", 0)

    def log(self, logs, start_time=None):
        if self.model.training:
            logs["budget/rollout_tokens"] = self.rollout_tokens
        super().log(logs, start_time)
