"""Train and evaluate methods at equal rollout tokens, and compare them: one table, one figure.

    python -m elastic.compare --config recipes/compare/nano.yaml

Each seed has a base and problems of its own, and each method a training on them: all are runs of `elastic.nano`,
`elastic.train` and `elastic.evaluate`, each in a folder named after its settings. Stopped or killed at any point, the
same command goes on from what is there; a method or a seed that is added costs what it adds.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml
from tqdm.auto import tqdm

from elastic.arguments import DataArguments, RunArguments
from elastic.compare.arguments import CompareArguments
from elastic.compare.plan import Plan, Step, plan
from elastic.parsing import parse, sentence_on_error

PROG = "python -m elastic.compare"
FAILURE_EXIT_CODE = 1
_SIGNALLED = 128


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is not finished, then write and print what is."""
    argv = sys.argv[1:] if argv is None else argv
    description = "Train methods at equal rollout tokens, evaluate them, and compare them over seeds."
    (arguments,) = parse((CompareArguments,), argv, prog=PROG, description=description)
    from elastic.compare.runs import run_steps, told_to_stop
    from elastic.files import alone_in

    planned = plan(arguments)
    steps = planned.only(arguments.only)
    with sentence_on_error(PROG):
        make_folder(arguments.results_dir)
        check_trainings([step for step in planned.training.values() if step in steps], arguments.launch)
        with alone_in(Path(arguments.output_dir)), told_to_stop() as stop:
            failures = run_steps(steps, arguments.jobs, stop, tell)
            if stop.signal:
                tell("Stopped; the same command goes on from here.")
                sys.exit(_SIGNALLED + stop.signal)
            write(arguments, planned)
    if failures:
        tell(f"{PROG}: error: {len(failures)} of {len(steps)} runs failed or were left out, as said above.")
        sys.exit(FAILURE_EXIT_CODE)


def make_folder(path: Path) -> None:
    """Raises ValueError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output_dir is {str(path)!r}, which cannot be made: {error.strerror}.") from None


def check_trainings(steps: Sequence[Step], launch: str) -> None:
    """Read the recipes of the trainings that are new as elastic.train will, so that a wrong one is said at the start.

    Exits with code 2 and one sentence where one is wrong.
    """
    new = {step.model: step for step in steps if not step.folder.exists()}
    if not new:
        return
    from trl import ModelConfig

    from elastic.machine import read_machine
    from elastic.planning import config_for

    kinds = (DataArguments, RunArguments, ModelConfig, config_for(read_machine(launch, None)))
    with tempfile.TemporaryDirectory() as folder:
        for name, step in new.items():
            recipe = Path(folder, f"{name}.yaml")
            recipe.write_text(yaml.safe_dump(dict(step.recipe)))
            parse(kinds, ["--config", str(recipe)], prog=f"{PROG}: error: methods: {name}")


def write(arguments: CompareArguments, planned: Plan) -> None:
    """comparison.json, comparison.md and comparison.png of what is finished; print the tables."""
    from elastic.compare.contents import Comparison
    from elastic.compare.figure import draw_comparison
    from elastic.compare.table import comparison_tables
    from elastic.files import replace_file

    contents = Comparison.read(arguments, planned).contents()
    if not contents["methods"]:
        return tell("Nothing is finished yet, so that there is nothing to compare.")
    folder, tables = arguments.results_dir, comparison_tables(contents)
    text = json.dumps(contents, indent=1, allow_nan=False) + "\n"
    replace_file(folder / "comparison.json", lambda path: path.write_text(text, encoding="utf-8"))
    replace_file(folder / "comparison.md", lambda path: path.write_text(tables, encoding="utf-8"))
    replace_file(folder / "comparison.png", lambda path: draw_comparison(contents, path))
    print(tables)
    tell(f"Written to {folder}: comparison.json, comparison.md, comparison.png.")


def tell(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


if __name__ == "__main__":
    main()
