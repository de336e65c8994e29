"""95 % intervals for accuracies whose samples share problems.

Samples of one problem are alike, so they are no independent evidence: the problem is the unit here, as in Miller,
"Adding Error Bars to Evals" (arXiv 2411.00640).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate and the two ends of its 95 % interval."""

    estimate: float
    low: float
    high: float


def accuracy_interval(rewards_by_problem: Sequence[Sequence[float]]) -> Interval:
    """Mean of all samples, with a 95 % interval clustered by problem.

    `rewards_by_problem` holds the graded rewards of each problem, from 0 to 1; problems may have unequal numbers of
    samples, and one without samples is left out. The interval is Wilson's score interval at the effective number of
    samples p(1 - p) / se², where se is the cluster-robust standard error and the quantile is Student's with
    (problems - 1) degrees of freedom (Dean and Pagano, "Evaluating Confidence Interval Methods for Binomial
    Proportions in Clustered Surveys", 2015). Unlike p ± t·se it stays within [0, 1] and keeps its coverage where most
    problems are always or never solved. Where problems do not differ, each counts as one sample.

    Raises:
        ValueError: no problem has a graded sample, or a reward is outside [0, 1].
    """
    clusters = [rewards for rewards in rewards_by_problem if rewards]
    if not clusters:
        raise ValueError("No sample was graded, so there is no accuracy.")
    if any(not 0 <= reward <= 1 for rewards in clusters for reward in rewards):
        raise ValueError("A reward is outside [0, 1], so its mean is no accuracy.")
    totals, counts = np.array([(sum(rewards), len(rewards)) for rewards in clusters], dtype=float).T
    accuracy = float(totals.sum() / counts.sum())
    variance = _ratio_variance(totals - accuracy * counts, counts)
    if variance < 1e-12:
        return _wilson_of_equal_problems(accuracy, len(clusters))
    samples = min(accuracy * (1 - accuracy) / variance, counts.sum())
    return _wilson(accuracy, samples, quantile=stats.t.ppf((1 + CONFIDENCE) / 2, len(clusters) - 1))


def gain_interval(before: Interval, after: Interval) -> Interval:
    """`after` - `before` for two independent accuracies, from their own intervals.

    The method is MOVER (Zou and Donner, "Construction of confidence limits about effect measures", 2008); with
    Wilson's intervals it is Newcombe's. For runs over the same problems it errs on the wide side.
    """
    gain = after.estimate - before.estimate
    below = math.hypot(after.estimate - after.low, before.high - before.estimate)
    above = math.hypot(after.high - after.estimate, before.estimate - before.low)
    return Interval(gain, max(-1.0, gain - below), min(1.0, gain + above))


def paired_gain_interval(before: Sequence[float], after: Sequence[float]) -> Interval | None:
    """Mean of `after` - `before`, the accuracies of two runs on the same problems in the same order.

    Student's interval over the problems' differences; None where these do not vary, so that they bound nothing.
    """
    differences = np.subtract(after, before)
    if len(differences) < 2 or np.ptp(differences) < 1e-12:
        return None
    low, high = stats.t.interval(CONFIDENCE, len(differences) - 1, differences.mean(), stats.sem(differences))
    return Interval(float(differences.mean()), max(-1.0, float(low)), min(1.0, float(high)))


def _ratio_variance(residuals: np.ndarray, counts: np.ndarray) -> float:
    """Cluster-robust variance of sum(totals) / sum(counts); 0 for a single cluster."""
    problems = len(residuals)
    if problems == 1:
        return 0.0
    return float(problems / (problems - 1) * np.square(residuals).sum() / counts.sum() ** 2)


def _wilson_of_equal_problems(accuracy: float, problems: int) -> Interval:
    """scipy counts whole successes, so an accuracy between two counts takes the nearer one's interval."""
    test = stats.binomtest(round(accuracy * problems), problems)
    ends = test.proportion_ci(CONFIDENCE, method="wilson")
    return Interval(accuracy, min(float(ends.low), accuracy), max(float(ends.high), accuracy))


def _wilson(accuracy: float, samples: float, quantile: float) -> Interval:
    """Wilson's score interval; scipy's takes whole counts only, and an effective number of samples is not whole."""
    shrink = quantile**2 / samples
    centre = (accuracy + shrink / 2) / (1 + shrink)
    half = quantile / (1 + shrink) * math.sqrt((accuracy * (1 - accuracy) + shrink / 4) / samples)
    return Interval(accuracy, float(max(0.0, centre - half)), float(min(1.0, centre + half)))
