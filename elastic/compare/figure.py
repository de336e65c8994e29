"""comparison.png: every method's curve against mean tokens, and against the thinking budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elastic.budget import UNLIMITED
from elastic.compare.arguments import BASE
from elastic.results import Control

Contents = Mapping[str, Any]

# Of the base, which is dashed.
_BLACK = "#000000"
# Hues that are told apart, Okabe and Ito's, then Tol's muted ones; the same hue comes again with another marker.
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#882255",
    "#44AA99",
    "#999933",
    "#AA4499",
    "#332288",
    "#7F7F7F",
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Least distance of two labels at the ends of lines, in accuracy.
_LABEL_STEP = 0.047


def draw_comparison(contents: Contents, path: Path) -> None:
    """Write a PNG to `path`: left accuracy against mean tokens, right against t, where the lines have their labels.

    A line is a method's own curve, a band its 95 % interval, a ring t*, of several stages the last, a star no budget,
    which a thin line leads to on the left; the base is dashed, and what has the reference's recipe with other options
    is dotted.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(14.5, 6.4), sharey=True, layout="constrained", width_ratios=[1, 1.12]
    )
    budgets = _budgets(contents)
    ends = []
    for (name, method), style in zip(contents["methods"].items(), _styles(contents), strict=True):
        cells = method["cells"].get(method["curve"], [])
        none = method["cells"].get(str(Control.NONE), [])
        _draw_line(left, [cell["tokens"].mean for cell in cells], cells, style, method["trained_budget"])
        places = [budgets.index(cell["budget"]) for cell in cells]
        _draw_line(right, places, cells, style, method["trained_budget"])
        for axis, x in ((left, [cell["tokens"].mean for cell in none]), (right, [len(budgets)] * len(none))):
            axis.plot(x, _means(none), "*", color=style["color"], markersize=12, markeredgecolor="white", zorder=5)
        if cells and none and none[0]["tokens"].mean > cells[-1]["tokens"].mean:
            last = [cells[-1], none[0]]
            left.plot([cell["tokens"].mean for cell in last], _means(last), color=style["color"], linewidth=0.7)
        if cells:
            ends.append((name, cells[-1]["accuracy"].mean, (none or cells)[-1]["accuracy"].mean, style))
    _finish_token_axis(left, contents["matched_tokens"][0] / 2)
    _finish_budget_axis(right, budgets)
    _label_ends(right, ends, len(budgets))
    _add_legend(figure, contents)
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)


def _styles(contents: Contents) -> list[dict[str, Any]]:
    """Of each method: the base black and dashed, the reference thick, and its variants dotted."""
    styles, reference = [], contents["reference"]
    for number, (name, method) in enumerate(contents["methods"].items()):
        if name == BASE:
            styles.append({"color": _BLACK, "linestyle": "--", "marker": "x", "linewidth": 1.8, "zorder": 3.5})
            continue
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        style = {"color": colour, "marker": marker, "linewidth": 1.5}
        if name == reference:
            style |= {"linewidth": 3.0, "zorder": 3}
        is_variant = name != reference and method["recipe"] == contents["methods"].get(reference, {}).get("recipe")
        styles.append(style | ({"linestyle": ":"} if is_variant else {}))
    return styles


def _budgets(contents: Contents) -> list[int]:
    """Every thinking budget of a method's own curve, no limit last."""
    found = {
        cell["budget"] for method in contents["methods"].values() for cell in method["cells"].get(method["curve"], [])
    }
    return sorted(found, key=lambda budget: (budget == UNLIMITED, budget))


def _means(cells: Sequence[Contents]) -> list[float]:
    return [cell["accuracy"].mean for cell in cells]


def _draw_line(axis, x: Sequence[float], cells: Sequence[Contents], style: dict, t_star: int | None) -> None:
    axis.plot(x, _means(cells), **{"markersize": 4.5} | style)
    low, high = ([cell["accuracy"]._asdict()[end] for cell in cells] for end in ("low", "high"))
    axis.fill_between(x, low, high, color=style["color"], alpha=0.09, linewidth=0)
    ringed = [(place, cell["accuracy"].mean) for place, cell in zip(x, cells, strict=True) if cell["budget"] == t_star]
    for place, accuracy in ringed:
        ring = {"markerfacecolor": "none", "markeredgecolor": style["color"], "markeredgewidth": 1.5}
        axis.plot([place], [accuracy], "o", markersize=12, zorder=4, **ring)


def _finish_token_axis(axis, first: float) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlim(left=first)
    axis.set_xlabel("mean tokens sampled (thinking + solution)")
    axis.set_ylabel("accuracy")
    axis.set_ylim(-0.02, 1.03)
    axis.set_title("Accuracy for the tokens spent")
    axis.grid(alpha=0.25)


def _finish_budget_axis(axis, budgets: Sequence[int]) -> None:
    ticks = [*("no limit" if budget == UNLIMITED else str(budget) for budget in budgets), "none"]
    axis.set_xticks(range(len(ticks)), ticks)
    axis.set_xlim(-0.3, len(budgets) + 1.0 + 0.32 * len(budgets))
    axis.set_xlabel("thinking token budget t (none: no budget at all)")
    axis.set_title("Accuracy at each thinking budget")
    axis.grid(alpha=0.25)


def _label_ends(axis, ends: Sequence[tuple[str, float, float, dict]], last: int) -> None:
    """Names at the right, in the order of the accuracies that they lead to, moved apart where they would overlap."""
    ordered = sorted(ends, key=lambda end: (end[2], end[1]))
    for (name, _, accuracy, style), height in zip(ordered, spread([end[2] for end in ordered]), strict=True):
        axis.plot([last + 0.12, last + 0.5], [accuracy, height], color=style["color"], linewidth=0.6, alpha=0.6)
        axis.plot([last + 0.55, last + 0.95], [height] * 2, markersize=4.5, markevery=[1], **style)
        axis.text(last + 1.1, height, name, color=style["color"], fontsize=9, va="center")


def spread(heights: Sequence[float], step: float = _LABEL_STEP) -> list[float]:
    """Ascending `heights` from 0 to 1, moved by a sweep up and one down to be `step` apart, or less where many are."""
    step = min(step, 1 / max(1, len(heights) - 1))
    moved = np.array(heights, dtype=float)
    for place in range(1, len(moved)):
        moved[place] = max(moved[place], moved[place - 1] + step)
    for place in range(len(moved)):
        moved[-1 - place] = min(moved[-1 - place], 1 - place * step)
    return moved.tolist()


def _add_legend(figure, contents: Contents) -> None:
    from matplotlib.lines import Line2D

    ring = {"marker": "o", "markerfacecolor": "none", "markersize": 11, "linestyle": ""}
    entries = [
        Line2D([], [], color="black", linestyle="--", marker="x", label="base"),
        Line2D([], [], color="grey", linewidth=3, label=f"{contents['reference']} (reference)"),
        Line2D([], [], color="grey", linestyle=":", label="the same recipe, other options"),
        Line2D([], [], color="grey", label="t* of a method", **ring),
        Line2D([], [], color="grey", marker="*", markersize=11, linestyle="", label="no budget"),
        Line2D([], [], color="grey", linewidth=8, alpha=0.2, label="95 % interval over seeds and problems"),
    ]
    figure.legend(handles=entries, loc="outside lower center", ncol=len(entries), frameon=False)
