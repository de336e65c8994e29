"""One model on the benchmarks of a protocol: an evaluation of each, sharing its files, its engine and its samples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from elastic.benchmarks import benchmark_arguments, benchmark_named
from elastic.engines.crossed import CrossedEngine
from elastic.engines.server import first_model
from elastic.evaluation import Evaluation
from elastic.evaluation_arguments import EvaluationArguments
from elastic.evaluation_engine import load_engine, reasoning_tokens
from elastic.files import alone_in
from elastic.generations import Generations
from elastic.model_source import ModelSource, find_model, load_tokenizer
from elastic.parsing import naming
from elastic.rating import check_ratings
from elastic.report import checked_output_dir
from elastic.results import GENERATIONS_NAME
from elastic.rewarding import Rewards, load_rewards
from rewards import REWARDS


def prepare(arguments: EvaluationArguments, held: ExitStack) -> list[Evaluation]:
    """The evaluation of each benchmark, once all is checked that can be before a model is loaded.

    The output folder is this process's alone until `held` is closed.

    They share the model's files, the tokenizer and the samples that are there, which are read once.

    Raises:
        ValueError, FileNotFoundError: one sentence for what is wrong.
        EngineError: the server cannot be reached.
    """
    output_dir = checked_output_dir(Path(arguments.output_dir).expanduser())
    several = bool(arguments.benchmarks)
    served = arguments.engine == "server"
    benchmarks, rewards = benchmark_arguments(arguments), []
    for benchmark in benchmarks:
        with naming(benchmark_named(benchmark.benchmark_name, several)):
            rewards.append(rewards_of(benchmark))
    if served and arguments.served_model_name is None:
        name = first_model(arguments.base_url)
        benchmarks = [replace(benchmark, served_model_name=name) for benchmark in benchmarks]
    source = find_model(arguments.model_name_or_path, arguments.model_revision, weights=not served)
    tokenizer = load_tokenizer(source.path, source.revision or "main", trust_remote_code=arguments.trust_remote_code)
    solution_source = find_solution_model(arguments, tokenizer)
    reasoning_tokens(arguments, tokenizer)  # the same for all benchmarks: its sentence should name none
    generations, evaluations = Generations(output_dir / GENERATIONS_NAME), []
    for benchmark, graded_by in zip(benchmarks, rewards, strict=True):
        with naming(benchmark_named(benchmark.benchmark_name, several)):
            evaluations.append(
                Evaluation.prepare(benchmark, graded_by, source, tokenizer, generations, solution_source)
            )
            if benchmark.rating_column:
                check_ratings(evaluations[-1].problems, benchmark.rating_column)
    check_different_data(evaluations)
    output_dir.mkdir(parents=True, exist_ok=True)
    held.enter_context(alone_in(output_dir))
    generations.read({key for evaluation in evaluations for key in evaluation.keys})
    return evaluations


def find_solution_model(arguments: EvaluationArguments, tokenizer) -> ModelSource | None:
    """The model that samples the solutions; None where it is the one that thinks.

    Raises:
        ValueError: there is none, or its tokenizer is not that of the model that thinks.
    """
    name = arguments.solution_model_name_or_path
    if name is None:
        return None
    try:
        source = find_model(name, arguments.solution_model_revision)
        trusted = arguments.trust_remote_code
        other = load_tokenizer(source.path, source.revision or "main", trust_remote_code=trusted)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"solution_{error}" if str(error).startswith("model_name_or_path") else str(error)) from None
    if other.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"solution_model_name_or_path is {name!r}, whose tokenizer has other tokens than that of "
            f"{arguments.model_name_or_path!r}, whose thinking it has to read: give a model with the same tokenizer."
        )
    return source


def what_is_there(evaluations: Sequence[Evaluation]) -> str:
    """What a person should know before the sampling starts."""
    arguments, generations = evaluations[0].arguments, evaluations[0].generations
    lines = [evaluation.size() for evaluation in evaluations]
    if arguments.engine == "server":
        lines.append(f"The samples are of the model {arguments.served_model_name} at {arguments.base_url}.")
    if generations.dropped_bytes:
        lines.append("The last line of generations.jsonl was cut by an interruption: dropped, to be sampled anew.")
    there = sum(len(generations.of(key)) for evaluation in evaluations for key in evaluation.keys)
    if there:
        needed = sum(
            len(evaluation.problems) * evaluation.arguments.num_generations * len(evaluation.cells)
            for evaluation in evaluations
        )
        lines.append(f"Resuming: {there} of {needed} samples are in {generations.path}.")
    return "\n".join(lines)


def load_shared_engine(evaluations: Sequence[Evaluation]):
    """The engine that all cells are sampled with, its model loaded.

    Raises:
        ValueError: it has less context than the model's files say, too little for a cell's budgets.
        EngineError: the server cannot be reached, or lacks what is needed.
    """
    first = evaluations[0]
    engine = load_engine(first.arguments, first.source, first.tokenizer)
    if first.solution_source is not None:
        engine = CrossedEngine(engine, load_engine(first.arguments, first.solution_source, first.tokenizer))
    for evaluation in evaluations:
        with naming(benchmark_named(evaluation.name, len(evaluations) > 1)):
            evaluation.check_budgets_fit(engine.tokens, engine.context_length)
    return engine


def rewards_of(arguments: EvaluationArguments) -> Rewards:
    """What grades a benchmark. Raises ValueError where the reward does not fit what is asked of it."""
    for name in ("rating_column", "tests_are"):
        value = getattr(arguments, name)
        if value and arguments.reward != "code":
            raise ValueError(
                f"{name} is {value!r}, and reward is {arguments.reward}: only programs have a rating, so leave it "
                f"out, or set reward to code."
            )
    rewards = load_rewards([arguments.reward], arguments)
    if arguments.reward in REWARDS and arguments.solution_token_budget == 0 and arguments.thinking_token_budgets:
        raise ValueError(
            f"solution_token_budget is 0, and the reward {arguments.reward} grades the solution: give 1 token or "
            f"more, or -1."
        )
    return rewards


def check_different_data(evaluations: Sequence[Evaluation]) -> None:
    """Raises ValueError where two benchmarks are of the same problems: their samples could not be told apart."""
    names: dict[str, str] = {}
    for evaluation in evaluations:
        other = names.setdefault(evaluation.provenance.data_fingerprint, evaluation.name)
        if other != evaluation.name:
            raise ValueError(f"The benchmarks {other} and {evaluation.name} have the same problems: leave one out.")
