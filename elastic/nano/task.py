"""Chains of arithmetic modulo 7: problems from a seed, and the concise and verbose ways to think about them.

The problem `4 a *4 b +2` starts at 4, multiplies by 4 (step a), then adds 2 (step b). The core of a step is its label,
the value so far, the operation and the result, so concise thinking is `a 4 *4 2 b 2 +2 4`, and the solution is `ans 4`.
Verbose thinking writes checks behind the core (`wait check a 4 *4 2 ok .`) and goes over the whole chain again. Every
style has the same core: what training under a budget removes is the verbosity alone.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MODULUS = 7
LABELS = "abcdefgh"
STEPS = range(3, len(LABELS) + 1)
# Neither +0, *0 nor *1: every step is a bijection that moves most values, so that without all of the steps the answer
# is uniform, and a guess is right once in MODULUS.
OPERATIONS = (*(f"+{n}" for n in range(1, MODULUS)), *(f"*{n}" for n in range(2, MODULUS)))
WORDS = ("?", "ans", "wait", "check", "ok", ".", "again")

Split = Literal["train", "test"]
_ONE_IN_TEST = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """A start value and the operations on it, one for each label from `a` on."""

    start: int
    operations: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join([str(self.start), *(f"{label} {op}" for label, op in self._labelled())])

    @property
    def values(self) -> list[int]:
        """The value before the first step and after each step."""
        values = [self.start]
        for operation in self.operations:
            values.append(_apply(operation, values[-1]))
        return values

    @property
    def answer(self) -> str:
        """The whole solution text, such as `ans 3`: a solution is right when it equals this, white space aside."""
        return f"ans {self.values[-1]}"

    @property
    def split(self) -> Split:
        """The side that this problem is on for every seed: train and test are disjoint by construction."""
        digest = hashlib.sha256(self.text.encode()).digest()
        return "test" if int.from_bytes(digest[:8], "big") % _ONE_IN_TEST == 0 else "train"

    @property
    def cores(self) -> list[str]:
        """The core of each step, in order."""
        values = self.values
        return [
            f"{label} {before} {operation} {after}"
            for (label, operation), before, after in zip(self._labelled(), values[:-1], values[1:], strict=True)
        ]

    def value_reached(self, chain: Sequence[str]) -> int:
        """The value at the end of a chain that was cut: the last one it wrote, at first the start."""
        return next((int(word) for word in reversed(chain) if word.isdigit()), self.start)

    def _labelled(self):
        return zip(LABELS, self.operations, strict=False)


@dataclass(frozen=True, slots=True)
class Verbosity:
    """How a chain of thought is padded out.

    Attributes:
        check_weights: weight of 0, 1, 2, ... checks behind each step.
        repeat_weights: weight of 0, 1, 2, ... further passes over the whole chain.
        most_tokens: no chain is longer than this; longer draws are drawn again.
    """

    check_weights: tuple[float, ...] = (0.2, 0.27, 0.27, 0.26)
    repeat_weights: tuple[float, ...] = (0.7, 0.2, 0.1)
    most_tokens: int = 256

    def write(self, problem: Problem, rng: random.Random) -> str:
        """One chain of thought for `problem`, without markers."""
        while True:
            (repeats,) = rng.choices(range(len(self.repeat_weights)), self.repeat_weights)
            passes = [self._write_pass(problem, rng) for _ in range(repeats + 1)]
            chain = " again ".join(passes)
            if chain.count(" ") < self.most_tokens:
                return chain

    def _write_pass(self, problem, rng):
        checks = rng.choices(range(len(self.check_weights)), self.check_weights, k=len(problem.operations))
        return " ".join(core + f" wait check {core} ok ." * n for core, n in zip(problem.cores, checks, strict=True))


CONCISE = Verbosity(check_weights=(1,), repeat_weights=(1,))
CONCISE_PASSES = Verbosity(check_weights=(1,), repeat_weights=(0.5, 0.5))
VERBOSE = Verbosity()


def draw_problem(rng: random.Random, split: Split, step_weights: Sequence[float] | None = None) -> Problem:
    """A problem of `split`, its number of steps drawn from STEPS: uniformly, unless weights are given."""
    while True:
        (steps,) = rng.choices(STEPS, step_weights)
        problem = Problem(rng.randrange(MODULUS), tuple(rng.choices(OPERATIONS, k=steps)))
        if problem.split == split:
            return problem


def draw_problems(split: Split, count: int, seed: int) -> list[Problem]:
    """`count` different problems of `split`: the same for the same seed, and the first ones of any larger count."""
    rng = random.Random(f"{split}/{seed}")
    problems: dict[Problem, None] = {}
    while len(problems) < count:
        problems[draw_problem(rng, split)] = None
    return list(problems)


def rows(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """The data-set rows, with columns `problem` and `answer`."""
    return [{"problem": problem.text, "answer": problem.answer} for problem in problems]


def _apply(operation: str, value: int) -> int:
    operand = int(operation[1:])
    return (value * operand if operation[0] == "*" else value + operand) % MODULUS
