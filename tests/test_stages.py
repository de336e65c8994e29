"""The parts of a run, what a prompt is sampled under and told in each, and runs that end by sampled tokens."""

import math
from collections import Counter
from functools import partial

import pytest
from datasets import Dataset
from test_config import config
from trainer_fixtures import make_trainer, recorded_training, sampled_inputs, write_problems
from trl import ModelConfig

from elastic.arguments import DataArguments, RunArguments
from elastic.budget import Budget
from elastic.nano.tokenizer import make_tokenizer
from elastic.planning import _completion_tokens
from elastic.rewarding import load_rewards
from elastic.rollout_func import tokenized
from elastic.setup import _longest_instruction, check_context, training_set
from elastic.stages import assign, read_stages, stage_at, unbudgeted_prompts, with_columns

RECIPE = dict(
    thinking_token_budget=8,
    solution_token_budget=4,
    total_token_budget=-1,
    target_tokens=None,
    reward_weights=None,
    budget_instruction="",
)


def test_a_recipe_without_stages_is_one_stage_of_its_own_fields():
    (stage,) = read_stages(None, RECIPE)
    assert (stage.name, stage.end, stage.longest, stage.targets, stage.reward_weights) == ("", 1.0, 12, None, None)


def test_stages_follow_each_other_and_differ_in_what_they_name():
    given = {
        "long": {"share": 0.5, "total_token_budget": 30, "thinking_token_budget": -1},
        "short": {"share": 0.25, "thinking_token_budget": {"choices": [2, 5]}},
        "last": {"share": 0.25, "reward_weights": [0, 1]},
    }
    stages = read_stages(given, RECIPE)
    assert [stage.end for stage in stages] == [0.5, 0.75, 1.0]
    assert [stage.longest for stage in stages] == [30, 9, 12]
    assert [stage.reward_weights for stage in stages] == [None, None, (0.0, 1.0)]
    at = {share: stage_at(stages, share).name for share in (0, 0.49, 0.5, 0.7, 0.75, 0.99, 1.0)}
    assert at == {0: "long", 0.49: "long", 0.5: "short", 0.7: "short", 0.75: "last", 0.99: "last", 1.0: "last"}


WRONG = {
    "stages is 3": 3,
    "stages is {}": {},
    "stages.a is 5": {"a": 5},
    "stages.a.share is None": {"a": {"total_token_budget": 5}},
    "stages.a.share is 0": {"a": {"share": 0}},
    "stages.a.share is True": {"a": {"share": True}},
    "The shares of stages add up to 0.9": {"a": {"share": 0.5}, "b": {"share": 0.4}},
    "stages.a.learning_rate is no field of a stage": {"a": {"share": 1, "learning_rate": 1}},
    "stages.a.thinking_token_budget is -2": {"a": {"share": 1, "thinking_token_budget": -2}},
    "stages.a.total_token_budget is 0": {"a": {"share": 1, "total_token_budget": 0}},
    "stages.a.target_tokens is {'choices': [0, 4]}": {"a": {"share": 1, "target_tokens": {"choices": [0, 4]}}},
    "stages.a.budget_instruction is 'Be brief.'": {"a": {"share": 1, "budget_instruction": "Be brief."}},
    "stages.a.reward_weights is 'ab'": {"a": {"share": 1, "reward_weights": "ab"}},
    "stages.a.reward_weights is [1, nan]": {"a": {"share": 1, "reward_weights": [1, math.nan]}},
    "stages.a.target_tokens is {'choices': [5, -1]}": {"a": {"share": 1, "target_tokens": {"choices": [5, -1]}}},
    "stages.a.target_tokens is 5, and no prompt tells it": {"a": {"share": 1, "target_tokens": 5}},
}


@pytest.mark.parametrize("start", WRONG)
def test_wrong_stages_are_one_sentence_that_names_the_field(start):
    with pytest.raises(ValueError) as raised:
        read_stages(WRONG[start], RECIPE)
    assert str(raised.value).startswith(start) and str(raised.value).endswith(".")


CONTRADICTIONS = {
    "unbudgeted_share is 1, and no rollout would have a budget": dict(unbudgeted_share=1, max_completion_length=20),
    "unbudgeted_share is 2": dict(unbudgeted_share=2, max_completion_length=20),
    "unbudgeted_share is 0.2, and nothing ends these rollouts": dict(unbudgeted_share=0.2),
    "budget_instruction is 'Be brief.'": dict(budget_instruction="Be brief."),
    "target_tokens is 5, and no prompt tells it": dict(target_tokens=5),
    "total_token_budget is -5": dict(total_token_budget=-5, stages="{a: {share: 1, total_token_budget: 9}}"),
    "max_rollout_tokens is 0": dict(max_rollout_tokens=0),
    "lr_scheduler_type is reduce_lr_on_plateau": dict(
        max_rollout_tokens=9, lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="steps", eval_steps=1
    ),
    "warmup_steps is 5, and the schedule goes by max_rollout_tokens": dict(max_rollout_tokens=9, warmup_steps=5),
    "stages.a.thinking_token_budget may be unlimited": dict(stages="{a: {share: 1, thinking_token_budget: -1}}"),
    "max_completion_length is 8, but the largest stages.a.budgets are 6": dict(
        stages="{a: {share: 1}}", max_completion_length=8
    ),
    "max_completion_length is 8, but the largest total_token_budget is 9": dict(
        total_token_budget=9, thinking_token_budget=-1, max_completion_length=8
    ),
}


@pytest.mark.parametrize("start", CONTRADICTIONS)
def test_a_contradiction_in_a_recipe_is_one_sentence(tmp_path, start):
    with pytest.raises(ValueError) as raised:
        config(tmp_path, **CONTRADICTIONS[start])
    assert str(raised.value).startswith(start) and str(raised.value).endswith(".")


def test_the_longest_rollout_of_all_stages(tmp_path):
    found = config(tmp_path, stages="{a: {share: 0.5, thinking_token_budget: 20}, b: {share: 0.5}}")
    assert found.longest_rollout == 23
    no_limits = dict(thinking_token_budget=-1, solution_token_budget=-1)
    assert config(tmp_path, **no_limits, total_token_budget=30).longest_rollout == 30
    assert config(tmp_path, unbudgeted_share=0.5, max_completion_length=40).longest_rollout == 40
    assert config(tmp_path, unbudgeted_share=0.5, total_token_budget=8).longest_rollout == 8
    ended_by_either = "{a: {share: 0.5, total_token_budget: 30}, b: {share: 0.5, thinking_token_budget: 9, %s}}"
    found = config(tmp_path, **no_limits, stages=ended_by_either % "solution_token_budget: 2")
    assert found.longest_rollout == 30


def test_columns_take_the_place_of_the_budgets_of_every_stage(tmp_path):
    stages = config(
        tmp_path, stages="{a: {share: 0.5, total_token_budget: 30}, b: {share: 0.5, solution_token_budget: 5}}"
    ).run_stages
    own = with_columns(stages, Dataset.from_dict({"thinking_token_budget": [40, 7]}))
    assert [(stage.thinking.choices, stage.longest) for stage in own] == [((7, 40), 30), ((7, 40), 45)]
    assert [stage.solution for stage in own] == [stage.solution for stage in stages]
    assert with_columns(stages, Dataset.from_dict({"answer": ["1"]})) == stages


def training_set_of(tmp_path, columns, **changes):
    """As it is read for a run whose problems have these columns; and the tokenizer and configuration of it."""
    problems = write_problems(tmp_path / "own.jsonl", 4, **{name: [value] * 4 for name, value in columns.items()})
    given = DataArguments(dataset_name=problems, answer_column="answer"), make_tokenizer(), config(tmp_path, **changes)
    return training_set(*given, load_rewards(["exact"], RunArguments())), *given


def test_stages_that_end_by_a_total_and_by_budgets_are_trained_together(tmp_path):
    stages = "{a: {share: 0.5, total_token_budget: 30}, b: {share: 0.5, thinking_token_budget: 9, %s}}"
    no_limits = dict(thinking_token_budget=-1, solution_token_budget=-1)
    dataset, *_ = training_set_of(tmp_path, {}, **no_limits, stages=stages % "solution_token_budget: 2")
    assert len(dataset) == 4


REFUSED_WITH_DATA = {
    "unbudgeted_share is 0.5: drop the column": (
        dict(solution_token_budget=4),
        dict(unbudgeted_share=0.5, max_completion_length=30),
    ),
    "and algorithm anytime forks at the recipe's budgets": (
        dict(thinking_token_budget=4),
        dict(algorithm="anytime", scale_rewards="none", thinking_token_budget={"choices": [2, 4]}),
    ),
    "reminder_every is 6, and no limited thinking budget is larger": (
        dict(thinking_token_budget=6),
        dict(thinking_token_budget=9, reminder_every=6, reminder_str="left {tokens}"),
    ),
    "budget_instruction is 'budget {tokens}', and there is no target": (
        dict(thinking_token_budget=-1),
        dict(budget_instruction="budget {tokens}", max_completion_length=9),
    ),
    "target_tokens is 0 in a row of the data set": (
        dict(target_tokens=0, thinking_token_budget=-1),
        dict(budget_instruction="budget {tokens}", max_completion_length=9),
    ),
    "allow rollouts of 18 tokens: leave it unset": (
        dict(thinking_token_budget=99),
        dict(max_completion_length=17, total_token_budget=18),
    ),
}


@pytest.mark.parametrize("words", REFUSED_WITH_DATA)
def test_a_recipe_that_does_not_go_with_its_data_is_refused_in_one_sentence(tmp_path, words):
    columns, changes = REFUSED_WITH_DATA[words]
    with pytest.raises(ValueError) as raised:
        training_set_of(tmp_path, columns, **changes)
    assert words in str(raised.value) and str(raised.value).endswith(".")


def test_somebody_is_told(tmp_path):
    """By a column of its own, or in one stage of several."""
    open_ended = dict(budget_instruction="budget {tokens}", max_completion_length=9, thinking_token_budget=-1)
    training_set_of(tmp_path, dict(thinking_token_budget=5), **open_ended)
    training_set_of(tmp_path, dict(target_tokens=5), **open_ended)
    training_set_of(tmp_path, {}, **open_ended, stages="{a: {share: 0.5}, b: {share: 0.5, thinking_token_budget: 4}}")
    reminded = dict(thinking_token_budget=2, reminder_every=6, reminder_str="left {tokens}")
    training_set_of(tmp_path, dict(thinking_token_budget=7), **reminded)


def test_reminders_of_a_limited_budget_count_beside_no_limit(tmp_path):
    fields = dict(
        thinking_token_budget={"choices": [40, -1]},
        total_token_budget=44,
        reminder_every=4,
        reminder_str="left {tokens}",
    )
    # The bridge, and 9 times left and the number: 36, ..., 12 of two digits each, 8 and 4 of one.
    completion = 44 + 1 + 9 * 2 + 7
    trainer = make_trainer(tmp_path, **fields)
    assert trainer.max_completion_length == completion
    assert _completion_tokens(trainer.args) >= completion
    prompt = max(map(len, (tokenized([row["prompt"]], trainer)[0] for row in trainer.train_dataset)))
    model = trainer.model.config
    for room in (0, 1):
        model.max_position_embeddings = prompt + completion - 1 + room
        model.save_pretrained(tmp_path / "model")
        given = ModelConfig(model_name_or_path=str(tmp_path / "model")), trainer._tokenizer
        check = partial(check_context, *given, DataArguments(), trainer.args, trainer.train_dataset)
        if room:
            check()
        else:
            with pytest.raises(ValueError, match=rf"the longest rollout \({completion} tokens\)"):
                check()


def test_the_longest_telling_is_of_the_largest_number_that_is_told(tmp_path):
    stages = config(
        tmp_path,
        thinking_token_budget={"choices": [40, -1]},
        max_completion_length=90,
        budget_instruction="budget {tokens}",
    ).run_stages
    assert _longest_instruction(make_tokenizer(), stages, []) == "budget 40"
    assert _longest_instruction(make_tokenizer(), stages, [7, 120]) == "budget 120"


def test_a_prompt_gets_the_same_wherever_it_is_drawn():
    (stage,) = read_stages(
        None,
        RECIPE
        | {"thinking_token_budget": {"uniform": [0, 99]}, "target_tokens": 7, "budget_instruction": "budget {tokens}"},
    )
    one = assign(stage, (1, 2), seed=3, draw=4, unbudgeted=False)
    assert one == assign(stage, (1, 2), seed=3, draw=4, unbudgeted=False)
    others = [assign(stage, (1, 2), seed=3, draw=draw, unbudgeted=False) for draw in range(20)]
    assert len({other.budget for other in others}) > 10
    assert assign(stage, (1, 2), seed=3, draw=4, unbudgeted=True).budget == Budget()


def test_what_a_row_says_itself_goes_first():
    (stage,) = read_stages(None, RECIPE | {"target_tokens": 7, "budget_instruction": "budget {tokens}"})
    given = assign(stage, (1,), seed=0, draw=0, unbudgeted=False)
    own = given.of({"thinking_token_budget": 3, "target_tokens": 9})
    assert (own.budget, own.target) == (Budget(3, 4), 9)
    assert given.of({"problem": "x", "target_tokens": None}) == given


def test_a_row_is_told_its_target_or_its_thinking_budget_or_nothing():
    row = {"prompt": [{"role": "user", "content": "1 + 1"}], "answer": "2"}

    def told(assignment):
        return assignment.told_to(row, "budget {tokens}")["prompt"][-1]["content"]

    (stage,) = read_stages(None, RECIPE)
    given = assign(stage, (1,), seed=0, draw=0, unbudgeted=False)
    assert told(given) == "1 + 1 budget 8"
    assert told(given.of({"target_tokens": 9})) == "1 + 1 budget 9"
    assert told(assign(stage, (1,), seed=0, draw=0, unbudgeted=True)) == "1 + 1"
    assert given.told_to(row, "") == row
    assert given.of({"target_tokens": 9}).told_to(row, "x {tokens}")["target_tokens"] == 9
    assert row == {"prompt": [{"role": "user", "content": "1 + 1"}], "answer": "2"}


@pytest.mark.parametrize(("share", "prompts"), [(0.25, 24), (0.25, 5), (0.1, 3), (1.0, 4), (0.0, 9)])
def test_the_share_of_prompts_without_budgets_is_held_in_every_round_and_in_the_mean(share, prompts):
    ids = [(i,) for i in range(prompts) for _ in range(3)]
    counts, who = [], Counter()
    for draw in range(3000):
        chosen = unbudgeted_prompts(ids, share, seed=1, draw=draw)
        counts.append(len(chosen))
        who.update(chosen)
    assert {math.floor(share * prompts), math.ceil(share * prompts)} >= set(counts)
    assert sum(counts) / len(counts) == pytest.approx(share * prompts, abs=0.05)
    for prompt in set(ids):
        assert who[prompt] / 3000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 3000) + 1e-9)
    shuffled = list(reversed(ids))
    assert unbudgeted_prompts(ids, share, seed=1, draw=7) == unbudgeted_prompts(shuffled, share, seed=1, draw=7)


def test_a_batch_has_groups_without_budgets_beside_the_others(tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 8)
    trainer = make_trainer(
        tmp_path, problems=problems, per_device_train_batch_size=32, unbudgeted_share=0.25, max_completion_length=30
    )
    sampled_inputs(trainer)
    groups = {tuple(r.prompt_ids): set() for r in trainer._rollouts}
    for rollout in trainer._rollouts:
        groups[tuple(rollout.prompt_ids)].add(rollout.budget)
    assert sorted(map(list, groups.values()), key=str) == [[Budget(-1, -1, 30)]] * 2 + [[Budget(6, 3)]] * 6


def told_reward(completions, prompts, target_tokens, **columns):
    TOLD.extend((prompt[-1]["content"], target) for prompt, target in zip(prompts, target_tokens, strict=True))
    return [float(len(str(completion)) % 2) for completion in completions]


TOLD: list[tuple[str, int]] = []


def test_prompts_tell_the_target_that_the_reward_gets(tmp_path):
    TOLD.clear()
    trainer = make_trainer(
        tmp_path,
        reward_funcs=[told_reward],
        thinking_token_budget=-1,
        solution_token_budget=-1,
        max_completion_length=12,
        target_tokens={"uniform": [5, 99]},
        budget_instruction="budget {tokens}",
        per_device_train_batch_size=16,
    )
    sampled_inputs(trainer)
    assert len(TOLD) == 16 and len(set(TOLD)) == 4
    assert all(text.endswith(f" budget {target}") and 5 <= target <= 99 for text, target in TOLD)
    told = {trainer._tokenizer.decode(rollout.prompt_ids) for rollout in trainer._rollouts}
    assert len(told) == 4 and all("budget" in text for text in told)


def test_training_ends_after_the_tokens_it_was_given_and_its_rate_decays_by_them(tmp_path):
    trainer = make_trainer(tmp_path, max_rollout_tokens=150, max_steps=1000, learning_rate=0.1, logging_steps=1)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    counts = [log["budget/rollout_tokens"] for log in logs]
    assert counts[-2] < 150 <= counts[-1] == trainer.rollout_tokens
    assert trainer.state.global_step == len(counts) < 30
    rates = [0, *counts[:-1]]
    assert [log["learning_rate"] for log in logs] == pytest.approx([0.1 * (1 - done / 150) for done in rates], abs=1e-4)


@pytest.mark.parametrize("limit", ["max_steps", "num_train_epochs"])
def test_a_run_that_ends_before_its_tokens_says_so_and_names_the_stages_that_never_came(tmp_path, capsys, limit):
    stages = {"a": {"share": 0.3}, "b": {"share": 0.3}, "c": {"share": 0.4}}
    ends = dict(max_steps=2) if limit == "max_steps" else dict(max_steps=-1, num_train_epochs=0.5)
    trainer = make_trainer(tmp_path, max_rollout_tokens=100_000, stages=stages, **ends)
    trainer.train()
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"{limit} ({ends[limit]}) ended the training after {trainer.rollout_tokens} of the 100,000 tokens of "
        f"max_rollout_tokens, which its schedules go by; of its stages b, c never came: raise {limit}."
    )


def test_a_run_that_ends_by_its_tokens_says_nothing(tmp_path, capsys):
    make_trainer(tmp_path, max_rollout_tokens=50, max_steps=1000).train()
    assert "max_rollout_tokens" not in capsys.readouterr().out


def test_a_position_of_before_tokens_were_counted_counts_from_0(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.train()
    position = trainer.position()
    assert position.pop("rollout_tokens") == trainer.rollout_tokens > 0
    trainer.go_to(position)
    assert trainer.rollout_tokens == 0


def test_sampled_tokens_are_those_of_the_rollouts(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=3)
    updates = recorded_training(trainer)
    assert trainer.rollout_tokens == sum(r.completion_tokens for update in updates for r in update.round.rollouts)


def test_a_run_goes_through_its_stages(tmp_path):
    stages = {
        "long": {"share": 0.5, "thinking_token_budget": 9},
        "short": {"share": 0.25, "thinking_token_budget": 2, "reward_weights": [0.5]},
        "last": {"share": 0.25},
    }
    trainer = make_trainer(tmp_path, stages=stages, max_steps=4)
    weights, reward = [], trainer._calculate_rewards
    trainer._calculate_rewards = lambda *given: weights.append(trainer.reward_weights.tolist()) or reward(*given)
    updates = recorded_training(trainer)
    assert [{r.budget.thinking for r in update.round.rollouts} for update in updates] == [{9}, {9}, {2}, {6}]
    assert weights == [[1.0], [1.0], [0.5], [1.0]]
