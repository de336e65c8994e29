"""What the trainer samples, what its rewards see, and what it makes of rollouts that were cut."""

import json
import math
from collections import defaultdict
from pathlib import Path

import pandas
import pytest
import torch
from peft import LoraConfig
from trainer_fixtures import (
    copied_weights,
    even_reward,
    make_trainer,
    patient_reward,
    raising_reward,
    recorded_training,
    rollouts_by_ids,
    sampled_inputs,
    write_problems,
)

from elastic.budget import Budget
from elastic.data import load_problems, prompt_token_ids
from elastic.grading import GradingError
from elastic.nano.tokenizer import make_tokenizer
from elastic.rollout import FinishReason, ThinkingStopReason, segment_texts
from rewards import load_reward

TOKENIZER = make_tokenizer()


def tenths_reward(completions, thinking_tokens, **columns):
    """A tenth for each thinking token, and None for rows of two."""
    return [None if n == 2 else n / 10 for n in thinking_tokens]


def groups_of(rollouts):
    """Row numbers by prompt."""
    groups = defaultdict(list)
    for row, rollout in enumerate(rollouts):
        groups[tuple(rollout.prompt_ids)].append(row)
    return groups


def advantages_by_hand(rollouts, rewards):
    """(r - mean) / (standard deviation + 1e-4) over the graded rows of each prompt; 0 for the others."""
    found = [0.0] * len(rollouts)
    for rows in groups_of(rollouts).values():
        graded = [row for row in rows if rewards[row] is not None]
        group = torch.tensor([rewards[row] for row in graded], dtype=torch.float64)
        for row in graded:
            found[row] = ((rewards[row] - group.mean()) / (group.std() + 1e-4)).item()
    return found


@pytest.mark.parametrize("treatment", ["keep", "zero", "mask"])
def test_a_rollout_that_was_cut_is_treated_as_the_recipe_says(tmp_path, treatment):
    trainer = make_trainer(
        tmp_path,
        reward_funcs=[tenths_reward, even_reward],
        reward_weights=[2.0, 1.0],
        solution_truncated_reward=treatment,
        per_device_train_batch_size=24,
    )
    inputs = sampled_inputs(trainer)
    rollouts = trainer._rollouts
    cut = [rollout.finish_reason is FinishReason.LENGTH for rollout in rollouts]
    assert 4 <= sum(cut) <= 20

    rewards = trainer._rewards_per_func.tolist()
    for row, earned in enumerate(expected_rewards(rollouts)):
        zeroed = treatment == "zero" and cut[row]
        expected = [math.nan if None in earned else 0.0 if zeroed else reward for reward in earned]
        assert rewards[row] == pytest.approx(expected, nan_ok=True)
    ungraded = [math.isnan(tenths) for tenths, _ in rewards]
    assert 2 <= sum(ungraded) <= 12
    summed = [None if missing else 2 * a + b for (a, b), missing in zip(rewards, ungraded, strict=True)]
    assert inputs["advantages"].tolist() == pytest.approx(advantages_by_hand(rollouts, summed), abs=1e-4)

    left_out = [missing or (treatment == "mask" and was_cut) for was_cut, missing in zip(cut, ungraded, strict=True)]
    for row, rollout in enumerate(rollouts):
        mask = [0] * len(rollout.env_mask) if left_out[row] else rollout.env_mask
        assert (inputs["completion_mask"] * inputs["tool_mask"])[row, : len(mask)].tolist() == mask
    trained = sum(rollout.completion_tokens for rollout, out in zip(rollouts, left_out, strict=True) if not out)
    assert inputs["num_items_in_batch"] == trained


def expected_rewards(rollouts):
    """(tenths_reward, even_reward) of each rollout, from its ids."""
    words = [len(rollout.solution_ids) - rollout.solution_ids.count(TOKENIZER.eos_token_id) for rollout in rollouts]
    tenths = tenths_reward(None, [rollout.thinking_tokens for rollout in rollouts])
    return list(zip(tenths, [float(n % 2 == 0) for n in words], strict=True))


def test_a_row_that_cannot_be_graded_is_in_no_statistic_of_its_group(tmp_path):
    trainer = make_trainer(
        tmp_path, reward_funcs=tenths_reward, solution_truncated_reward="zero", per_device_train_batch_size=24
    )
    inputs = sampled_inputs(trainer)
    rollouts, rewards = trainer._rollouts, trainer._rewards_per_func[:, 0].tolist()
    ungraded = [row for row, rollout in enumerate(rollouts) if rollout.thinking_tokens == 2]
    assert ungraded and [row for row, reward in enumerate(rewards) if math.isnan(reward)] == ungraded
    expected = advantages_by_hand(rollouts, [None if math.isnan(reward) else reward for reward in rewards])
    assert inputs["advantages"].tolist() == pytest.approx(expected, abs=1e-4)
    logged = [reward for reward in rewards if not math.isnan(reward)]
    assert trainer._metrics["train"]["reward"] == pytest.approx([sum(logged) / len(logged)])


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "bnpo", "dr_grpo"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_a_row_without_a_grade_moves_nothing(tmp_path, loss_type, beta):
    """Whatever its tokens are: not by its advantage, nor by the KL term, and without a share in the token count."""
    trainer = make_trainer(
        tmp_path,
        reward_funcs=[even_reward, tenths_reward],
        per_device_train_batch_size=24,
        loss_type=loss_type,
        beta=beta,
    )
    inputs = sampled_inputs(trainer)
    ungraded_B = trainer._rewards_per_func.isnan().all(dim=1)
    assert 2 <= ungraded_B.sum() <= 12
    assert (inputs["advantages"][ungraded_B] == 0).all() and inputs["advantages"].any()
    graded_tokens = sum(r.completion_tokens for r, out in zip(trainer._rollouts, ungraded_B, strict=True) if not out)
    assert inputs["num_items_in_batch"] == graded_tokens

    def gradients(ids):
        trainer.model.zero_grad()
        trainer._compute_loss(trainer.model, inputs | {"completion_ids": ids}).backward()
        return [weight.grad.clone() for weight in trainer.model.parameters()]

    ids = inputs["completion_ids"]
    others = torch.where(ungraded_B[:, None] & (ids > 4), (ids - 5 + 7) % (len(TOKENIZER) - 5) + 5, ids)
    assert (others != ids).any()
    for before, after in zip(gradients(ids), gradients(others), strict=True):
        torch.testing.assert_close(before, after)
    assert any(gradient.any() for gradient in gradients(ids))


@pytest.mark.parametrize("treatment", ["keep", "zero", "mask"])
def test_a_batch_that_cannot_be_graded_at_all_leaves_the_weights_alone(tmp_path, treatment, caplog):
    """Losses that divide by the number of tokens would be NaN, and with them all weights."""
    trainer = make_trainer(
        tmp_path,
        reward_funcs=lambda completions, **columns: [None] * len(completions),
        solution_truncated_reward=treatment,
        max_ungraded_rate=1.0,
    )
    before = copied_weights(trainer.model)
    recorded_training(trainer)
    after = copied_weights(trainer.model)
    assert all((before[name] == after[name]).all() for name in before)
    assert [log["reward/ungraded_rate"] for log in trainer.state.log_history if "loss" in log] == [1.0, 1.0]
    assert "All reward functions returned None" not in caplog.text  # with every column of a row, its tests too


def test_the_rate_of_ungraded_rows_is_logged_and_too_many_stop_the_run(tmp_path):
    """tenths_reward fails for rows of two thinking tokens, some 1 in 7 of them; batches of 8 rows count as 100."""
    trainer = make_trainer(tmp_path, reward_funcs=[tenths_reward, even_reward], max_steps=40, max_ungraded_rate=0.05)
    with pytest.raises(GradingError) as error:
        trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert trainer.state.global_step == len(logs) >= 2
    ungraded = int(str(error.value).split()[0])
    assert f"of the last {8 * (len(logs) + 1)} rows could not be graded" in str(error.value)
    assert "tenths_reward gave None, with no reason" in str(error.value)
    rates = [log["reward/ungraded_rate"] for log in logs]
    assert 0 < 8 * sum(rates) <= 0.05 * max(100, 8 * len(rates)) < ungraded


def test_a_rate_of_zero_stops_at_the_first(tmp_path):
    def last_fails(completions, log_extra, **columns):
        log_extra("mine_reason", ["correct"] * (len(completions) - 1) + ["grader_failed: no memory"])
        return [1.0] * (len(completions) - 1) + [None]

    trainer = make_trainer(tmp_path, reward_funcs=last_fails, max_ungraded_rate=0.0)
    with pytest.raises(GradingError, match=r"1 of the last 8 rows .* mine grader_failed 1 \(such as: no memory\)"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_reward_that_raises_stops_the_run(tmp_path):
    trainer = make_trainer(tmp_path, reward_funcs=[even_reward, raising_reward])
    with pytest.raises(
        GradingError, match=r"The reward raising_reward failed with KeyError at .*: 'no such key'; mend"
    ):
        trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("mode", ["drop", "stop"])
def test_rows_that_a_reward_raises_on_are_left_out_of_their_groups_where_the_recipe_says_so(tmp_path, mode):
    def stumbling(completions, thinking_tokens, **columns):
        if any(tokens < 4 for tokens in thinking_tokens):
            raise KeyError("short")
        return tenths_reward(completions, thinking_tokens)

    def reference(completions, thinking_tokens, **columns):
        tenths = tenths_reward(completions, thinking_tokens)
        return [None if n < 4 else reward for n, reward in zip(thinking_tokens, tenths, strict=True)]

    def trainer_in(folder, reward):
        folder.mkdir()
        return make_trainer(folder, reward_funcs=reward, on_reward_error=mode, per_device_train_batch_size=16)

    trainer = trainer_in(tmp_path / "raises", stumbling)
    if mode == "stop":
        with pytest.raises(GradingError, match=r"KeyError at .* of 16 rows fail and are in .*/failed_rewards\.jsonl"):
            trainer.train()
        assert trainer.state.global_step == 0
        return
    updates = recorded_training(trainer)
    expected = recorded_training(trainer_in(tmp_path / "knows", reference))
    for ours, theirs in zip(updates, expected, strict=True):
        assert torch.equal(ours.inputs["advantages"], theirs.inputs["advantages"]) and ours.loss == theirs.loss
    short = [[r for r in update.round.rollouts if r.thinking_tokens < 4] for update in updates]
    lines = list(map(json.loads, Path(trainer.args.output_dir, "failed_rewards.jsonl").read_text().splitlines()))
    assert [line["step"] for line in lines] == [1] * len(short[0]) + [2] * len(short[1])
    assert [line["columns"]["thinking_tokens"] for line in lines] == [r.thinking_tokens for r in (*short[0], *short[1])]
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["faults/reward_errors"] for log in logs] == [len(short[0]), len(lines)]
    assert 0 < len(short[0]) < len(lines)


def test_a_coroutine_rewards_like_a_function(tmp_path):
    trainer = make_trainer(tmp_path, reward_funcs=[patient_reward, even_reward])
    sampled_inputs(trainer)
    patient, even = trainer._rewards_per_func.T.tolist()
    assert patient == even and 0 < sum(even) < len(even)
    assert trainer.reward_func_names == ["patient_reward", "even_reward"]


def test_what_rewards_log_is_in_the_table_once_and_cannot_replace_the_rollouts(tmp_path):
    def twice(completions, log_extra, log_metric, **columns):
        log_extra("solution", ["reference"] * len(completions))
        log_extra("twice_reason", ["first"] * len(completions))
        log_extra("twice_reason", ["second"] * len(completions))
        log_metric("reward/twice/first", 0.25)
        return [1.0] * len(completions)

    trainer = make_trainer(tmp_path, reward_funcs=twice)
    sampled_inputs(trainer)
    extra = {name: list(column) for name, column in trainer._logs["extra"].items()}
    assert extra["solution_of_reward"] == ["reference"] * 8 and extra["twice_reason"] == ["second"] * 8
    _, solutions = segment_texts(trainer._rollouts, TOKENIZER)
    assert extra["solution"] == solutions
    assert trainer._metrics["train"]["reward/twice/first"] == [0.25]


def test_trls_accuracy_reward_trains_with_a_table_of_rollouts(tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 4, solution=["$1$", "$2$", "$3$", "$4$"])
    reward = load_reward("accuracy_reward")
    trainer = make_trainer(tmp_path, reward_funcs=[reward, even_reward], problems=problems, log_completions=True)
    trainer.train()
    (log, *_) = trainer.state.log_history
    assert log["rewards/accuracy_reward/mean"] == 0.0
    table = pandas.read_parquet(tmp_path / "run" / "completions" / "completions_00001.parquet")
    assert set(table["solution_of_reward"]) <= {"$1$", "$2$", "$3$", "$4$"} and "gold_parsed" in table.columns


def test_grading_starts_while_others_are_sampled_and_changes_no_reward(tmp_path):
    events = []

    def start(solution_text, answer, prompt, **columns):
        events.append(("start", solution_text, answer))

    def note(completions, solution_text, answer, **columns):
        events.append(("grade", list(zip(solution_text, answer, strict=True))))
        return even_reward(completions, solution_text)

    (tmp_path / "with").mkdir(), (tmp_path / "without").mkdir()
    trainer = make_trainer(tmp_path / "with", reward_funcs=note, grade_ahead=[start], rollout_max_batch_tokens=60)
    trainer.model.register_forward_pre_hook(lambda module, args: events.append(("step",)))
    inputs = sampled_inputs(trainer)
    kinds = [event[0] for event in events]
    last_step = len(kinds) - 1 - kinds[::-1].index("step")
    assert kinds.count("start") == 8 and 2 <= kinds[:last_step].count("start") < 8
    assert kinds.index("grade") > max(i for i, kind in enumerate(kinds) if kind == "start")
    (_, graded), *_ = [event for event in events if event[0] == "grade"]
    assert sorted(graded) == sorted(event[1:] for event in events if event[0] == "start")

    plain = make_trainer(tmp_path / "without", reward_funcs=even_reward, rollout_max_batch_tokens=60)
    assert (sampled_inputs(plain)["advantages"] == inputs["advantages"]).all()


def test_a_start_of_grading_that_fails_stops_the_run(tmp_path):
    def start(solution_text, **columns):
        raise OSError("no sandbox")

    trainer = make_trainer(tmp_path, grade_ahead=[start])
    with pytest.raises(GradingError, match=r"The reward start failed with OSError at .*: no sandbox; mend it"):
        trainer.train()


def test_rewards_see_the_segments_and_the_columns_of_their_own_row(tmp_path):
    seen = []

    def note(**columns):
        seen.append(columns)
        return [0.0] * len(columns["completions"])

    problems = write_problems(tmp_path / "problems.jsonl", 2, solution=["first", "second"])
    trainer = make_trainer(tmp_path, reward_funcs=note, problems=problems)
    sampled_inputs(trainer)
    (columns,) = seen
    loaded = load_problems(problems, answer_column="answer")
    rows = {tuple(prompt_token_ids(row["prompt"], TOKENIZER)): row for row in loaded}
    for i, rollout in enumerate(trainer._rollouts):
        row = rows[tuple(rollout.prompt_ids)]
        assert (columns["answer"][i], columns["solution"][i]) == (row["answer"], row["solution"])
        thinking, solution = list(rollout.thinking_ids), list(rollout.solution_ids)
        if rollout.thinking_stop_reason is ThinkingStopReason.NATURAL:
            thinking.pop()
        words = [TOKENIZER.convert_ids_to_tokens(i) for i in (thinking, solution)]
        texts = [" ".join(word for word in segment if word != "<eos>") for segment in words]
        assert (columns["thinking_text"][i], columns["solution_text"][i]) == tuple(texts)
        assert columns["thinking_stop_reason"][i] == rollout.thinking_stop_reason
        assert (columns["thinking_tokens"][i], columns["solution_tokens"][i]) == (
            rollout.thinking_tokens,
            rollout.solution_tokens,
        )
        markers = [solution.count(TOKENIZER.convert_tokens_to_ids(mark)) for mark in ("<think>", "</think>")]
        assert [columns["reopened"][i], columns["extra_end_markers"][i]] == markers
    assert {"natural", "budget", "eos"} >= set(columns["thinking_stop_reason"]) >= {"budget", "eos"}


def test_fixed_budgets(tmp_path):
    trainer = make_trainer(tmp_path)
    sampled_inputs(trainer)
    assert {rollout.budget for rollout in trainer._rollouts} == {Budget(thinking=6, solution=3)}
    assert trainer.max_completion_length == 6 + 1 + 3


def test_budgets_from_the_columns_of_the_data_set(tmp_path):
    thinking, solution = [0, 1, 4, 9], [2, 3, -1, 1]
    problems = write_problems(
        tmp_path / "problems.jsonl", 4, thinking_token_budget=thinking, solution_token_budget=solution
    )
    trainer = make_trainer(
        tmp_path, problems=problems, per_device_train_batch_size=16, max_completion_length=12, thinking_token_budget=-1
    )
    sampled_inputs(trainer)
    prompts = [tuple(prompt_token_ids(row["prompt"], TOKENIZER)) for row in load_problems(problems)]
    expected = [
        Budget(t, s, -1 if s != -1 else 12)  # where a phase is unlimited, max_completion_length ends the rollout
        for t, s in zip(thinking, solution, strict=True)
    ]
    groups = groups_of(trainer._rollouts)
    assert {prompt: len(rows) for prompt, rows in groups.items()} == dict.fromkeys(prompts, 4)
    for prompt, budget in zip(prompts, expected, strict=True):
        assert {trainer._rollouts[row].budget for row in groups[prompt]} == {budget}


def test_one_column_leaves_the_other_phase_to_the_recipe(tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 2, solution_token_budget=[1, 2])
    trainer = make_trainer(tmp_path, problems=problems)
    sampled_inputs(trainer)
    assert {rollout.budget for rollout in trainer._rollouts} == {Budget(6, 1), Budget(6, 2)}


def test_drawn_budgets_are_shared_by_a_group_and_drawn_anew_in_each_round(tmp_path):
    trainer = make_trainer(
        tmp_path,
        problems=write_problems(tmp_path / "problems.jsonl", 2),
        thinking_token_budget={"uniform": [0, 40]},
        solution_token_budget={"choices": [2, 5], "weights": [1, 3]},
        max_steps=6,
    )
    updates = recorded_training(trainer)
    drawn = defaultdict(list)
    for update in updates:
        for prompt, rows in groups_of(update.round.rollouts).items():
            (budget,) = {update.round.rollouts[row].budget for row in rows}
            drawn[prompt].append(budget)
    first, second = drawn.values()
    assert len(first) == len(second) == 6
    assert sum(a != b for a, b in zip(first, second, strict=True)) >= 5
    assert len(set(first)) >= 5
    assert all(0 <= b.thinking <= 40 and b.solution in (2, 5) for b in first + second)
    assert {b.solution for b in first + second} == {2, 5}
    assert trainer.max_completion_length == 40 + 1 + 5


def test_the_same_seed_draws_and_samples_the_same_and_another_seed_does_not(tmp_path):
    def run(name, seed):
        trainer = make_trainer(tmp_path / name, thinking_token_budget={"uniform": [0, 40]}, seed=seed)
        return [(r.budget, r.completion_ids) for update in recorded_training(trainer) for r in update.round.rollouts]

    for name in "abc":
        (tmp_path / name).mkdir()
    first = run("a", 1)
    assert run("b", 1) == first
    assert run("c", 2) != first


def test_each_round_samples_anew(tmp_path):
    problems = write_problems(tmp_path / "problems.jsonl", 2)
    trainer = make_trainer(tmp_path, problems=problems, thinking_token_budget=12, learning_rate=0.0, max_steps=3)
    updates = recorded_training(trainer)
    by_prompt = [
        {prompt: [update.round.rollouts[row].completion_ids for row in rows] for prompt, rows in groups.items()}
        for update in updates
        for groups in [groups_of(update.round.rollouts)]
    ]
    for prompt in by_prompt[0]:
        samples = [completion for sampled in by_prompt for completion in sampled[prompt]]
        assert len(samples) == 12 and len({tuple(completion) for completion in samples}) > 4


def test_an_unlimited_budget_ends_at_max_completion_length(tmp_path):
    trainer = make_trainer(tmp_path, thinking_token_budget=-1, max_completion_length=8, per_device_train_batch_size=24)
    sampled_inputs(trainer)
    lengths = [rollout.completion_tokens for rollout in trainer._rollouts]
    assert max(lengths) == 8
    assert not any(rollout.bridge_ids for rollout in trainer._rollouts)
    cut = [r for r in trainer._rollouts if r.thinking_stop_reason is ThinkingStopReason.LENGTH]
    assert cut and all(r.completion_tokens == 8 and not r.solution_ids for r in cut)
    assert trainer._metrics["train"]["budget/thinking_cut_rate"] == pytest.approx([len(cut) / len(lengths)])


def test_thinking_tokens_that_are_left_may_carry_over(tmp_path):
    trainer = make_trainer(tmp_path, thinking_token_budget=20, carry_over=True, per_device_train_batch_size=24)
    sampled_inputs(trainer)
    natural = [r for r in trainer._rollouts if r.thinking_stop_reason is ThinkingStopReason.NATURAL]
    assert any(rollout.solution_tokens > 3 for rollout in natural)
    assert all(rollout.solution_tokens <= 3 for rollout in trainer._rollouts if rollout.forced)


def test_no_thinking_at_all(tmp_path):
    trainer = make_trainer(tmp_path, thinking_token_budget=0)
    (update, *_) = recorded_training(trainer)
    assert all(r.thinking_ids == [] and len(r.bridge_ids) == 1 for r in update.round.rollouts)
    assert trainer.state.log_history[0]["budget/forced_rate"] == 1.0


def test_thinking_is_opened_where_the_template_does_not(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ ' <think>' }}", "")
    trainer = make_trainer(tmp_path, tokenizer=tokenizer)
    inputs = sampled_inputs(trainer)
    think = tokenizer.convert_tokens_to_ids("<think>")
    assert all(rollout.prompt_ids[-1] == think != rollout.prompt_ids[-2] for rollout in trainer._rollouts)
    assert (inputs["prompt_ids"][:, -1] == think).all()


def test_defect_5_padding_that_is_eos_trains_no_eos_that_nobody_sampled(tmp_path):
    """E1's code pads with EOS and finds its mask by searching for EOS: rows cut at s train one more token."""
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    trainer = make_trainer(tmp_path, tokenizer=tokenizer, per_device_train_batch_size=24)
    inputs = sampled_inputs(trainer)
    loss_mask = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
    rows = rollouts_by_ids(trainer._rollouts)
    padded = 0
    for ids, mask, rollout in zip(inputs["completion_ids"], loss_mask, trainer._rollouts, strict=True):
        trained = ids[mask].tolist()
        assert trained == [*rollout.thinking_ids, *rollout.solution_ids]
        padded += (ids == tokenizer.eos_token_id).sum().item() - trained.count(tokenizer.eos_token_id)
        if rollout.finish_reason is FinishReason.LENGTH:
            assert tokenizer.eos_token_id not in trained
    assert padded > 20 and len(rows) > 12
    assert inputs["num_items_in_batch"] == loss_mask.sum()


def test_defect_6_a_rollout_that_was_cut_is_known_by_its_finish_not_by_its_length(tmp_path):
    """E1's overlong filter waits for a length that budgeted rows never reach. (The clip is tested with the loss.)"""
    trainer = make_trainer(tmp_path, thinking_token_budget=20, solution_token_budget=2, per_device_train_batch_size=24)
    sampled_inputs(trainer)
    cut = [rollout for rollout in trainer._rollouts if rollout.solution_truncated]
    assert any(len(rollout.completion_ids) < trainer.max_completion_length for rollout in cut)
    expected = len(cut) / len(trainer._rollouts)
    assert trainer._metrics["train"]["budget/solution_truncated_rate"] == pytest.approx([expected])


def test_length_metrics_count_what_the_policy_sampled(tmp_path):
    trainer = make_trainer(tmp_path)
    sampled_inputs(trainer)
    lengths = [rollout.completion_tokens for rollout in trainer._rollouts]
    assert any(rollout.forced for rollout in trainer._rollouts)
    metrics = trainer._metrics["train"]
    assert metrics["completions/mean_length"] == pytest.approx([sum(lengths) / len(lengths)])
    assert metrics["completions/max_length"] == [max(lengths)]


def test_two_updates_of_one_generation_batch(tmp_path):
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=2, steps_per_generation=4, max_steps=4)
    updates = recorded_training(trainer)
    rounds = [id(update.round) for update in updates]
    assert len(updates) == 8 and len(set(rounds)) == 2
    assert rounds[:4] == rounds[:1] * 4
    assert len(updates[0].round.rollouts) == 32
    seen = [row for update in updates[:4] for row in update.inputs["completion_ids"]]
    assert len(seen) == 32
    first, third = updates[0].weights, updates[2].weights
    assert any((first[name] != third[name]).any() for name in first)


def full_forward_logprobs(model, rollout):
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits[0].float().log_softmax(-1)
    at = len(rollout.prompt_ids) + torch.tensor([i for i, authored in enumerate(rollout.env_mask) if authored])
    return logprobs[at - 1, ids[0, at]]


def test_rollouts_come_from_the_weights_of_their_time(tmp_path):
    trainer = make_trainer(tmp_path, learning_rate=1e-2, max_steps=3)
    last = recorded_training(trainer)[-1].round
    trainer.model.load_state_dict(last.weights)
    for rollout in last.rollouts:
        expected = full_forward_logprobs(trainer.model.eval(), rollout)
        torch.testing.assert_close(torch.tensor(rollout.raw_logprobs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_lora_trains_the_adapter_and_leaves_the_base_alone(tmp_path, beta):
    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=True, task_type="CAUSAL_LM")
    trainer = make_trainer(tmp_path, peft_config=adapter, beta=beta, learning_rate=1e-2, max_steps=3)
    before = copied_weights(trainer.model)
    last = recorded_training(trainer)[-1]
    after = copied_weights(trainer.model)
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved and all("lora" in name for name in moved)
    assert {name for name in before if "lora_B" in name} <= moved
    kl = [log["kl"] for log in trainer.state.log_history if "kl" in log]
    assert [k > 1e-4 for k in kl] == ([False, True, True] if beta else [])
    trainer.model.load_state_dict(last.round.weights)
    for rollout in last.round.rollouts:
        expected = full_forward_logprobs(trainer.model.eval(), rollout)
        torch.testing.assert_close(torch.tensor(rollout.raw_logprobs), expected, atol=1e-5, rtol=1e-5)


def test_activation_checkpointing_changes_nothing(tmp_path):
    def losses(name, checkpointing):
        (tmp_path / name).mkdir()
        trainer = make_trainer(tmp_path / name, activation_checkpointing=checkpointing, max_steps=3)
        updates = recorded_training(trainer)
        assert trainer.model.model.layers[0].gradient_checkpointing == checkpointing
        return [update.loss for update in updates]

    plain = losses("plain", False)
    assert losses("checkpointed", True) == pytest.approx(plain, abs=1e-6)
    assert any(plain)


def test_bf16_autocast_keeps_the_weights_in_float32(tmp_path):
    trainer = make_trainer(tmp_path, bf16=True)
    assert trainer.accelerator.mixed_precision == "bf16"
    before = copied_weights(trainer.model)
    recorded_training(trainer)
    after = copied_weights(trainer.model)
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    assert any((before[name] != after[name]).any() for name in before)


def test_evaluation_during_training_has_metrics_of_its_own(tmp_path):
    trainer = make_trainer(tmp_path, per_device_eval_batch_size=8)
    trainer.eval_dataset = trainer.train_dataset.select(range(2))
    metrics = trainer.evaluate()
    assert math.isfinite(metrics["eval_loss"])
    log = trainer.state.log_history[-1]
    assert 0 < log["eval_budget/forced_rate"] <= 1 and 0 < log["eval_budget/thinking_tokens"] <= 6


def test_seconds_are_those_of_the_slowest_process(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    monkeypatch.setattr(trainer.accelerator, "gather", lambda own: torch.cat([own, torch.tensor([[2.0, 1.0]])]))
    assert trainer._slowest(1.0, 3.0) == [2.0, 3.0]
