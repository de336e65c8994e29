"""Rollout refuses every kind of inconsistent record, and Sampling every number without a meaning."""

import math
from dataclasses import replace

import pytest
from reference import TOKENS

from elastic.budget import Budget
from elastic.rollout import FinishReason, Rollout, Sampling, ThinkingStopReason

PROMPT = [7, 8, 3]

GOOD = {
    "natural": dict(thinking_ids=[9, 4, 5], bridge_ids=[], solution_ids=[8, 1], reason="natural", finish="stop"),
    "natural, cut": dict(thinking_ids=[4, 5], bridge_ids=[], solution_ids=[8] * 4, reason="natural", finish="length"),
    "forced": dict(thinking_ids=[9] * 5, bridge_ids=[6, 4, 5], solution_ids=[1], reason="budget", finish="stop"),
    "eos": dict(thinking_ids=[9, 1], bridge_ids=[], solution_ids=[], reason="eos", finish="stop"),
    "length": dict(thinking_ids=[9, 9], bridge_ids=[], solution_ids=[], reason="length", finish="length"),
}


def record(thinking_ids, bridge_ids, solution_ids, reason, finish, **changes):
    sampled = len(thinking_ids) + len(solution_ids)
    fields = dict(
        prompt_ids=PROMPT,
        thinking_ids=thinking_ids,
        bridge_ids=bridge_ids,
        solution_ids=solution_ids,
        budget=Budget(5, 4),
        thinking_stop_reason=reason,
        finish_reason=finish,
        logprobs=[-1.0] * sampled,
        raw_logprobs=[-1.0] * sampled,
        tokens=TOKENS,
    )
    return Rollout(**(fields | changes))


@pytest.mark.parametrize("kind", GOOD)
def test_the_records_that_the_next_test_spoils_are_good(kind):
    rollout = record(**GOOD[kind])
    assert rollout.thinking_stop_reason is ThinkingStopReason(GOOD[kind]["reason"])
    assert rollout.finish_reason is FinishReason(GOOD[kind]["finish"])


@pytest.mark.parametrize(
    ("kind", "changes", "problem"),
    [
        ("natural", {"prompt_ids": []}, "the prompt is empty"),
        ("natural", {"budget": Budget(2, 4)}, "more thinking tokens than the budget"),
        ("natural", {"budget": Budget(0, 4)}, "more thinking tokens than the budget"),
        ("natural", {"budget": Budget(5, 1)}, "more solution tokens than the budget"),
        ("natural", {"budget": Budget(5, 4, 4)}, "more tokens than the total budget"),
        ("natural", {"logprobs": [-1.0] * 4}, "one log-probability is needed for each sampled token"),
        ("natural", {"raw_logprobs": [-1.0] * 6}, "one log-probability is needed for each sampled token"),
        ("forced", {"logprobs": [-1.0] * 9, "raw_logprobs": [-1.0] * 9}, "one log-probability is needed"),
        ("natural", {"logprobs": [-1.0] * 4 + [0.1]}, "a log-probability is positive or not a finite number"),
        ("natural", {"logprobs": [-1.0] * 4 + [math.nan]}, "a log-probability is positive or not a finite"),
        ("natural", {"raw_logprobs": [-math.inf] + [-1.0] * 4}, "a log-probability is positive or not a finite"),
        ("natural", {"thinking_ids": [9, 9, 9]}, "a natural close has one end marker, at its end, and no EOS"),
        ("natural", {"thinking_ids": [4, 5, 9]}, "a natural close has one end marker, at its end, and no EOS"),
        ("natural", {"thinking_ids": [1, 4, 5]}, "a natural close has one end marker, at its end, and no EOS"),
        (
            "natural",
            {"thinking_ids": [4, 5, 4, 5], "solution_ids": [1]},
            "a natural close has one end marker, at its end, and no EOS",
        ),
        ("natural", {"bridge_ids": [6, 4, 5]}, "a bridge was inserted, but the close is not forced"),
        ("natural", {"solution_ids": [1, 8]}, "finish_reason stop needs one EOS, at the end"),
        ("natural", {"solution_ids": [1, 1]}, "finish_reason stop needs one EOS, at the end"),
        ("natural", {"solution_ids": [8, 8]}, "finish_reason stop needs one EOS, at the end"),
        ("natural", {"finish_reason": "length"}, "EOS was sampled, but finish_reason is length"),
        ("natural, cut", {"finish_reason": "stop"}, "finish_reason stop needs one EOS, at the end"),
        ("forced", {"thinking_ids": [9, 9, 9, 4, 5]}, "an end marker was sampled, but the close is not natural"),
        ("forced", {"budget": Budget(6, 4)}, "a forced close spends the thinking budget"),
        ("forced", {"budget": Budget(-1, 4)}, "a forced close spends the thinking budget"),
        ("forced", {"bridge_ids": []}, "a forced close inserts the bridge"),
        ("forced", {"bridge_ids": [4, 5]}, "a forced close inserts the bridge"),
        ("forced", {"thinking_ids": [9, 9, 9, 9, 1]}, "EOS was sampled in thinking, but the reason is not eos"),
        ("eos", {"thinking_ids": [9, 9]}, "the reason is eos without one EOS at the end"),
        ("eos", {"thinking_ids": [1, 9]}, "the reason is eos without one EOS at the end"),
        ("eos", {"thinking_ids": [2, 1]}, "the reason is eos without one EOS at the end"),
        ("eos", {"thinking_ids": [], "logprobs": [], "raw_logprobs": []}, "the reason is eos without one EOS"),
        ("eos", {"bridge_ids": [6, 4, 5]}, "a bridge was inserted, but the close is not forced"),
        ("eos", {"thinking_ids": [1], "solution_ids": [8]}, "a rollout that ended in thinking has a solution"),
        ("eos", {"finish_reason": "length"}, "a rollout that ended by EOS must finish with stop"),
        ("length", {"thinking_ids": [9, 2]}, "EOS was sampled in thinking, but the reason is not eos"),
        ("length", {"thinking_ids": [4, 5]}, "an end marker was sampled, but the close is not natural"),
        ("length", {"budget": Budget(2, 4)}, "the thinking budget is spent, but the close is not forced"),
        ("length", {"thinking_ids": [9], "solution_ids": [8]}, "a rollout that ended in thinking has a solution"),
        ("length", {"finish_reason": "stop"}, "a rollout cut in thinking must finish with length"),
        ("length", {"bridge_ids": [6, 4, 5]}, "a bridge was inserted, but the close is not forced"),
    ],
)
def test_an_inconsistent_record_is_refused(kind, changes, problem):
    good = record(**GOOD[kind])
    with pytest.raises(ValueError) as error:
        replace(good, **changes)
    assert str(error.value).startswith(f"Inconsistent rollout: {problem}")


@pytest.mark.parametrize("field", ["thinking_stop_reason", "finish_reason"])
def test_a_reason_that_is_none_of_ours_is_refused(field):
    """A record read back from a file holds text: the same words are taken, others are not."""
    with pytest.raises(ValueError, match="'finished'"):
        record(**GOOD["natural"], **{field: "finished"})
    with pytest.raises(ValueError, match="Inconsistent rollout: the reason is eos without one EOS at the end"):
        record([9, 9], [], [], "eos", "stop")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": -1.0}, "temperature is -1.0: give a number of 0 (greedy) or more."),
        ({"temperature": math.nan}, "temperature is nan: give a number of 0 (greedy) or more."),
        ({"temperature": math.inf}, "temperature is inf: give a number of 0 (greedy) or more."),
        ({"top_p": 0.0}, "top_p is 0.0: give a number above 0, at most 1."),
        ({"top_p": 1.01}, "top_p is 1.01: give a number above 0, at most 1."),
        ({"top_p": math.nan}, "top_p is nan: give a number above 0, at most 1."),
        ({"top_k": -1}, "top_k is -1: give a whole number, 0 to keep every token."),
        ({"top_k": 2.5}, "top_k is 2.5: give a whole number, 0 to keep every token."),
        ({"min_p": -0.1}, "min_p is -0.1: give a number from 0 to 1."),
        ({"min_p": math.nan}, "min_p is nan: give a number from 0 to 1."),
    ],
)
def test_bad_sampling_is_refused_in_one_sentence(options, sentence):
    with pytest.raises(ValueError) as error:
        Sampling(**options)
    assert str(error.value) == sentence


def test_the_ends_of_each_range_are_taken():
    Sampling(temperature=0, top_p=1, top_k=0, min_p=0)
    Sampling(temperature=1e-3, top_p=1e-6, top_k=1, min_p=1)
    assert Sampling() == Sampling(temperature=1, top_p=1, top_k=0, min_p=0)
    for changes in ({"min_p": 1.01}, {"temperature": -1e-9}, {"top_p": -0.5}):
        with pytest.raises(ValueError):
            Sampling(**changes)


def test_sampling_takes_none_for_off_and_whole_numbers_for_temperatures():
    assert Sampling(temperature=2, top_k=None, min_p=None) == Sampling(2.0, 1.0, 0, 0.0)
    assert isinstance(Sampling(temperature=2).temperature, float)
