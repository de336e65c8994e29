"""What a recipe or a command line may say.

The dataclasses here are the options that are ours; `elastic.config` joins them to TRL's. They import nothing heavy, so
`--help` and a mistyped recipe answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from elastic.budget import has_number
from elastic.parsing import from_yaml


@dataclass
class ProblemArguments:
    """A data set of problems, and how each becomes a prompt: the same words for training and evaluation."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "A hub id, or a local .json, .jsonl or .parquet file."}
    )
    dataset_config: str | None = field(
        default=None,
        metadata={"help": "The configuration of a hub data set, or several, one after the other: taco+primeintellect."},
    )
    keep_rows: dict | str | None = field(
        default=None,
        metadata={
            "help": "Read only the rows with these values: {language: [python], date: {from: 2024-08-01, until: "
            "2025-02-01}}, the second bound excluded."
        },
    )
    problem_column: str | None = field(
        default=None, metadata={"help": "Column with the problem; unset, the one named problem, question or prompt."}
    )
    problem_template: str | None = field(
        default=None,
        metadata={"help": "A Jinja template of the problem's text over the columns, instead of problem_column."},
    )
    answer_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the reference answer; unset, the one named answer or solution. Not needed where no "
            "reward compares with it."
        },
    )
    choices_columns: list[str] | None = field(
        default=None,
        metadata={
            "help": "Columns with the options of multiple choice, the right one's first; they are asked as A), B), ... "
            "in an order that a hash of them gives."
        },
    )
    options_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the list of options, instead of choices_columns; answer_column has the letter of the "
            "right one, or its index from 0."
        },
    )
    tests_column: str | None = field(
        default=None, metadata={"help": "Column with the tests that a program must pass; unset, the one named tests."}
    )
    prompt_suffix: str = field(
        default="",
        metadata={"help": "Text appended to each problem, such as the instruction to box the answer. Empty for none."},
    )
    system_prompt: str | None = field(default=None, metadata={"help": "A system message before each problem."})
    max_prompt_length: int | None = field(
        default=None,
        metadata={"help": "Longest prompt in tokens; longer ones are dropped and counted. Unset, none is dropped."},
    )
    drop_malformed_rows: bool = field(
        default=False,
        metadata={"help": "Log rows that cannot be used, each by its place, and leave them out, instead of stopping."},
    )

    def __post_init__(self):
        self.keep_rows = from_yaml(self.keep_rows, "keep_rows")
        if self.keep_rows is not None and not isinstance(self.keep_rows, dict):
            raise ValueError(f"keep_rows is {self.keep_rows!r}: give columns and their values, as {{level: [5]}}.")


@dataclass
class DataArguments(ProblemArguments):
    """Which problems to train on."""

    dataset_train_split: str = field(default="train", metadata={"help": "The split of a hub data set to train on."})


@dataclass
class RewardArguments:
    """How the rewards of this package grade."""

    math_reward: dict | str | None = field(
        default=None,
        metadata={"help": "Settings of the math reward: {without_box: none | last_number | answer_is}."},
    )
    code_reward: dict | str | None = field(
        default=None,
        metadata={
            "help": "Settings of the code reward: {mode: all | fraction, sandbox: auto | bubblewrap | landlock | "
            "unsafe, timeout_s: CPU seconds a test, memory_mb: MiB a test, workers: gradings at once}."
        },
    )
    length_reward: dict | str | None = field(
        default=None,
        metadata={
            "help": "Settings of l1_exact, l1_max, cosine and overlong: {correctness: a reward's name, target_tokens: "
            "N, alpha: a token's price, max_tokens: L_max, cache_tokens: L_cache, ...}."
        },
    )

    def __post_init__(self):
        self.math_reward = from_yaml(self.math_reward, "math_reward")
        self.code_reward = from_yaml(self.code_reward, "code_reward")
        self.length_reward = from_yaml(self.length_reward, "length_reward")

    def reward_settings(self) -> dict[str, Any]:
        """By reward, what the recipe sets of it."""
        return {"math": self.math_reward, "code": self.code_reward, "length": self.length_reward}


@dataclass
class GradingArguments:
    """What happens when answers cannot be graded."""

    max_ungraded_rate: float = field(
        default=0.01,
        metadata={
            "help": "The run stops when a larger share of the last 1,000 samples (of 100 or more) could not be graded; "
            "0 stops at the first."
        },
    )
    on_reward_error: Literal["stop", "drop"] = field(
        default="stop",
        metadata={
            "help": "A reward that raises: the samples and its error are written to output_dir/failed_rewards.jsonl; "
            "stop then ends the run, drop goes on with these samples ungraded, unless it raises on all of them."
        },
    )


@dataclass
class RunArguments(RewardArguments):
    """What is rewarded, and how a run is named, continued and tracked."""

    reward_funcs: list[str] | None = field(
        default=None,
        metadata={
            "help": "Rewards to sum: names in rewards.REWARDS, TRL's own (accuracy_reward), or dotted paths such as "
            "my_package.my_reward."
        },
    )
    resume: str = field(
        default="auto",
        metadata={
            "help": "auto: go on from the last complete checkpoint in output_dir, if there is one. never: start anew, "
            "and refuse an output_dir that holds checkpoints. Else the path of a checkpoint."
        },
    )
    wandb_project: str | None = field(default=None, metadata={"help": "W&B project; unset, WANDB_PROJECT or elastic."})
    wandb_entity: str | None = field(default=None, metadata={"help": "W&B entity; unset, WANDB_ENTITY or your own."})


@dataclass
class MarkerArguments:
    """What marks the phases of a rollout."""

    reasoning_start_str: str = field(default="<think>", metadata={"help": "Text of the marker that opens thinking."})
    reasoning_end_str: str = field(default="</think>", metadata={"help": "Text of the marker that ends thinking."})
    wrap_up_str: str = field(
        default="", metadata={"help": "Text inserted before the end marker at a forced close. The paper uses none."}
    )
    reminder_every: int = field(
        default=0,
        metadata={
            "help": "Insert reminder_str after each so many sampled thinking tokens, while a limited budget is left; 0 "
            "for none."
        },
    )
    reminder_str: str = field(
        default="", metadata={"help": "The reminder, such as: left {tokens}. {tokens} is what is left of t."}
    )

    def check_reminders(self) -> None:
        """Raises ValueError where one of the two fields lacks the other."""
        if self.reminder_every < 0:
            raise ValueError(
                f"reminder_every is {self.reminder_every}: give a number of tokens, or 0 for no reminders."
            )
        if self.reminder_every and not has_number(self.reminder_str):
            raise ValueError(
                f"reminder_str is {self.reminder_str!r}, and reminder_every is {self.reminder_every}: write {{tokens}} "
                f"where the number of tokens left goes."
            )
        if self.reminder_str and not self.reminder_every:
            raise ValueError(
                f"reminder_str is {self.reminder_str!r}, and reminder_every is 0: give the number of tokens after "
                f"which it comes, or leave it out."
            )


@dataclass
class BudgetArguments(MarkerArguments):
    """The budgets of a rollout, what marks its phases, and what rollouts of different lengths cost."""

    thinking_token_budget: dict | str | int | None = field(
        default=-1,
        metadata={
            "help": "t, in sampled tokens: a number (0 closes at once, -1 is no limit), or a distribution drawn once "
            "for each prompt: {choices: [...], weights: [...]}, {uniform: [lo, hi]} or {log_uniform: [lo, hi]}. A "
            "data-set column of this name goes first. The paper trains with 1024."
        },
    )
    solution_token_budget: dict | str | int | None = field(
        default=-1,
        metadata={"help": "s, in sampled tokens after the thinking is closed; forms as for thinking_token_budget."},
    )
    total_token_budget: int | None = field(
        default=-1,
        metadata={
            "help": "Most sampled tokens of a rollout, both phases together; nothing is inserted when they are spent. "
            "-1 is no limit."
        },
    )
    unbudgeted_share: float = field(
        default=0.0,
        metadata={
            "help": "The share of each batch's prompts that is sampled without t and s, up to total_token_budget, else "
            "max_completion_length, so that what the model can do without them is trained too."
        },
    )
    target_tokens: dict | str | int | None = field(
        default=None,
        metadata={
            "help": "The length that a prompt asks for, in tokens, drawn once for each; forms as for "
            "thinking_token_budget. Nothing is forced; budget_instruction tells it, and l1_exact and l1_max reward it."
        },
    )
    budget_instruction: str = field(
        default="",
        metadata={
            "help": "Appended to each problem, {tokens} being its target_tokens, else its thinking budget; prompts "
            "without a limit are told nothing. L1's is: Think for {tokens} tokens."
        },
    )
    carry_over: bool = field(
        default=False,
        metadata={
            "help": "Let the solution have the thinking tokens that a natural close left unused, besides its own. The "
            "paper does not."
        },
    )
    solution_truncated_reward: Literal["keep", "zero", "mask"] = field(
        default="keep",
        metadata={
            "help": "A rollout that was cut before its EOS: keep grades what is there (as the paper does), zero "
            "rewards it 0, mask grades it but leaves its tokens out of the loss."
        },
    )
    max_rollout_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Training ends with the update after which so many tokens have been sampled, if max_steps or the "
            "epochs do not end it before; schedules and stages go by this count then, instead of by steps."
        },
    )
    stages: dict | str | None = field(
        default=None,
        metadata={
            "help": "Parts of the run with budgets, targets and weights of their own, by name: {long: {share: 0.5, "
            "total_token_budget: 4000}, short: {share: 0.5, total_token_budget: 2000}}. The shares are of steps, or of "
            "max_rollout_tokens."
        },
    )
    rollout_max_batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Most tokens of KV cache that one slice of rollouts may need; larger batches are sampled slice by "
            "slice. Unset, from the memory that is free."
        },
    )
    length_aware_micro_batches: bool | None = field(
        default=None,
        metadata={
            "help": "Order the rows of an update by length, so that each micro-batch is padded to its own longest row. "
            "Unset, where the update stays the same: not with loss_type bnpo, entropy_coef, top_entropy_quantile or a "
            "router's loss."
        },
    )


def check_rate(rate: float, name: str) -> None:
    """Raises ValueError where `rate` is no share of a whole."""
    if not 0 <= rate <= 1:
        raise ValueError(f"{name} is {rate}: give a share from 0 to 1, such as 0.01.")
