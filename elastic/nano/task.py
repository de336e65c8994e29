"""What the embedded tasks share: what each must bring, and problems that are train or test for every seed.

A task is one file with a `Task` at its end; `elastic.nano.tasks` names them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

# The chat template's and the solution's, and those that verbose chains are padded out with.
COMMON_WORDS = ("?", "ans", "wait", "check", "ok", ".", "again")

Split = Literal["train", "test"]
_ONE_IN_TEST = 5
_DRAWS_WITHOUT_NEW = 20_000


class Problem(Protocol):
    """A problem; it is hashable, and equal to another of the same text."""

    @property
    def text(self) -> str: ...

    @property
    def answer(self) -> str:
        """The whole solution text, such as `ans 3`: a solution is right when it equals this, white space aside."""


class Writer(Protocol):
    """A way of thinking about problems."""

    def write(self, problem: Problem, rng: random.Random) -> str:
        """One chain of thought for `problem`, without markers."""


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Options of `NanoArguments`, by name: what they are for this task where the command leaves them unset."""

    cold_start_steps: int
    most_concise_steps: int
    batch_tokens: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Task:
    """One embedded task.

    Attributes:
        words: the vocabulary, one token each, beside the special tokens and what tells a budget.
        compounds: words whose first embedding is the sum of those of two parts; a part may be a word or not.
        difficulties: the numbers that `difficulty` may be.
        draw: a problem of a difficulty, of either split.
        draw_for_training: the same for the cold start, where some problems may be more frequent.
        concise, verbose: the chains that the cold start begins with, and those that the base model is to write.
        guess: a solution after a chain (its words) that was cut anywhere.
        learned_loss: concise chains are learned when their mean loss over the recent steps is below this.
        cut_rate: share of the cold start's examples whose chain is cut.
        architecture: the fields of its `LlamaConfig` that are not the same for every task.
    """

    words: tuple[str, ...]
    compounds: Mapping[str, tuple[str, str]]
    difficulties: range
    difficulty: int
    draw: Callable[[random.Random, int], Problem]
    draw_for_training: Callable[[random.Random, int], Problem]
    concise: Writer
    verbose: Writer
    guess: Callable[[Problem, Sequence[str], random.Random], str]
    learned_loss: float
    cut_rate: float
    architecture: dict[str, int]
    cold_start: ColdStart


def split_of(problem: Problem) -> Split:
    """The side that a problem is on for every seed: train and test are disjoint by construction."""
    digest = hashlib.sha256(problem.text.encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") % _ONE_IN_TEST == 0 else "train"


def draw_of_split(
    draw: Callable[[random.Random, int], Problem], rng: random.Random, split: Split, difficulty: int
) -> Problem:
    """A problem of `split`."""
    while True:
        problem = draw(rng, difficulty)
        if split_of(problem) == split:
            return problem


def draw_problems(task: Task, split: Split, count: int, seed: int, difficulty: int | None = None) -> list[Problem]:
    """`count` different problems of `split`: the same for the same seed, and the first ones of any larger count.

    Raises ValueError where there are fewer, as far as many draws without a new one tell it.
    """
    rng = random.Random(f"{split}/{seed}")
    problems: dict[Problem, None] = {}
    difficulty, without_new = difficulty or task.difficulty, 0
    while len(problems) < count:
        problem = draw_of_split(task.draw, rng, split, difficulty)
        without_new = without_new + 1 if problem in problems else 0
        problems[problem] = None
        if without_new == _DRAWS_WITHOUT_NEW:
            raise ValueError(
                f"{split}_problems is {count}, and of difficulty {difficulty} there are about {len(problems)}: give "
                f"fewer, or another difficulty."
            )
    return list(problems)


def rows(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """The data-set rows, with columns `problem` and `answer`."""
    return [{"problem": problem.text, "answer": problem.answer} for problem in problems]
