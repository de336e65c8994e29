"""The options of `python -m elastic.nano`. Nothing heavy is imported here, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields

from elastic.nano.task import Task
from elastic.nano.tasks import TASKS

_SMALLEST = {
    "seed": 0,
    "train_problems": 1,
    "test_problems": 1,
    "cold_start_steps": 0,
    "most_concise_steps": 0,
    "batch_tokens": 512,
}


@dataclass
class NanoArguments:
    """What to make, and where."""

    output_dir: str = field(
        default="outputs/nano",
        metadata={"help": "New folder for the model (base), the problems (train.jsonl, test.jsonl) and settings.json."},
    )
    task: str = field(
        default="chains",
        metadata={"help": "chains: arithmetic step by step (nano). paths: which start leads to the goal in a graph."},
    )
    difficulty: int | None = field(
        default=None,
        metadata={"help": "chains: most steps, 3 to 8 (8). paths: edges from the start to the goal, 2 to 5 (4)."},
    )
    seed: int = field(
        default=0, metadata={"help": "Seed of the problems, of the model's first weights and of its data."}
    )
    train_problems: int = field(default=4000, metadata={"help": "Problems in train.jsonl."})
    test_problems: int = field(
        default=200, metadata={"help": "Problems in test.jsonl; none of them is ever trained on."}
    )
    cold_start_steps: int | None = field(
        default=None, metadata={"help": "Steps of supervised training, all parts together; unset, as the task needs."}
    )
    most_concise_steps: int | None = field(
        default=None,
        metadata={
            "help": "The first part is on concise chains: it ends when they are learned, at the latest here; "
            "unset, as the task needs."
        },
    )
    batch_tokens: int | None = field(
        default=None,
        metadata={"help": "Most tokens in a batch of the cold start, padding included; unset, as the task needs."},
    )
    learning_rate: float | None = field(
        default=None,
        metadata={"help": "Peak learning rate of the cold start (AdamW, cosine); unset, as the task needs."},
    )

    def __post_init__(self):
        if self.task not in TASKS:
            raise ValueError(f"task is {self.task!r}: give one of {', '.join(TASKS)}.")
        self._fill_in()
        for name, smallest in _SMALLEST.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} is {getattr(self, name)}: give a whole number of {smallest} or more.")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate is {self.learning_rate}: give a number between 0 and 1, such as 2e-3.")
        possible = self.made_task.difficulties
        if self.difficulty not in possible:
            raise ValueError(f"difficulty is {self.difficulty}: {self.task} has {possible[0]} to {possible[-1]}.")

    @property
    def made_task(self) -> Task:
        return TASKS[self.task]

    def _fill_in(self) -> None:
        """Give the options that are unset the values of the task."""
        task = self.made_task
        own = {"difficulty": task.difficulty, **asdict(task.cold_start)}
        for name, value in own.items():
            if getattr(self, name) is None:
                setattr(self, name, value)

    @property
    def settings(self) -> dict[str, str | int | float]:
        """All that decides what is made: every option but the folder."""
        return {option.name: getattr(self, option.name) for option in fields(self) if option.name != "output_dir"}
