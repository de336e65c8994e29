"""The picture of a comparison: accuracy against mean tokens, and against the thinking budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from elastic.benchmark_means import MEAN, mean_runs
from elastic.budget import UNLIMITED
from elastic.results import Control, Run, benchmarks

Cell = dict[str, Any]

# Okabe and Ito's palette, readable with any colour vision; markers tell the runs apart in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Of the controls that have thinking budgets, beside separate budgets.
_THIN = {"linewidth": 1.5, "markersize": 5}
CONTROL_STYLES = {
    Control.ZERO: {"linestyle": "", "marker": "x", "markersize": 8},
    Control.WRAP_UP: {"linestyle": ":", "marker": "<"} | _THIN,
    Control.CARRY_OVER: {"linestyle": "-.", "marker": ">"} | _THIN,
    Control.S1: {"linestyle": (0, (5, 1)), "marker": "d"} | _THIN,
    Control.PROMPT: {"linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "h"} | _THIN,
    Control.TOLD: {"linestyle": (0, (1, 1)), "marker": "p"} | _THIN,
}
CONTROL_LABELS = {
    Control.ZERO: "no thinking",
    Control.WRAP_UP: "with wrap-up text",
    Control.CARRY_OVER: "left thinking tokens carried over",
    Control.S1: "s1 budget forcing",
    Control.PROMPT: "budget in the prompt",
    Control.TOLD: "separate budgets, told in the prompt",
}


def draw_curve(runs: Sequence[Run], path: Path, *, trained_budget: int | None = None) -> None:
    """Write a PNG of the runs' cells to `path`; `trained_budget` (t*) is marked where the grid holds it.

    Left: accuracy against the mean of all sampled tokens, a line for each run and control, with its truncation baseline
    dashed. Right: accuracy against the thinking budget, evenly spaced. Bands and bars are the cells' 95 % intervals.
    Several benchmarks have a row of panels each, and their mean has the last.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    budgets = _thinking_budgets(runs)
    rows, columns = _rows_of_panels(runs), 2 if budgets else 1
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(5.6 * columns, 4.8 if len(rows) == 1 else 4.1 * len(rows) + 0.7),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for (name, parts), panels in zip(rows.items(), axes, strict=True):
        _draw_panels(panels, parts, budgets, trained_budget)
        if len(rows) > 1:
            panels[0].set_ylabel(f"{name}\naccuracy")
    _add_legend(figure, runs, trained_budget in budgets)
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)


def _rows_of_panels(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """By the name of a row the part of each run that it shows, which may have no cells."""
    means = mean_runs(runs)
    return {name: [run.of(name) for run in runs] for name in benchmarks(runs)} | ({MEAN: means} if means else {})


def _draw_panels(panels: Sequence, runs: Sequence[Run], budgets: list[int], trained_budget: int | None) -> None:
    for i, run in enumerate(runs):
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        _draw_against_tokens(panels[0], run, style, trained_budget)
        if budgets:
            _draw_against_budget(panels[1], run, style, budgets, aside=0.16 * (i - (len(runs) - 1) / 2))
    _finish_token_axis(panels[0], runs)
    if budgets:
        _finish_budget_axis(panels[1], budgets, trained_budget)


def _graded(run: Run, control: Control) -> list[Cell]:
    """The run's cells of one kind that have an accuracy, by budget, no limit last."""
    cells = [cell for cell in run.cells if cell["control"] == control and cell["accuracy"] is not None]
    return sorted(cells, key=lambda cell: (*_budget_order(cell["thinking_token_budget"]), cell["total_token_budget"]))


def _controlled(run: Run) -> list[tuple[list[Cell], dict]]:
    """The cells of each control in CONTROL_STYLES that the run has, and their style."""
    return [(cells, own) for control, own in CONTROL_STYLES.items() if (cells := _graded(run, control))]


def _budget_order(budget: int) -> tuple[bool, int]:
    return budget == UNLIMITED, budget


def _thinking_budgets(runs: Iterable[Run]) -> list[int]:
    kinds = (Control.SEPARATE, *CONTROL_STYLES)
    drawn = {cell["thinking_token_budget"] for run in runs for kind in kinds for cell in _graded(run, kind)}
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
    for cells, own in _controlled(run):
        _draw_line(axis, _column(cells, "total_tokens"), cells, style | own, band_alpha=0.08)
    for cell in _graded(run, Control.NONE):
        _draw_no_budget(axis, cell["total_tokens"], cell, style["color"])
    at_trained = [cell for cell in separate if cell["thinking_token_budget"] == trained_budget]
    _ring(axis, _column(at_trained, "total_tokens"), _column(at_trained, "accuracy"))


def _draw_against_budget(axis, run: Run, style: dict, budgets: list[int], aside: float) -> None:
    """`aside` keeps the runs' points without a budget, which share a place on the axis, from hiding each other."""
    separate = _graded(run, Control.SEPARATE)
    _draw_line(axis, [budgets.index(cell["thinking_token_budget"]) for cell in separate], separate, style)
    for cells, own in _controlled(run):
        places = [budgets.index(cell["thinking_token_budget"]) for cell in cells]
        _draw_line(axis, places, cells, style | own, band_alpha=0.08)
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
    for control, own in CONTROL_STYLES.items():
        if any(_graded(run, control) for run in runs):
            entries.append(Line2D([], [], color="grey", label=CONTROL_LABELS[control], **own))
    if any(_graded(run, Control.NONE) for run in runs):
        entries.append(Line2D([], [], color="grey", linestyle="", marker="*", markersize=11, label="no budget"))
    if trained_is_drawn:
        ring = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "black", "markersize": 10}
        entries.append(Line2D([], [], color="black", linestyle=":", label="trained budget t*", **ring))
    figure.legend(handles=entries, loc="outside lower center", ncol=min(5, len(entries)), frameon=False)
