"""Measure a model at a grid of budgets: accuracy, tokens, and how often each budget bites.

    python -m elastic.evaluate --config recipes/eval/nano.yaml --model_name_or_path outputs/nano-e1

Every sample is kept in output_dir under a key made of all that produced it: the model's files, the problems, budget,
sampling, seed, the reward's name. A run samples only what its own keys lack, so it resumes an interrupted one with the
same results, and never counts samples of other settings. results.json holds the cells of this run: those of each
benchmark, where a recipe has several.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from elastic.evaluation_arguments import EvaluationArguments
from elastic.parsing import parse, sentence_on_error

PROG = "python -m elastic.evaluate"
FAILURE_EXIT_CODE = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, check, then sweep by sweep sample what is missing and write what is measured; print the table."""
    argv = sys.argv[1:] if argv is None else argv
    (arguments,) = parse((EvaluationArguments,), argv, prog=PROG, description="Measure a model at token budgets.")
    with ExitStack() as held:
        evaluate(arguments, held)


def evaluate(arguments: EvaluationArguments, held: ExitStack) -> None:
    """What `main` does; `held` keeps other evaluations out of the output folder."""
    from elastic.chains import CHAINS_NAME, Chains
    from elastic.contamination import contamination, sentence, training_data
    from elastic.problems import write_problems
    from elastic.protocol import load_shared_engine, prepare, what_is_there

    with sentence_on_error(PROG), exit_on_failure():
        evaluations = prepare(arguments, held)
        training = training_data(arguments.training_recipe, arguments.training_data)
        asked = {e.name: (e.problems, e.arguments.prompt_suffix, e.arguments.problem_template) for e in evaluations}
        met = contamination(asked, training)
    for name, found in met.items():
        if found:
            tell(sentence(name, found))
    tell(what_is_there(evaluations))
    output_dir = evaluations[0].generations.path.parent
    if kept := set_aside_other_results(output_dir, {key for evaluation in evaluations for key in evaluation.keys}):
        tell(f"results.json there was of another model, other data or other settings; it is kept as {kept.name}.")
    write_problems(output_dir, [row for evaluation in evaluations for row in evaluation.problem_rows()])
    incomplete = any(evaluation.lacks(evaluation.cells) for evaluation in evaluations)
    with sentence_on_error(PROG), exit_on_failure():
        chains = Chains(output_dir / CHAINS_NAME) if incomplete else None
        engine = load_shared_engine(evaluations) if incomplete else None
    measured = []
    for evaluation in evaluations:
        before, own = measured, {}
        for cells in evaluation.sweeps():
            if evaluation.lacks(cells):
                with exit_on_failure():
                    evaluation.complete(cells, engine, chains)
            flag = {"contamination": met[evaluation.name]}
            own |= {evaluation.cells.index(cell): evaluation.measure(cell) | flag for cell in cells}
            measured = [*before, *(own[place] for place in sorted(own))]
            write_results(output_dir, measured)
    print(write_tables(arguments, output_dir, measured))
    write_report_page(arguments, output_dir, measured)
    tell(f"Written to {output_dir}: results.json, generations.jsonl, problems.jsonl, table.md, curve.png, report.html.")
    if arguments.report_to == "wandb":
        from elastic.tracked_curve import track_curve

        track_curve(measured, output_dir, arguments)


@contextmanager
def exit_on_failure() -> Iterator[None]:
    """Where rollouts cannot be sampled or graded, say why and exit; what is there is kept."""
    from elastic.chains import ChainError
    from elastic.engines.requested import EngineError
    from elastic.grading import GradingError

    try:
        yield
    except (ChainError, EngineError, GradingError) as error:
        tell(f"{PROG}: error: {error}")
        sys.exit(FAILURE_EXIT_CODE)


def set_aside_other_results(output_dir: Path, keys: set[str]) -> Path | None:
    """Rename a results.json that has a cell which this run does not measure, or that is none; returns its new path."""
    from elastic.results import RESULTS_NAME, read_cells

    results = output_dir / RESULTS_NAME
    if not results.is_file():
        return None
    try:
        others = [cell for cell in read_cells(results) if cell["key"] not in keys]
        made_by = others[0].get("model_fingerprint", "other")[:8] if others else None
    except ValueError:
        made_by = "other"
    if made_by is None:
        return None
    stem, number = f"results-{made_by}", 1
    while (kept := results.with_name(f"{stem}{f'-{number}' if number > 1 else ''}.json")).exists():
        number += 1
    return results.rename(kept)


def write_results(output_dir: Path, cells: list[dict]) -> None:
    from elastic.files import replace_file
    from elastic.results import RESULTS_NAME

    text = json.dumps(cells, indent=1, allow_nan=False) + "\n"
    replace_file(output_dir / RESULTS_NAME, lambda path: path.write_text(text, encoding="utf-8"))


def write_tables(arguments: EvaluationArguments, output_dir: Path, cells: list[dict]) -> str:
    """Write table.md and curve.png; returns the table."""
    from elastic.contamination import sentence
    from elastic.curve import draw_curve
    from elastic.files import replace_file
    from elastic.results import Run
    from elastic.tables import estimate_table, reason_table, run_table

    run, t_star = Run(arguments.label, cells), arguments.trained_budget
    tables = [table(run, trained_budget=t_star) for table in (run_table, estimate_table, reason_table)]
    met = {cell["benchmark"]: cell["contamination"] for cell in cells}
    tables += [sentence(name, found) for name, found in met.items() if found]
    table = "\n\n".join([f"## {run.label}", *filter(None, tables)]) + "\n"
    replace_file(output_dir / "table.md", lambda path: path.write_text(table, encoding="utf-8"))
    replace_file(output_dir / "curve.png", lambda path: draw_curve([run], path, trained_budget=t_star))
    return table


def write_report_page(arguments: EvaluationArguments, output_dir: Path, cells: list[dict]) -> None:
    """Write report.html, with the generations that results.json counts."""
    from elastic.page.build import PAGE_NAME, write_page
    from elastic.results import RESULTS_NAME, Run

    run = Run(arguments.label, cells, output_dir / RESULTS_NAME)
    limit, t_star = arguments.max_report_generations, arguments.trained_budget
    write_page([run], output_dir / PAGE_NAME, trained_budget=t_star, max_generations=limit)


def tell(text: str) -> None:
    """A line for the person at the terminal, beside the results that go to stdout."""
    tqdm.write(text, file=sys.stderr)


if __name__ == "__main__":
    main()
