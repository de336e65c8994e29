"""comparison.json: everything that the tables and the figure show, each number as [mean, low, high, seeds].

What is measured in seconds, and so differs from run to run, is all under `seconds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from elastic.budget import UNLIMITED
from elastic.compare.arguments import BASE, CompareArguments
from elastic.compare.measures import Measured, differences
from elastic.compare.plan import Plan, crossed_label
from elastic.compare.runs import finished, results_path
from elastic.compare.statistics import COUNT, DIFFERENCE, RATE, UNBOUNDED, Estimate, over_seeds, over_seeds_alone
from elastic.results import Control

Models = Mapping[str, Sequence[Measured | None]]
"""By name, one of each seed; None where it has not finished."""
Reading = Callable[[Measured, str], pd.Series | None]
"""From a model and the control of its own curve to a value for each problem."""

WITHOUT_BUDGET = "none_accuracy", "none_tokens"


@dataclass(frozen=True)
class Comparison:
    """The models that have finished, and how they are read."""

    arguments: CompareArguments
    models: Models
    costs: Mapping[str, Sequence[dict[str, Any] | None]]

    @classmethod
    def read(cls, arguments: CompareArguments, plan: Plan) -> Comparison:
        """What is finished of a plan."""
        pairs = [crossed_label(*pair) for pair in arguments.crossed_pairs]
        models = {}
        for name in (BASE, *arguments.methods, *pairs):
            steps = [plan.evaluation[name, seed] for seed in arguments.seeds]
            models[name] = [Measured.read(name, results_path(step)) if finished(step) else None for step in steps]
        costs = {name: [finished(plan.training[name, seed]) for seed in arguments.seeds] for name in arguments.methods}
        return cls(arguments, {name: of for name, of in models.items() if any(of)}, costs)

    def contents(self) -> dict[str, Any]:
        """What comparison.json holds."""
        arguments = self.arguments
        named = [name for name in (BASE, *arguments.methods) if name in self.models]
        pairs = [crossed_label(*pair) for pair in arguments.crossed_pairs]
        return {
            "reference": arguments.reference,
            "seeds": arguments.seeds,
            "task": arguments.task,
            "rollout_tokens": arguments.rollout_tokens,
            "matched_tokens": arguments.matched_tokens,
            "size": self._size(),
            "methods": {name: self._method(name) for name in named},
            "above_t_star": self._above_t_star(),
            "crossed": {name: self._cells(name) for name in pairs if name in self.models},
            "seconds": {name: self._seconds(name) for name in arguments.methods if any(self.costs[name])},
        }

    def _size(self) -> dict[str, int]:
        """Problems, and samples of them, of a cell."""
        cell = next(of for of in self.models[BASE] if of).run.cells[0] if BASE in self.models else {}
        return {name: cell[name] for name in ("n_problems", "n_samples") if name in cell}

    def _method(self, name: str) -> dict[str, Any]:
        seeds = [seed for seed, of in zip(self.arguments.seeds, self.models[name], strict=True) if of]
        method = self.arguments.methods.get(name)
        return {
            "curve": self.arguments.curve_of(name),
            "recipe": method.recipe if method else None,
            "trained_budget": method.trained_budget if method else None,
            "seeds": seeds,
            "held": [tokens for tokens in self.arguments.matched_tokens if self._is_held(name, tokens)],
            "values": self._values(name),
            "over_reference": self._over(name, self.arguments.reference),
            "over_base": self._over(name, BASE),
            "cost": self._cost(name) if method else None,
            "cells": self._cells(name),
            "controls": self._controls(name),
        }

    @property
    def _readings(self) -> dict[str, tuple[Reading, tuple[float, float], tuple[float, float]]]:
        """By name: how a value is read, the ends that it may have, and those of a difference of two."""
        ends = self.arguments.matched_tokens[0], self.arguments.matched_tokens[-1]
        at = {
            f"at_{tokens}": (lambda of, control, tokens=tokens: of.at(control, tokens), RATE, DIFFERENCE)
            for tokens in self.arguments.matched_tokens
        }
        return at | {
            "area": (lambda of, control: of.area(control, ends), RATE, DIFFERENCE),
            "none_accuracy": (lambda of, control: of.accuracy(Control.NONE, UNLIMITED), RATE, DIFFERENCE),
            "none_tokens": (lambda of, control: of.tokens(Control.NONE, UNLIMITED), COUNT, UNBOUNDED),
        }

    def _read(self, name: str, reading: Reading, control: str | None = None) -> list[pd.Series | None]:
        """Of each seed; of none where one that has finished lacks it, so that all numbers of a line are of the same."""
        control = control or self.arguments.curve_of(name)
        values = [reading(of, control) if of else None for of in self.models[name]]
        lacking = any(of and value is None for of, value in zip(self.models[name], values, strict=True))
        return [None] * len(values) if lacking else values

    def _values(self, name: str) -> dict[str, Estimate | None]:
        return {
            what: over_seeds([value for value in self._read(name, reading) if value is not None], ends)
            for what, (reading, ends, _) in self._readings.items()
        }

    def _over(self, name: str, other: str) -> dict[str, Estimate | None]:
        """`name` less `other`, within each seed."""
        if other not in self.models or name == other:
            return {}
        return {
            what: over_seeds(differences(self._read(name, reading), self._read(other, reading)), ends)
            for what, (reading, _, ends) in self._readings.items()
        }

    def _is_held(self, name: str, tokens: float) -> bool:
        control = self.arguments.curve_of(name)
        return any(of and of.is_held_at(control, tokens) for of in self.models[name])

    def _cells(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """By control, each budget's tokens and accuracy, and its accuracy less the reference's own at that budget."""
        budgets = next(of for of in self.models[name] if of).budgets
        return {control: [self._cell(name, control, budget) for budget in of] for control, of in budgets.items()}

    def _cell(self, name: str, control: str, budget: int) -> dict[str, Any]:
        tokens = self._read(name, lambda of, control: of.tokens(control, budget), control)
        accuracy = self._read(name, lambda of, control: of.accuracy(control, budget), control)
        cell = {
            "budget": budget,
            "tokens": over_seeds([of for of in tokens if of is not None], COUNT),
            "accuracy": over_seeds([of for of in accuracy if of is not None], RATE),
        }
        reference = self.arguments.reference
        if reference in self.models and control != Control.TRUNCATE:
            own = self.arguments.curve_of(reference) if control != Control.NONE else str(Control.NONE)
            others = self._read(reference, lambda of, control: of.accuracy(control, budget), own)
            cell["over_reference"] = over_seeds(differences(accuracy, others), DIFFERENCE)
        return cell

    def _controls(self, name: str) -> dict[str, dict[str, Any]]:
        """Of each control's curve the accuracy at matched tokens, and its difference to the control separate."""
        found = {}
        for control in next(of for of in self.models[name] if of).curves:
            if control in (Control.NONE, Control.ZERO):
                continue
            own = {}
            for tokens in self.arguments.matched_tokens:
                values, others = (
                    self._read(name, lambda of, control, tokens=tokens: of.at(control, tokens), one)
                    for one in (control, str(Control.SEPARATE))
                )
                own[f"at_{tokens}"] = over_seeds([value for value in values if value is not None], RATE)
                if control != Control.SEPARATE:
                    own[f"over_separate_at_{tokens}"] = over_seeds(differences(values, others), DIFFERENCE)
            found[control] = own
        return found

    def _above_t_star(self) -> dict[str, list[dict[str, Any]]]:
        """Of each method with one t* that was measured: accuracy at each larger budget less that at t*."""
        found = {}
        for name, method in self.arguments.methods.items():
            t_star, control = method.trained_budget, method.curve
            if name not in self.models or t_star is None:
                continue
            at_t_star = self._read(name, lambda of, control, t=t_star: of.accuracy(control, t), control)
            budgets = next(of for of in self.models[name] if of).budgets[control]
            above = [budget for budget in budgets if budget > t_star and t_star in budgets]
            found[name] = [
                {"budget": t, "over_t_star": over_seeds(differences(at_t, at_t_star), DIFFERENCE)}
                for t in above
                for at_t in [self._read(name, lambda of, control, t=t: of.accuracy(control, t), control)]
            ]
        return found

    def _cost(self, name: str) -> dict[str, Estimate | None]:
        done = [cost for cost in self.costs[name] if cost]
        return {
            "updates": over_seeds_alone([cost["updates"] for cost in done]),
            "rollout_tokens": over_seeds_alone([cost["rollout_tokens"] for cost in done]),
            "tokens_per_update": over_seeds_alone([cost["rollout_tokens"] / cost["updates"] for cost in done]),
        }

    def _seconds(self, name: str) -> dict[str, Estimate | None]:
        done = [cost for cost in self.costs[name] if cost]
        return {
            "cpu_seconds": over_seeds_alone([cost["cpu_seconds"] for cost in done]),
            "per_update": over_seeds_alone([cost["update_cpu_seconds"] / cost["updates"] for cost in done]),
            "per_1000_tokens": over_seeds_alone(
                [1000 * cost["update_cpu_seconds"] / cost["rollout_tokens"] for cost in done]
            ),
        }
