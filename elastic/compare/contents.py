"""comparison.json: everything that the tables and the figure show, each number as [mean, low, high, seeds].

What is measured in seconds, and so differs from run to run, is all under `seconds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pandas as pd

from elastic.budget import UNLIMITED
from elastic.compare.arguments import BASE, CompareArguments
from elastic.compare.measures import Measured, differences
from elastic.compare.plan import Plan, crossed_label
from elastic.compare.runs import finished
from elastic.compare.statistics import COUNT, DIFFERENCE, RATE, UNBOUNDED, Estimate, over_seeds, over_seeds_alone
from elastic.results import Control

Models = Mapping[str, Sequence[Measured | None]]
"""By name, one of each seed; None where it has not finished."""
Reading = Callable[[Measured, str], pd.Series | None]
"""From a model and the control of its own curve to a value for each problem."""


@dataclass(frozen=True)
class Comparison:
    """The models that have finished, and how they are read.

    Attributes:
        costs: of each training, by method and in the order of the seeds.
        cpu_seconds: of all steps that have finished, by their kind.
    """

    arguments: CompareArguments
    models: Models
    costs: Mapping[str, Sequence[dict[str, Any] | None]]
    cpu_seconds: Mapping[str, float]

    @classmethod
    def read(cls, arguments: CompareArguments, plan: Plan) -> Comparison:
        """What is finished of a plan."""
        pairs = [crossed_label(*pair) for pair in arguments.crossed_pairs]
        models = {}
        for name in (BASE, *arguments.methods, *pairs):
            steps = [plan.evaluation[name, seed] for seed in arguments.seeds]
            models[name] = [Measured.read(name, step.results) if finished(step) else None for step in steps]
        costs = {name: [finished(plan.training[name, seed]) for seed in arguments.seeds] for name in arguments.methods}
        seconds: dict[str, float] = {}
        for step in plan.steps:
            if done := finished(step):
                seconds[step.kind] = seconds.get(step.kind, 0.0) + done["cpu_seconds"]
        return cls(arguments, {name: measured for name, measured in models.items() if any(measured)}, costs, seconds)

    def contents(self) -> dict[str, Any]:
        """What comparison.json holds."""
        arguments = self.arguments
        named = [name for name in (BASE, *arguments.methods) if name in self.models]
        pairs = [crossed_label(*pair) for pair in arguments.crossed_pairs]
        return {
            "reference": arguments.reference,
            "cost_reference": next(iter(arguments.methods)),
            "seeds": arguments.seeds,
            "task": arguments.task,
            "rollout_tokens": arguments.rollout_tokens,
            "matched_tokens": arguments.matched_tokens,
            "size": self._size(),
            "methods": {name: self._method(name) for name in named},
            "above_t_star": self._above_t_star(),
            "crossed": {name: self._cells(name) for name in pairs if name in self.models},
            "by_end": self._by_end(),
            "seconds": {
                "methods": {name: self._seconds(name) for name in arguments.methods if any(self.costs[name])},
                "all_runs": dict(self.cpu_seconds),
            },
        }

    def _size(self) -> dict[str, int]:
        """Problems, and samples of them, of a cell."""
        cell = self._first(BASE).run.cells[0] if BASE in self.models else {}
        return {name: cell[name] for name in ("n_problems", "n_samples") if name in cell}

    def _first(self, name: str) -> Measured:
        return next(measured for measured in self.models[name] if measured)

    def _method(self, name: str) -> dict[str, Any]:
        seeds = [seed for seed, measured in zip(self.arguments.seeds, self.models[name], strict=True) if measured]
        method = self.arguments.methods.get(name)
        return {
            "curve": self.arguments.curve_of(name),
            "recipe": method.recipe if method else None,
            "base": method.base if method else None,
            "trained_budget": method.trained_budget if method else None,
            "trained_budgets": method.trained_budgets if method else [],
            "seeds": seeds,
            "held": [tokens for tokens in self.arguments.matched_tokens if self._is_held(name, tokens)],
            "values": self._values(name),
            "over_reference": self._over(name, self.arguments.reference),
            "over_base": self._over(name, BASE),
            "by_seed": self._by_seed(name),
            "cost": self._cost(name) if method else None,
            "cells": self._cells(name),
            "controls": self._controls(name),
        }

    @property
    def _readings(self) -> dict[str, tuple[Reading, tuple[float, float], tuple[float, float]]]:
        """By name: how a value is read, the ends that it may have, and those of a difference of two."""
        ends = self.arguments.matched_tokens[0], self.arguments.matched_tokens[-1]
        at = {
            f"at_{tokens}": (lambda model, control, tokens=tokens: model.at(control, tokens), RATE, DIFFERENCE)
            for tokens in self.arguments.matched_tokens
        }
        return at | {
            "area": (lambda model, control: model.area(control, ends), RATE, DIFFERENCE),
            "separate_area": (lambda model, _: model.area(Control.SEPARATE, ends), RATE, DIFFERENCE),
            "none_accuracy": (lambda model, _: model.accuracy(Control.NONE, UNLIMITED), RATE, DIFFERENCE),
            "none_tokens": (lambda model, _: model.tokens(Control.NONE, UNLIMITED), COUNT, UNBOUNDED),
        }

    def _read(self, name: str, reading: Reading, control: str | None = None) -> list[pd.Series | None]:
        """Of each seed; of none where one that has finished lacks it, so that all numbers of a line are of the same."""
        control = control or self.arguments.curve_of(name)
        models = self.models[name]
        values = [reading(model, control) if model else None for model in models]
        lacking = any(model and value is None for model, value in zip(models, values, strict=True))
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

    def _by_seed(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """The mean accuracies of each seed, and less its base's: a mean over seeds may hide one that fell."""
        return {
            what: self._reading_by_seed(name, reading)
            for what, (reading, ends, _) in self._readings.items()
            if ends == RATE
        }

    def _reading_by_seed(self, name: str, reading: Reading) -> list[dict[str, Any]]:
        own, bases = (
            [reading(model, self.arguments.curve_of(one)) if model else None for model in models]
            for one, models in ((name, self.models[name]), (BASE, self.models.get(BASE, []) if name != BASE else []))
        )
        return [
            {"seed": seed, "mean": value.mean(), "over_base": None if base is None else (value - base).mean()}
            for seed, value, base in zip_longest(self.arguments.seeds, own, bases)
            if value is not None
        ]

    def _is_held(self, name: str, tokens: float) -> bool:
        control = self.arguments.curve_of(name)
        return any(model and model.is_held_at(control, tokens) for model in self.models[name])

    def _cells(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """By control, each budget's tokens and accuracy, less the reference's own where both are held to it."""
        return {
            control: [self._cell(name, control, budget) for budget in budgets]
            for control, budgets in self._first(name).budgets.items()
        }

    def _cell(self, name: str, control: str, budget: int) -> dict[str, Any]:
        tokens = self._read(name, lambda model, control: model.tokens(control, budget), control)
        accuracy = self._read(name, lambda model, control: model.accuracy(control, budget), control)
        cell = {
            "budget": budget,
            "tokens": over_seeds([value for value in tokens if value is not None], COUNT),
            "accuracy": over_seeds([value for value in accuracy if value is not None], RATE),
        }
        reference = self.arguments.reference
        if reference in self.models and control not in (Control.TRUNCATE, Control.PROMPT):
            own = self.arguments.curve_of(reference) if control != Control.NONE else str(Control.NONE)
            others = self._read(reference, lambda model, control: model.accuracy(control, budget), own)
            cell["over_reference"] = over_seeds(differences(accuracy, others), DIFFERENCE)
        return cell

    def _controls(self, name: str) -> dict[str, dict[str, Any]]:
        """Of each control's curve the accuracy at matched tokens, and its difference to the control separate."""
        found = {}
        for control in self._first(name).curves:
            if control in (Control.NONE, Control.ZERO):
                continue
            own = {}
            for tokens in self.arguments.matched_tokens:
                values, others = (
                    self._read(name, lambda model, control, tokens=tokens: model.at(control, tokens), one)
                    for one in (control, str(Control.SEPARATE))
                )
                own[f"at_{tokens}"] = over_seeds([value for value in values if value is not None], RATE)
                if control != Control.SEPARATE:
                    own[f"over_separate_at_{tokens}"] = over_seeds(differences(values, others), DIFFERENCE)
            found[control] = own
        return found

    def _by_end(self) -> dict[str, list[dict[str, Any]]]:
        """Of each pair's thinking with its own solutions and with the other's: where it was cut, and where it ended."""
        found = {}
        for thinker, solver in self.arguments.crossed_pairs:
            for label, name in ((crossed_label(thinker, thinker), thinker), (crossed_label(thinker, solver),) * 2):
                if name in self.models:
                    budgets = self._first(name).budgets.get(str(Control.SEPARATE), [])
                    found[label] = [self._cell_by_end(name, t) for t in budgets]
        return found

    def _cell_by_end(self, name: str, budget: int) -> dict[str, Any]:
        by_seed = [model.by_end(budget) for model in self.models[name] if model]
        return {"budget": budget} | {what: over_seeds([one[what] for one in by_seed], RATE) for what in by_seed[0]}

    def _above_t_star(self) -> dict[str, list[dict[str, Any]]]:
        """Of each method with one t*, its last stage's: accuracy at larger budgets and none, less that at t*."""
        found = {}
        for name, method in self.arguments.methods.items():
            t_star, control = method.trained_budget, method.curve
            if name not in self.models or t_star is None:
                continue
            at_t_star = self._read(name, lambda model, control, t=t_star: model.accuracy(control, t), control)
            above = [(control, budget) for budget in self._first(name).budgets[control] if budget > t_star]
            found[name] = [
                {"budget": t, "over_t_star": over_seeds(differences(at_t, at_t_star), DIFFERENCE)}
                for one, t in [*above, (str(Control.NONE), UNLIMITED)]
                for at_t in [self._read(name, lambda model, control, t=t: model.accuracy(control, t), one)]
            ]
        return found

    def _cost(self, name: str) -> dict[str, Estimate | None]:
        done = [cost for cost in self.costs[name] if cost]
        whole = self._costs_with_bases(name)
        return {
            "with_bases": {
                "updates": over_seeds_alone([cost["updates"] for cost in whole]),
                "rollout_tokens": over_seeds_alone([cost["rollout_tokens"] for cost in whole]),
            },
            "updates": over_seeds_alone([cost["updates"] for cost in done]),
            "rollout_tokens": over_seeds_alone([cost["rollout_tokens"] for cost in done]),
            "tokens_per_update": over_seeds_alone([cost["rollout_tokens"] / cost["updates"] for cost in done]),
        }

    def _costs_with_bases(self, name: str) -> list[dict[str, float]]:
        """Of each seed, that of the training and of those that it goes on from, one after the other."""
        chain = [name]
        while (base := self.arguments.methods[chain[-1]].base) != BASE:
            chain.append(base)
        whole = []
        for costs in zip(*(self.costs[one] for one in chain), strict=True):
            if all(costs):
                added = ("updates", "rollout_tokens", "cpu_seconds")
                whole.append({what: sum(cost[what] for cost in costs) for what in added})
        return whole

    def _seconds(self, name: str) -> dict[str, Estimate | None]:
        done = [cost for cost in self.costs[name] if cost]
        return {
            "with_bases": over_seeds_alone([cost["cpu_seconds"] for cost in self._costs_with_bases(name)]),
            "cpu_seconds": over_seeds_alone([cost["cpu_seconds"] for cost in done]),
            "per_update": over_seeds_alone([cost["update_cpu_seconds"] / cost["updates"] for cost in done]),
            "per_1000_tokens": over_seeds_alone(
                [1000 * cost["update_cpu_seconds"] / cost["rollout_tokens"] for cost in done]
            ),
        }
