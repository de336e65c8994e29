"""The tables that answer: controls at matched tokens, above t*, t = 0, crossed, nowhere below, seed by seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from elastic.budget import UNLIMITED
from elastic.compare.arguments import BASE
from elastic.compare.estimate_text import budget_label, count_text, difference, marked, rate
from elastic.compare.statistics import Estimate
from elastic.results import Control
from elastic.tables import ABSENT, markdown_table

Contents = Mapping[str, Any]


def question_tables(contents: Contents) -> list[str]:
    reference = contents["reference"]
    parts = ["**Ways of holding one model to a budget, at matched tokens** (and less separate budgets):"]
    told = [name for name, method in contents["methods"].items() if method["curve"] != Control.SEPARATE]
    for name in dict.fromkeys((reference, BASE, *told)):
        if name in contents["methods"]:
            parts += [f"### Controls of {name}", _controls_table(contents, name)]
    above = (
        "**Above t\\***: accuracy at each t above the method's t*, the last one, and with no budget, less that at t*, "
        "same model (▼, ▲: the whole interval lies below, above it):"
    )
    parts += [above, _above_table(contents)]
    parts += ["**No thinking** (t = 0), and no budget:", _zero_table(contents)]
    if contents["crossed"]:
        parts += ["**Thinking of one model, solution of another**:", _crossed_table(contents)]
        by_end = (
            "**The same, where the budget cut the thinking and where it had ended** (of problems and seeds with such):"
        )
        parts += [by_end, _by_end_table(contents)]
    below = (
        f"**Nowhere below {reference}?** Where the whole interval of the difference lies below, or above, at equal "
        f"budgets t (not those of a prompt, which holds nobody to them) and at matched tokens (in brackets those that "
        f"a method always exceeds, with a seed at least); and how far below {reference} it may lie after all, by the "
        f"lowest end of all these intervals: with few seeds they are wide, and that none lies below says little."
    )
    parts += [below, nowhere_table(contents), *_seed_tables(contents)]
    return parts


def _controls_table(contents: Contents, name: str) -> str:
    tokens = contents["matched_tokens"]
    rows = []
    for control, values in contents["methods"][name]["controls"].items():
        cells = []
        for count in tokens:
            over = values.get(f"over_separate_at_{count}")
            cells += [rate(values[f"at_{count}"]), difference(over)]
        rows.append([control, *cells])
    header = ["control", *(text for count in tokens for text in (f"at {count} tokens", "less separate"))]
    return markdown_table(header, rows)


def _above_table(contents: Contents) -> str:
    found = contents["above_t_star"]
    if not found:
        return "Not yet there."
    budgets = sorted({step["budget"] for steps in found.values() for step in steps}, key=lambda t: (t == UNLIMITED, t))
    rows = []
    for name, steps in found.items():
        at = {step["budget"]: step["over_t_star"] for step in steps}
        row = [name, _t_stars(contents["methods"][name]["trained_budgets"])]
        rows.append([*row, *(marked(at.get(budget)) for budget in budgets)])
    return markdown_table(["method", "t*", *(f"t = {_place(budget)}" for budget in budgets)], rows)


def _t_stars(budgets: Sequence[int | None]) -> str:
    """t* of each stage, one after the other."""
    return ", then ".join(ABSENT if budget is None else str(budget) for budget in budgets)


def _zero_table(contents: Contents) -> str:
    rows = []
    for name, method in contents["methods"].items():
        zero = _cell_at_0(method["cells"])
        values = method["values"]
        rows.append([name, rate(zero), rate(values["none_accuracy"]), count_text(values["none_tokens"], 1)])
    return markdown_table(["method", "t = 0", "no budget", "its tokens"], rows)


def _seed_tables(contents: Contents) -> list[str]:
    """A mean over seeds may hide one in which a method fell."""
    readings = {"none_accuracy": "No budget"}
    readings |= {f"at_{tokens}": f"At {tokens} tokens" for tokens in contents["matched_tokens"]}
    parts = []
    for what, said in readings.items():
        rows = []
        for name, method in contents["methods"].items():
            of_seeds = {one["seed"]: one for one in method["by_seed"][what]}
            rows.append([name, *(_seed_text(of_seeds.get(seed)) for seed in contents["seeds"])])
        header = ["method", *(f"seed {seed}" for seed in contents["seeds"])]
        parts += [f"**{said}, seed by seed** (and less the seed's base):", markdown_table(header, rows)]
    return parts


def _seed_text(found: Contents | None) -> str:
    if found is None:
        return ABSENT
    over = found["over_base"]
    return f"{found['mean']:.3f}" + ("" if over is None else f" ({over:+.3f})")


def _cell_at_0(cells: Mapping[str, Sequence[Contents]]) -> Estimate | None:
    found = [
        cell for control in (Control.ZERO, Control.SEPARATE) for cell in cells.get(control, ()) if cell["budget"] == 0
    ]
    return found[0]["accuracy"] if found else None


def _crossed_table(contents: Contents) -> str:
    """A line for each pair, and for the models by themselves."""
    alone = {
        f"{name} → {name}": contents["methods"][name]["cells"]
        for name in dict.fromkeys(name for pair in contents["crossed"] for name in pair.split(" → "))
        if name in contents["methods"]
    }
    lines = {
        label: {cell["budget"]: cell["accuracy"] for cell in cells.get(str(Control.SEPARATE), ())}
        for label, cells in (alone | contents["crossed"]).items()
    }
    budgets = list(dict.fromkeys(budget for at in lines.values() for budget in at))
    rows = [[label, *(rate(at.get(budget)) for budget in budgets)] for label, at in lines.items()]
    return markdown_table(["thinking → solution", *(f"t = {budget_label(budget)}" for budget in budgets)], rows)


def _by_end_table(contents: Contents) -> str:
    rows = []
    budgets = list(dict.fromkeys(cell["budget"] for cells in contents["by_end"].values() for cell in cells))
    for label, cells in contents["by_end"].items():
        at = {cell["budget"]: cell for cell in cells}
        for what, said in (("share_cut", "share cut"), ("cut", "cut"), ("ended", "ended")):
            rows.append([f"{label}, {said}", *(rate(at.get(budget, {}).get(what)) for budget in budgets)])
    return markdown_table(["thinking → solution", *(f"t = {budget_label(budget)}" for budget in budgets)], rows)


def nowhere_table(contents: Contents) -> str:
    """Of each method: where its interval lies whole below, and whole above, the reference's, and below the base's."""
    rows = []
    for name, method in contents["methods"].items():
        if name == BASE or not method["over_base"]:
            continue
        is_reference = name == contents["reference"]
        at_t = {} if is_reference else _at_budgets(method)
        at_tokens = _at_matched_tokens(method, contents["matched_tokens"])
        below = [_where(at_t, -1), f"{_where(at_tokens, -1)} {_exceeded(contents, name)}".rstrip()]
        above = [_where(at_t, 1), _where(at_tokens, 1)]
        over_base = marked(method["over_base"]["none_accuracy"])
        rows.append([name, str(len(method["seeds"])), *below, _at_worst(at_t, at_tokens), *above, over_base])
    reference = contents["reference"]
    header = [
        "method",
        "seeds",
        f"t below {reference}",
        f"tokens below {reference}",
        f"may lie below {reference} by up to",
    ]
    header += [f"t above {reference}", f"tokens above {reference}", "no budget, less base"]
    return markdown_table(header, rows) if rows else "Not yet there."


def _at_budgets(method: Contents) -> dict[str, Estimate]:
    """By budget, the differences of the method's own curve to the reference that have intervals."""
    if method["curve"] == Control.PROMPT:
        return {}
    cells = method["cells"].get(method["curve"], []) + method["cells"].get(str(Control.NONE), [])
    return _with_interval({_place(cell["budget"]): cell.get("over_reference") for cell in cells})


def _at_matched_tokens(method: Contents, matched: Iterable[int]) -> dict[str, Estimate]:
    return _with_interval({str(tokens): method["over_reference"].get(f"at_{tokens}") for tokens in matched})


def _exceeded(contents: Contents, name: str) -> str:
    """In brackets the matched tokens at which the reference is read, and the method is not: it always spends more."""
    values, others = (contents["methods"].get(one, {}).get("values", {}) for one in (name, contents["reference"]))
    matched = [tokens for tokens in contents["matched_tokens"] if others.get(f"at_{tokens}")]
    found = [str(tokens) for tokens in matched if not values[f"at_{tokens}"]]
    return f"({', '.join(found)})" if found else ""


def _with_interval(overs: Mapping[str, Estimate | None]) -> dict[str, Estimate]:
    return {place: over for place, over in overs.items() if over and over.low is not None}


def _where(overs: Mapping[str, Estimate], sign: int) -> str:
    """The places whose whole interval is below 0, or above; a dash where nothing can be compared."""
    found = [place for place, over in overs.items() if sign * (over.low if sign > 0 else over.high) > 0]
    return ", ".join(found) or ("nowhere" if overs else ABSENT)


def _at_worst(at_t: Mapping[str, Estimate], at_tokens: Mapping[str, Estimate]) -> str:
    """The lowest end of all intervals, as far as it is below 0, and where it is."""
    lows = [(over.low, f"t = {place}") for place, over in at_t.items()]
    lows += [(over.low, f"{place} tokens") for place, over in at_tokens.items()]
    if not lows:
        return ABSENT
    low, place = min(lows)
    return f"{-low:.3f} ({place})" if low < 0 else "0"


def _place(budget: int) -> str:
    return "none" if budget == UNLIMITED else str(budget)
