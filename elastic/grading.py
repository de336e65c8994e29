"""What training and evaluation make of rewards: a reward that fails, and rows that could not be graded.

A reward fails when it raises, or returns something other than one finite number or None a row: the run then stops. A
row could not be graded when a reward gives None for it: the row is left out, and the run stops when these are many.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rewards.grades import UNGRADABLE

WINDOW_ROWS = 1000
LEAST_ROWS = 100
_REASON_COLUMN = "_reason"

Scores = list[float | None]


class GradingError(Exception):
    """A run must stop for want of grades; the message is one sentence."""


class UngradedWatch:
    """Stops a run when too many of its last rows could not be graded.

    It looks at the last WINDOW_ROWS rows, or at the whole of the last batch where that is larger. Fewer rows than
    LEAST_ROWS count as so many, so that a lone failure in a small batch stops nothing, unless `max_ungraded_rate` is 0.

    Attributes:
        rows: what it looks at, as `add` was given it; to be kept in a checkpoint.
    """

    def __init__(self, max_ungraded_rate: float):
        self.max_ungraded_rate = max_ungraded_rate
        self.rows: list[str | None] = []

    def add(self, reasons: Sequence[str | None]) -> None:
        """Look at a batch: None for each row that was graded, else why not. Raises GradingError when they are many."""
        self.rows = [*self.rows, *reasons][-max(WINDOW_ROWS, len(reasons)) :]
        ungraded = [reason for reason in self.rows if reason is not None]
        if len(ungraded) > self.max_ungraded_rate * max(len(self.rows), LEAST_ROWS):
            raise GradingError(
                f"{len(ungraded)} of the last {len(self.rows)} rows could not be graded "
                f"({len(ungraded) / len(self.rows):.1%}), more than "
                f"max_ungraded_rate {self.max_ungraded_rate:g} allows: {_counts(ungraded)}; mend what the reasons "
                f"name, or raise max_ungraded_rate."
            )


def _counts(reasons: Sequence[str]) -> str:
    """`math grader_failed 12 (such as: the worker died), code no_reference 1`."""
    heads = Counter(reason.partition(":")[0] for reason in reasons)
    details = {reason.partition(":")[0]: reason.partition(":")[2].strip() for reason in reasons}
    counted = [(head, count, details[head]) for head, count in heads.most_common()]
    return ", ".join(f"{head} {count}{f' (such as: {detail})' if detail else ''}" for head, count, detail in counted)


def reason_columns(columns: Mapping[str, Sequence]) -> dict[str, Sequence[str]]:
    """By the reward's name, what the columns `<name>_reason` say that rewards have logged."""
    return {name.removesuffix(_REASON_COLUMN): columns[name] for name in columns if name.endswith(_REASON_COLUMN)}


def ungraded_reason(row: int, reasons: Mapping[str, Sequence[str]], without_grade: Sequence[str]) -> str:
    """Why the row has no grade: the reasons that go without a score, else the names of the rewards that gave None."""
    found = [f"{name} {column[row]}" for name, column in reasons.items() if _is_ungradable(column[row])]
    return " and ".join(found) if found else f"{' and '.join(without_grade)} gave None, with no reason"


def _is_ungradable(reason: object) -> bool:
    return isinstance(reason, str) and reason.partition(":")[0] in UNGRADABLE


def reward_name(reward: Callable) -> str:
    """The name of the function in `reward`, which may be a functools.partial or an object that can be called."""
    while isinstance(reward, functools.partial):
        reward = reward.func
    return reward.__name__ if hasattr(reward, "__name__") else type(reward).__name__


def is_coroutine_function(reward: Callable) -> bool:
    while isinstance(reward, functools.partial):
        reward = reward.func
    return inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(type(reward).__call__)


def guarded(reward: Callable, failures: list[str]) -> Callable:
    """`reward`, which notes in `failures` how it failed and grades nothing then, instead of raising.

    Processes wait for one another's rewards. One that raised alone would leave the others waiting; so all of them get
    here, and whoever has called the rewards looks at the failures of all processes next.
    """

    def noted(error: Exception, rows: int) -> Scores:
        failures.append(failure_sentence(reward_name(reward), error))
        return [None] * rows

    if is_coroutine_function(reward):

        async def call(completions, **columns):
            try:
                return checked_scores(await reward(completions=completions, **columns), len(completions))
            except Exception as error:
                return noted(error, len(completions))
    else:

        def call(completions, **columns):
            try:
                scores = reward(completions=completions, **columns)
                scores = asyncio.run(scores) if inspect.iscoroutine(scores) else scores
                return checked_scores(scores, len(completions))
            except Exception as error:
                return noted(error, len(completions))

    call.__name__ = reward_name(reward)
    return call


def called(reward: Callable, **columns) -> Scores:
    """The scores of `reward`, which may be a coroutine function. Raises GradingError when it fails."""
    failures: list[str] = []
    scores = guarded(reward, failures)(**columns)
    scores = asyncio.run(scores) if inspect.iscoroutine(scores) else scores
    if failures:
        raise GradingError(failures[0])
    return scores


def started(start: Callable[..., None], **columns) -> None:
    """Let a reward begin to grade one row. Raises GradingError when that fails."""
    try:
        start(**columns)
    except Exception as error:
        raise GradingError(failure_sentence(reward_name(start), error)) from error


def checked_scores(scores: object, rows: int) -> Scores:
    """Raises ValueError or TypeError where `scores` is not one finite number or None a row."""
    checked = [None if score is None else float(score) for score in scores]
    if len(checked) != rows:
        raise ValueError(f"it gave {len(checked)} scores for {rows} rows, not one for each")
    for score in checked:
        if score is not None and not math.isfinite(score):
            raise ValueError(f"it gave {score}, which is no score; None is a row that could not be graded")
    return checked


def failure_sentence(name: str, error: Exception) -> str:
    """What failed, with which error and where, in one line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = " ".join(str(error).split()).rstrip(".")
    where = "" if Path(frame.filename) == Path(__file__) else f" at {frame.filename} line {frame.lineno}"
    return f"The reward {name} failed with {type(error).__name__}{where}: {what}; mend it, and start again."
