"""The trainer's loss, against one that is written out here from the papers, and against stock TRL."""

import math
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from trainer_fixtures import (
    even_reward,
    hard_or_even_reward,
    make_trainer,
    recorded_training,
    rollouts_by_ids,
    sampled_inputs,
)
from transformers import LlamaForCausalLM
from trl import GRPOTrainer

from elastic.nano.tokenizer import make_tokenizer
from elastic.rollout import segment_texts

TOKENIZER = make_tokenizer()
TEMPERATURE, EPSILON = 0.8, 0.05


def plain_model(trainer, weights):
    """transformers' own model, without anything that TRL adds to it, in double precision."""
    model = LlamaForCausalLM(trainer.model.config).double()
    model.load_state_dict(weights)
    return model


def sampled_distributions(model, rollout):
    """(log-probabilities, entropies) of the tokens that the policy sampled, each [sampled tokens]."""
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])
    start, bridge = len(rollout.prompt_ids) + len(rollout.thinking_ids), len(rollout.bridge_ids)
    sampled = [*range(len(rollout.prompt_ids), start), *range(start + bridge, ids.shape[1])]
    all_logprobs = (model(ids).logits[0] / TEMPERATURE).log_softmax(-1)[[i - 1 for i in sampled]]
    entropies = -(all_logprobs.exp() * all_logprobs).sum(-1)
    return all_logprobs.gather(1, ids[0, sampled][:, None]).squeeze(1), entropies


def advantages(rollouts):
    """By row: (r - mean) / (standard deviation + 1e-4) over the rollouts of the same prompt."""
    _, solutions = segment_texts(rollouts, TOKENIZER)
    rewards = torch.tensor(even_reward(None, solutions), dtype=torch.float64)
    groups = defaultdict(list)
    for row, rollout in enumerate(rollouts):
        groups[tuple(rollout.prompt_ids)].append(row)
    found = torch.zeros(len(rollouts), dtype=torch.float64)
    for rows in groups.values():
        found[rows] = (rewards[rows] - rewards[rows].mean()) / (rewards[rows].std() + 1e-4)
    return {
        (*rollout.prompt_ids, *rollout.completion_ids): a.item() for rollout, a in zip(rollouts, found, strict=True)
    }


class Hand:
    """One update by hand: the loss with its graph, and the metrics that go with it."""

    def __init__(self, trainer, update):
        args, by_ids = trainer.args, rollouts_by_ids(update.round.rollouts)
        self.model = plain_model(trainer, update.weights)
        sampler, reference = plain_model(trainer, update.round.weights), plain_model(trainer, trainer.initial_weights)
        row_advantages = advantages(update.round.rollouts)
        losses, self.kl, self.entropies, self.ratios = [], [], [], []
        for key in row_keys(update.inputs):
            rollout, advantage = by_ids[key], row_advantages[key]
            new, entropies = sampled_distributions(self.model, rollout)
            with torch.no_grad():
                old, ref = (sampled_distributions(model, rollout)[0] for model in (sampler, reference))
            ratio = torch.exp(new - old)
            gain = torch.min(ratio * advantage, ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantage)
            kl = torch.exp(ref - new) - (ref - new) - 1
            losses.append(-gain + args.beta * kl)
            if args.beta or advantage:  # without KL, rows that cannot move the policy are in no metric either
                self.kl.append(kl.detach())
                self.entropies.append(entropies.detach())
                self.ratios.append((ratio.detach(), advantage))
        self.loss = reduced(losses, args, sum(rollout.completion_tokens for rollout in update.round.rollouts))

    @property
    def clipped(self):
        """Share of tokens whose ratio is clipped away."""
        clipped = [((r < 1 - EPSILON) & (a < 0)) | ((r > 1 + EPSILON) & (a > 0)) for r, a in self.ratios]
        return torch.cat(clipped).double().mean().item()


def row_keys(inputs):
    """All ids of each row of a batch, without its padding."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    masks = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1).bool()
    return [tuple(row[mask].tolist()) for row, mask in zip(ids, masks, strict=True)]


def reduced(losses, args, batch_tokens):
    """The per-token losses of a micro-batch as one number, as each loss type has it."""
    accumulated = args.gradient_accumulation_steps
    if args.loss_type == "grpo":
        return torch.stack([row.mean() for row in losses]).mean() / accumulated
    total = torch.cat(losses).sum()
    if args.loss_type == "bnpo":
        return total / sum(map(len, losses)) / accumulated
    if args.loss_type == "dr_grpo":
        longest = args.thinking_token_budget + 1 + args.solution_token_budget
        return total / (len(losses) * longest) / accumulated
    updates_of_a_batch = args.steps_per_generation / accumulated
    return total / (batch_tokens / updates_of_a_batch)


def trained(folder, **changes):
    """(trainer, its updates) after several updates on each of two generation batches, far enough for the clip."""
    fields = dict(temperature=TEMPERATURE, epsilon=EPSILON, learning_rate=3e-3, use_bias_correction_kl=False)
    trainer = make_trainer(folder, **(fields | changes))
    trainer.initial_weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    return trainer, recorded_training(trainer)


TWO_UPDATES = dict(steps_per_generation=2, num_iterations=2, max_steps=5)
SCHEDULES = {
    "several updates a batch": TWO_UPDATES,
    "accumulated": dict(gradient_accumulation_steps=2, steps_per_generation=4, max_steps=3),
    "on-policy": dict(max_steps=2),
}


@pytest.mark.parametrize("beta", [0.0, 0.05])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "bnpo", "dr_grpo"])
def test_the_loss_and_its_gradient_are_those_by_hand(tmp_path, loss_type, beta):
    trainer, updates = trained(tmp_path, loss_type=loss_type, beta=beta, **TWO_UPDATES)
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert any(rollout.forced for update in updates for rollout in update.round.rollouts)
    clipped = 0
    for update, log in zip(updates, logs, strict=True):
        hand = Hand(trainer, update)
        assert update.loss == pytest.approx(hand.loss.item(), rel=1e-5, abs=1e-6)
        if hand.entropies:
            assert log["entropy"] == pytest.approx(torch.cat(hand.entropies).mean().item(), rel=1e-5, abs=1e-6)
            assert log["clip_ratio/region_mean"] == pytest.approx(hand.clipped, abs=1e-6)
            clipped += hand.clipped
        if beta:
            assert log["kl"] == pytest.approx(torch.cat(hand.kl).mean().item(), rel=1e-5, abs=1e-6)
    assert clipped > 0
    assert_equal_gradients(trainer, updates[2])


def assert_equal_gradients(trainer, update):
    hand = Hand(trainer, update)
    hand.loss.backward()
    trainer.model.load_state_dict(update.weights)
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, update.inputs).backward()
    by_hand = {name: parameter.grad for name, parameter in hand.model.named_parameters()}
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter.grad.double(), by_hand[name], atol=1e-5, rtol=1e-4)
    assert max(grad.abs().max() for grad in by_hand.values()) > 1e-3


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
@pytest.mark.parametrize("schedule", ["accumulated", "on-policy"])
def test_the_loss_by_hand_under_other_schedules(tmp_path, schedule, loss_type):
    trainer, updates = trained(tmp_path, loss_type=loss_type, **SCHEDULES[schedule])
    assert len(updates) == SCHEDULES[schedule].get("gradient_accumulation_steps", 1) * trainer.args.max_steps
    assert any(update.loss for update in updates)
    for update in updates:
        assert update.loss == pytest.approx(Hand(trainer, update).loss.item(), abs=1e-6)


def scrambled(model, rollouts, *, forced):
    """A hook: the model's last hidden states are noise where they predict a forced token (else: a sampled one)."""
    by_ids = rollouts_by_ids(rollouts)

    def scramble(module, args, kwargs, output):
        input_ids, attention_mask = kwargs["input_ids"], kwargs["attention_mask"].bool()
        hidden = output.last_hidden_state.clone()
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            rollout = by_ids[tuple(ids[mask].tolist())]
            first = int(mask.nonzero()[0]) + len(rollout.prompt_ids) - 1
            at = [first + i for i, authored in enumerate(rollout.env_mask) if authored != forced]
            hidden[row, at] = 10 * torch.randn(len(at), hidden.shape[-1])
        output.last_hidden_state = hidden
        return output

    return model.model.register_forward_hook(scramble, with_kwargs=True)


def loss_and_metrics(trainer, inputs):
    trainer._metrics["train"].clear()
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()}
    return loss.item(), dict(trainer._metrics["train"]), gradients


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_defect_3_forced_tokens_touch_no_loss_gradient_or_metric(tmp_path, beta, level):
    """E1's code trains the `</think>` that it appended; here the model may say anything at its place."""
    trainer = make_trainer(tmp_path, beta=beta, num_iterations=2, importance_sampling_level=level)
    inputs = sampled_inputs(trainer)
    assert sum(rollout.forced for rollout in trainer._rollouts) >= 2
    move(trainer.model)
    expected_loss, expected_metrics, expected_gradients = loss_and_metrics(trainer, inputs)
    with scrambled(trainer.model, trainer._rollouts, forced=True):
        loss, metrics, gradients = loss_and_metrics(trainer, inputs)
    assert loss == expected_loss
    assert metrics == expected_metrics and {"entropy", "clip_ratio/region_mean"} <= metrics.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], atol=0, rtol=0)
    with scrambled(trainer.model, trainer._rollouts, forced=False):
        assert loss_and_metrics(trainer, inputs)[0] != pytest.approx(expected_loss, abs=1e-3)


def move(model):
    """Leave the weights that sampled, so that ratios differ from 1."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))


class Seen:
    """The shapes [rows, columns] of what goes through the model."""

    def __init__(self, model):
        self.shapes = []
        model.model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module, args, kwargs):
        self.shapes.append(tuple(kwargs["input_ids"].shape))


LOSSES = ["grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"]


def compared_with_stock(trainer, inputs):
    """((loss, gradients), shape) of ours and of stock TRL on the same inputs and weights."""
    seen = Seen(trainer.model)
    results = []
    for compute_loss in (trainer._compute_loss, lambda *args: GRPOTrainer._compute_loss(trainer, *args)):
        trainer.model.zero_grad()
        loss = compute_loss(trainer.model, inputs)
        loss.backward()
        results.append((loss.item(), [parameter.grad.clone() for parameter in trainer.model.parameters()]))
    return *results, *seen.shapes


def assert_same(ours, stock):
    assert ours[0] == pytest.approx(stock[0], abs=1e-5)
    for our_gradient, stock_gradient in zip(ours[1], stock[1], strict=True):
        torch.testing.assert_close(our_gradient, stock_gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", LOSSES)
def test_idle_rows_are_left_out_and_the_loss_is_stock_trls(tmp_path, loss_type, level):
    trainer = make_trainer(
        tmp_path,
        reward_funcs=hard_or_even_reward,
        loss_type=loss_type,
        importance_sampling_level=level,
        num_iterations=2,
        epsilon_high=0.25,
        per_device_train_batch_size=24,
    )
    inputs = sampled_inputs(trainer)
    move(trainer.model)
    moving = int((inputs["advantages"] != 0).sum())
    assert 0 < moving <= 16 and moving % 4 == 0
    ours, stock, our_shape, stock_shape = compared_with_stock(trainer, inputs)
    assert (our_shape[0], stock_shape[0]) == (moving, 24)
    assert our_shape[1] <= stock_shape[1]
    assert_same(ours, stock)
    assert max(gradient.abs().max() for gradient in ours[1]) > 1e-4


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "bnpo", "dr_grpo", "luspo"])
def test_rows_that_are_masked_as_cut_are_left_out_and_still_counted(tmp_path, loss_type):
    trainer = make_trainer(
        tmp_path, loss_type=loss_type, solution_truncated_reward="mask", per_device_train_batch_size=24
    )
    inputs = sampled_inputs(trainer)
    cut = torch.tensor([rollout.solution_truncated for rollout in trainer._rollouts])
    moving = int(((inputs["advantages"] != 0) & ~cut).sum())
    assert 0 < moving < int((inputs["advantages"] != 0).sum())
    ours, stock, our_shape, stock_shape = compared_with_stock(trainer, inputs)
    assert (our_shape[0], stock_shape[0]) == (moving, 24)
    assert_same(ours, stock)


@pytest.mark.parametrize(
    "term", [dict(beta=0.1), dict(entropy_coef=0.01), dict(top_entropy_quantile=0.5)], ids=lambda term: next(iter(term))
)
def test_no_row_is_left_out_when_another_term_trains_it(tmp_path, term):
    trainer = make_trainer(tmp_path, reward_funcs=hard_or_even_reward, per_device_train_batch_size=24, **term)
    inputs = sampled_inputs(trainer)
    assert (inputs["advantages"] == 0).any()
    ours, stock, our_shape, stock_shape = compared_with_stock(trainer, inputs)
    assert our_shape == stock_shape and our_shape[0] == 24
    assert_same(ours, stock)


@pytest.mark.parametrize(
    ("loss_type", "reward"), [*((loss_type, 0.1) for loss_type in LOSSES), ("dapo", 0.0), ("dapo", 0.7), ("dapo", None)]
)
def test_a_batch_that_is_all_idle_has_no_gradient(tmp_path, loss_type, reward):
    """0.1 and 0.7: their mean over eight in float32 is not the number itself."""
    trainer = make_trainer(
        tmp_path,
        reward_funcs=lambda completions, **_: [reward] * len(completions),
        loss_type=loss_type,
        num_generations=8,
    )
    inputs = sampled_inputs(trainer)
    seen = Seen(trainer.model)
    loss, metrics, gradients = loss_and_metrics(trainer, inputs)
    assert loss == 0.0
    assert all(gradient.abs().max() == 0 for gradient in gradients.values())
    assert [rows for rows, _ in seen.shapes] == [1]
    assert not any(math.isinf(value) for values in metrics.values() for value in values)


def odd_reward(completions, solution_text, **columns):
    return [2 * (1 - reward) for reward in even_reward(completions, solution_text)]


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_equal_sums_are_idle_unless_each_reward_is_normalized_before(tmp_path, aggregation):
    trainer = make_trainer(
        tmp_path,
        reward_funcs=[even_reward, odd_reward],
        reward_weights=[1.0, 0.5],
        multi_objective_aggregation=aggregation,
    )
    inputs = sampled_inputs(trainer)
    assert trainer._metrics["train"]["reward"] == [1.0] and trainer._metrics["train"]["reward_std"] == [0.0]
    assert (inputs["advantages"] != 0).any() == (aggregation == "normalize_then_sum")
    ours, stock, *_ = compared_with_stock(trainer, inputs)
    assert_same(ours, stock)


@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize("multiple", [None, 11])
def test_padding_that_no_kept_row_needs_is_trimmed(tmp_path, multiple, group):
    trainer = make_trainer(tmp_path, pad_to_multiple_of=multiple, thinking_token_budget=40, loss_type="grpo")
    inputs = sampled_inputs(trainer)
    kept = 4 * group + int(inputs["completion_mask"].sum(1)[4 * group :][:4].argmin())
    inputs["advantages"] = torch.zeros(8).index_fill(0, torch.tensor([kept]), 1.5)
    ours, stock, our_shape, stock_shape = compared_with_stock(trainer, inputs)
    assert_same(ours, stock)
    widths = [int(inputs[f"{part}_mask"][kept].sum()) for part in ("prompt", "completion")]
    step = multiple or 1
    assert our_shape == (1, sum(-(-width // step) * step for width in widths))
    assert our_shape[1] < stock_shape[1] and (multiple is None or widths[0] % multiple)


def test_evaluation_leaves_no_row_out(tmp_path):
    trainer = make_trainer(tmp_path, reward_funcs=hard_or_even_reward, per_device_train_batch_size=24)
    inputs = sampled_inputs(trainer)
    trainer.model.eval()
    seen = Seen(trainer.model)
    with torch.no_grad():
        trainer._compute_loss(trainer.model, inputs)
    assert [rows for rows, _ in seen.shapes] == [24]


def test_two_processes_with_different_idle_rows(tmp_path):
    """TRL gathers a metric for each row: with other numbers of rows on each process, a run would die or hang."""
    done = subprocess.run(
        ["torchrun", "--standalone", "--nproc_per_node", "2", "tests/two_processes.py", str(tmp_path)],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(done.stdout.count(f"{loss_type}: 2 updates") == 2 for loss_type in ("grpo", "dapo", "bnpo"))
