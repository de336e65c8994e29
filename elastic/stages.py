"""The parts of a training run, each with its budgets, targets and reward weights, and what a prompt gets of them.

A recipe without `stages` has one, which is the recipe itself.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, isfinite
from typing import Any

from datasets import Dataset

from elastic.budget import (
    UNLIMITED,
    Budget,
    BudgetDistribution,
    ReasoningTokens,
    draw_budget,
    has_number,
    validated_budget,
    with_number,
)
from elastic.data import BUDGET_COLUMNS
from elastic.problem_text import asking

FIELDS = (
    *("thinking_token_budget", "solution_token_budget", "total_token_budget"),
    *("target_tokens", "budget_instruction", "reward_weights"),
)


@dataclass(frozen=True)
class Stage:
    """What holds in one part of a run.

    Attributes:
        name: as in the recipe; "" where there are no stages.
        end: the share of the run's work at which it ends, 1 for the last.
        total: most sampled tokens of a rollout; -1 is no limit.
        targets: of the length that a prompt asks for; None: it asks for none.
        instruction: tells a prompt its target, else its thinking budget, where {tokens} stands; "": tells nothing.
        reward_weights: one for each reward; None: all 1.
    """

    name: str
    end: float
    thinking: BudgetDistribution
    solution: BudgetDistribution
    total: int
    targets: BudgetDistribution | None
    instruction: str
    reward_weights: tuple[float, ...] | None

    @classmethod
    def read(cls, name: str, end: float, values: Mapping[str, Any]) -> Stage:
        """Of the values of FIELDS, as a recipe has them. Raises ValueError with one sentence."""
        targets, weights = values["target_tokens"], values["reward_weights"]
        where = f"stages.{name}." if name else ""
        stage = cls(
            name,
            end,
            BudgetDistribution.parse(values["thinking_token_budget"], f"{where}thinking_token_budget"),
            BudgetDistribution.parse(values["solution_token_budget"], f"{where}solution_token_budget"),
            validated_budget(values["total_token_budget"], f"{where}total_token_budget"),
            None if targets is None else BudgetDistribution.parse(targets, f"{where}target_tokens"),
            _instruction(values["budget_instruction"], f"{where}budget_instruction"),
            None if weights is None else _weights(weights, f"{where}reward_weights"),
        )
        if stage.total == 0:
            raise ValueError(
                f"{where}total_token_budget is 0, which allows no token: give 1 or more, or -1 for no limit."
            )
        if stage.targets is not None and (stage.targets.smallest < 1 or stage.targets.largest == UNLIMITED):
            raise ValueError(f"{where}target_tokens is {targets!r}: give lengths of 1 token or more.")
        return stage

    def check_told(self, targets: object) -> None:
        """Raises ValueError where there are `targets`, as the recipe has them, and no words that tell them."""
        if self.targets is not None and not self.instruction:
            raise ValueError(
                f"{self.targets.name} is {targets!r}, and no prompt tells it: set budget_instruction, such as L1's "
                f"Think for {{tokens}} tokens."
            )

    @property
    def longest(self) -> int:
        """The most tokens that a rollout may sample; -1 where its budgets leave that open."""
        phases = (self.thinking.largest, self.solution.largest)
        bounds = [sum(phases)] if UNLIMITED not in phases else []
        return min([*bounds, self.total] if self.total != UNLIMITED else bounds, default=UNLIMITED)


def read_stages(given: Mapping[str, Any] | None, recipe: Mapping[str, Any]) -> list[Stage]:
    """The stages of a run, in their order.

    Args:
        given: `{name: {share: ..., field: value}}`, the shares of the run's work adding up to 1; None: one stage.
        recipe: the values of FIELDS where a stage gives none.

    Raises:
        ValueError: names the stage, the field, the value and the mend.
    """
    whole = Stage.read("", 1.0, recipe)
    if given is None:
        whole.check_told(recipe["target_tokens"])
        return [whole]
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"stages is {given!r}: give {{name: {{share: 0.5, thinking_token_budget: ...}}, ...}}.")
    stages, end = [], 0.0
    for name, values in given.items():
        if not isinstance(values, Mapping):
            raise ValueError(f"stages.{name} is {values!r}: give its share and the fields in which it differs.")
        if unknown := [field for field in values if field not in ("share", *FIELDS)]:
            raise ValueError(f"stages.{name}.{unknown[0]} is no field of a stage: give share, {', '.join(FIELDS)}.")
        end += _share(values.get("share"), str(name))
        own = {**recipe, **{field: value for field, value in values.items() if field != "share"}}
        stages.append(Stage.read(str(name), end, own))
        stages[-1].check_told(own["target_tokens"])
    if abs(end - 1) > 1e-6:
        raise ValueError(f"The shares of stages add up to {end:g}: they are parts of the whole run, so make that 1.")
    return [*stages[:-1], replace(stages[-1], end=1.0)]


def with_columns(stages: Sequence[Stage], dataset: Dataset) -> list[Stage]:
    """The stages with the budgets of the data set's own columns, where it has them, in the place of theirs."""
    own = {
        phase: BudgetDistribution.parse({"choices": sorted(set(dataset[column]))}, column)
        for phase, column in BUDGET_COLUMNS.items()
        if column in dataset.column_names
    }
    return [replace(stage, **own) for stage in stages]


def most_inserted(stages: Sequence[Stage], tokens: ReasoningTokens) -> int:
    """The most tokens that the system inserts into a rollout: the bridge, and reminders of a limited budget."""
    budgets = [Budget(stage.thinking.largest_limit, total=stage.total) for stage in stages]
    return len(tokens.bridge) + max(map(tokens.most_reminded, budgets))


def stage_at(stages: Sequence[Stage], progress: float) -> Stage:
    """The stage of a run of which a share of `progress` is done; the last one for a run that is over."""
    return next((stage for stage in stages if progress < stage.end), stages[-1])


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one prompt is sampled under in one round, and what it is told.

    Attributes:
        target: the length that it is asked for, in tokens; None where it is asked for none.
    """

    budget: Budget
    target: int | None = None

    def of(self, row: Mapping[str, Any]) -> Assignment:
        """With what the columns of a row say themselves."""
        own = {phase: row[column] for phase, column in BUDGET_COLUMNS.items() if column in row}
        target = row.get("target_tokens")
        return Assignment(replace(self.budget, **own), self.target if target is None else target)

    def told_to(self, row: Mapping[str, Any], instruction: str) -> dict[str, Any]:
        """The row with its target, and with `instruction` in its prompt where there is a number to tell."""
        row = dict(row) if self.target is None else {**row, "target_tokens": self.target}
        tokens = self.budget.thinking if self.target is None else self.target
        if instruction and tokens != UNLIMITED:
            row["prompt"] = asking(row["prompt"], with_number(instruction, tokens))
        return row


def assign(stage: Stage, prompt_ids: Sequence[int], *, seed: int, draw: int, unbudgeted: bool) -> Assignment:
    """What a prompt gets in the generation round `draw`: the same for all rows of its group, on every process.

    It depends on nothing but the arguments, so that a resumed run assigns what the interrupted one would have.
    """
    budget = draw_budget(stage.thinking, stage.solution, seed=seed, draw=draw, prompt_ids=prompt_ids)
    if unbudgeted:
        budget = Budget()
    target = None
    if stage.targets is not None:
        target = stage.targets.draw(random.Random(f"target/{seed}/{draw}/{','.join(map(str, prompt_ids))}"))
    return Assignment(replace(budget, total=stage.total), target)


def unbudgeted_prompts(
    prompts: Sequence[tuple[int, ...]], share: float, *, seed: int, draw: int
) -> set[tuple[int, ...]]:
    """Which of a round's prompts are sampled without budgets: `share` of the different ones, whatever their order.

    Where the share is no whole number of prompts, that is rounded up as often as keeps the share right in the mean.
    """
    rng = random.Random(f"unbudgeted/{seed}/{draw}")
    different = sorted(set(prompts))
    return set(rng.sample(different, min(len(different), floor(share * len(different) + rng.random()))))


def _share(share: object, name: str) -> float:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(f"stages.{name}.share is {share!r}: give its part of the run, above 0 and at most 1.")
    return share


def _instruction(text: object, name: str) -> str:
    if text == "" or has_number(text):
        return text
    raise ValueError(f"{name} is {text!r}: put {{tokens}} where the number goes, as in Think for {{tokens}} tokens.")


def _weights(weights: object, name: str) -> tuple[float, ...]:
    usable = isinstance(weights, Sequence) and not isinstance(weights, str)
    if not usable or not all(isinstance(w, int | float) and not isinstance(w, bool) and isfinite(w) for w in weights):
        raise ValueError(f"{name} is {weights!r}: give a list of numbers, one for each reward.")
    return tuple(map(float, weights))
