"""The metrics of budgeted rollouts, as they are logged."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from elastic.budget import UNLIMITED
from elastic.rollout import Rollout, ThinkingStopReason

_COLUMNS = ("thinking", "solution", "budget", "forced", "natural", "eos", "truncated", "reopened", "extra_end", "cut")


def budget_metrics(
    rollouts: Sequence[Rollout], rewards_BF: torch.Tensor, reward_weights_F: torch.Tensor, accelerator
) -> dict[str, float]:
    """Means over the rollouts of all processes.

    Args:
        rollouts: this process's.
        rewards_BF: rewards of all processes, NaN where a reward could not grade.
    """
    table = torch.tensor([_row(rollout) for rollout in rollouts], dtype=torch.float32, device=accelerator.device)
    table_BC = accelerator.gather(table)
    column = dict(zip(_COLUMNS, table_BC.T, strict=True))
    metrics = {
        "budget/forced_rate": column["forced"].mean(),
        "budget/eos_in_thinking_rate": column["eos"].mean(),
        "budget/thinking_cut_rate": column["cut"].mean(),
        "budget/solution_truncated_rate": column["truncated"].mean(),
        "budget/reopened_rate": column["reopened"].mean(),
        "budget/extra_end_marker_rate": column["extra_end"].mean(),
        "budget/thinking_tokens": column["thinking"].mean(),
        "budget/thinking_tokens_p50": column["thinking"].quantile(0.5),
        "budget/thinking_tokens_p95": column["thinking"].quantile(0.95),
        "budget/solution_tokens": column["solution"].mean(),
    }
    rewards_B = summed_rewards(rewards_BF, reward_weights_F)
    metrics["reward/ungraded_rate"] = rewards_B.isnan().float().mean()
    metrics |= _mean_rewards(
        rewards_B, {"reward/natural": column["natural"] > 0, "reward/forced": column["forced"] > 0}
    )
    metrics |= _mean_rewards(rewards_B, _budget_buckets(column["budget"]))
    return {name: float(value) for name, value in metrics.items()}


def _row(rollout: Rollout) -> list[float]:
    reason = rollout.thinking_stop_reason
    return [
        rollout.thinking_tokens,
        rollout.solution_tokens,
        rollout.budget.thinking,
        rollout.forced,
        reason is ThinkingStopReason.NATURAL,
        reason is ThinkingStopReason.EOS,
        rollout.solution_truncated,
        rollout.reopened > 0,
        rollout.extra_end_markers > 0,
        reason is ThinkingStopReason.LENGTH,
    ]


def summed_rewards(rewards_BF: torch.Tensor, weights_F: torch.Tensor) -> torch.Tensor:
    """The weighted sum that GRPO trains on; NaN for a row that one of the rewards could not grade."""
    return (rewards_BF * weights_F.to(rewards_BF.device)).sum(dim=1)


def _mean_rewards(rewards_B: torch.Tensor, groups: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The mean reward of each group of rows; a group that is empty or ungraded is left out."""
    graded = {name: rewards_B[rows_B & ~rewards_B.isnan()] for name, rows_B in groups.items()}
    return {name: rewards.mean() for name, rewards in graded.items() if len(rewards)}


def _budget_buckets(budgets_B: torch.Tensor) -> dict[str, torch.Tensor]:
    """Rows by thinking budget when it varies: one bucket for each power of two that is reached, one for no limit."""
    if len(budgets_B.unique()) < 2:
        return {}
    buckets = {"reward/thinking_budget_unlimited": budgets_B == UNLIMITED}
    low, high = -0.5, 1
    while low < budgets_B.max():
        buckets[f"reward/thinking_budget_to_{high}"] = (budgets_B > low) & (budgets_B <= high)
        low, high = high, 2 * high
    return buckets
