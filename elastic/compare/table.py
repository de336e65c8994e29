"""comparison.md: the tables of a comparison, from what comparison.json holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from elastic.budget import UNLIMITED
from elastic.compare.arguments import BASE
from elastic.compare.plan import EVALUATION, TASK, TRAINING
from elastic.compare.statistics import Estimate
from elastic.results import Control
from elastic.tables import ABSENT, markdown_table

Contents = Mapping[str, Any]

# Of the method's own curve, and of separate budgets.
_AREAS = ("area", "separate_area")
_KINDS = {TASK: "bases and problems", TRAINING: "trainings", EVALUATION: "evaluations"}
_NOTE_OF_SEEDS = (
    "Numbers are means over the seeds [95 % interval]. A seed has its own base, problems and training: the interval is "
    "Student's over the seeds' means, and never narrower than the one that their problems alone give; differences are "
    "taken problem by problem within a seed. Where a line is of one seed, its interval is over the problems alone, and "
    "says nothing of other trainings. Each interval is for itself: of many lines some lie beside the truth."
)


def comparison_tables(contents: Contents) -> str:
    """All tables as Markdown."""
    parts = [
        "# Comparison of methods of training",
        _head(contents),
        _levels_table(contents),
        _notes(contents),
        _all_runs(contents),
        "## Differences",
        f"Less {contents['reference']}:",
        _over_table(contents, "over_reference"),
        "Less the base:",
        _over_table(contents, "over_base"),
        "## What a step costs",
        _cost_table(contents),
        _COST_NOTE,
        _told_table(contents),
        "## Budget by budget",
        _budget_tables(contents),
        "## The questions",
        *_questions(contents),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(contents: Contents) -> str:
    size = contents["size"]
    each = f"{size['n_samples']} samples of {size['n_problems']} problems a budget and seed. " if size else ""
    task = " ".join(f"{name} {value}" for name, value in contents["task"].items()) or "the default"
    return (
        f"Task: {task}; seeds {', '.join(map(str, contents['seeds']))}; each training samples "
        f"{contents['rollout_tokens']:,} rollout tokens. {each}{_NOTE_OF_SEEDS}"
    )


def _levels_table(contents: Contents) -> str:
    tokens = contents["matched_tokens"]
    header = ["method", "curve", "seeds", *(f"at {count} tokens" for count in tokens), "area", "area, separate"]
    header += ["no budget", "its tokens", "training tokens", "updates", "CPU-seconds"]
    rows = []
    for name, method in contents["methods"].items():
        values, cost = method["values"], method["cost"]["with_bases"] if method["cost"] else {}
        at = [f"{rate(values[f'at_{count}'])}{'*' * (count in method['held'])}" for count in tokens]
        row = [name, method["curve"], str(len(method["seeds"])), *at]
        row += [rate(values[area]) for area in _AREAS]
        row += [rate(values["none_accuracy"]), count_text(values["none_tokens"], 1)]
        row += [count_text(cost.get(what)) for what in ("rollout_tokens", "updates")]
        rows.append([*row, count_text(contents["seconds"]["methods"].get(name, {}).get("with_bases"))])
    return markdown_table(header, rows)


def _notes(contents: Contents) -> str:
    low, high = contents["matched_tokens"][0], contents["matched_tokens"][-1]
    going_on = [
        f"{name} goes on from {method['base']}, and has sampled more than the others: its training tokens, updates and "
        f"CPU-seconds are those of both trainings, and of what {method['base']} goes on from."
        for name, method in contents["methods"].items()
        if method["base"] not in (None, BASE)
    ]
    return (
        "Curve: the control whose cells are the method's own curve. At N tokens: accuracy where the curve spends N "
        "sampled tokens on average, thinking and solution together, on the line between its two cells; after the "
        "largest budget's comes the one of no budget, where that spends more (not for a prompt, what is told, or s1: "
        "there no budget is something else). A star: with a seed at least it spends fewer even then, and its largest "
        f"budget counts; {ABSENT}: with a seed at least it always spends more, or samples "
        f"are lost. Area: mean accuracy over {low} to {high} tokens, evenly in their logarithm, so that a doubling "
        "counts the same wherever it is: evenly in tokens, most of it would be the upper end of the range, where "
        "curves are flat; what a curve cannot do for so few tokens counts 0. That is of the method's own curve, and "
        "of separate budgets: a prompt that changes little in the tokens spent makes a curve of little width, and an "
        "area that says little. CPU-seconds: of the training's processes, start-up and interrupted attempts included. "
        + " ".join(going_on)
    ).rstrip()


def _all_runs(contents: Contents) -> str:
    """The CPU time of the whole comparison, in one line."""
    by_kind = contents["seconds"]["all_runs"]
    kinds = ", ".join(f"{_KINDS[kind]} {seconds:,.0f}" for kind, seconds in by_kind.items())
    whole = sum(by_kind.values())
    return (
        f"All finished runs of these seeds together took {whole:,.0f} CPU-seconds ({whole / 3600:.1f} hours): {kinds}; "
        f"interrupted attempts included."
    )


def _over_table(contents: Contents, over: str) -> str:
    tokens = contents["matched_tokens"]
    header = ["method", "seeds", *(f"at {count} tokens" for count in tokens), "area", "area, separate"]
    header += ["no budget", "its tokens"]
    rows = []
    for name, method in contents["methods"].items():
        if found := method[over]:
            seeds = found["area"].seeds if found["area"] else 0
            row = [name, str(seeds), *(difference(found[f"at_{count}"]) for count in tokens)]
            row += [difference(found[what]) for what in (*_AREAS, "none_accuracy")]
            rows.append([*row, difference(found["none_tokens"], 1)])
    return markdown_table(header, rows) if rows else "Not yet there."


_COST_NOTE = (
    "CPU-seconds of the updates that count, as each logged them: without start-up, without what was repeated after an "
    "interruption, and without the training that it goes on from. A ratio is of means."
)


def _cost_table(contents: Contents) -> str:
    reference = contents["cost_reference"]
    header = ["method", "updates"]
    for what in ("tokens an update", "CPU-seconds an update", "CPU-seconds per 1000 tokens"):
        header += [what, f"× {reference}"]
    of_reference = _costs_of(contents, reference)
    rows = []
    for name in contents["seconds"]["methods"]:
        row = [name, count_text(contents["methods"].get(name, {"cost": {}})["cost"].get("updates"))]
        for own, other, digits in zip(_costs_of(contents, name), of_reference, (0, 3, 3), strict=True):
            row += [count_text(own, digits), f"{own.mean / other.mean:.2f}" if own and other else ABSENT]
        rows.append(row)
    return markdown_table(header, rows) if rows else "Not yet there."


def _costs_of(contents: Contents, name: str) -> list[Estimate | None]:
    """Tokens and CPU-seconds an update, and CPU-seconds per 1000 tokens."""
    if name not in contents["seconds"]["methods"] or name not in contents["methods"]:
        return [None] * 3
    seconds = contents["seconds"]["methods"][name]
    tokens = contents["methods"][name]["cost"]["tokens_per_update"]
    return [tokens, seconds["per_update"], seconds["per_1000_tokens"]]


def _told_table(contents: Contents) -> str:
    """Of each method that is told its budget: the tokens that it spends at the smallest and at the largest."""
    rows = []
    for name, method in contents["methods"].items():
        cells = method["cells"].get(method["curve"], [])
        told = sorted((cell for cell in cells if cell["budget"] != UNLIMITED), key=lambda cell: cell["budget"])
        if method["curve"] in (Control.PROMPT, Control.TOLD) and told:
            row = [name, method["curve"]]
            for cell in (told[0], told[-1]):
                row += [str(cell["budget"]), count_text(cell["tokens"], 1), rate(cell["accuracy"])]
            rows.append(row)
    if not rows:
        return ""
    header = ["method", "curve", *("told", "spends", "accuracy") * 2]
    return "## What is told, and what is spent\n\n" + markdown_table(header, rows)


def _budget_tables(contents: Contents) -> str:
    """For each method its own curve, and separate budgets where these are another: accuracy, and less the reference."""
    reference = contents["reference"]
    parts = [
        f"Accuracy at each thinking budget t [95 % interval] with its tokens, and less that of {reference} at the same "
        f"t (a prompt asks for t, and its tokens may be others: no difference). ▼: the whole interval lies below "
        f"{reference}, ▲: above."
    ]
    for name, method in contents["methods"].items():
        for control in dict.fromkeys((method["curve"], str(Control.SEPARATE), str(Control.NONE))):
            if control == Control.NONE or control not in method["cells"]:
                continue
            cells = method["cells"][control] + method["cells"].get(str(Control.NONE), [])
            label = name if control == Control.SEPARATE else f"{name}, {control}"
            parts += [f"### {label}", _budget_table(cells, method["trained_budget"], reference)]
    return "\n\n".join(parts)


def _budget_table(cells: Sequence[Contents], t_star: int | None, reference: str) -> str:
    rows = []
    for place, cell in enumerate(cells):
        last = place == len(cells) - 1 and cell["budget"] == UNLIMITED
        label = "none" if last else _budget_label(cell["budget"], t_star)
        rows.append([label, rate(cell["accuracy"]), count_text(cell["tokens"], 1), _marked(cell.get("over_reference"))])
    return markdown_table(["t", "accuracy", "tokens", f"less {reference}"], rows)


def _budget_label(budget: int, t_star: int | None = None) -> str:
    return "no limit" if budget == UNLIMITED else f"{budget}{' (t*)' * (budget == t_star)}"


def _marked(found: Estimate | None) -> str:
    mark = "" if not found or found.low is None or found.low <= 0 <= found.high else "▼" if found.high < 0 else "▲"
    return f"{difference(found)} {mark}".rstrip()


def _questions(contents: Contents) -> list[str]:
    reference = contents["reference"]
    parts = ["**Ways of holding one model to a budget, at matched tokens** (and less separate budgets):"]
    told = [name for name, method in contents["methods"].items() if method["curve"] != Control.SEPARATE]
    for name in dict.fromkeys((reference, BASE, *told)):
        if name in contents["methods"]:
            parts += [f"### Controls of {name}", _controls_table(contents, name)]
    above = "**Above t\\***: accuracy at each t above the method's t*, the last one, less that at it, same model:"
    parts += [above, _above_table(contents)]
    parts += ["**No thinking** (t = 0), and no budget:", _zero_table(contents)]
    parts += ["**No budget, seed by seed** (and less the seed's base):", _none_table(contents)]
    if contents["crossed"]:
        parts += ["**Thinking of one model, solution of another**:", _crossed_table(contents)]
    below = (
        f"**Nowhere below {reference}?** Where the whole interval of the difference lies below, or above, at equal "
        f"budgets t (not those of a prompt, which holds nobody to them) and at matched tokens (in brackets those that "
        f"a method always exceeds, with a seed at least); and how far below {reference} it may lie after all, by the "
        f"lowest end of all these intervals: with few seeds they are wide, and that none lies below says little."
    )
    parts += [below, _nowhere_table(contents)]
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
    budgets = sorted({step["budget"] for steps in found.values() for step in steps})
    rows = []
    for name, steps in found.items():
        at = {step["budget"]: step["over_t_star"] for step in steps}
        row = [name, _t_stars(contents["methods"][name]["trained_budgets"])]
        rows.append([*row, *(_marked(at.get(budget)) for budget in budgets)])
    return markdown_table(["method", "t*", *(f"t = {budget}" for budget in budgets)], rows)


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


def _none_table(contents: Contents) -> str:
    """A mean over seeds may hide one in which a method fell."""
    rows = []
    for name, method in contents["methods"].items():
        of_seeds = {one["seed"]: one for one in method["none_of_seeds"]}
        rows.append([name, *(_none_text(of_seeds.get(seed)) for seed in contents["seeds"])])
    return markdown_table(["method", *(f"seed {seed}" for seed in contents["seeds"])], rows)


def _none_text(found: Contents | None) -> str:
    if found is None:
        return ABSENT
    over = found["over_base"]
    return f"{found['accuracy']:.3f}" + ("" if over is None else f" ({over:+.3f})")


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
    return markdown_table(["thinking → solution", *(f"t = {_budget_label(budget)}" for budget in budgets)], rows)


def _nowhere_table(contents: Contents) -> str:
    """Of each method: where its interval lies whole below, and whole above, the reference's, and below the base's."""
    rows = []
    for name, method in contents["methods"].items():
        if name in (BASE, contents["reference"]) or not method["over_base"]:
            continue
        at_t, at_tokens = _at_budgets(method), _at_matched_tokens(method, contents["matched_tokens"])
        below = [_where(at_t, -1), f"{_where(at_tokens, -1)} {_exceeded(contents, name)}".rstrip()]
        above = [_where(at_t, 1), _where(at_tokens, 1)]
        over_base = _marked(method["over_base"]["none_accuracy"])
        rows.append([name, str(len(method["seeds"])), *below, _at_worst(at_t, at_tokens), *above, over_base])
    reference = contents["reference"]
    header = ["method", "seeds", f"t below {reference}", f"tokens below {reference}", "may lie below by up to"]
    header += [f"t above {reference}", f"tokens above {reference}", "no budget, less base"]
    return markdown_table(header, rows) if rows else "Not yet there."


def _at_budgets(method: Contents) -> dict[str, Estimate]:
    """By budget, the differences of the method's own curve to the reference that have intervals."""
    if method["curve"] == Control.PROMPT:
        return {}
    cells = method["cells"].get(method["curve"], []) + method["cells"].get(str(Control.NONE), [])
    return _with_interval({_place(cell): cell.get("over_reference") for cell in cells})


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


def _place(cell: Contents) -> str:
    return "none" if cell["budget"] == UNLIMITED else str(cell["budget"])


def rate(found: Estimate | None) -> str:
    return _text(found, "{:.3f}", "{:.2f}")


def difference(found: Estimate | None, digits: int = 3) -> str:
    return _text(found, f"{{:+.{digits}f}}", f"{{:+.{digits - 1 if digits > 1 else digits}f}}")


def count_text(found: Estimate | None, digits: int = 0) -> str:
    return _text(found, f"{{:,.{digits}f}}", f"{{:,.{digits}f}}")


def _text(found: Estimate | None, form: str, end_form: str) -> str:
    if found is None:
        return ABSENT
    if found.low is None or found.low == found.high == found.mean:
        return form.format(found.mean)
    return f"{form.format(found.mean)} [{end_form.format(found.low)}, {end_form.format(found.high)}]"
