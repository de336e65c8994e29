"""From runs to report.html: what the page shows, and the file that holds it with its scripts, styles and texts."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections import defaultdict
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from elastic.benchmark_means import MEAN, mean_runs
from elastic.contamination import sentence
from elastic.curve import COLOURS
from elastic.files import replace_file
from elastic.page import DEFAULT_GENERATIONS
from elastic.page.samples import Sample, chosen, compressed, latest_rows, packed
from elastic.problems import PROBLEMS_NAME, ProblemIndex, read_problems
from elastic.rating import rating_text, without_rating
from elastic.results import GENERATIONS_NAME, BudgetKey, Control, Run, benchmarks

PAGE_NAME = "report.html"
# In the order in which they are run: each may use what stands before it.
_SCRIPTS = ("data.js", "draw.js", "curve.js", "shares.js", "heat.js", "reader.js", "main.js")
_PROBLEMS_IN_BLOCK = 100
_NUMBERS = (
    *("accuracy", "ci_low", "ci_high", "total_tokens", "thinking_tokens", "solution_tokens"),
    *("thinking_tokens_p95", "solution_tokens_p95", "forced_rate", "eos_in_thinking_rate", "thinking_cut_rate"),
    *("solution_truncated_rate", "reopened_rate", "n_problems", "n_samples", "ungraded"),
)


def write_page(
    runs: Sequence[Run], path: Path, *, trained_budget: int | None = None, max_generations: int = DEFAULT_GENERATIONS
) -> None:
    """Write the page of `runs`, with at most `max_generations` of the generations that lie beside their results.

    `trained_budget` (t*) is marked where the grids hold it.

    Raises:
        ValueError: a line of generations.jsonl or problems.jsonl that cannot be read.
    """
    page, blocks = page_data(runs, trained_budget=trained_budget, max_generations=max_generations)
    text = page_text(page, blocks)
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def page_data(
    runs: Sequence[Run], *, trained_budget: int | None, max_generations: int
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """(what the page shows at once; by kind, the compressed blocks of what it reads when it is asked for)."""
    cells = [(run, cell) for run in range(len(runs)) for cell in runs[run].cells]
    means = [(run, cell) for run, part in enumerate(mean_runs(runs)) for cell in part.cells]
    index = _ProblemIndex()
    samples = [sample for i, run in enumerate(runs) for sample in _samples(i, run, cells, index)]
    held = chosen(samples, max_generations, index.names)
    columns, texts = packed(held)
    page = {
        "runs": [run.label for run in runs],
        "benchmarks": benchmarks(runs) + ([MEAN] if means else []),
        "colours": COLOURS,
        "trained_budget": trained_budget,
        "cells": [page_cell(run, cell, trained_budget) for run, cell in [*cells, *means]],
        "notes": notes(runs),
        "met": [_met(run) for run in runs],
        "problems": [row["problem_id"] for row in index.rows],
        "problems_in_block": _PROBLEMS_IN_BLOCK,
        "accuracies": _accuracies(samples, len(cells)),
        "samples": {"held": len(held), "all": len(samples)},
    }
    starts = range(0, len(index.rows), _PROBLEMS_IN_BLOCK)
    problems = [[_statement(row) for row in index.rows[start : start + _PROBLEMS_IN_BLOCK]] for start in starts]
    return page, {"samples": [compressed(columns)], "problems": list(map(compressed, problems)), "texts": texts}


def page_cell(run: int, cell: dict[str, Any], trained_budget: int | None) -> dict[str, Any]:
    """A cell of results.json as the page has it: its numbers under their own names, and its budget in words.

    A mean over benchmarks has accuracy and tokens only; the other numbers are None.
    """
    budget, mean = BudgetKey.of(cell), cell["benchmark"] == MEAN
    asked = budget.control in (Control.PROMPT, Control.TOLD) and not mean
    return {
        "run": run,
        "benchmark": cell["benchmark"],
        "control": str(budget.control),
        "budget": budget.label,
        "name": "-".join(map(str, budget)),
        "t": budget.thinking,
        "trained": budget.control is Control.SEPARATE and budget.thinking == trained_budget,
        "forked": cell.get("sweep") == "fork" and budget.control not in (Control.PROMPT, Control.TOLD),
        "inserted": "" if mean else inserted_text(cell),
        "asked": cell["control_settings"]["instruction"] if asked else "",
        "reasons": cell.get("reasons", {}),
        "mean": mean,
        "pass_at_k": cell.get("pass_at_k", {}),
        "majority_at_n": cell.get("majority_at_n"),
        "rating": rating_text(cell.get("rating")) or "",
        **{name: cell.get(name) if mean else cell[name] for name in _NUMBERS},
    }


def notes(runs: Sequence[Run]) -> list[dict[str, str]]:
    """What a reader of a benchmark's curve should know: problems that the model has met, a rating that is not given."""
    found = []
    for run in runs:
        for name in run.benchmarks:
            cells = run.of(name).cells
            met = cells[0].get("contamination")
            texts = filter(None, [sentence(name, met) if met else None, without_rating(name, cells)])
            found += [{"benchmark": name, "text": f"{run.label}: {text}"} for text in texts]
    return found


def _met(run: Run) -> dict[str, dict[str, str]]:
    """By benchmark, the problems that the run's model was trained on, and where each was met."""
    flags = {cell["benchmark"]: cell.get("contamination") for cell in run.cells}
    return {benchmark: flag["problems"] for benchmark, flag in flags.items() if flag}


def inserted_text(cell: dict[str, Any]) -> str:
    """What the system puts where it closes the thinking; results that say no marker are taken to have the default."""
    end = cell.get("reasoning_end_str", "</think>")
    if cell["control"] == Control.S1:
        return cell["control_settings"]["close"].replace("{end}", end)
    return cell["control_settings"]["wrap_up_str"] + end if cell["control"] == Control.WRAP_UP else end


def page_text(page: dict[str, Any], blocks: dict[str, list[str]]) -> str:
    """The HTML file. Its policy lets a browser run our scripts only, and fetch nothing."""
    files = resources.files("elastic.page")
    script = "\n".join((files / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    style = (files / "report.css").read_text(encoding="utf-8")
    data = [("page", compressed(page))]
    data += [(f"{kind}-{i}", block) for kind, column in blocks.items() for i, block in enumerate(column)]
    return Template((files / "report.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(" and ".join(page["runs"])),
        script=script,
        style=style,
        script_hash=_hash(script),
        style_hash=_hash(style),
        page=_data_element(*data[0]),
        blocks="\n".join(_data_element(*element) for element in data[1:]),
    )


class _ProblemIndex:
    """The problems of all runs, each once: two runs share one where benchmark, id and prompt are the same."""

    def __init__(self):
        self.rows: list[dict[str, Any]] = []
        self.names: list[str] = []
        self._places: dict[tuple[str, ...], int] = {}

    def place(self, row: dict[str, Any]) -> int:
        told = json.dumps(row["prompt"]) if row["prompt"] is not None else row["data_fingerprint"]
        identity = row["benchmark"], row["problem_id"], told
        if identity not in self._places:
            self._places[identity] = len(self.rows)
            self.rows.append(row)
            self.names.append(f"{row['benchmark']}/{row['problem_id']}")
        return self._places[identity]


def _samples(run_index: int, run: Run, cells: Sequence[tuple[int, dict]], index: _ProblemIndex) -> list[Sample]:
    """The samples of a run's cells, from the generations beside its results; none where there are none."""
    path = run.path.with_name(GENERATIONS_NAME) if run.path else None
    if path is None or not path.is_file():
        return []
    by_key: dict[str, list[int]] = defaultdict(list)
    for i, (owner, cell) in enumerate(cells):
        if owner == run_index:
            by_key[cell["key"]].append(i)
    problems = read_problems(path.with_name(PROBLEMS_NAME))
    samples = []
    for offset, size, row in latest_rows(path, by_key):
        for i in by_key[row["key"]]:
            problem = index.place(_problem(problems, cells[i][1], row["problem_id"]))
            own_chain = cells[i][1]["control"] not in (Control.S1, Control.PROMPT, Control.TOLD)
            samples.append(Sample(run_index, i, problem, row, path, offset, size, own_chain))
    return samples


def _problem(problems: dict[ProblemIndex, dict], cell: dict[str, Any], problem_id: str) -> dict[str, Any]:
    """The problem's row in problems.jsonl, or one that says that its prompt is not known."""
    where = {"data_fingerprint": cell["data_fingerprint"], "problem_id": problem_id}
    unknown = {"prompt": None, "answer": None}
    return problems.get(tuple(where.values()), unknown) | where | {"benchmark": cell["benchmark"]}


def _accuracies(samples: Sequence[Sample], cells: int) -> list[dict[int, float]]:
    """By cell, the mean reward of each problem that has a graded sample: of all samples, not of those held only."""
    rewards: list[dict[int, list[float]]] = [defaultdict(list) for _ in range(cells)]
    for sample in samples:
        if sample.row["reward"] is not None:
            rewards[sample.cell][sample.problem].append(sample.row["reward"])
    return [{problem: round(sum(row) / len(row), 4) for problem, row in cell.items()} for cell in rewards]


def _statement(row: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": row["prompt"], "answer": row["answer"]}


def _data_element(name: str, content: str) -> str:
    return f'<script type="application/octet-stream" id="{name}">{content}</script>'


def _hash(text: str) -> str:
    """As a Content-Security-Policy names an inline script or style that may be used."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
