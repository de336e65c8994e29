"""What one evaluated model shows: its curves by control, by problem, and what is read off them at any number of tokens.

A curve is the cells of one control by mean tokens, and at its end the cell of no budget, where that spends more and is
what the control comes to at large budgets: a model that is told or asked, or made to wait, has another one. Between two
cells it is the line, which a mixture of their budgets has. Above the last cell it has the accuracy of the largest
budget, for the tokens that are left need not be spent. Below the first it has none: no answer is to be had for so few
tokens, and in the area that counts 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from elastic.budget import UNLIMITED
from elastic.generations import read_generations
from elastic.matched import Curve, curves
from elastic.problem_means import ProblemMean, ProblemMeans, problem_means
from elastic.results import GENERATIONS_NAME, Control, Run, read_cells
from elastic.rollout import ThinkingStopReason

# Controls whose prompt or rollout is another than that of no budget, however large the budget.
_OTHER_WITHOUT_BUDGET = (Control.PROMPT, Control.TOLD, Control.S1)
# Points, evenly spaced in log tokens, that the area is the trapezoidal sum over.
_AREA_POINTS = 257


@dataclass(frozen=True)
class Measured:
    """One model of one seed."""

    run: Run

    @classmethod
    def read(cls, label: str, results: Path) -> Measured:
        """Raises ValueError where the evaluation is of several benchmarks."""
        run = Run(label, read_cells(results), results)
        if len(run.benchmarks) > 1:
            raise ValueError(f"evaluation measures {', '.join(run.benchmarks)}: give a recipe of one data set.")
        return cls(run)

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """By control."""
        found = {curve.control: curve for curve in curves(self.run)}
        if (none := found.get(Control.NONE)) is None:
            return {str(control): curve for control, curve in found.items()}
        return {
            str(control): curve if control in _OTHER_WITHOUT_BUDGET else _going_on(curve, none)
            for control, curve in found.items()
        }

    def at(self, control: str, tokens: float) -> pd.Series | None:
        """The accuracy of each problem at a mean number of tokens; None without such a curve, and below its cells."""
        curve = self.curves.get(control)
        if curve is None or tokens < curve.tokens[0]:
            return None
        return pd.Series(self._held(control, tokens), index=curve.problems)

    def is_held_at(self, control: str, tokens: float) -> bool:
        """Whether the number of tokens is beyond the curve's last cell."""
        return control in self.curves and bool(tokens > self.curves[control].tokens[-1])

    def area(self, control: str, ends: tuple[float, float]) -> pd.Series | None:
        """The mean accuracy of each problem over the numbers of tokens between `ends`, evenly in log tokens."""
        curve = self.curves.get(control)
        if curve is None:
            return None
        none_P = np.zeros(len(curve.problems))
        at_XP = np.array(
            [
                none_P if tokens < curve.tokens[0] else self._held(control, tokens)
                for tokens in np.geomspace(*ends, _AREA_POINTS)
            ]
        )
        weights = np.ones(_AREA_POINTS)
        weights[[0, -1]] = 0.5
        return pd.Series(weights @ at_XP / weights.sum(), index=curve.problems)

    def _held(self, control: str, tokens: float) -> np.ndarray:
        """[P] at a number of tokens of the first cell's or more."""
        curve = self.curves[control]
        if tokens <= curve.tokens[-1]:
            return curve.at(tokens)
        if control not in _OTHER_WITHOUT_BUDGET:
            return curve.accuracies[-1]
        # Where prompts differ each cell has chains of its own, so that the one of most tokens may be any.
        largest = max(self.budgets[control], key=lambda budget: (budget == UNLIMITED, budget))
        return self.accuracy(control, largest)[list(curve.problems)].to_numpy()

    @cached_property
    def budgets(self) -> dict[str, list[int]]:
        """By control the budgets that it was measured at, as the evaluation lists them: t, under truncate the total."""
        found: dict[str, list[int]] = {}
        for cell in self.run.cells:
            found.setdefault(cell["control"], []).append(_budget(cell))
        return found

    def accuracy(self, control: str, budget: int) -> pd.Series | None:
        """Of each problem in the control's cell at this budget; None where there is none."""
        means = self._means(control, budget)
        return None if means is None else _accuracies(means)

    def tokens(self, control: str, budget: int) -> pd.Series | None:
        """The mean tokens of each problem in such a cell."""
        means = self._means(control, budget)
        return None if means is None else pd.Series({problem: mean.tokens for problem, mean in means.items()})

    def by_end(self, budget: int) -> dict[str, pd.Series]:
        """At a separate budget, by problem: the share of samples whose thinking was cut, their accuracy, the others'.

        `share_cut`, `cut` and `ended`; the two last of the problems that have such samples.
        """
        key = self._key(Control.SEPARATE, budget)
        return {what: _accuracies(means.get(key, {})) for what, means in self._means_by_end.items()}

    @cached_property
    def _means_by_end(self) -> dict[str, ProblemMeans]:
        keys = {cell["key"] for cell in self.run.cells if cell["control"] == Control.SEPARATE}
        rows = list(read_generations(self.run.path.with_name(GENERATIONS_NAME), keys))

        def is_cut(row: Mapping[str, Any]) -> bool:
            return row["thinking_stop_reason"] == ThinkingStopReason.BUDGET

        return {
            "share_cut": problem_means(
                row | {"reward": float(is_cut(row))} for row in rows if row["reward"] is not None
            ),
            "cut": problem_means(row for row in rows if is_cut(row)),
            "ended": problem_means(row for row in rows if not is_cut(row)),
        }

    def _means(self, control: str, budget: int) -> Mapping[str, ProblemMean] | None:
        return self.run.problem_means.get(self._key(control, budget))

    def _key(self, control: str, budget: int) -> str | None:
        """Of the control's cell at this budget."""
        keys = (cell["key"] for cell in self.run.cells if (cell["control"], _budget(cell)) == (control, budget))
        return next(keys, None)


def _accuracies(means: Mapping[str, ProblemMean]) -> pd.Series:
    return pd.Series({problem: mean.accuracy for problem, mean in means.items()}, dtype=float)


def _budget(cell: Mapping[str, Any]) -> int:
    return cell["total_token_budget" if cell["control"] == Control.TRUNCATE else "thinking_token_budget"]


def _going_on(curve: Curve, none: Curve) -> Curve:
    """With the cell of no budget at its end, where that spends more."""
    if none.tokens[-1] <= curve.tokens[-1]:
        return curve
    frames = [pd.DataFrame(one.accuracies, columns=list(one.problems)) for one in (curve, none)]
    joined = pd.concat(frames, join="inner")
    tokens = np.concatenate([curve.tokens, none.tokens])
    return replace(curve, problems=tuple(joined.columns), tokens=tokens, accuracies=joined.to_numpy())


def differences(after: Sequence[pd.Series | None], before: Sequence[pd.Series | None]) -> list[pd.Series]:
    """By seed, problem by problem, `after` - `before`, of the seeds and problems that both have."""
    pairs = zip(after, before, strict=True)
    return [(one - other).dropna() for one, other in pairs if one is not None and other is not None]
