"""Chains of arithmetic modulo 7: problems from a seed, and the concise and verbose ways to think about them.

The problem `4 a *4 b +2` starts at 4, multiplies by 4 (step a), then adds 2 (step b). The core of a step is its label,
the value so far, the operation and the result, so concise thinking is `a 4 *4 2 b 2 +2 4`, and the solution is `ans 4`.
Verbose thinking writes checks behind the core (`wait check a 4 *4 2 ok .`) and goes over the whole chain again. Every
style has the same core: what training under a budget removes is the verbosity alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from elastic.nano.task import COMMON_WORDS, ColdStart, Task

MODULUS = 7
LABELS = "abcdefgh"
FEWEST_STEPS = 3
# Neither +0, *0 nor *1: every step is a bijection that moves most values, so that without all of the steps the answer
# is uniform, and a guess is right once in MODULUS.
OPERATIONS = (*(f"+{n}" for n in range(1, MODULUS)), *(f"*{n}" for n in range(2, MODULUS)))


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


def draw(rng: random.Random, difficulty: int) -> Problem:
    """A problem whose number of steps is drawn uniformly, `difficulty` at most."""
    return _draw(rng, range(FEWEST_STEPS, difficulty + 1), None)


def draw_for_training(rng: random.Random, difficulty: int) -> Problem:
    """The same, longer problems more often: the last labels are seen least, and when to stop there is learned last."""
    steps = range(FEWEST_STEPS, difficulty + 1)
    return _draw(rng, steps, [count - 1 for count in steps])


def guess(problem: Problem, chain: Sequence[str], rng: random.Random) -> str:
    """The value reached, as if it were the last."""
    return f"ans {problem.value_reached(chain)}"


def _draw(rng, step_counts, weights):
    (steps,) = rng.choices(step_counts, weights)
    return Problem(rng.randrange(MODULUS), tuple(rng.choices(OPERATIONS, k=steps)))


def _apply(operation: str, value: int) -> int:
    operand = int(operation[1:])
    return (value * operand if operation[0] == "*" else value + operand) % MODULUS


CHAINS = Task(
    words=(*LABELS, *OPERATIONS, *COMMON_WORDS),
    compounds={},
    difficulties=range(FEWEST_STEPS, len(LABELS) + 1),
    difficulty=len(LABELS),
    draw=draw,
    draw_for_training=draw_for_training,
    concise=CONCISE_PASSES,
    verbose=VERBOSE,
    guess=guess,
    # Whether to go over the chain again, a coin's toss, leaves 0.02 nats a token.
    learned_loss=0.04,
    cut_rate=0.06,
    architecture={"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4},
    cold_start=ColdStart(cold_start_steps=2700, most_concise_steps=1000, batch_tokens=512, learning_rate=2e-3),
)
