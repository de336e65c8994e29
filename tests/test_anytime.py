"""The rows of anytime: which tokens are in which, what each is credited with, and an update of them."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from test_config import config
from test_recipes import fields, parsed, processes
from trainer_fixtures import even_reward, make_trainer, recorded_training, sampled_inputs

from elastic.anytime import (
    AnytimeTrainer,
    masks_of_forks,
    solution_advantages,
    thinking_advantages,
    token_advantages,
)
from elastic.anytime_arguments import check_anytime
from elastic.budget import UNLIMITED, Budget, BudgetDistribution, ReasoningTokens
from elastic.engines.transformers import TransformersEngine
from elastic.micro_batches import moving_rows
from elastic.rollout import Rollout

NAN = np.nan
END = 2
TOKENS = ReasoningTokens(start=(1,), end=(END,), bridge=(9, END), eos=frozenset({0}), opened=((1,),))
# Two chains, cuts with the weights 0.2, 0.3 and 0.5.
REWARDS = np.array([[[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]])
WEIGHTS = (0.2, 0.3, 0.5)
# R is 0.8, 0.8, 0.5 and 0.5, 0.5, 0.5. V1 is 0, 0, 0.5 * (1 + 0.5 * 0) / 1.5 = 1/3 and 0, 0, 0. V2 is the other's R.
ADVANTAGES = {
    "brpo": [
        [0.8 - 3 / 3 * 0.5, 0.8 - 1 / 3 * 0 - 2 / 3 * 0.5, 0.5 - 2 / 3 * 1 / 3 - 1 / 3 * 0.5],
        [0.5 - 3 / 3 * 0.8, 0.5 - 1 / 3 * 0 - 2 / 3 * 0.8, 0.5 - 2 / 3 * 0 - 1 / 3 * 0.5],
    ],
    "group": [[0.3, 0.3, 0.0], [-0.3, -0.3, 0.0]],
    "earlier": [[0.8, 0.8, 0.5 - 1 / 3], [0.5, 0.5, 0.5]],
    "none": [[0.8, 0.8, 0.5], [0.5, 0.5, 0.5]],
}
# 2 chains, 2 solutions at each of 2 cuts for each prompt; 4 prompts.
FORKED = dict(
    algorithm="anytime",
    thinking_token_budget={"choices": [3, 12], "weights": [1, 3]},
    solution_token_budget=3,
    anytime_solutions=2,
    num_generations=8,
    per_device_train_batch_size=32,
    scale_rewards="none",
)


def a_trainer(folder, **changes):
    return make_trainer(folder, trainer_class=AnytimeTrainer, **(FORKED | changes))


@pytest.mark.parametrize("baseline", ADVANTAGES)
def test_the_advantages_of_an_example_computed_by_hand(baseline):
    assert thinking_advantages(REWARDS, WEIGHTS, baseline, 0.5)[0] == pytest.approx(np.array(ADVANTAGES[baseline]))


def test_a_discount_of_1_takes_the_mean_of_all_earlier_rewards_and_of_0_the_last():
    rewards = np.array([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    last = [thinking_advantages(rewards, WEIGHTS, "earlier", discount)[0, 0, 2] for discount in (1, 0.5, 0)]
    assert last == pytest.approx([-0.5 * 1 / 2, -0.5 * 0.5 / 1.5, 0.0])


def test_a_solution_is_compared_with_the_others_at_its_cut():
    one_each = np.array([[[[0.0, 1.0]], [[0.0, 0.0]], [[1.0, 0.0]]]])
    assert solution_advantages(one_each)[0, :, 0].tolist() == [[-0.5, 1.0], [-0.5, -0.5], [1.0, -0.5]]
    two_each = np.array([[[[0.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]]]])
    assert solution_advantages(two_each)[0].tolist() == [[[-1, 0], [1, 0]], [[0, -1], [0, 1]]]


def test_a_chain_without_grades_learns_nothing_and_is_compared_with_nothing():
    rewards = np.concatenate([REWARDS, np.full((1, 1, 3), NAN)], axis=1)
    advantages = thinking_advantages(rewards, WEIGHTS, "brpo", 0.5)[0]
    assert advantages == pytest.approx(np.array([*ADVANTAGES["brpo"], [0.0, 0.0, 0.0]]))
    assert not thinking_advantages(rewards[:, 1:], WEIGHTS, "brpo", 0.5).any()
    assert solution_advantages(rewards[:, :, None])[0, :, 0].tolist() == [[0, 1, 0], [0, -1, 0], [0, 0, 0]]


def test_equal_rewards_leave_exactly_nothing_to_learn():
    for value in (0.1, 0.7, 1.0):
        rewards = np.full((1, 5, 3), value)
        assert not thinking_advantages(rewards, (0.1, 0.2, 0.7), "brpo", 0.5).any()
        assert not solution_advantages(rewards[:, :, None]).any()


def fork(thinking, cut, solution, *, closed=False):
    forced = len(thinking) == cut and not closed
    return Rollout(
        prompt_ids=[7, 1],
        thinking_ids=thinking,
        bridge_ids=TOKENS.bridge if forced else [],
        solution_ids=solution,
        budget=Budget(cut, 2),
        thinking_stop_reason="budget" if forced else "natural",
        finish_reason="length",
        logprobs=None,
        raw_logprobs=None,
        tokens=TOKENS,
    )


# A chain that closes with its 4th token, cut at 2, 4 and 6 (the 4th closes it, and is no forced close), and one that
# does not close; one solution of 2 tokens at each cut.
CLOSED = [3, 4, 5, END]
LONG = [3, 3, 4, 4, 5, 5]
ROWS = [
    fork([3, 4], 2, [6, 6]),
    fork(CLOSED, 4, [7, 7], closed=True),
    fork(CLOSED, 6, [7, 7], closed=True),
    fork(LONG[:2], 2, [8, 8]),
    fork(LONG[:4], 4, [6, 7]),
    fork(LONG, 6, [7, 6]),
]


def test_each_sampled_token_is_in_one_row():
    assert masks_of_forks(ROWS, cuts=3, solutions=1) == [
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 1, 1],
        [1, 1, 1, 1, 1, 1, 0, 0, 1, 1],
    ]
    second = masks_of_forks([*ROWS[:3], *ROWS[:3]], cuts=3, solutions=2)[3:]
    assert second == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]]


def test_a_token_has_the_advantage_of_its_segment_or_solution():
    thinking = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    advantages = token_advantages(ROWS, thinking, np.arange(1.0, 7.0), width=11)
    assert advantages[2].tolist() == [0.1, 0.1, 0.2, 0.2, 3, 3, 0, 0, 0, 0, 0]
    assert advantages[5].tolist() == [0.4, 0.4, 0.5, 0.5, 0.6, 0.6, 6, 6, 6, 6, 0]
    assert advantages[3].tolist() == [0.4, 0.4, 4, 4, 4, 4, 0, 0, 0, 0, 0]


def test_no_limit_may_be_the_largest_cut():
    spec = {"choices": [UNLIMITED, 8, 2, 8], "weights": [2, 1, 0.5, 0.5]}
    distribution = BudgetDistribution.parse(spec, "t")
    assert distribution.shares == {2: 0.125, 8: 0.375, UNLIMITED: 0.5}
    assert distribution.cuts(3, random.Random(0)) == [2, 8, UNLIMITED]


@pytest.mark.parametrize("spec", [{"uniform": [3, 12]}, {"log_uniform": [3, 12]}])
def test_cuts_of_a_range_are_drawn_one_from_each_part_and_together_as_the_range_is(spec):
    distribution, rng = BudgetDistribution.parse(spec, "t"), random.Random(0)
    draws = [distribution.cuts(4, rng) for _ in range(20_000)]
    assert all(cuts == sorted(cuts) for cuts in draws)
    assert max(cuts[0] for cuts in draws) <= min(cuts[2] for cuts in draws)
    ours = Counter(cut for cuts in draws for cut in cuts)
    plain = Counter(distribution.draw(rng) for _ in range(80_000))
    assert ours.keys() == plain.keys() == set(range(3, 13))
    assert all(abs(ours[cut] - plain[cut]) < 5 * (2 * plain[cut]) ** 0.5 for cut in plain)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A trainer, its first generation batch, and how many tokens its engine has sampled."""
    trainer = a_trainer(tmp_path_factory.mktemp("anytime"), seed=1)
    grow, sampled = TransformersEngine.grow, []

    def counting(engine, builders, *options):
        before = sum(builder.sampled_tokens for builder in builders)
        rollouts = grow(engine, builders, *options)
        sampled.append(sum(rollout.completion_tokens for rollout in rollouts) - before)
        return rollouts

    TransformersEngine.grow = counting
    try:
        inputs = sampled_inputs(trainer)
    finally:
        TransformersEngine.grow = grow
    return trainer, inputs, sum(sampled)


def test_the_rows_are_forks_of_chains(scored):
    trainer, inputs, sampled = scored
    rollouts = trainer._rollouts
    assert [rollout.budget for rollout in rollouts] == trainer.budgets == [Budget(3, 3), Budget(12, 3)] * 16
    for chain in range(8):
        rows = rollouts[4 * chain : 4 * chain + 4]
        whole = list(rows[1].thinking_ids)
        assert [list(row.thinking_ids) for row in rows] == [whole[:3], whole, whole[:3], whole]
        assert rows[0].prompt_ids == rows[3].prompt_ids
    assert trainer.rollout_tokens == sampled == int((inputs["completion_mask"] * inputs["tool_mask"]).sum())
    assert {str(rollout.thinking_stop_reason) for rollout in rollouts} >= {"budget", "natural"}


def reference_loss(trainer):
    """Chain by chain and solution by solution, each alone: the mean over sampled tokens of -A log p."""
    solutions = [[i for i in rollout.solution_ids if i not in rollout.tokens.eos] for rollout in trainer._rollouts]
    rewards = even_reward(None, trainer._tokenizer.batch_decode(solutions))
    terms, tokens = [], 0
    for prompt in range(len(trainer._rollouts) // 8):
        chains = [list(range(8 * prompt + 4 * chain, 8 * prompt + 4 * chain + 4)) for chain in range(2)]
        mean = [[(rewards[rows[cut]] + rewards[rows[cut + 2]]) / 2 for cut in range(2)] for rows in chains]
        returns = [[0.25 * r[0] + 0.75 * r[1], 0.75 * r[1]] for r in mean]
        for own, rows in enumerate(chains):
            longest, other = trainer._rollouts[rows[1]], returns[1 - own]
            credit = [returns[own][0] - other[0], returns[own][1] - 0.5 * 0.75 * mean[own][0] - 0.5 * other[1]]
            values = [credit[0]] * 3 + [credit[1]] * 9
            pieces = [(longest, range(len(longest.thinking_ids)), values)]
            for solution, cut in ((0, 0), (0, 1), (1, 0), (1, 1)):
                row, twin = rows[2 * solution + cut], rows[2 * (1 - solution) + cut]
                rollout = trainer._rollouts[row]
                if cut == 0 and len(longest.thinking_ids) <= 3 and not rollout.forced:
                    continue
                first = len(rollout.thinking_ids) + len(rollout.bridge_ids)
                places = range(first, len(rollout.completion_ids))
                pieces.append((rollout, places, [rewards[row] - rewards[twin]] * len(rollout.completion_ids)))
            for rollout, places, advantage in pieces:
                ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])
                logprobs = torch.log_softmax(trainer.model(ids).logits[0].double() / trainer.temperature, dim=-1)
                for place in places:
                    at = len(rollout.prompt_ids) + place
                    terms.append(-advantage[place] * logprobs[at - 1, ids[0, at]])
                    tokens += 1
    return torch.stack(terms).sum() / tokens, tokens


def test_an_update_is_that_of_each_chain_and_solution_alone(scored):
    trainer, inputs, sampled = scored
    trainer.model.zero_grad()
    loss, tokens = reference_loss(trainer)
    assert tokens == sampled
    loss.backward()
    expected = torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()])
    assert expected.abs().max() > 1e-4
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, dict(inputs)).backward()
    found = torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()])
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-6)
    assert 0 < int(moving_rows(inputs).sum()) < len(trainer._rollouts)


def test_masked_tokens_have_no_gradient(scored):
    trainer, inputs, _ = scored
    masked_BT = (inputs["completion_mask"] * inputs["tool_mask"]) == 0
    changed = dict(inputs, advantages=inputs["advantages"].masked_fill(masked_BT, 100.0))
    losses = [trainer._compute_loss(trainer.model, batch).item() for batch in (dict(inputs), changed)]
    assert masked_BT.sum() > 20 and losses[0] == losses[1]


def test_it_trains_in_micro_batches_and_counts_what_it_sampled(tmp_path):
    trainer = a_trainer(
        tmp_path,
        thinking_token_budget={"uniform": [2, 9]},
        anytime_cuts=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
    )
    updates = recorded_training(trainer)
    last = updates[-1].weights
    assert any(not torch.equal(updates[0].weights[name], last[name]) for name in last)
    assert {update.inputs["advantages"].dim() for update in updates} == {2}
    cuts = [rollout.budget.thinking for rollout in updates[0].round.rollouts]
    assert cuts[:8] == cuts[:2] * 4 and cuts[8:] == cuts[8:10] * 4 and 2 <= cuts[0] <= cuts[1] <= 9
    logged = [entry["budget/rollout_tokens"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 2 and 0 < logged[0] < logged[1] == trainer.rollout_tokens


def test_a_row_without_a_grade_leaves_its_whole_chain_out(tmp_path):
    def ungraded_first(completions, solution_text, **columns):
        return [None, *even_reward(completions, solution_text)[1:]]

    trainer = a_trainer(tmp_path, reward_funcs=ungraded_first)
    inputs = sampled_inputs(trainer)
    assert not inputs["tool_mask"][:4].any() and inputs["tool_mask"][4:].any()
    assert not inputs["advantages"][:4].any()


REFUSED = {
    "scale_rewards is 'group'": dict(scale_rewards="group"),
    "loss_type is 'grpo'": dict(loss_type="grpo"),
    "importance_sampling_level is 'sequence'": dict(importance_sampling_level="sequence"),
    "solution_truncated_reward is 'mask'": dict(solution_truncated_reward="mask"),
    "carry_over is True": dict(carry_over=True),
    "reminder_every is 4": dict(reminder_every=4, reminder_str="left {tokens}"),
    "budget_instruction is 'budget {tokens}'": dict(budget_instruction="budget {tokens}"),
    "total_token_budget is 20": dict(total_token_budget=20),
    "solution_token_budget is {'choices': [2, 3]}": dict(solution_token_budget={"choices": [2, 3]}),
    "anytime_cuts is None": dict(thinking_token_budget={"uniform": [2, 9]}),
    "anytime_cuts is 2 with thinking_token_budget {'choices': [3, 12], 'weights': [1, 3]}: remove it": dict(
        anytime_cuts=2
    ),
    "anytime_cuts is 2 with algorithm grpo": dict(anytime_cuts=2, algorithm="grpo"),
    "anytime_solutions is 2 with algorithm grpo": dict(algorithm="grpo"),
    "anytime_baseline is 'none' with algorithm grpo": dict(
        algorithm="grpo", anytime_solutions=1, anytime_baseline="none"
    ),
    "anytime_discount is 1 with algorithm grpo": dict(algorithm="grpo", anytime_solutions=1, anytime_discount=1),
    "stages is {'a': {'share': 1}} with algorithm anytime: give null,": dict(stages="{a: {share: 1}}"),
    "anytime_discount is 2": dict(anytime_discount=2),
    "anytime_solutions is 0": dict(anytime_solutions=0),
    "anytime_baseline is 'mean'": dict(anytime_baseline="mean"),
    "algorithm is 'ppo'": dict(algorithm="ppo"),
    "num_generations is 4": dict(num_generations=4),
    "num_generations is 10": dict(num_generations=10, per_device_train_batch_size=20),
}


@pytest.mark.parametrize("start", REFUSED)
def test_what_does_not_go_with_anytime_is_one_sentence(tmp_path, start):
    with pytest.raises(ValueError) as raised:
        config(tmp_path, **(FORKED | REFUSED[start]))
    assert str(raised.value).startswith(start) and str(raised.value).endswith(".")


def test_the_chains_of_a_prompt_on_two_processes_are_refused(tmp_path):
    of_two_processes = config(tmp_path, **FORKED)
    of_two_processes.per_device_train_batch_size = 12
    with pytest.raises(ValueError, match="is 12 with algorithm anytime: give a multiple of num_generations"):
        check_anytime(of_two_processes)


def test_cuts_that_coincide_are_one_fork_which_all_of_their_rows_have(tmp_path):
    trainer = a_trainer(tmp_path, thinking_token_budget={"uniform": [3, 4]}, anytime_cuts=4, anytime_solutions=1)
    told = []
    trainer.start_grading = lambda row, rollout: told.append((row, id(rollout)))
    sampled_inputs(trainer)
    rollouts = trainer._rollouts
    assert sorted(told) == [(row, id(rollout)) for row, rollout in enumerate(rollouts)]
    assert [rollout.budget for rollout in rollouts] == trainer.budgets
    assert [row for row in range(31) if rollouts[row] is rollouts[row + 1]] == [
        row for row in range(31) if row % 4 < 3 and trainer.budgets[row] == trainer.budgets[row + 1]
    ]


def test_nanos_recipe_forks_and_has_the_batch_of_the_others():
    *_, anytime = parsed("nano/anytime")
    *_, plain = parsed("nano")
    assert (anytime.algorithm, anytime.anytime_chains, len(anytime.cut_weights)) == ("anytime", 8, 4)
    prompts = [each.generation_batch_size // each.num_generations for each in (anytime, plain)]
    assert prompts[0] == prompts[1] and anytime.anytime_chains == plain.num_generations
    for name in ("learning_rate", "lr_scheduler_type", "loss_type", "beta", "temperature", "solution_token_budget"):
        assert vars(anytime)[name] == vars(plain)[name]


def test_the_papers_settings():
    """64 questions of 8 chains, 4 solutions at each of 4 budgets, in mini-batches of 32 questions."""
    recipe, (*_, settings) = fields("math_1.5b/anytime"), parsed("math_1.5b/anytime")
    assert (settings.anytime_chains, settings.anytime_solutions) == (8, 4)
    assert settings.prior.shares == {2000: 0.25, 4000: 0.25, 6000: 0.25, 8000: 0.25}
    rows_a_step = recipe["per_device_train_batch_size"] * processes("math_1.5b/anytime")
    assert rows_a_step * recipe["steps_per_generation"] == 64 * recipe["num_generations"]
    assert rows_a_step * recipe["gradient_accumulation_steps"] == 32 * recipe["num_generations"]
    assert (recipe["learning_rate"], recipe["temperature"], recipe["beta"]) == (1e-6, 1.0, 0.0)
    assert (settings.anytime_baseline, settings.anytime_discount, settings.scale_rewards) == ("brpo", 0.5, "none")
