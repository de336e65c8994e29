"""Compare evaluated models, budget by budget: a Markdown table, a curve, and a page to read the generations in.

python -m elastic.report base/results.json e1/results.json --labels base E1 --trained_budget 32
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from elastic.files import replace_file
from elastic.page import DEFAULT_GENERATIONS
from elastic.page.build import PAGE_NAME, write_page
from elastic.parsing import sentence_on_error
from elastic.results import Run, read_runs

PROG = "python -m elastic.report"


def main(argv: Sequence[str] | None = None) -> None:
    """Read any number of results.json, print their comparison, and write report.md, curve.png and report.html."""
    arguments = _parser().parse_args(argv)
    with sentence_on_error(PROG):
        runs = read_runs(arguments.results, arguments.labels)
        output_dir = checked_output_dir(arguments.output_dir or arguments.results[-1].parent)
        trained_budget = arguments.trained_budget
        if trained_budget is None:
            trained_budget = recorded_trained_budget(runs)
        if arguments.max_report_generations < 1:
            raise ValueError(f"max_report_generations is {arguments.max_report_generations}: give 1 or more.")
        comparison = write_report(runs, output_dir, trained_budget=trained_budget)
        page = output_dir / PAGE_NAME
        write_page(runs, page, trained_budget=trained_budget, max_generations=arguments.max_report_generations)
        if arguments.model_card:
            from elastic.model_card import write_model_card

            write_model_card(runs, arguments.model_card, comparison, trained_budget=trained_budget)
    print(comparison)
    print(f"Written: {output_dir / 'report.md'}, {output_dir / 'curve.png'}, {page}", file=sys.stderr)
    if arguments.model_card:
        print(f"Written: {arguments.model_card / 'README.md'}, the model card", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROG, description="Compare evaluated models, budget by budget.")
    parser.add_argument("results", nargs="+", type=Path, help="results.json files; gains are over the first.")
    parser.add_argument("--labels", nargs="+", help="A name for each file; unset, the model_label of its cells.")
    parser.add_argument(
        "--output_dir", type=Path, help="Where report.md, curve.png and report.html go; unset, beside the last of them."
    )
    parser.add_argument(
        "--trained_budget", type=int, help="t*, the thinking budget in training, to be marked; unset, as evaluated."
    )
    parser.add_argument(
        "--max_report_generations",
        type=int,
        default=DEFAULT_GENERATIONS,
        help="Most generations that report.html holds, of those that lie beside the results.",
    )
    parser.add_argument(
        "--model_card",
        type=Path,
        metavar="DIR",
        help="The folder of the last results' model: its README.md becomes a model card with the results, for the hub.",
    )
    return parser


def checked_output_dir(path: Path) -> Path:
    """`path`, which need not exist yet. Raises ValueError where it, or what should hold it, is a file."""
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"output_dir is {str(path)!r}, but {str(folder)!r} is a file: give a directory.")
    return path


def recorded_trained_budget(runs: Sequence[Run]) -> int | None:
    """The t* that the evaluations were told; None where they were told none, or several."""
    recorded = {cell["trained_budget"] for run in runs for cell in run.cells} - {None}
    return recorded.pop() if len(recorded) == 1 else None


def write_report(runs: Sequence[Run], output_dir: Path, *, trained_budget: int | None) -> str:
    """Write report.md (comparison, curve, each run in full) and curve.png; returns the comparison."""
    from elastic.comparison import budget_gains_table, comparison
    from elastic.curve import draw_curve
    from elastic.matched import matched_tables
    from elastic.tables import estimate_table, on_one_line, run_table

    compared = comparison(runs, trained_budget=trained_budget)
    parts = [compared, "![Accuracy against tokens](curve.png)\n"]
    if matched := matched_tables(runs):
        parts.append(f"## Accuracy at matched tokens\n\n{matched}\n")
    for run in runs:
        tables = [table(run, trained_budget=trained_budget) for table in (run_table, estimate_table)]
        parts += [
            "\n\n".join([f"## {on_one_line(run.label)}", *filter(None, [*tables, budget_gains_table(run)])]) + "\n"
        ]
    output_dir.mkdir(parents=True, exist_ok=True)
    replace_file(output_dir / "curve.png", lambda path: draw_curve(runs, path, trained_budget=trained_budget))
    replace_file(output_dir / "report.md", lambda path: path.write_text("\n".join(parts), encoding="utf-8"))
    return compared


if __name__ == "__main__":
    main()
