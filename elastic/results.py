"""results.json: what a cell is called and holds, and how runs are read for a comparison."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from elastic.budget import UNLIMITED
from elastic.problem_means import ProblemMeans, read_problem_means

RESULTS_NAME = "results.json"
GENERATIONS_NAME = "generations.jsonl"
BUDGET_FIELDS = ("thinking_token_budget", "solution_token_budget", "total_token_budget")
# What a cell must hold to be shown or compared; an evaluation records more.
CELL_FIELDS = (
    *("control", *BUDGET_FIELDS, "trained_budget"),
    *("accuracy", "ci_low", "ci_high", "n_problems", "n_samples", "ungraded"),
    *("thinking_tokens", "thinking_tokens_p95", "solution_tokens", "solution_tokens_p95", "total_tokens"),
    *("forced_rate", "eos_in_thinking_rate", "solution_truncated_rate", "thinking_cut_rate", "reopened_rate"),
    *("model_label", "benchmark", "data_fingerprint", "sampling", "reward", "key"),
)


class Control(StrEnum):
    """What controls the length of a cell's rollouts."""

    SEPARATE = "separate"
    """A thinking budget, at which the end marker is inserted, and a solution budget: E1 (arXiv 2505.05315)."""
    ZERO = "zero"
    """E1 with no thinking at all, t = 0: what the solution can do alone."""
    WRAP_UP = "wrap_up"
    """E1 with a text before the end marker that is inserted."""
    CARRY_OVER = "carry_over"
    """E1 whose solution may have the thinking tokens that were left when the policy closed its thinking."""
    S1 = "s1"
    """Budget forcing (arXiv 2501.19393): words around the end marker, and maybe `Wait` instead of an early one."""
    PROMPT = "prompt"
    """The budget is asked of the model in the prompt, as L1 does (arXiv 2503.04697), and nothing is forced."""
    TOLD = "told"
    """E1 whose prompt tells the thinking budget, and which may be reminded of what is left of it."""
    NONE = "none"
    """No budget but the longest completion."""
    TRUNCATE = "truncate"
    """One total budget, at which the rollout is cut and nothing is inserted: the truncation baseline."""


# How labels begin where both phases have a budget.
_NAMES = {
    Control.SEPARATE: "",
    Control.ZERO: "zero ",
    Control.WRAP_UP: "wrap-up ",
    Control.CARRY_OVER: "carry-over ",
    Control.S1: "s1 ",
    Control.TOLD: "told ",
}


class BudgetKey(NamedTuple):
    """What a cell of one run shares with the cell of another to be compared."""

    control: Control
    thinking: int
    solution: int
    total: int

    @classmethod
    def of(cls, cell: dict[str, Any]) -> BudgetKey:
        return cls(Control(cell["control"]), *(cell[name] for name in BUDGET_FIELDS))

    @property
    def label(self) -> str:
        """Such as `32 + 4`, `no budget (at most 320)` and `truncated at 36`."""
        if self.control in _NAMES:
            return f"{_NAMES[self.control]}{_limit(self.thinking)} + {_limit(self.solution)}"
        if self.control is Control.PROMPT:
            return f"asked for {self.thinking}"
        if self.control is Control.TRUNCATE:
            return f"truncated at {self.total}"
        return "no budget" if self.total == UNLIMITED else f"no budget (at most {self.total})"


@dataclass(frozen=True)
class Run:
    """The cells of one results.json, and the name that its model has in tables and plots."""

    label: str
    cells: list[dict[str, Any]]
    path: Path | None = None
    known_means: Callable[[], ProblemMeans] | None = None
    """Where `problem_means` come from, if not from the generations beside `path`."""

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(cell["benchmark"] for cell in self.cells))

    def of(self, benchmark: str) -> Run:
        """The run's cells of one benchmark."""
        cells = [cell for cell in self.cells if cell["benchmark"] == benchmark]
        return Run(self.label, cells, self.path, lambda: self.problem_means)

    def cell_at(self, budget: BudgetKey) -> dict[str, Any] | None:
        """In a run of one benchmark."""
        return next((cell for cell in self.cells if BudgetKey.of(cell) == budget), None)

    @cached_property
    def problem_means(self) -> ProblemMeans:
        """Read when they are first asked for; empty where there are no generations."""
        if self.known_means:
            return self.known_means()
        keys = {cell["key"] for cell in self.cells}
        return read_problem_means(self.path.with_name(GENERATIONS_NAME), keys) if self.path else {}


def benchmarks(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.benchmarks))


def read_runs(paths: Sequence[Path], labels: Sequence[str] | None = None) -> list[Run]:
    """One run for each results.json; without `labels`, named by its model_label, made distinct by its directory.

    Raises:
        ValueError, FileNotFoundError: one sentence for a file that is none of ours, or labels that do not fit.
    """
    files = [path.resolve() for path in paths]
    if twice := [path for path, file in zip(paths, files, strict=True) if files.count(file) > 1]:
        raise ValueError(f"The results.json {str(twice[-1])!r} is given {len(twice)} times: give each file once.")
    cells_by_path = [read_cells(path) for path in paths]
    if labels is None:
        labels = [cells[0]["model_label"] for cells in cells_by_path]
        if len(set(labels)) < len(labels):
            labels = [f"{label} ({path.parent})" for label, path in zip(labels, paths, strict=True)]
        if len(set(labels)) < len(labels):
            labels = list(map(str, paths))
    if len(labels) != len(paths) or len(set(labels)) < len(labels):
        raise ValueError(f"--labels is {list(labels)!r}: give {len(paths)} different names, one for each results.json.")
    return [Run(*run) for run in zip(labels, cells_by_path, paths, strict=True)]


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a results.json. Raises ValueError or FileNotFoundError with one sentence."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}: give a results.json that elastic.evaluate wrote.")
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        cells = None
    if not isinstance(cells, list) or not cells or not all(isinstance(cell, dict) for cell in cells):
        raise ValueError(f"{path} is not a JSON list of cells: give a results.json that elastic.evaluate wrote.")
    for number, cell in enumerate(cells):
        if "benchmark" not in cell:  # written before there were several
            cell["benchmark"] = PurePosixPath(cell.get("dataset_name") or "unnamed").stem
        missing = [name for name in CELL_FIELDS if name not in cell]
        if missing or cell["control"] not in list(Control):
            wrong = f"has no {', '.join(missing)}" if missing else f"has the control {cell['control']!r}"
            raise ValueError(f"Cell {number} of {path} {wrong}: give a results.json that elastic.evaluate wrote.")
    return cells


def _limit(budget: int) -> str:
    return "no limit" if budget == UNLIMITED else str(budget)
