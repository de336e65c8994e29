"""The picture of a comparison: accuracy against mean tokens, and against the thinking budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from elastic.budget import UNLIMITED
from elastic.results import Control, Run

Cell = dict[str, Any]

# Okabe and Ito's palette, readable with any colour vision; markers tell the runs apart in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def draw_curve(runs: Sequence[Run], path: Path, *, trained_budget: int | None = None) -> None:
    """Write a PNG of the runs' cells to `path`; `trained_budget` (t*) is marked where the grid holds it.

    Left: accuracy against the mean of all sampled tokens, one line a run, with its truncation baseline dashed. Right:
    accuracy against the thinking budget, evenly spaced. Bands and bars are the cells' 95 % intervals.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    budgets = _thinking_budgets(runs)
    columns = 2 if budgets else 1
    figure, axes = plt.subplots(
        1, columns, figsize=(5.6 * columns, 4.8), sharey=True, squeeze=False, layout="constrained"
    )
    for i, run in enumerate(runs):
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        _draw_against_tokens(axes[0, 0], run, style, trained_budget)
        if budgets:
            _draw_against_budget(axes[0, 1], run, style, budgets, aside=0.16 * (i - (len(runs) - 1) / 2))
    _finish_token_axis(axes[0, 0], runs)
    if budgets:
        _finish_budget_axis(axes[0, 1], budgets, trained_budget)
    _add_legend(figure, runs, trained_budget in budgets)
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)


def _graded(run: Run, control: Control) -> list[Cell]:
    """The run's cells of one kind that have an accuracy, by budget, no limit last."""
    cells = [cell for cell in run.cells if cell["control"] == control and cell["accuracy"] is not None]
    return sorted(cells, key=lambda cell: (*_budget_order(cell["thinking_token_budget"]), cell["total_token_budget"]))


def _budget_order(budget: int) -> tuple[bool, int]:
    return budget == UNLIMITED, budget


def _thinking_budgets(runs: Iterable[Run]) -> list[int]:
    drawn = {cell["thinking_token_budget"] for run in runs for cell in _graded(run, Control.SEPARATE)}
    return sorted(drawn, key=_budget_order)


def _column(cells: Sequence[Cell], name: str) -> list[float]:
    return [cell[name] for cell in cells]


def _draw_line(axis, x: Sequence[float], cells: Sequence[Cell], style: dict, band_alpha: float = 0.18) -> None:
    axis.plot(x, _column(cells, "accuracy"), **{"linewidth": 2, "markersize": 5.5} | style)
    low, high = _column(cells, "ci_low"), _column(cells, "ci_high")
    axis.fill_between(x, low, high, color=style["color"], alpha=band_alpha, linewidth=0)


def _draw_against_tokens(axis, run: Run, style: dict, trained_budget: int | None) -> None:
    separate = _graded(run, Control.SEPARATE)
    _draw_line(axis, _column(separate, "total_tokens"), separate, style)
    truncated = _graded(run, Control.TRUNCATE)
    dashed = style | {"linestyle": "--", "linewidth": 1.3, "markersize": 4, "markerfacecolor": "white"}
    _draw_line(axis, _column(truncated, "total_tokens"), truncated, dashed, band_alpha=0.08)
    for cell in _graded(run, Control.NONE):
        _draw_no_budget(axis, cell["total_tokens"], cell, style["color"])
    at_trained = [cell for cell in separate if cell["thinking_token_budget"] == trained_budget]
    _ring(axis, _column(at_trained, "total_tokens"), _column(at_trained, "accuracy"))


def _draw_against_budget(axis, run: Run, style: dict, budgets: list[int], aside: float) -> None:
    """`aside` keeps the runs' points without a budget, which share a place on the axis, from hiding each other."""
    separate = _graded(run, Control.SEPARATE)
    _draw_line(axis, [budgets.index(cell["thinking_token_budget"]) for cell in separate], separate, style)
    for cell in _graded(run, Control.NONE):
        _draw_no_budget(axis, len(budgets) + aside, cell, style["color"])


def _draw_no_budget(axis, x: float, cell: Cell, colour: str) -> None:
    reach = [[cell["accuracy"] - cell["ci_low"]], [cell["ci_high"] - cell["accuracy"]]]
    axis.errorbar(
        [x],
        [cell["accuracy"]],
        yerr=reach,
        fmt="*",
        color=colour,
        markersize=13,
        markeredgecolor="white",
        capsize=3,
        zorder=4,
    )


def _ring(axis, x: Sequence[float], y: Sequence[float]) -> None:
    axis.plot(x, y, "o", markersize=13, markerfacecolor="none", markeredgecolor="black", markeredgewidth=1.3, zorder=5)


def _finish_token_axis(axis, runs: Sequence[Run]) -> None:
    tokens = [cell["total_tokens"] for run in runs for cell in run.cells if cell["total_tokens"] is not None]
    if tokens and min(tokens) > 0 and max(tokens) > 8 * min(tokens):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel("mean tokens sampled (thinking + solution)")
    axis.set_ylabel("accuracy")
    axis.set_ylim(-0.02, 1.02)
    axis.set_title("Accuracy for the tokens spent", fontsize=11)
    axis.grid(alpha=0.25)


def _finish_budget_axis(axis, budgets: list[int], trained_budget: int | None) -> None:
    axis.set_xticks(range(len(budgets) + 1), [*(_tick(budget) for budget in budgets), "none"])
    if trained_budget in budgets:
        axis.axvline(budgets.index(trained_budget), color="black", linestyle=":", linewidth=1.3, zorder=1)
    axis.set_xlabel("thinking token budget t (none: no budget at all)")
    axis.set_title("Accuracy at each thinking budget", fontsize=11)
    axis.grid(alpha=0.25)


def _tick(budget: int) -> str:
    return "no limit" if budget == UNLIMITED else str(budget)


def _add_legend(figure, runs: Sequence[Run], trained_is_drawn: bool) -> None:
    """One legend below both panels: the runs by colour, then what the line styles and markers mean."""
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], linewidth=2, label=run.label)
        for i, run in enumerate(runs)
    ]
    if any(_graded(run, Control.TRUNCATE) for run in runs):
        white = {"marker": "o", "markerfacecolor": "white", "markersize": 4}
        entries.append(Line2D([], [], color="grey", linestyle="--", label="one total budget, truncated", **white))
    if any(_graded(run, Control.NONE) for run in runs):
        entries.append(Line2D([], [], color="grey", linestyle="", marker="*", markersize=11, label="no budget"))
    if trained_is_drawn:
        ring = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "black", "markersize": 10}
        entries.append(Line2D([], [], color="black", linestyle=":", label="trained budget t*", **ring))
    figure.legend(handles=entries, loc="outside lower center", ncol=min(5, len(entries)), frameon=False)
