"""Micro-batches that are ordered by length, against those that stock TRL cuts from the same generation batch."""

from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from trainer_fixtures import (
    config_fields,
    even_reward,
    hard_or_even_reward,
    make_trainer,
    micro_batches,
    sampled_inputs,
    updates_of_ours_and_of_stock,
)
from trl import GRPOTrainer

from elastic.config import ElasticConfig
from elastic.micro_batches import (
    ROW_MEAN_LOSSES,
    TOKEN_SUM_LOSSES,
    moving_rows,
    ordered_by_length,
    term_of_the_micro_batch,
    trimmed,
)

MIXED = dict(thinking_token_budget={"uniform": [1, 30]}, solution_token_budget=3)


def half_graded_reward(completions, solution_text, **columns):
    """hard_or_even_reward, but no grade for each fifth row."""
    rewards = hard_or_even_reward(completions, solution_text, **columns)
    return [None if i % 5 == 0 else reward for i, reward in enumerate(rewards)]


def a_trainer(folder, **changes):
    """24 rows of mixed budgets in 4 micro-batches, 2 of them an update; each generation batch is trained on twice."""
    schedule = dict(gradient_accumulation_steps=2, steps_per_generation=4, num_iterations=2)
    fields = dict(per_device_train_batch_size=6, reward_funcs=hard_or_even_reward, max_ungraded_rate=1.0)
    trainer = make_trainer(folder, **(fields | schedule | MIXED | changes))
    in_double_precision(trainer.model)
    return trainer


def in_double_precision(model):
    """Its angles too: in single precision, those of a row depend a little on how much padding is before it."""
    model.double()
    rotary = model.model.rotary_emb
    frequencies = rotary.inv_freq.double()

    def angles(x, position_ids):
        both = (position_ids[:, :, None] * frequencies).repeat(1, 1, 2)
        return both.cos(), both.sin()

    rotary.forward = angles


def moved(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """(trainer, its scored generation batch): with reference and old log-probabilities, and weights that have moved."""
    trainer = a_trainer(tmp_path_factory.mktemp("micro"), beta=0.05, epsilon_high=0.25)
    inputs = sampled_inputs(trainer)
    moved(trainer.model)
    return trainer, inputs


def assert_same_updates(trainer, inputs, updates=2):
    ours, stock = updates_of_ours_and_of_stock(trainer, inputs)
    assert len(ours) == len(stock) == updates
    for our_gradient, stock_gradient in zip(ours, stock, strict=True):
        assert (our_gradient - stock_gradient).norm() <= 1e-6 * stock_gradient.norm()
    assert max(gradient.norm() for gradient in stock) > 1e-3


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("beta", [0.0, 0.05])
@pytest.mark.parametrize("loss_type", sorted(TOKEN_SUM_LOSSES | ROW_MEAN_LOSSES))
def test_an_update_is_that_of_stock_trl(sampled, monkeypatch, loss_type, beta, level):
    trainer, inputs = sampled
    for name, value in dict(loss_type=loss_type, beta=beta, importance_sampling_level=level).items():
        monkeypatch.setattr(trainer, name, value)
    assert_same_updates(trainer, inputs, updates=4)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
@pytest.mark.parametrize(("accumulated", "slots", "updates"), [(4, 4, 1), (1, 4, 4), (4, 2, 1), (4, 6, 3)], ids=str)
def test_an_update_is_that_of_stock_trl_under_other_schedules(tmp_path, loss_type, accumulated, slots, updates):
    """4 of 2: an update is made of two generation batches. 4 of 6: an update ends in the midst of one."""
    trainer = a_trainer(
        tmp_path,
        loss_type=loss_type,
        gradient_accumulation_steps=accumulated,
        steps_per_generation=slots,
        num_iterations=1,
        per_device_train_batch_size=4,
        reward_funcs=even_reward,
    )
    assert_same_updates(trainer, sampled_inputs(trainer), updates)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo", "luspo"])
@pytest.mark.parametrize(
    "rows",
    [dict(solution_truncated_reward="mask"), dict(reward_funcs=half_graded_reward)],
    ids=["masked as cut", "without a grade"],
)
def test_rows_that_are_left_out_change_nothing(tmp_path, rows, loss_type):
    trainer = a_trainer(tmp_path, loss_type=loss_type, **rows)
    inputs = sampled_inputs(trainer)
    assert 0 < int((inputs["tool_mask"].sum(dim=1) == 0).sum()) < 24
    assert_same_updates(trainer, inputs, updates=4)


@pytest.mark.parametrize(("beta", "level"), [(0.0, "token"), (0.05, "token"), (0.0, "sequence")])
def test_training_is_that_without_it(tmp_path, beta, level):
    """Through the real loop: the weights, the losses, and the metrics by token, but for rounding."""
    runs = []
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
        wanted = None if name == "with" else False
        trainer = make_trainer(
            tmp_path / name,
            length_aware_micro_batches=wanted,
            optim="sgd",
            learning_rate=0.1,
            gradient_accumulation_steps=3,
            steps_per_generation=6,
            per_device_train_batch_size=4,
            max_steps=4,
            beta=beta,
            importance_sampling_level=level,
            epsilon=0.02,
            **MIXED,
        )
        widths = []
        trainer.model.model.register_forward_pre_hook(
            lambda module, args, kwargs, widths=widths: widths.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        trainer.train()
        logs = [log for log in trainer.state.log_history if "loss" in log]
        runs.append((logs, torch.cat([p.detach().flatten() for p in trainer.model.parameters()]), sum(widths)))
    (logs, weights, tokens), (plain_logs, plain_weights, plain_tokens) = runs
    for name in ("loss", "entropy", "clip_ratio/region_mean", *(["kl"] if beta else [])):
        values = [log[name] for log in logs]
        assert values == pytest.approx([log[name] for log in plain_logs], abs=1e-5), name
        assert len(values) == 4 and any(values), name
    torch.testing.assert_close(weights, plain_weights, atol=1e-6, rtol=1e-5)
    assert tokens < plain_tokens


@pytest.mark.parametrize("multiple", [None, 8])
def test_old_and_reference_logprobs_are_those_of_stock_trl(tmp_path, multiple):
    """A generation batch is scored slice by slice, longest rows first, each slice trimmed to its own."""
    trainer = a_trainer(tmp_path, beta=0.05, pad_to_multiple_of=multiple)
    in_double_precision(trainer.ref_model)
    moved(trainer.ref_model)
    widths, scored = [], {}
    trainer.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    inputs = sampled_inputs(trainer)
    ours = widths[-4:]
    rows = [torch.cat([inputs[f"prompt_{name}"], inputs[f"completion_{name}"]], dim=1) for name in ("ids", "mask")]
    columns = inputs["completion_ids"].shape[1]
    for model in (trainer.model, trainer.ref_model):
        with torch.no_grad():
            scored[model], *_ = GRPOTrainer._get_per_token_logps_and_entropies(trainer, model, *rows, columns, 6)
    torch.testing.assert_close(inputs["old_per_token_logps"], scored[trainer.model], atol=1e-7, rtol=0)
    torch.testing.assert_close(inputs["ref_per_token_logps"], scored[trainer.ref_model], atol=1e-7, rtol=0)
    assert (scored[trainer.model] - scored[trainer.ref_model]).abs().max() > 1e-2
    assert ours == sorted(ours, reverse=True) and ours[-1] < ours[0] == widths[-1]
    assert all(multiple is None or width % multiple == 0 for width in ours)


def lengths(batch):
    return batch["completion_mask"].sum(dim=1).tolist()


def rows_of(batches):
    return Counter(tuple(ids) for batch in batches for ids in batch["completion_ids"].tolist())


@pytest.mark.parametrize("idle_rows_are_free", [True, False])
def test_every_update_keeps_its_rows_and_every_micro_batch_their_number(sampled, idle_rows_are_free):
    _, inputs = sampled
    batches = [{name: value if value.dim() == 0 else value[i::4] for name, value in inputs.items()} for i in range(4)]
    ordered = ordered_by_length(batches, 2, idle_rows_are_free=idle_rows_are_free)
    assert [len(lengths(batch)) for batch in ordered] == [6] * 4
    for update in (slice(0, 2), slice(2, 4)):
        assert rows_of(ordered[update]) == rows_of(batches[update])
        moving = [moving_rows(batch) for batch in ordered[update]]
        if idle_rows_are_free:
            assert abs(int(moving[0].sum()) - int(moving[1].sum())) <= 1
            found = [
                n for batch, kept in zip(ordered[update], moving, strict=True) for n in lengths(batch)[: kept.sum()]
            ]
            assert all(kept[: kept.sum()].all() for kept in moving)
        else:
            found = [n for batch in ordered[update] for n in lengths(batch)]
        assert found == sorted(found, reverse=True) and len(set(found)) > 1


def made(completions, advantages):
    """A batch of rows with one prompt token each, of the given completion lengths."""
    width = max(completions)
    mask = torch.tensor([[1] * n + [0] * (width - n) for n in completions])
    ones = torch.ones(len(completions), 1, dtype=torch.long)
    return {
        "prompt_ids": ones,
        "prompt_mask": ones,
        "completion_ids": mask * torch.arange(1, len(completions) + 1)[:, None],
        "completion_mask": mask,
        "tool_mask": torch.ones_like(mask),
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": mask.sum(),
    }


def halves(batch):
    n = len(batch["advantages"]) // 2
    return [{name: v if v.dim() == 0 else v[part] for name, v in batch.items()} for part in (slice(n), slice(n, None))]


def test_padding_falls_to_each_micro_batchs_longest_row():
    batches = halves(made([3, 16, 2, 15, 1, 14, 4, 13], [1.0] * 8))
    widths = [trimmed(b, 1)["completion_ids"].shape for b in ordered_by_length(batches, 2, idle_rows_are_free=True)]
    assert widths == [(4, 16), (4, 4)]
    assert [trimmed(batch, 1)["completion_ids"].shape for batch in batches] == [(4, 16), (4, 14)]
    apart = ordered_by_length(batches, 1, idle_rows_are_free=True)
    assert [lengths(batch) for batch in apart] == [[16, 15, 3, 2], [14, 13, 4, 1]]


def test_rows_that_move_the_policy_are_divided_evenly():
    batches = halves(made([5, 6, 7, 8, 4, 3, 2, 1], [0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]))
    free, paid = (ordered_by_length(batches, 2, idle_rows_are_free=free) for free in (True, False))
    assert [lengths(batch) for batch in free] == [[8, 7, 5, 4], [6, 1, 3, 2]]
    assert [lengths(batch) for batch in paid] == [[8, 7, 6, 5], [4, 3, 2, 1]]
    assert all(batch["num_items_in_batch"] == 36 for batch in free)


def test_a_buffer_is_ordered_once_and_an_evaluation_never(sampled, monkeypatch):
    trainer, inputs = sampled
    calls = []
    monkeypatch.setattr(trainer, "_generate_and_score_completions", lambda batch: calls.append(batch) or dict(inputs))
    monkeypatch.setattr(trainer, "_buffered_inputs", None)
    first = trainer._prepare_inputs([])
    buffered = list(trainer._buffered_inputs)
    monkeypatch.setattr(trainer, "_step", 5)
    assert trainer._prepare_inputs([]) is buffered[1] and first is buffered[0] and len(calls) == 1
    monkeypatch.setattr(trainer.model, "training", False)
    assert lengths(trainer._prepare_inputs([])) == lengths(inputs)


@pytest.mark.parametrize(
    ("fields", "term"),
    [
        (dict(loss_type="bnpo"), "loss_type bnpo"),
        (dict(entropy_coef=0.01), "entropy_coef 0.01"),
        (dict(use_adaptive_entropy=True), "use_adaptive_entropy true"),
        (dict(top_entropy_quantile=0.5), "top_entropy_quantile 0.5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_the_split_changes_the_loss_it_is_off_and_refused(tmp_path, fields, term):
    config = ElasticConfig(**config_fields(tmp_path, **fields))
    assert term_of_the_micro_batch(config) == term
    with pytest.raises(ValueError, match=rf"^length_aware_micro_batches is true, but with {term} the loss depends on "):
        ElasticConfig(**config_fields(tmp_path, length_aware_micro_batches=True, **fields))
    trainer = make_trainer(tmp_path, steps_per_generation=2, gradient_accumulation_steps=2, **fields)
    inputs = sampled_inputs(trainer)
    stock = micro_batches(trainer, inputs, partial(GRPOTrainer._prepare_inputs, trainer))
    assert [lengths(batch) for batch in micro_batches(trainer, inputs, trainer._prepare_inputs)] == [
        *map(lengths, stock)
    ]


def test_a_router_whose_loss_is_trained_is_refused(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.aux_loss_enabled, trainer.router_aux_loss_coef = True, 0.01
    args = SimpleNamespace(**vars(trainer.args) | {"length_aware_micro_batches": True})
    with pytest.raises(ValueError, match=r"is true, but the router's loss \(router_aux_loss_coef 0\.01\) depends"):
        trainer._is_exact_in_any_order(args)
    assert not trainer._is_exact_in_any_order(trainer.args)


def test_every_loss_of_trl_is_listed_or_refused():
    from elastic.config import _CHOICES

    assert set(_CHOICES["loss_type"]) == TOKEN_SUM_LOSSES | ROW_MEAN_LOSSES | {"bnpo"}
