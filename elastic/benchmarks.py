"""The benchmarks of an evaluation: a recipe's entries, each as the options of an evaluation of its own."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from elastic.arguments import ProblemArguments, RewardArguments
from elastic.evaluation_arguments import EvaluationArguments, GridArguments, RatingArguments
from elastic.parsing import naming, typed

# What an entry of `benchmarks` may set: the data, how they are asked and graded, and the budgets.
ENTRY_FIELDS = {
    *(
        field.name
        for kind in (ProblemArguments, RewardArguments, RatingArguments, GridArguments)
        for field in fields(kind)
    ),
    *("dataset_split", "max_problems", "reward", "num_generations", "chat_template_kwargs"),
} - {"trained_budget"}


def benchmark_arguments(arguments: EvaluationArguments) -> list[EvaluationArguments]:
    """The options of each benchmark that is to be measured, in the order of the recipe; one where it names none.

    Raises:
        ValueError: names the benchmark and what is wrong with its entry, its file or the choice of it.
    """
    files, only = _files(arguments), arguments.only_benchmarks
    if arguments.benchmarks:
        entries = {name: _entry(name, entry) for name, entry in arguments.benchmarks.items()}
        _check_shared_data_set(arguments, entries)
    else:
        entries = {arguments.benchmark_name: {}}
    for field, names in (("only_benchmarks", only or []), ("benchmark_files", files)):
        for name in names:
            if name not in entries:
                raise ValueError(
                    f"{field} names {name!r}, and the benchmarks are {', '.join(entries)}: choose of these."
                )
    chosen = []
    for name, entry in entries.items():
        if only and name not in only:
            continue
        of_file = {"dataset_name": files[name], "dataset_config": None} if name in files else {}
        with naming(benchmark_named(name, bool(arguments.benchmarks))):
            alone = {"benchmarks": None, "only_benchmarks": None, "benchmark_files": None, "benchmark": name}
            chosen.append(replace(arguments, **entry | of_file | alone))
    return chosen


def benchmark_named(name: str, several: bool = True) -> str | None:
    """What an error's sentence begins with; None where there are no others that it could be about."""
    return f"Benchmark {name}" if several else None


def _entry(name: str, entry: object) -> dict[str, Any]:
    if not isinstance(entry, dict) or not entry:
        raise ValueError(f"benchmarks has {entry!r} for {name}: give its fields, such as {{dataset_name: ...}}.")
    with naming(benchmark_named(name)):
        values = typed(entry, EvaluationArguments, "its entry")
        for field in values:
            if field not in ENTRY_FIELDS:
                raise ValueError(f"{field} is the same for all benchmarks: set it beside `benchmarks`.")
    return values


def _check_shared_data_set(arguments: EvaluationArguments, entries: dict[str, dict[str, Any]]) -> None:
    if arguments.dataset_name and all("dataset_name" in entry for entry in entries.values()):
        raise ValueError(
            f"dataset_name is {arguments.dataset_name!r}, and each of the benchmarks has its own: leave it "
            f"out, or give a file as --benchmark_files NAME=FILE."
        )


def _files(arguments: EvaluationArguments) -> dict[str, str]:
    files: dict[str, str] = {}
    for given in arguments.benchmark_files or []:
        name, equals, path = given.partition("=")
        if not (name and equals and path) or name in files:
            why = f"names {name} twice" if name in files else "is no NAME=FILE"
            raise ValueError(f"benchmark_files has {given!r}, which {why}: give each benchmark one file.")
        files[name] = path
    return files
