"""Means over seeds and problems, with 95 % intervals.

A seed has its own base, problems and training, so that the problems are nested in the seeds and the seeds' means are
independent: Student's interval over them holds what the base, the problems, the training and the sampling add (as for
the top level of any nested design: Cochran, "Sampling Techniques", section 10.3). Differences are taken within a seed,
problem by problem, before that. Few seeds may agree by chance, so an interval is never narrower than the one that their
problems alone give. Of a single seed there is this one alone: it says nothing of other trainings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from elastic.intervals import CONFIDENCE, mean_interval

# The ends that a mean of rewards, and a difference of two, may have.
RATE, DIFFERENCE, COUNT = (0.0, 1.0), (-1.0, 1.0), (0.0, math.inf)
UNBOUNDED = (-math.inf, math.inf)


class Estimate(NamedTuple):
    """A mean over seeds, the two ends of its 95 % interval, and how many seeds it is of.

    `low` and `high` are None where nothing bounds them: of one seed, a number that has no problems.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int


def over_seeds(values: Sequence[pd.Series], ends: tuple[float, float]) -> Estimate | None:
    """The mean over seeds of the means of `values`, one of a seed by problem_id; None where there is no value."""
    values = [series for series in values if len(series)]
    if not values:
        return None
    if len(values) == 1:
        return _over_problems(values[0], ends)
    means = np.array([series.mean() for series in values])
    between = stats.sem(means) * _students(len(means) - 1)
    below, above = _reach_of_problems([_over_problems(series, ends) for series in values])
    return _bounded(float(means.mean()), max(between, below), max(between, above), ends, len(means))


def _reach_of_problems(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """How far below and above the mean over seeds reaches the interval that the seeds' own intervals make.

    The method is MOVER (Zou and Donner 2008), as for a difference of two.
    """
    known = [estimate for estimate in estimates if estimate.low is not None]
    below = math.hypot(*(estimate.mean - estimate.low for estimate in known))
    above = math.hypot(*(estimate.high - estimate.mean for estimate in known))
    return below / len(estimates), above / len(estimates)


def over_seeds_alone(values: Sequence[float], ends: tuple[float, float] = COUNT) -> Estimate | None:
    """The mean of one number a seed, such as a training's cost, with Student's interval."""
    if not values:
        return None
    if len(values) == 1:
        return Estimate(float(values[0]), None, None, 1)
    half = stats.sem(values) * _students(len(values) - 1)
    return _bounded(float(np.mean(values)), float(half), float(half), ends, len(values))


def _over_problems(values: pd.Series, ends: tuple[float, float]) -> Estimate:
    """Of one seed: Wilson's interval for of_problems, as elsewhere, and else Student's."""
    if ends == RATE:
        return Estimate(*mean_interval(values.clip(*ends).to_numpy()), 1)
    if len(values) == 1:
        return Estimate(float(values.iloc[0]), None, None, 1)
    half = float(stats.sem(values) * _students(len(values) - 1))
    return _bounded(float(values.mean()), half, half, ends, 1)


@cache
def _students(freedom: int) -> float:
    """Student's quantile for both ends of an interval."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def _bounded(mean: float, below: float, above: float, ends: tuple[float, float], seeds: int) -> Estimate:
    return Estimate(mean, float(max(ends[0], mean - below)), float(min(ends[1], mean + above)), seeds)
