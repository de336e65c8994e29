"""What a configuration accepts, what it derives, and the sentence for each contradiction."""

import pytest
from trainer_fixtures import config_fields

from elastic.budget import Budget
from elastic.config import ElasticConfig
from elastic.rollout import Sampling


def config(tmp_path, **changes):
    return ElasticConfig(**config_fields(tmp_path, **changes))


@pytest.mark.parametrize(
    ("given", "value", "largest"),
    [
        (32, 32, 32),
        ("32", 32, 32),
        (0, 0, 0),
        ({"uniform": [4, 60]}, {"uniform": [4, 60]}, 60),
        ("{uniform: [4, 60]}", {"uniform": [4, 60]}, 60),
        ('{"choices": [1, 8], "weights": [0.5, 1]}', {"choices": [1, 8], "weights": [0.5, 1]}, 8),
        ("{log_uniform: [1, 64]}", {"log_uniform": [1, 64]}, 64),
    ],
)
def test_a_budget_is_a_number_or_a_distribution_in_every_spelling(tmp_path, given, value, largest):
    found = config(tmp_path, thinking_token_budget=given)
    assert found.thinking_token_budget == value
    assert found.run_stages[0].thinking.largest == largest
    assert found.to_dict()["thinking_token_budget"] == value


@pytest.mark.parametrize("given", [None, -1, "-1", {"choices": [4, -1]}])
def test_an_unlimited_budget_needs_an_end(tmp_path, given):
    with pytest.raises(ValueError, match=r"^thinking_token_budget may be unlimited \(-1\): .*max_completion_length"):
        config(tmp_path, thinking_token_budget=given)
    found = config(tmp_path, thinking_token_budget=given, max_completion_length=20)
    assert found.run_stages[0].thinking.largest == -1
    assert found.capped(Budget(thinking=-1, solution=3)) == Budget(-1, 3, total=20)
    assert found.capped(Budget(thinking=9, solution=-1)) == Budget(9, -1, total=20)
    assert found.capped(Budget(thinking=9, solution=3)) == Budget(9, 3)


def test_sampling_is_what_trl_calls_it(tmp_path):
    found = config(tmp_path, temperature=0.6, top_p=0.95, top_k=20, min_p=0.1)
    assert found.sampling == Sampling(temperature=0.6, top_p=0.95, top_k=20, min_p=0.1)
    assert config(tmp_path).sampling == Sampling()


CONTRADICTIONS = {
    "thinking_token_budget is -2": dict(thinking_token_budget=-2),
    "thinking_token_budget is 1.5": dict(thinking_token_budget=1.5),
    "thinking_token_budget is 'many'": dict(thinking_token_budget="many"),
    "thinking_token_budget is True": dict(thinking_token_budget="true"),
    "solution_token_budget is ''": dict(solution_token_budget=""),
    "solution_token_budget.choices is -3": dict(solution_token_budget={"choices": [4, -3]}),
    "thinking_token_budget.uniform is [5, 2]": dict(thinking_token_budget="{uniform: [5, 2]}"),
    "max_completion_length is 8": dict(max_completion_length=8),
    "max_completion_length is 0": dict(max_completion_length=0),
    "temperature is 0": dict(temperature=0.0),
    "top_p is 0": dict(top_p=0.0),
    "top_k is -1": dict(top_k=-1),
    "min_p is 2": dict(min_p=2.0),
    "generation_batch_size (8) must be divisible by num_generations (3)": dict(num_generations=3),
    "num_generations is 1": dict(num_generations=1),
    "num_generations is 0": dict(num_generations=0),
    "per_device_train_batch_size is 0": dict(per_device_train_batch_size=0),
    "gradient_accumulation_steps is 0": dict(gradient_accumulation_steps=0),
    "steps_per_generation is 0": dict(steps_per_generation=0),
    "num_iterations is 0": dict(num_iterations=0),
    "rollout_max_batch_tokens is 0": dict(rollout_max_batch_tokens=0),
    "loss_type is 'ppo'": dict(loss_type="ppo"),
    "importance_sampling_level is 'word'": dict(importance_sampling_level="word"),
    "scale_rewards is 'all'": dict(scale_rewards="all"),
    "use_vllm is True": dict(use_vllm=True),
    "mask_truncated_completions is True": dict(mask_truncated_completions=True),
    "repetition_penalty is 1.1": dict(repetition_penalty=1.1),
    "generation_kwargs is {'num_beams': 2}": dict(generation_kwargs={"num_beams": 2}),
    "save_only_model is True": dict(save_only_model=True),
}


@pytest.mark.parametrize("start", CONTRADICTIONS)
def test_a_contradiction_is_one_sentence_that_names_it(tmp_path, start):
    with pytest.raises(ValueError) as raised:
        config(tmp_path, **CONTRADICTIONS[start])
    sentence = str(raised.value)
    assert sentence.startswith(start)
    assert sentence.endswith(".") and "\n" not in sentence and ":" in sentence


def test_use_cpu_with_deepspeed_is_refused_since_accelerate_would_leave_it_out(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match=r"^use_cpu is True, with which accelerate leaves DeepSpeed out: leave it"):
        config(tmp_path)
