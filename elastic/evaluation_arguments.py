"""What a recipe or a command line may say about an evaluation. Nothing heavy is imported, so `--help` is quick."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from elastic.arguments import GradingArguments, MarkerArguments, ProblemArguments, RewardArguments, check_rate
from elastic.budget import UNLIMITED, has_number, validated_budget
from elastic.engine_arguments import EngineArguments, EvaluatedModelArguments
from elastic.page import DEFAULT_GENERATIONS
from elastic.records import FILE_SUFFIXES
from elastic.results import Control
from elastic.rollout import Sampling

_COUNTS = (
    *("num_generations", "max_problems", "max_batch_tokens", "max_prompt_length", "max_concurrent_requests"),
    *("vllm_tensor_parallel_size", "vllm_max_model_length", "max_report_generations"),
)


@dataclass
class GridArguments:
    """The budgets to measure at."""

    thinking_token_budgets: list[int] | None = field(
        default=None,
        metadata={
            "help": "Each t, in tokens, to measure at; 0 closes the thinking at once (a control), -1 is no limit."
        },
    )
    solution_token_budget: int = field(
        default=UNLIMITED, metadata={"help": "s, in tokens, beside each of thinking_token_budgets; -1 is no limit."}
    )
    no_budget: bool = field(default=False, metadata={"help": "Measure without budgets too."})
    truncation_budgets: list[int] | None = field(
        default=None,
        metadata={
            "help": "The truncation baseline: total budgets, in tokens, at which a rollout is cut; nothing is inserted."
        },
    )
    max_completion_tokens: int = field(
        default=32768,
        metadata={
            "help": "Most tokens that a rollout may sample where t or s is no limit, no_budget included; -1 leaves "
            "it to the model's context."
        },
    )
    trained_budget: int | None = field(
        default=None,
        metadata={"help": "t*, the thinking budget that the model was trained with: marked in tables and plots."},
    )


@dataclass
class ControlArguments(MarkerArguments):
    """What holds the rollouts to the budgets, and how they are sampled for a whole grid."""

    control: list[str] | None = field(
        default=None,
        metadata={
            "help": "One or several. separate: E1, at each of thinking_token_budgets. zero: t = 0. wrap_up: E1 with "
            "wrap_up_str before the end marker. carry_over: E1 whose solution may have the thinking tokens that were "
            "left. s1: budget forcing, with s1_close_str and s1_waits. prompt: budget_instruction, nothing is forced. "
            "told: E1 with budget_instruction, and maybe reminders (reminder_every). "
            "none: no budget. truncate: truncation_budgets, or each t + s, in all, and nothing is inserted. Unset: "
            "separate, and with no_budget none, with truncation_budgets truncate."
        },
    )
    s1_close_str: str = field(
        default="\n{end}\nFinal Answer:",
        metadata={"help": "What s1 inserts when t is spent; {end} stands for the end marker."},
    )
    s1_waits: int = field(
        default=0,
        metadata={"help": "How often s1 takes the policy's end marker back, and has it think on after s1_wait_str."},
    )
    s1_wait_str: str = field(default="Wait", metadata={"help": "What s1 puts in the place of such an end marker."})
    budget_instruction: str = field(
        default="Think for {tokens} tokens.",
        metadata={
            "help": "What the controls prompt and told append to each problem, {tokens} being t; the default is L1's. "
            "A model trained as L1-Max wants: Think for maximum {tokens} tokens."
        },
    )
    sweep: Literal["fork", "independent"] = field(
        default="fork",
        metadata={
            "help": "fork: one chain of thought to the largest budget, cut at every smaller one, so that a curve costs "
            "little more than its longest budget. independent: every budget has rollouts of its own."
        },
    )


@dataclass
class BenchmarkArguments:
    """Which benchmarks are measured, where a recipe has several data sets."""

    benchmarks: dict | str | None = field(
        default=None,
        metadata={
            "help": "Several data sets in one evaluation, by name, each with the fields in which it differs from the "
            "recipe: {aime24: {dataset_name: ...}, math500: {dataset_name: ..., answer_column: answer}}."
        },
    )
    only_benchmarks: list[str] | None = field(
        default=None, metadata={"help": "Measure these of the benchmarks only; unset, all."}
    )
    benchmark_files: list[str] | None = field(
        default=None,
        metadata={
            "help": "NAME=FILE for each benchmark that is read from a local file of the same columns, instead of from "
            "its data set."
        },
    )
    benchmark: str | None = field(
        default=None,
        metadata={"help": "The name of a single data set in results; unset, the last part of dataset_name."},
    )


@dataclass
class RatingArguments:
    """What a rating of programs is found from."""

    rating_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with each problem's Codeforces rating; the model's own is found from the pass rates."
        },
    )
    tests_are: Literal["full", "sample"] | None = field(
        default=None,
        metadata={
            "help": "full: programs are tested with all that the judge has, and by its checker where one is needed. "
            "sample: by a part of it, such as the statement's examples: no rating is given."
        },
    )


@dataclass
class ContaminationArguments:
    """What the model was trained on, to be looked for among the problems."""

    training_recipe: str | None = field(
        default=None,
        metadata={
            "help": "A recipe of elastic.train: problems that occur in its data set are counted and named in the "
            "results, by 13 words in a row."
        },
    )
    training_data: list[str] | None = field(
        default=None,
        metadata={"help": "Files or hub ids of training problems that are looked for in the same way."},
    )


@dataclass
class EvaluationArguments(
    BenchmarkArguments,
    ContaminationArguments,
    RatingArguments,
    ControlArguments,
    GridArguments,
    ProblemArguments,
    EvaluatedModelArguments,
    EngineArguments,
    RewardArguments,
    GradingArguments,
):
    """A model, a data set, a grid of budgets, and how rollouts are sampled and graded.

    Raises ValueError, with one sentence, for values that contradict themselves or each other.
    """

    dataset_split: str = field(default="test", metadata={"help": "The split of a hub data set to measure on."})
    max_problems: int | None = field(
        default=None, metadata={"help": "Measure on the first so many problems only; unset, on all."}
    )
    chat_template_kwargs: dict | str | None = field(
        default=None, metadata={"help": "Arguments of the chat template, such as {enable_thinking: true}."}
    )
    reward: str = field(
        default="math",
        metadata={
            "help": "What decides whether a sample is right (1) or wrong (0): a name in rewards.REWARDS, one of TRL's "
            "own (accuracy_reward), or a dotted path such as my_package.my_reward."
        },
    )
    num_generations: int = field(default=16, metadata={"help": "Samples of each problem at each budget."})
    temperature: float = field(default=0.6, metadata={"help": "0 is greedy decoding. The paper evaluates at 0.6."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling; 1 keeps all. The paper evaluates at 0.95."})
    top_k: int = field(default=0, metadata={"help": "Sample from the k likeliest tokens; 0 keeps all."})
    min_p: float = field(
        default=0.0, metadata={"help": "Drop tokens below this share of the likeliest one's probability."}
    )
    seed: int = field(default=0, metadata={"help": "Of the sampling."})
    max_batch_tokens: int | None = field(
        default=None,
        metadata={"help": "Most tokens of KV cache that one slice of rollouts may need. Unset, from the free memory."},
    )
    report_to: Literal["none", "wandb"] = field(
        default="none", metadata={"help": "wandb: log the curve to W&B when all is measured; offline without a key."}
    )
    wandb_project: str | None = field(default=None, metadata={"help": "W&B project; unset, WANDB_PROJECT or elastic."})
    wandb_entity: str | None = field(default=None, metadata={"help": "W&B entity; unset, WANDB_ENTITY or your own."})
    max_report_generations: int = field(
        default=DEFAULT_GENERATIONS,
        metadata={"help": "Most generations that report.html holds; results count them all."},
    )
    output_dir: str | None = field(
        default=None,
        metadata={"help": "Where results, samples, table, picture and report.html go; a second run resumes."},
    )

    def __post_init__(self):
        ProblemArguments.__post_init__(self)
        RewardArguments.__post_init__(self)
        self.benchmarks = _json_object(self.benchmarks, "benchmarks")
        for name in ("model_name_or_path", "dataset_name", "output_dir"):
            if not getattr(self, name) and not (name == "dataset_name" and self.benchmarks):
                raise ValueError(f"{name} is not set: give it in the recipe or as --{name}.")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give a whole number of 1 or more.")
        if self.benchmark and self.benchmarks:
            raise ValueError(f"benchmark is {self.benchmark!r}, and benchmarks have names of their own: leave it out.")
        self.chat_template_kwargs = _json_object(self.chat_template_kwargs, "chat_template_kwargs")
        if self.rating_column and not self.tests_are:
            raise ValueError(
                f"rating_column is {self.rating_column!r}, and tests_are is not set: give full or sample, for "
                f"only full tests give a rating."
            )
        self._check_budgets()
        self._check_controls()
        self.check_engine()
        self.check_models(self.engine)
        check_rate(self.max_ungraded_rate, "max_ungraded_rate")
        self.sampling  # noqa: B018  (Sampling checks the four values)

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.top_k, self.min_p)

    @property
    def label(self) -> str:
        thinker = self.model_label or _last_part(self.model_name_or_path)
        if self.solution_model_name_or_path is None:
            return thinker
        return (
            f"{thinker} thinking, {self.solution_model_label or _last_part(self.solution_model_name_or_path)} solution"
        )

    @property
    def benchmark_name(self) -> str:
        """`math500` of math500.jsonl, and `MATH-500` of org/MATH-500."""
        if self.benchmark:
            return self.benchmark
        last = _last_part(self.dataset_name)
        return Path(last).stem if Path(last).suffix.lower() in FILE_SUFFIXES else last

    def _check_budgets(self):
        _check_grid_line(self.thinking_token_budgets or (), "thinking_token_budgets")
        _check_grid_line(self.truncation_budgets or (), "truncation_budgets")
        if min(self.truncation_budgets or (1,)) < 1:
            raise ValueError(
                f"truncation_budgets is {self.truncation_budgets}: give total budgets of 1 token or more; for no "
                f"limit set no_budget."
            )
        validated_budget(self.solution_token_budget, "solution_token_budget")
        if self.trained_budget is not None:
            validated_budget(self.trained_budget, "trained_budget")
        if self.max_completion_tokens < 1 and self.max_completion_tokens != UNLIMITED:
            raise ValueError(
                f"max_completion_tokens is {self.max_completion_tokens}: give 1 token or more, or -1 for as many as "
                f"the model's context holds."
            )
        if not self.controls:
            raise ValueError("The grid is empty: give thinking_token_budgets, no_budget or truncation_budgets.")

    @property
    def controls(self) -> list[str]:
        """What is asked for by `control` and by the budgets that are set, each once."""
        asked = list(self.control or (["separate"] if self.thinking_token_budgets else []))
        asked += ["none"] * self.no_budget + ["truncate"] * bool(self.truncation_budgets)
        return list(dict.fromkeys(asked))

    def _check_controls(self):
        for name in self.control or ():
            if name not in list(Control):
                raise ValueError(f"control has {name!r}: choose of {', '.join(Control)}.")
        if self.control and len(set(self.control)) < len(self.control):
            raise ValueError(f"control is {self.control}, which names one twice: name each once.")
        at_each_t = [name for name in self.controls if name not in ("zero", "none")]
        if self.truncation_budgets:
            at_each_t.remove("truncate")
        if at_each_t and not self.thinking_token_budgets:
            raise ValueError(f"control is {at_each_t[0]}, which needs thinking_token_budgets: give a list of them.")
        if "carry_over" in self.controls and self.solution_token_budget == UNLIMITED:
            raise ValueError("control is carry_over, and solution_token_budget is no limit: give one to carry over to.")
        if "truncate" in at_each_t and self.solution_token_budget == UNLIMITED:
            raise ValueError(
                "control is truncate, and solution_token_budget is no limit: give truncation_budgets, or a limit."
            )
        if bool(self.wrap_up_str) != ("wrap_up" in self.controls):
            raise ValueError(
                f"wrap_up_str is {self.wrap_up_str!r}, and the controls are {', '.join(self.controls)}: give the text "
                f"together with the control wrap_up, or neither."
            )
        self.check_reminders()
        if self.reminder_every and "told" not in self.controls:
            raise ValueError(
                f"reminder_every is {self.reminder_every}, and the controls are {', '.join(self.controls)}: add the "
                f"control told, or leave it out."
            )
        if self.s1_close_str.count("{end}") != 1:
            raise ValueError(f"s1_close_str is {self.s1_close_str!r}: write {{end}} once, for the end marker.")
        if not has_number(self.budget_instruction):
            raise ValueError(
                f"budget_instruction is {self.budget_instruction!r}: write {{tokens}} where the budget goes."
            )
        if self.s1_waits < 0 or (self.s1_waits and UNLIMITED in (self.thinking_token_budgets or ())):
            raise ValueError(
                f"s1_waits is {self.s1_waits}: give 0 or more, and with more than 0 no -1 in thinking_token_budgets."
            )


def _last_part(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _check_grid_line(budgets: Sequence[int], name: str) -> None:
    for budget in budgets:
        validated_budget(budget, name)
    if len(set(budgets)) < len(budgets):
        raise ValueError(f"{name} is {budgets}, which names a budget twice: name each once.")


def _json_object(value: dict | str | None, name: str) -> dict | None:
    """A mapping as a recipe gives it, or as JSON from a command line."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        raise ValueError(f'{name} is {value!r}, which is not JSON: give an object such as {{"a": 1}}.') from None
    if value is not None and not isinstance(value, dict):
        raise ValueError(f'{name} is {value!r}: give an object such as {{"a": 1}}.')
    return value
