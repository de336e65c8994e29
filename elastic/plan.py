"""Does a recipe fit the machine? Memory by part and tokens by step, before anything is loaded.

python -m elastic.plan --config recipes/e1_math_1.5b.yaml --launch launch/zero2.yaml
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from elastic.arguments import DataArguments, RunArguments
from elastic.parsing import Parser, parse, sentence_on_error

PROG = "python -m elastic.plan"
DESCRIPTION = (
    "Print the memory that a recipe takes by part, the tokens of a step, and what to change where it does not fit. "
    "Only the model's config.json is read. Besides the options below, every option of elastic.train is one. Exit "
    "code 0: it fits (of several launch files: one of them); 1: it does not; 2: an option is wrong."
)
DOES_NOT_FIT_EXIT_CODE = 1


@dataclass
class PlanArguments:
    """What to plan for."""

    launch: list[str] = field(
        default_factory=lambda: ["launch/single_gpu.yaml"],
        metadata={"help": "A launch file of accelerate, or a DeepSpeed JSON; of several, a table compares them."},
    )
    gpu_memory_gb: float = field(default=80.0, metadata={"help": "Memory of one GPU, in GiB."})
    num_processes: int | None = field(
        default=None, metadata={"help": "Number of GPUs, which a DeepSpeed JSON does not say; else the launch file's."}
    )
    model_config: str | None = field(
        default=None,
        metadata={"help": "The config.json of the model, or a folder with it, where the model cannot be reached."},
    )
    prompt_tokens: int | None = field(
        default=None, metadata={"help": "Longest prompt, where the recipe has no max_prompt_length."}
    )

    def __post_init__(self):
        if not (math.isfinite(self.gpu_memory_gb) and self.gpu_memory_gb > 0):
            raise ValueError(f"gpu_memory_gb is {self.gpu_memory_gb:g}: give the GiB of one GPU, such as 80.")
        for name in ("num_processes", "prompt_tokens"):
            if (value := vars(self)[name]) is not None and value < 1:
                raise ValueError(f"{name} is {value}: give a whole number of 1 or more.")


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser((PlanArguments,), PROG, DESCRIPTION)
    if {"-h", "--help"} & set(argv):
        return parser.print_help()
    with sentence_on_error(PROG):
        options, recipe = parser.parse_args_into_dataclasses(
            list(argv), return_remaining_strings=True, look_for_args_file=False
        )
        fits = _print_plans(options, recipe)
    if not fits:
        sys.exit(DOES_NOT_FIT_EXIT_CODE)


def _print_plans(options: PlanArguments, recipe: Sequence[str]) -> bool:
    """Print the plan for each launch file; whether one of them fits."""
    from trl import ModelConfig

    from elastic import planning
    from elastic.machine import read_machine
    from elastic.memory import GIB, plan

    gpu_bytes = options.gpu_memory_gb * GIB
    machines = [read_machine(path, options.num_processes) for path in options.launch]
    planned = []
    for machine in machines:
        kinds = (DataArguments, RunArguments, ModelConfig, planning.config_for(machine))
        data, _, model, config = parse(kinds, recipe, prog=PROG)
        sizes = planning.model_sizes(model, options.model_config)
        work = planning.work(data, model, config, sizes, options.prompt_tokens)
        planned.append((plan(sizes, work, machine, gpu_bytes), sizes, work, config))
    name = Path(options.model_config or model.model_name_or_path).name
    print(planning.headline(name, sizes, config))
    if len(planned) == 1:
        print(planning.details(*planned[0]))
    else:
        print(planning.comparison([one for one, *_ in planned]))
    return any(one.fits for one, *_ in planned)


if __name__ == "__main__":
    main()
