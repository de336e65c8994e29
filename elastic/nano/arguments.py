"""The options of `python -m elastic.nano`. Nothing heavy is imported here, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

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
    seed: int = field(
        default=0, metadata={"help": "Seed of the problems, of the model's first weights and of its data."}
    )
    train_problems: int = field(default=4000, metadata={"help": "Problems in train.jsonl."})
    test_problems: int = field(
        default=200, metadata={"help": "Problems in test.jsonl; none of them is ever trained on."}
    )
    cold_start_steps: int = field(default=2700, metadata={"help": "Steps of supervised training, all parts together."})
    most_concise_steps: int = field(
        default=1000,
        metadata={"help": "The first part is on concise chains: it ends when they are learned, at the latest here."},
    )
    batch_tokens: int = field(
        default=512, metadata={"help": "Most tokens in a batch of the cold start, padding included."}
    )
    learning_rate: float = field(
        default=2e-3, metadata={"help": "Peak learning rate of the cold start (AdamW, cosine)."}
    )

    def __post_init__(self):
        for name, smallest in _SMALLEST.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} is {getattr(self, name)}: give a whole number of {smallest} or more.")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate is {self.learning_rate}: give a number between 0 and 1, such as 2e-3.")

    @property
    def settings(self) -> dict[str, int | float]:
        """All that decides what is made: every option but the folder."""
        return {option.name: getattr(self, option.name) for option in fields(self) if option.name != "output_dir"}
