"""Training with vLLM as it runs on a CPU, by TRL's own objects and weight sync."""

import functools

import pytest
import torch
from trainer_fixtures import config_fields, even_reward
from vllm_models import CONTEXT, TOKENS, load_hf

from elastic.budget import Budget
from elastic.config import ElasticConfig
from elastic.data import load_problems
from elastic.rollout import Sampling
from elastic.trainer import ElasticGRPOTrainer

FIELDS = dict(
    use_vllm=True,
    vllm_mode="colocate",
    vllm_max_model_length=CONTEXT,
    per_device_train_batch_size=16,
    thinking_token_budget={"choices": [0, 3, 12]},
    solution_token_budget=5,
    learning_rate=1e-3,
)


@pytest.fixture(autouse=True)
def trains_on_a_cpu(monkeypatch):
    """vLLM for CPUs packs the weights of linear layers into a form that no sync can write to: leave them as they are."""
    import trl.generation.vllm_generation as generation
    import vllm.model_executor.layers.utils as layers

    def keep_weight(layer, remove_weight):
        layer.cpu_linear = torch.nn.functional.linear

    monkeypatch.setattr(layers, "dispatch_cpu_unquantized_gemm", keep_weight)
    monkeypatch.setattr(generation, "LLM", functools.partial(generation.LLM, enforce_eager=True))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def make_trainer(folder, model_dir, problems, **changes):
    config = ElasticConfig(**config_fields(folder, **(FIELDS | changes)))
    dataset = load_problems(str(problems))
    return ElasticGRPOTrainer(model=str(model_dir), reward_funcs=even_reward, args=config, train_dataset=dataset)
