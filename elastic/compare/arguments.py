"""What a recipe or a command line may say about a comparison. Nothing heavy is imported, so `--help` is quick."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from elastic.benchmarks import benchmark_arguments
from elastic.evaluation_arguments import EvaluationArguments
from elastic.parsing import from_yaml, naming, read_recipe, typed
from elastic.results import Control

BASE = "base"
# What the comparison gives each run: a recipe's own values of them do not count, and options may not set them.
GIVEN_TO_TRAINING = (
    "model_name_or_path",
    "dataset_name",
    "output_dir",
    "run_name",
    "seed",
    "resume",
    "max_rollout_tokens",
    "max_steps",
    "num_train_epochs",
    "logging_steps",
    "save_strategy",
)
GIVEN_TO_EVALUATION = (
    "model_name_or_path",
    "model_label",
    "dataset_name",
    "output_dir",
    "seed",
    "trained_budget",
    "solution_model_name_or_path",
    "solution_model_label",
)
# The controls that two models, one of the thinking and one of the solution, are measured under.
CROSSED_CONTROLS = (Control.SEPARATE, Control.ZERO)
# Fields of other controls, which an evaluation under these alone refuses.
_NOT_CROSSED = ("truncation_budgets", "wrap_up_str", "reminder_every", "reminder_str")
# What launch/cpu.yaml says: a launch file that says something else is a setting of the trainings.
ONE_CPU_PROCESS = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "NO",
    "use_cpu": True,
    "mixed_precision": "no",
    "num_machines": 1,
    "num_processes": 1,
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass
class Method:
    """One method of training."""

    recipe: str = field(metadata={"help": "Its recipe of elastic.train."})
    options: dict | str | None = field(default=None, metadata={"help": "Fields in which it differs from the recipe."})
    evaluation: dict | str | None = field(
        default=None, metadata={"help": "Fields in which its evaluation differs from the others'."}
    )
    curve: str = field(
        default="separate", metadata={"help": "The control whose cells are the method's own curve, such as prompt."}
    )
    base: str = field(
        default=BASE, metadata={"help": "The method, an earlier one, whose trained model it goes on from."}
    )

    def __post_init__(self):
        self.options = _mapping(self.options, "options") or {}
        self.evaluation = _mapping(self.evaluation, "evaluation") or {}
        for given, name, set_here in (
            (self.options, "options", GIVEN_TO_TRAINING),
            (self.evaluation, "evaluation", GIVEN_TO_EVALUATION),
        ):
            if taken := sorted(given.keys() & set(set_here)):
                raise ValueError(f"{name} sets {taken[0]}, which the comparison gives every run: leave it out.")

    @property
    def training_fields(self) -> dict[str, Any]:
        """The fields of its recipe as they are trained with, without those that the comparison gives."""
        fields = read_recipe(Path(self.recipe)) | self.options
        return {name: value for name, value in fields.items() if name not in GIVEN_TO_TRAINING}

    @property
    def trained_budgets(self) -> list[int | None]:
        """t* of each stage, or of the one that there is; None where it is not one number."""
        fields = self.training_fields
        stages = fields.get("stages") or {"": {}}
        stages = yaml.safe_load(stages) if isinstance(stages, str) else stages
        if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
            raise ValueError(f"stages is {stages!r}: give {{name: {{share: 0.5, thinking_token_budget: ...}}, ...}}.")
        budgets = [(fields | stage).get("thinking_token_budget") for stage in stages.values()]
        return [budget if isinstance(budget, int) and budget > 0 else None for budget in budgets]

    @property
    def trained_budget(self) -> int | None:
        """t* of the last stage."""
        return self.trained_budgets[-1]


@dataclass
class CompareArguments:
    """Which methods are trained on what, and how they are measured.

    Raises ValueError or FileNotFoundError, with one sentence.
    """

    output_dir: str | None = field(
        default=None, metadata={"help": "Where every run, the table and the figure go; a second call goes on."}
    )
    task: dict | str | None = field(
        default=None, metadata={"help": "Options of elastic.nano, such as {task: chains}: the problems and the base."}
    )
    seeds: list[int] | None = field(
        default=None, metadata={"help": "Each has a base, problems and trainings of its own."}
    )
    rollout_tokens: int | None = field(
        default=None, metadata={"help": "Tokens that each training samples: its max_rollout_tokens."}
    )
    launch: str = field(default="launch/cpu.yaml", metadata={"help": "The launch file of the trainings."})
    evaluation: str | None = field(default=None, metadata={"help": "The recipe of elastic.evaluate for all models."})
    evaluation_options: dict | str | None = field(
        default=None, metadata={"help": "Fields in which all evaluations differ from that recipe."}
    )
    methods: dict | str | None = field(
        default=None,
        metadata={
            "help": "By name {recipe, options, evaluation, curve, base}: options and evaluation are fields that "
            "differ, curve is the control of its own curve (separate), base the method that it goes on from. What "
            "steps cost is compared with the first method."
        },
    )
    reference: str = field(default="e1", metadata={"help": "The method that the others are compared with."})
    crossed: dict | str | None = field(
        default=None,
        metadata={
            "help": "Whose thinking is given to whose solutions: {thinking: [solution, ...]}, methods' names or base."
        },
    )
    matched_tokens: list[int] | None = field(
        default=None,
        metadata={"help": "Two or more mean token counts at which accuracies are compared; the area is between them."},
    )
    jobs: int = field(default=2, metadata={"help": "Processes side by side, of one thread each."})
    quick: bool = field(
        default=False, metadata={"help": "The first seed and a third of the rollout tokens; tables go to quick/."}
    )
    only: list[str] | None = field(
        default=None,
        metadata={"help": "Run these methods only, and what they start from; what is finished of others is shown."},
    )

    def __post_init__(self):
        for name in ("task", "methods", "evaluation_options", "crossed"):
            setattr(self, name, _mapping(getattr(self, name), name) or {})
        for name in ("output_dir", "seeds", "rollout_tokens", "evaluation", "methods", "matched_tokens"):
            if not getattr(self, name):
                raise ValueError(f"{name} is not set: give it in the recipe or as --{name}.")
        for name in ("rollout_tokens", "jobs"):
            if not _are_counts([getattr(self, name)], least=1):
                raise ValueError(f"{name} is {getattr(self, name)!r}: give a whole number of 1 or more.")
        if not _are_counts(self.seeds, least=0) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}: give a list of different whole numbers, 0 or more.")
        matched = self.matched_tokens
        if not _are_counts(matched, least=1) or len(matched) < 2 or matched != sorted(set(matched)):
            raise ValueError(f"matched_tokens is {matched}: give two or more positive, ascending counts.")
        for name in ("launch", "evaluation"):
            _check_file(getattr(self, name), name)
        if taken := sorted(self.task.keys() & {"seed", "output_dir"}):
            raise ValueError(f"task sets {taken[0]}, which the comparison gives every run: leave it out.")
        if taken := sorted(self.evaluation_options.keys() & set(GIVEN_TO_EVALUATION)):
            raise ValueError(f"evaluation_options sets {taken[0]}, which the comparison gives: leave it out.")
        self.methods = {str(name): _method(str(name), fields) for name, fields in self.methods.items()}
        self._check_names()
        for name in (BASE, *self.methods):
            self._check_evaluation(name)
        if self.crossed:
            self._read_evaluation("crossed models", self.crossed_evaluation_fields(), solution_model_name_or_path="b")
        if self.quick:
            self.seeds, self.rollout_tokens = self.seeds[:1], max(1, self.rollout_tokens // 3)

    @property
    def results_dir(self) -> Path:
        return Path(self.output_dir, "quick") if self.quick else Path(self.output_dir)

    @property
    def crossed_pairs(self) -> list[tuple[str, str]]:
        """(thinking, solution) of each pair."""
        return [(thinking, solution) for thinking, solutions in self.crossed.items() for solution in solutions]

    @property
    def launch_fields(self) -> dict[str, Any]:
        """What the launch file says, where that is not one process on a CPU."""
        fields = read_recipe(Path(self.launch))
        return {} if fields == ONE_CPU_PROCESS else fields

    def evaluation_fields(self, name: str) -> dict[str, Any]:
        """The fields that a model is evaluated with, without those that the comparison gives."""
        own = self.methods[name].evaluation if name in self.methods else {}
        fields = read_recipe(Path(self.evaluation)) | self.evaluation_options | own
        return {field: value for field, value in fields.items() if field not in GIVEN_TO_EVALUATION}

    def crossed_evaluation_fields(self) -> dict[str, Any]:
        fields = self.evaluation_fields(BASE) | {"control": list(map(str, CROSSED_CONTROLS)), "no_budget": False}
        return {name: value for name, value in fields.items() if name not in _NOT_CROSSED}

    def curve_of(self, name: str) -> str:
        return self.methods[name].curve if name in self.methods else str(Control.SEPARATE)

    def _check_names(self):
        if self.reference not in self.methods:
            raise ValueError(f"reference is {self.reference!r}: give one of the methods {', '.join(self.methods)}.")
        known = [BASE]
        for name, method in self.methods.items():
            if not _NAME.fullmatch(name) or name == BASE:
                raise ValueError(f"methods has {name!r}: give a name of letters, digits, _, . and -, other than base.")
            if method.base not in known:
                raise ValueError(f"methods: {name}: base is {method.base!r}: give base, or a method before this one.")
            known.append(name)
        for name in self.only or ():
            if name not in self.methods:
                raise ValueError(f"only has {name!r}: give some of the methods {', '.join(self.methods)}.")
        for thinking, solutions in self.crossed.items():
            if not isinstance(solutions, list):
                raise ValueError(f"crossed: {thinking} is {solutions!r}: give a list of methods.")
            for name in (thinking, *solutions):
                if name not in known:
                    raise ValueError(f"crossed has {name!r}: give base or methods, of {', '.join(self.methods)}.")
            if len(set(solutions)) < len(solutions):
                raise ValueError(f"crossed: {thinking} is {solutions}, which names a method twice: name each once.")

    def _check_evaluation(self, name: str):
        evaluation = self._read_evaluation(name, self.evaluation_fields(name))
        if (curve := self.curve_of(name)) not in evaluation.controls:
            raise ValueError(
                f"methods: {name}: curve is {curve!r}, which is not measured: give one of "
                f"{', '.join(evaluation.controls)}."
            )
        t_star = self.methods[name].trained_budget if name in self.methods else None
        if t_star is not None and t_star not in (evaluation.thinking_token_budgets or ()):
            raise ValueError(
                f"methods: {name}: it is trained at a thinking_token_budget of {t_star}, at which it is not measured: "
                f"add it to thinking_token_budgets of the evaluation, such as in evaluation_options."
            )

    def _read_evaluation(self, name: str, fields: dict[str, Any], **given: str) -> EvaluationArguments:
        """What elastic.evaluate will read, for a model with a name in place of its path."""
        given |= {"model_name_or_path": name, "dataset_name": "test.jsonl", "output_dir": "out"}
        with naming(f"The evaluation of {name}"):
            arguments = EvaluationArguments(**typed(fields | given, EvaluationArguments, "it"))
            benchmark_arguments(arguments)
        return arguments


def _method(name: str, fields: Any) -> Method:
    with naming(f"methods: {name}"):
        if not isinstance(fields, dict):
            raise ValueError(f"it is {fields!r}: give {{recipe: FILE}}, and options.")
        if "recipe" not in fields:
            raise ValueError("recipe is not set: give the path of a recipe of elastic.train.")
        method = Method(**typed(fields, Method, "it"))
        _check_file(method.recipe, "recipe")
        method.trained_budgets  # noqa: B018  (reads the recipe)
    return method


def _are_counts(values: object, least: int) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= least for value in values)


def _check_file(path: str, name: str) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{name} is {path!r}, and there is no such file: give the path of one.")


def _mapping(value: Mapping | str | None, name: str) -> dict | None:
    """A mapping as a recipe gives it, or as YAML from a command line."""
    value = from_yaml(value, name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r}: give a mapping, such as {{name: value}}.")
    return value
