"""When rows that could not be graded stop a run, and how a reward that fails is told of."""

import asyncio
import functools
import json

import numpy as np
import pytest
import torch

from elastic.grading import (
    GradingError,
    RewardFailures,
    UngradedWatch,
    called,
    checked_scores,
    guarded,
    reason_columns,
    reward_name,
    started,
    ungraded_reason,
)

FAILED = "math grader_failed"


def rows(graded, ungraded):
    return [None] * graded + [FAILED] * ungraded


def stops(rate, *batches):
    """In which of the batches, counted from 1, a run stops; None where it does not."""
    watch = UngradedWatch(rate)
    for number, batch in enumerate(batches, start=1):
        try:
            watch.add(batch)
        except GradingError:
            return number
    return None


def test_a_lone_failure_in_a_small_batch_stops_nothing():
    assert stops(0.01, rows(7, 1), *[rows(8, 0)] * 200) is None
    assert stops(0.01, rows(7, 1), rows(7, 1)) == 2
    assert stops(0.01, rows(0, 8)) == 1


def test_fewer_than_a_hundred_rows_count_as_a_hundred():
    assert stops(0.01, rows(98, 1), rows(1, 0)) is None
    assert stops(0.01, rows(97, 2)) == 1
    assert stops(0.01, rows(198, 1), rows(0, 1), rows(0, 1)) == 3
    assert stops(0.5, *[rows(4, 4)] * 200) is None
    assert stops(0.5, *[rows(3, 5)] * 200) == 11


def test_at_zero_the_first_stops():
    assert stops(0.0, rows(8, 0), rows(7, 1)) == 2
    assert stops(0.0, *[rows(8, 0)] * 300) is None


def test_at_one_nothing_stops():
    assert stops(1.0, *[rows(0, 8)] * 300) is None


def test_only_the_last_thousand_rows_count():
    ten = rows(90, 10)
    assert stops(0.01, rows(900, 9), ten) == 2
    assert stops(0.0101, rows(990, 10), *[rows(100, 0)] * 10, ten) is None
    assert stops(0.0101, rows(990, 10), ten) == 2
    assert stops(0.01, rows(992, 8), *[rows(100, 0)] * 8, rows(97, 3)) == 10
    assert stops(0.01, rows(992, 8), *[rows(100, 0)] * 9, rows(97, 3)) is None


def test_a_batch_of_more_rows_counts_whole():
    assert stops(0.01, rows(4000, 39)) is None
    assert stops(0.01, [FAILED] * 50 + [None] * 2000) == 1


def test_the_sentence_counts_the_reasons():
    reasons = [
        *rows(90, 4),
        "math grader_failed: the worker died",
        "code no_reference",
        *["f gave None, with no reason"] * 4,
    ]
    with pytest.raises(GradingError) as error:
        UngradedWatch(0.05).add(reasons)
    assert str(error.value) == (
        "10 of the last 100 rows could not be graded (10.0%), more than max_ungraded_rate 0.05 allows: "
        "math grader_failed 5 (such as: the worker died), f gave None, with no reason 4, code no_reference 1; "
        "mend what the reasons name, or raise max_ungraded_rate."
    )


def test_why_a_row_has_no_grade():
    logged = {
        "math_reason": ["correct", "grader_failed: it died", "no_answer"],
        "code_reason": ["timeout", "no_reference", "correct"],
        "gold": ["1", "2", "3"],
    }
    reasons = reason_columns(logged)
    assert set(reasons) == {"math", "code"}
    assert ungraded_reason(1, reasons, ["math_reward"]) == "math grader_failed: it died and code no_reference"
    assert ungraded_reason(0, reasons, ["mine"]) == "mine gave None, with no reason"
    assert ungraded_reason(2, {}, ["one", "two"]) == "one and two gave None, with no reason"


class Callable:
    def __call__(self, completions, **columns):
        return [0.0] * len(completions)


class AsyncCallable:
    async def __call__(self, completions, **columns):
        return [0.25] * len(completions)


def raising(completions, **columns):
    raise ValueError("two\nlines.")


async def raising_later(completions, **columns):
    raise ValueError("two\nlines.")


async def half(completions, **columns):
    await asyncio.sleep(0)
    return [0.5] * len(completions)


@pytest.fixture
def failures(tmp_path):
    return RewardFailures("stop", tmp_path / "failed.jsonl")


def test_every_form_of_a_reward_can_be_called(failures):
    for reward, expected in (
        (Callable(), 0.0),
        (AsyncCallable(), 0.25),
        (half, 0.5),
        (functools.partial(half, level=3), 0.5),
        (lambda completions, **columns: half(completions), 0.5),
        (lambda completions, **columns: np.ones(len(completions)), 1.0),
        (lambda completions, **columns: torch.tensor([0.75] * len(completions)), 0.75),
        (lambda completions, **columns: [True, False], None),
    ):
        scores = called(reward, failures, completions=["a", "b"])
        assert scores == ([expected] * 2 if expected is not None else [1.0, 0.0])
        assert all(type(score) is float for score in scores)
    assert reward_name(functools.partial(half)) == "half" and reward_name(Callable()) == "Callable"


@pytest.mark.parametrize("reward", [raising, raising_later, functools.partial(raising)])
def test_a_reward_that_raises_is_told_of_in_one_line_with_its_place(reward, failures, tmp_path):
    with pytest.raises(GradingError) as error:
        called(reward, failures, completions=["a"])
    code = (reward.func if isinstance(reward, functools.partial) else reward).__code__
    assert str(error.value) == (
        f"The reward {code.co_name} failed with ValueError at {__file__} line {code.co_firstlineno + 1}: two lines; "
        f"mend it, and start again (1 of 1 rows fail and are in {tmp_path}/failed.jsonl), or set on_reward_error to "
        f"drop."
    )


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([1.0], "ValueError: it gave 1 scores for 2 rows"),
        ([1.0, float("nan")], "ValueError: it gave nan, which is no score"),
        ([1.0, float("inf")], "ValueError: it gave inf"),
        (["right", 0.0], "ValueError: could not convert string to float"),
        (None, "TypeError: 'NoneType' object is not iterable"),
        ([[1.0], 0.0], "TypeError: float() argument must be"),
    ],
)
def test_what_is_no_score_is_a_failure_of_the_reward(scores, said, failures):
    with pytest.raises(GradingError, match="The reward given failed with") as error:
        called(named(lambda completions, **columns: scores, "given"), failures, completions=["a", "b"])
    assert said in str(error.value)


def named(function, name):
    function.__name__ = name
    return function


def test_a_guarded_reward_notes_its_failure_and_grades_nothing(failures):
    assert guarded(raising, failures)(completions=["a", "b"]) == [None, None]
    assert asyncio.run(guarded(raising_later, failures)(completions=["a"])) == [None]
    assert [failure.split()[2] for failure in failures.stops] == ["raising", "raising_later"]
    assert guarded(raising, failures).__name__ == "raising"


def stumbling(completions, gold, log_extra, trainer_state=None, **columns):
    """The length of each completion; it raises where the gold is bad, and wants all rows to have the state."""
    log_extra("seen", [f"{text} of {trainer_state}" for text in completions])
    for text, own in zip(completions, gold, strict=True):
        if own == "bad":
            raise KeyError(text)
    return [float(len(text)) for text in completions]


async def stumbling_later(completions, **columns):
    await asyncio.sleep(0)
    return stumbling(completions, **columns)


def graded(reward, mode, path, gold):
    """(scores, failures, what was logged) of a batch with the completions a, bb, ccc."""
    failures, logged = RewardFailures(mode, path), {}
    failures.place = {"step": 7}
    columns = dict(completions=["a", "bb", "ccc"], gold=gold, log_extra=logged.__setitem__, trainer_state="state")
    scores = guarded(reward, failures)(**columns)
    return asyncio.run(scores) if asyncio.iscoroutine(scores) else scores, failures, logged


@pytest.mark.parametrize("reward", [stumbling, stumbling_later])
@pytest.mark.parametrize("mode", ["stop", "drop"])
def test_the_rows_that_a_reward_raises_on_are_found_and_written(reward, mode, tmp_path):
    path = tmp_path / "failed.jsonl"
    scores, failures, logged = graded(reward, mode, path, ["good", "bad", "good"])
    assert scores == [1.0, None, 3.0] and failures.rows == {1: "grader_failed: KeyError: 'bb'"}
    assert logged["seen"] == ["a of state", "bb of state", "ccc of state"]
    (line,) = map(json.loads, path.read_text().splitlines())
    assert "in stumbling\n    raise KeyError(text)\n" in line.pop("traceback")
    assert line == {
        **{"step": 7, "row": 1, "reward": reward.__name__, "error": "KeyError: 'bb'"},
        "columns": {"completions": "bb", "gold": "bad"},
    }
    if mode == "drop":
        assert failures.stops == []
        return
    (sentence,) = failures.stops
    assert sentence.startswith(f"The reward {reward.__name__} failed with KeyError at {__file__} line ")
    assert sentence.endswith(
        f": 'bb'; mend it, and start again (1 of 3 rows fail and are in {path}), or set on_reward_error to drop."
    )


def test_a_reward_that_raises_on_every_row_stops_a_run_that_drops_rows(tmp_path):
    scores, failures, _ = graded(stumbling, "drop", tmp_path / "failed.jsonl", ["bad"] * 3)
    assert scores == [None] * 3 and len((tmp_path / "failed.jsonl").read_text().splitlines()) == 3
    assert failures.stops[0].endswith(f"start again (3 of 3 rows fail and are in {tmp_path}/failed.jsonl).")


def test_a_reward_that_raises_on_no_row_by_itself_stops_a_run_that_drops_rows(tmp_path):
    def of_one(completions, **columns):
        (only,) = completions
        return [float(len(only))]

    _, failures, _ = graded(of_one, "drop", tmp_path / "failed.jsonl", ["good"] * 3)
    assert not (tmp_path / "failed.jsonl").exists()
    assert failures.stops[0].endswith("start again (none of its 3 rows fails by itself).")


def test_a_file_that_cannot_be_written_raises_nothing(tmp_path, caplog):
    scores, failures, _ = graded(stumbling, "drop", tmp_path / "gone" / "failed.jsonl", ["good", "good", "bad"])
    assert scores == [1.0, 2.0, None] and failures.stops == []
    assert "failed.jsonl could not be written: [Errno 2]" in caplog.text


def test_a_start_of_grading_that_fails_is_told_of():
    def start(solution_text, **columns):
        raise OSError(solution_text)

    with pytest.raises(GradingError, match=r"The reward start failed with OSError at .*: full disk; mend it"):
        started(start, solution_text="full disk", tests="[]")


def test_scores_may_be_missing():
    assert checked_scores([None, 1], 2) == [None, 1.0]
