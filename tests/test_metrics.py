"""The logged metrics of budgeted rollouts, from rollouts made by hand."""

import math

import pytest
import torch
from accelerate import Accelerator

from elastic.budget import Budget, ReasoningTokens
from elastic.metrics import budget_metrics
from elastic.rollout import FinishReason, Rollout, ThinkingStopReason

START, END, EOS, WORD = 3, 4, 1, 9
TOKENS = ReasoningTokens(start=(START,), end=(END,), bridge=(END,), eos=frozenset({EOS}), opened=((START,),))


def rollout(thinking, solution, *, reason, finish="stop", budget=4, total=-1, s=-1):
    return Rollout(
        prompt_ids=[7, START],
        thinking_ids=thinking,
        bridge_ids=[END] if reason == "budget" else [],
        solution_ids=solution,
        budget=Budget(thinking=budget, solution=s, total=total),
        thinking_stop_reason=ThinkingStopReason(reason),
        finish_reason=FinishReason(finish),
        logprobs=[-1.0] * (len(thinking) + len(solution)),
        raw_logprobs=[-1.0] * (len(thinking) + len(solution)),
        tokens=TOKENS,
    )


NATURAL = rollout([WORD, END], [WORD, EOS], reason="natural")
FORCED = rollout([WORD] * 4, [WORD, START, WORD, END, EOS], reason="budget")
FORCED_AND_CUT = rollout([WORD] * 4, [WORD] * 3, reason="budget", finish="length", s=3)
ENDED = rollout([WORD, WORD, EOS], [], reason="eos")
CUT = rollout([WORD] * 3, [], reason="length", finish="length", total=3)


def metrics(rollouts, *rewards, weights=(1.0,)):
    """`rewards`: one list a reward function, None where it could not grade."""
    columns = [[math.nan if reward is None else reward for reward in column] for column in rewards]
    return budget_metrics(rollouts, torch.tensor(columns).T, torch.tensor(weights), Accelerator(cpu=True))


def test_rates_and_lengths():
    found = metrics([NATURAL, FORCED, FORCED_AND_CUT, ENDED, CUT], [1.0, 1.0, 0.0, 0.0, 0.0])
    assert found == pytest.approx(
        {
            "budget/forced_rate": 2 / 5,
            "budget/eos_in_thinking_rate": 1 / 5,
            "budget/thinking_cut_rate": 1 / 5,
            "budget/solution_truncated_rate": 2 / 5,
            "budget/reopened_rate": 1 / 5,
            "budget/extra_end_marker_rate": 1 / 5,
            "budget/thinking_tokens": (2 + 4 + 4 + 3 + 3) / 5,
            "budget/thinking_tokens_p50": 3,
            "budget/thinking_tokens_p95": 4,
            "budget/solution_tokens": (2 + 5 + 3 + 0 + 0) / 5,
            "reward/natural": 1.0,
            "reward/forced": 0.5,
            "reward/ungraded_rate": 0.0,
        }
    )


def test_the_95th_percentile_lies_between_the_longest():
    rollouts = [rollout([WORD] * n, [EOS], reason="budget", budget=n) for n in range(1, 22)]
    found = metrics(rollouts, [0.0] * 21)
    assert found["budget/thinking_tokens_p50"] == 11
    assert found["budget/thinking_tokens_p95"] == pytest.approx(20)


def test_rewards_are_weighted_and_a_row_that_one_of_them_cannot_grade_is_left_out():
    rollouts = [NATURAL, NATURAL, NATURAL, NATURAL, FORCED, FORCED]
    first, second = [1.0, 0.0, None, None, None, 1.0], [1.0, 2.0, 2.0, None, None, None]
    found = metrics(rollouts, first, second, weights=(0.5, 2.0))
    assert found["reward/natural"] == pytest.approx(((0.5 + 2.0) + 4.0) / 2)
    assert "reward/forced" not in found
    assert found["reward/ungraded_rate"] == pytest.approx(4 / 6)


def test_a_stop_reason_that_did_not_occur_has_no_reward():
    found = metrics([NATURAL, ENDED], [1.0, 0.0])
    assert found["reward/natural"] == 1.0 and "reward/forced" not in found


def test_one_budget_has_no_buckets():
    assert not any("thinking_budget" in name for name in metrics([NATURAL, FORCED], [1.0, 0.0]))


def test_varying_budgets_are_put_in_buckets_up_to_each_power_of_two():
    budgets = [0, 1, 2, 3, 4, 5, 9, 16, -1]
    rollouts = [
        rollout([WORD] * max(t, 0), [EOS], reason="budget", budget=t)
        if t >= 0
        else rollout([EOS], [], reason="eos", budget=t)
        for t in budgets
    ]
    found = metrics(rollouts, [float(i) for i in range(len(budgets))])
    assert {name: value for name, value in found.items() if "thinking_budget" in name} == {
        "reward/thinking_budget_unlimited": 8.0,
        "reward/thinking_budget_to_1": 0.5,
        "reward/thinking_budget_to_2": 2.0,
        "reward/thinking_budget_to_4": 3.5,
        "reward/thinking_budget_to_8": 5.0,
        "reward/thinking_budget_to_16": 6.5,
    }
