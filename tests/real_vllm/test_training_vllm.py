"""Training with vLLM as it runs on a CPU, by TRL's own objects and weight sync."""

import functools

import pytest
import torch
from datasets import Dataset
from trainer_fixtures import config_fields, even_reward, recorded_training, sampled_inputs, write_problems
from vllm_models import CONTEXT, TOKENIZER

from elastic.anytime import AnytimeTrainer
from elastic.config import ElasticConfig
from elastic.data import load_problems
from elastic.trainer import ElasticGRPOTrainer

FIELDS = dict(
    use_vllm=True,
    vllm_mode="colocate",
    vllm_max_model_length=CONTEXT,
    per_device_train_batch_size=16,
    thinking_token_budget={"choices": [0, 3, 12, 40]},
    solution_token_budget=5,
    max_ungraded_rate=1.0,
)


@pytest.fixture(autouse=True)
def trains_on_a_cpu(monkeypatch):
    """vLLM for CPUs packs the weights of linear layers in a way that no sync can write to: here they stay.

    Its dtype is not TRL's to choose, and would be bfloat16 for a model in float32.
    """
    import trl.generation.vllm_generation as generation
    import vllm.model_executor.layers.utils as layers

    def keep_weight(layer, remove_weight):
        layer.cpu_linear = torch.nn.functional.linear

    monkeypatch.setattr(layers, "dispatch_cpu_unquantized_gemm", keep_weight)
    monkeypatch.setattr(generation, "LLM", functools.partial(generation.LLM, enforce_eager=True, dtype="float32"))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what TRL sets for vLLM is taken back
        monkeypatch.delenv(name)


def make_trainer(folder, model_dir, trainer=ElasticGRPOTrainer, **changes):
    rows = load_problems(write_problems(folder / "problems.jsonl"), answer_column="answer")
    return trainer(
        model=str(model_dir),
        reward_funcs=even_reward,
        args=ElasticConfig(**config_fields(folder, **(FIELDS | changes))),
        train_dataset=Dataset.from_list(rows),
        processing_class=TOKENIZER,
    )


def vllm_weights(trainer):
    """vLLM's weights by transformers' names, its joined projections taken apart."""
    model = trainer.vllm_generation.llm.llm_engine.model_executor.driver_worker.model_runner.model
    config, weights = trainer.model.config, {}
    heads, kv_heads, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    for name, weight in model.named_parameters():
        if "qkv_proj" in name:
            parts = weight.split([heads * width, kv_heads * width, kv_heads * width])
            weights |= {name.replace("qkv_proj", f"{part}_proj"): w for part, w in zip("qkv", parts, strict=True)}
        elif "gate_up_proj" in name:
            weights |= {
                name.replace("gate_up", part): w for part, w in zip(("gate", "up"), weight.chunk(2), strict=True)
            }
        else:
            weights[name] = weight
    return weights


def test_three_steps_and_the_weights_are_in_sync(tmp_path, model_dir):
    trainer = make_trainer(tmp_path, model_dir, max_steps=3, learning_rate=1e-2)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    sampled_with = []
    generate = trainer.vllm_generation.llm.llm_engine.add_request

    def noting(*args, **kwargs):
        if len(sampled_with) == trainer.state.global_step:
            sampled_with.append({name: weight.clone() for name, weight in vllm_weights(trainer).items()})
            trained = dict(trainer.model.named_parameters())
            assert sampled_with[-1].keys() == trained.keys()
            for name, weight in sampled_with[-1].items():
                rows = len(trained[name])  # vLLM pads the vocabulary
                torch.testing.assert_close(weight[:rows], trained[name].detach(), rtol=0, atol=1e-6)
        return generate(*args, **kwargs)

    trainer.vllm_generation.llm.llm_engine.add_request = noting
    trainer.train()
    assert trainer.state.global_step == len(sampled_with) == 3
    moved = [(before[name] - weight[: len(before[name])]).abs().max() for name, weight in sampled_with[-1].items()]
    assert min(moved) > 1e-3
    logged = trainer.state.log_history
    assert all(entry["budget/forced_rate"] > 0 for entry in logged[:3])
    assert all(entry["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-3) for entry in logged[:3])


@pytest.mark.parametrize("mode", ["sequence_mask", "token_truncate"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_importance_ratio_is_1_at_equal_weights(tmp_path, model_dir, mode, temperature):
    """Forced tokens would spoil it: their log-probability is not the policy's."""
    trainer = make_trainer(tmp_path, model_dir, vllm_importance_sampling_mode=mode, temperature=temperature)
    inputs = sampled_inputs(trainer)
    assert sum(rollout.forced for rollout in trainer._rollouts) >= 4
    ratio = inputs["importance_sampling_ratio"]
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-3)
    inserted = (inputs["completion_mask"] == 1) & (inputs["tool_mask"] == 0)
    assert inserted.any() and not inputs["sampling_per_token_logps"][inserted].any()


def test_anytime_forks_each_chain_at_its_cuts(tmp_path, model_dir):
    changes = dict(
        algorithm="anytime",
        thinking_token_budget={"choices": [2, 6]},
        solution_token_budget=3,
        scale_rewards="none",
        num_generations=4,
        max_steps=2,
    )
    trainer = make_trainer(tmp_path, model_dir, AnytimeTrainer, **changes)
    updates = recorded_training(trainer)
    assert trainer.state.global_step == 2
    for update in updates:
        rollouts = update.round.rollouts
        assert [rollout.budget.thinking for rollout in rollouts] == [2, 6] * (len(rollouts) // 2)
        for short, long in zip(rollouts[::2], rollouts[1::2], strict=True):
            assert list(long.thinking_ids[: len(short.thinking_ids)]) == list(short.thinking_ids)
    ratio = trainer.state.log_history[0]["sampling/importance_sampling_ratio/mean"]
    assert ratio == pytest.approx(1, abs=1e-3)


def test_a_group_shares_its_budget_and_groups_have_different_ones(tmp_path, model_dir):
    trainer = make_trainer(tmp_path, model_dir)
    sampled_inputs(trainer)
    rollouts = trainer._rollouts
    assert len({rollout.budget for rollout in rollouts}) > 1
    assert all(rollouts[row].budget == rollouts[row - row % 4].budget for row in range(16))


def test_a_run_samples_anew_in_each_step_and_the_same_with_the_same_seed(tmp_path, model_dir):
    def sampled(folder, **changes):
        folder.mkdir()
        trainer = make_trainer(folder, model_dir, learning_rate=0.0, **changes)
        rounds, generate = [], trainer.rollout_func

        def noting(prompts, trainer):
            output = generate(prompts, trainer)
            rounds.append(output["completion_ids"])
            return output

        trainer.rollout_func = noting
        trainer.train()
        return rounds

    first = sampled(tmp_path / "a")
    assert sampled(tmp_path / "b") == first and first[0] != first[1]
    assert sampled(tmp_path / "c", seed=7) != first


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vllm_mode": "serve"}, "vllm_mode is 'serve': give colocate or server"),
        ({"top_p": 0.9}, "top_p is 0.9 with use_vllm"),
        ({"vllm_structured_outputs_regex": "a"}, "vllm_structured_outputs_regex is 'a'"),
    ],
)
def test_what_is_refused(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        ElasticConfig(**config_fields(tmp_path, **(FIELDS | changes)))
