"""What a training run needs before its model is loaded, checked piece by piece."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from trl import ModelConfig

from elastic.arguments import DataArguments
from elastic.budget import UNLIMITED, ReasoningTokens
from elastic.config import ElasticConfig
from elastic.data import drop_long_prompts, load_problems
from rewards import REWARDS, load_reward

logger = logging.getLogger(__name__)


def reward_functions(names: list[str] | None, config: ElasticConfig) -> list[Callable]:
    """The rewards of these names. Raises ValueError when there is none, or none that the budgets allow to be earned."""
    if not names:
        raise ValueError(f"reward_funcs is not set: give one or more of {', '.join(REWARDS)}, or dotted paths.")
    graded = [name for name in names if name in REWARDS]
    if graded and config.solution_budgets.smallest == 0:
        raise ValueError(
            f"solution_token_budget is {config.solution_token_budget!r}, which allows no solution, and the reward "
            f"{graded[0]} grades the solution: give 1 token or more."
        )
    return [load_reward(name) for name in names]


def load_tokenizer(model: ModelConfig, config: ElasticConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, padding on the left. Raises ValueError when there is no such model."""
    name = model.model_name_or_path
    if name is None:
        raise ValueError("model_name_or_path is not set: give a hub id or a model directory.")
    check_model_exists(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name,
            revision=model.model_revision,
            trust_remote_code=config.trust_remote_code,
            truncation_side="left",
            padding_side="left",
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model_name_or_path is {name!r}, whose tokenizer cannot be loaded: {_first_line(error)}"
        ) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_model_exists(name: str) -> None:
    """Raises ValueError when `name` is a path without a model; whether a hub id exists is the hub's to say."""
    folder = Path(name)
    if folder.is_dir():
        if not ((folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()):
            raise ValueError(f"model_name_or_path is {name!r}, a folder without config.json: give a model directory.")
    elif folder.is_absolute() or name.count("/") > 1 or (len(folder.parts) > 1 and folder.parent.is_dir()):
        raise ValueError(
            f"model_name_or_path is {name!r}, and there is no such folder: give a model directory or a hub id."
        )


def training_set(data: DataArguments, tokenizer: PreTrainedTokenizerBase, config: ElasticConfig) -> Dataset:
    """The problems to train on, without those whose prompt is too long, which are counted.

    Raises:
        ValueError: the data set or a row of it cannot be used, or it has fewer problems than a batch needs.
    """
    if data.dataset_name is None:
        raise ValueError("dataset_name is not set: give a hub id, or a .json, .jsonl or .parquet file.")
    rows = load_problems(
        data.dataset_name,
        split=data.dataset_train_split,
        dataset_config=data.dataset_config,
        problem_column=data.problem_column,
        answer_column=data.answer_column,
        prompt_suffix=data.prompt_suffix,
        system_prompt=data.system_prompt,
        drop_malformed_rows=data.drop_malformed_rows,
    )
    rows, dropped = drop_long_prompts(rows, tokenizer, data.max_prompt_length, config.chat_template_kwargs)
    if dropped:
        logger.warning(
            "Dropped %d prompts of more than %d tokens; %d are left.", dropped, data.max_prompt_length, len(rows)
        )
    _check_budget_columns(rows, data.dataset_name, config)
    needed = config.generation_batch_size // config.num_generations
    if len(rows) < needed:
        raise ValueError(
            f"{data.dataset_name} has {len(rows)} problems, and a generation batch needs {needed}: lower "
            f"per_device_train_batch_size or gradient_accumulation_steps, or give more problems."
        )
    return Dataset.from_list(rows)


def _check_budget_columns(rows: list[dict], name: str, config: ElasticConfig) -> None:
    for column in {"thinking_token_budget", "solution_token_budget"} & set(rows[0]):
        if config.max_completion_length is None and any(row[column] == UNLIMITED for row in rows):
            raise ValueError(
                f"Rows of {name} have {column} -1 (no limit): set max_completion_length to end every rollout."
            )


def check_context(
    model: ModelConfig, tokenizer: PreTrainedTokenizerBase, data: DataArguments, config: ElasticConfig
) -> None:
    """Check that the markers are in the vocabulary and that the budgets fit the model's context, from its files alone.

    Raises:
        ValueError: names what does not fit.
    """
    name = model.model_name_or_path
    tokens = ReasoningTokens.from_tokenizer(
        tokenizer,
        reasoning_start_str=config.reasoning_start_str,
        reasoning_end_str=config.reasoning_end_str,
        wrap_up_str=config.wrap_up_str,
    )
    model_config = AutoConfig.from_pretrained(
        name, revision=model.model_revision, trust_remote_code=config.trust_remote_code
    )
    text_config = model_config.get_text_config(decoder=True)
    if not hasattr(text_config, "max_position_embeddings"):
        return
    t, s = config.thinking_budgets.largest, config.solution_budgets.largest
    rollout = config.max_completion_length if UNLIMITED in (t, s) else t + len(tokens.bridge) + s
    prompt = data.max_prompt_length or 1
    if prompt + rollout > text_config.max_position_embeddings:
        raise ValueError(
            f"max_prompt_length ({data.max_prompt_length}) and the longest rollout ({rollout} tokens) exceed the "
            f"context of {name}, {text_config.max_position_embeddings} tokens: lower them."
        )


def with_model_options(config: ElasticConfig, model: ModelConfig) -> ElasticConfig:
    """`config` with the options of ModelConfig where GRPOTrainer looks for them."""
    options = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        "trust_remote_code": config.trust_remote_code,
    }
    config.model_init_kwargs = options | (config.model_init_kwargs or {})
    return config


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
