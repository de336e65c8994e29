"""comparison.md: the tables of a comparison, from what comparison.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from elastic.budget import UNLIMITED
from elastic.compare.arguments import BASE
from elastic.compare.estimate_text import budget_label, count_text, difference, marked, rate
from elastic.compare.plan import EVALUATION, TASK, TRAINING
from elastic.compare.questions import question_tables
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
        *question_tables(contents),
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
        label = "none" if last else budget_label(cell["budget"], t_star)
        rows.append([label, rate(cell["accuracy"]), count_text(cell["tokens"], 1), marked(cell.get("over_reference"))])
    return markdown_table(["t", "accuracy", "tokens", f"less {reference}"], rows)
