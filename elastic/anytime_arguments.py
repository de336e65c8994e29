"""The options of algorithm anytime, and what they do not go with."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from elastic.arguments import check_rate

# Options of which only these values go with algorithm anytime, and why.
_NEEDED = {
    "scale_rewards": (("none",), "it divides no advantage by a standard deviation"),
    "multi_objective_aggregation": (("sum_then_normalize",), "it compares sums of rewards"),
    "importance_sampling_level": (("token",), "tokens of a row have different advantages"),
    "loss_type": (("dapo", "dr_grpo", "cispo", "bnpo"), "tokens of a chain are divided among rows, and weigh the same"),
    "solution_truncated_reward": (("keep", "zero"), "the row of a solution may hold the thinking of others"),
    "carry_over": ((False,), "solutions of a chain that has closed are shared by its budgets"),
    "stages": ((None,), "thinking_token_budget is one prior for the whole run"),
    "total_token_budget": ((-1, None), "its budgets are places in the thinking"),
    "unbudgeted_share": ((0,), "every chain is sampled to its largest budget"),
    "budget_instruction": (("",), "one chain serves all of its budgets"),
    "target_tokens": ((None,), "one chain serves all of its budgets"),
    "reminder_every": ((0,), "one chain serves all of its budgets"),
}


@dataclass
class AnytimeArguments:
    """How rollouts are sampled and credited."""

    algorithm: Literal["grpo", "anytime"] = field(
        default="grpo",
        metadata={
            "help": "grpo: every row is a rollout of its own. anytime: the rows of a prompt are chains of thought with "
            "solutions forked at several thinking budgets (BRPO, arXiv 2505.13438); num_generations is chains x "
            "solutions x budgets."
        },
    )
    anytime_cuts: int | None = field(
        default=None,
        metadata={
            "help": "Thinking budgets that a chain is forked at, where thinking_token_budget is a range: one is drawn "
            "for each prompt from each of so many equally likely parts of it. Where it is choices, these are the "
            "budgets, with their weights, and it has no place in the recipe."
        },
    )
    anytime_solutions: int = field(default=1, metadata={"help": "Solutions at each of them. The paper has 4."})
    anytime_baseline: Literal["brpo", "group", "earlier", "none"] = field(
        default="brpo",
        metadata={
            "help": "What thinking is compared with: group, the other chains of the prompt; earlier, the rewards of "
            "the same chain at smaller budgets; brpo, both, as the paper does; none, nothing."
        },
    )
    anytime_discount: float = field(
        default=0.5,
        metadata={"help": "What a smaller budget's reward counts in that, for each budget that it is further back."},
    )


def check_anytime(config) -> None:
    """Raises ValueError where the options of an ElasticConfig do not go together."""
    if config.algorithm != "anytime":
        for option in fields(AnytimeArguments):
            if (value := vars(config)[option.name]) != option.default:
                raise ValueError(
                    f"{option.name} is {value!r} with algorithm grpo: set algorithm: anytime, or leave it out."
                )
        return
    for name, (allowed, reason) in _NEEDED.items():
        if (value := vars(config)[name]) not in allowed:
            mend = " or ".join("null" if one is None else repr(one) for one in allowed)
            raise ValueError(f"{name} is {value!r} with algorithm anytime: give {mend}, for {reason}.")
    check_rate(config.anytime_discount, "anytime_discount")
    if not config.run_stages[0].solution.is_fixed:
        raise ValueError(
            f"solution_token_budget is {config.solution_token_budget!r} with algorithm anytime: give one number."
        )
    if (config.anytime_cuts is None) != bool(config.prior.choices):
        mend = "remove it from the recipe, for these are the cuts" if config.prior.choices else "give it for a range"
        raise ValueError(
            f"anytime_cuts is {config.anytime_cuts} with thinking_token_budget {config.thinking_token_budget!r}: "
            f"{mend}."
        )
    _check_rows(config)


def _check_rows(config) -> None:
    forks = len(config.cut_weights) * config.anytime_solutions
    if config.num_generations % forks or config.num_generations < 2 * forks:
        raise ValueError(
            f"num_generations is {config.num_generations} with algorithm anytime: give {forks} (a chain's budgets x "
            f"solutions) times 2 chains or more."
        )
    rows = config.per_device_train_batch_size * config.steps_per_generation
    if rows % config.num_generations:
        raise ValueError(
            f"per_device_train_batch_size x steps_per_generation is {rows} with algorithm anytime: give a multiple of "
            f"num_generations ({config.num_generations}), for all chains of a prompt are sampled by one process."
        )
