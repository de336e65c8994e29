"""From a comparison's options to the commands it runs: which there are, what each needs, and where each goes.

A model has a folder, named by method, seed and a hash of all that its weights depend on: the recipe with its options,
the rollout tokens, the seed, a launch file that is not one process on a CPU, and the same of what it starts from. So
another recipe has a new folder, and what is unchanged is found again. The evaluation is in the model's folder:
`elastic.evaluate` keeps every sample under its settings, and samples what others lack.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from elastic.compare.arguments import BASE, CompareArguments
from elastic.results import GENERATIONS_NAME, RESULTS_NAME

TASK, TRAINING, EVALUATION = "task", "training", "evaluation"
MAKE_TASK = (sys.executable, "-m", "elastic.nano")
LAUNCHER = (sys.executable, "-m", "accelerate.commands.launch")
TRAIN = ("-m", "elastic.train")
EVALUATE = (sys.executable, "-m", "elastic.evaluate")
# What is read of an output, as patterns: where one finds nothing, the step has to be run again.
_READ = {
    TASK: ("base/*.safetensors", "train.jsonl", "test.jsonl"),
    TRAINING: ("*.safetensors",),
    EVALUATION: (RESULTS_NAME, GENERATIONS_NAME),
}


@dataclass(frozen=True, eq=False)
class Step:
    """One command, whose output is `folder`/`kind`, and log `folder`/`kind`.log.

    Attributes:
        identity: all that its result depends on.
        command: without the recipe, which is written to `folder`/`kind`.yaml.
        recipe: None where the command takes none.
        needs: the steps whose output it reads.
    """

    model: str
    seed: int
    kind: str
    folder: Path
    identity: Mapping[str, Any]
    command: tuple[str, ...]
    recipe: Mapping[str, Any] | None = None
    needs: tuple[Step, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        return f"{self.model}, seed {self.seed}, {self.kind}"

    @cached_property
    def digest(self) -> str:
        return digest(self.identity)

    @property
    def output(self) -> Path:
        return self.folder / self.kind

    @property
    def is_whole(self) -> bool:
        """Whether its output has all that is read of it."""
        return all(any(self.output.glob(pattern)) for pattern in _READ[self.kind])

    @property
    def results(self) -> Path:
        """The results.json of an evaluation."""
        return self.output / RESULTS_NAME

    def file(self, suffix: str) -> Path:
        return self.folder / f"{self.kind}.{suffix}"


@dataclass(frozen=True)
class Plan:
    """The steps of a comparison, each after those that it needs, and which of them make and measure a model.

    Attributes:
        training: by (method, seed).
        evaluation: by (method, BASE or a crossed pair's label, seed).
    """

    steps: list[Step]
    training: dict[tuple[str, int], Step]
    evaluation: dict[tuple[str, int], Step]

    def only(self, methods: list[str] | None) -> list[Step]:
        """The steps that measure these methods, the base and what is crossed of them, with all that they need.

        None: all steps.
        """
        if methods is None:
            return self.steps
        wanted: list[Step] = []

        def add(step: Step) -> None:
            for needed in step.needs:
                add(needed)
            if step not in wanted:
                wanted.append(step)

        for step in self.evaluation.values():
            if {need.model for need in step.needs} <= {BASE, *methods}:
                add(step)
        return [step for step in self.steps if step in wanted]


def crossed_label(thinking: str, solution: str) -> str:
    return f"{thinking} → {solution}"


def digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def plan(arguments: CompareArguments) -> Plan:
    """All steps, seed by seed, methods in the order of the recipe, so that early results are of all methods."""
    made = Plan([], {}, {})
    for seed in arguments.seeds:
        _plan_seed(arguments, seed, made)
    return made


def _plan_seed(arguments: CompareArguments, seed: int, made: Plan) -> None:
    task = _task_step(arguments, seed)
    makers, weights = {BASE: task}, {BASE: task.output / "base"}
    made.steps.append(task)
    for name in (BASE, *arguments.methods):
        if name != BASE:
            base = arguments.methods[name].base
            makers[name] = _training_step(arguments, name, task, makers[base], weights[base])
            weights[name] = makers[name].output
            made.training[name, seed] = makers[name]
            made.steps.append(makers[name])
        fields = arguments.evaluation_fields(name)
        if name != BASE and (t_star := arguments.methods[name].trained_budget):
            fields["trained_budget"] = t_star
        step = _evaluation_step(name, fields, task, {name: (makers[name], weights[name])})
        made.evaluation[name, seed] = step
        made.steps.append(step)
    for pair in arguments.crossed_pairs:
        models = {name: (makers[name], weights[name]) for name in pair}
        step = _crossed_step(pair, arguments.crossed_evaluation_fields(), task, models)
        made.evaluation[step.model, seed] = step
        made.steps.append(step)


def _task_step(arguments: CompareArguments, seed: int) -> Step:
    identity = {"task": arguments.task, "seed": seed}
    folder = Path(arguments.output_dir, f"{BASE}-{seed}-{digest(identity)[:8]}")
    options = [f"--{name}={value}" for name, value in arguments.task.items()]
    command = (*MAKE_TASK, *options, f"--seed={seed}", f"--output_dir={folder / TASK}")
    return Step(BASE, seed, TASK, folder, identity, command)


def _training_step(arguments: CompareArguments, name: str, task: Step, base: Step, weights: Path) -> Step:
    fields = arguments.methods[name].training_fields
    identity = {
        "recipe": fields,
        "rollout_tokens": arguments.rollout_tokens,
        "seed": task.seed,
        "task": task.digest,
        "base": base.digest,
    }
    if arguments.launch_fields:
        identity["launch"] = arguments.launch_fields
    folder = Path(arguments.output_dir, f"{name}-{task.seed}-{digest(identity)[:8]}")
    given = {
        "model_name_or_path": str(weights),
        "dataset_name": str(task.output / "train.jsonl"),
        "output_dir": str(folder / TRAINING),
        "run_name": f"{name}-{task.seed}",
        "seed": task.seed,
        "resume": "auto",
        "max_rollout_tokens": arguments.rollout_tokens,
        # No update samples less than a token, so that this ends no training.
        "max_steps": arguments.rollout_tokens,
        "logging_steps": 1,
    }
    command = (*LAUNCHER, "--config_file", arguments.launch, *TRAIN)
    needs = tuple(dict.fromkeys((task, base)))
    return Step(name, task.seed, TRAINING, folder, identity, command, fields | given, needs)


def _evaluation_step(label: str, fields: dict, task: Step, models: dict[str, tuple[Step, Path]]) -> Step:
    ((model, weights),) = models.values()
    given = _given(label, task, model.folder, weights)
    return _measuring(label, model.folder, fields, given, task, (model,))


def _crossed_step(pair: tuple[str, str], fields: dict, task: Step, models: dict[str, tuple[Step, Path]]) -> Step:
    (thinker, weights), (solver, solver_weights) = (models[name] for name in pair)
    made_of = digest([thinker.digest, solver.digest])[:8]
    folder = thinker.folder.parent / f"crossed-{pair[0]}-{pair[1]}-{task.seed}-{made_of}"
    solved = {"solution_model_name_or_path": str(solver_weights), "solution_model_label": pair[1]}
    given = _given(pair[0], task, folder, weights) | solved
    return _measuring(crossed_label(*pair), folder, fields, given, task, (thinker, solver))


def _given(label: str, task: Step, folder: Path, weights: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": str(weights),
        "model_label": label,
        "dataset_name": str(task.output / "test.jsonl"),
        "output_dir": str(folder / EVALUATION),
        "seed": task.seed,
    }


def _measuring(label: str, folder: Path, fields: dict, given: dict, task: Step, models: tuple[Step, ...]) -> Step:
    identity = {"recipe": fields, "seed": task.seed, "task": task.digest, "models": [one.digest for one in models]}
    needs = tuple(dict.fromkeys((task, *models)))
    return Step(label, task.seed, EVALUATION, folder, identity, EVALUATE, fields | given, needs)
