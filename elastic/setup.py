"""What a training run needs before its model is loaded, checked piece by piece."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow
from datasets import Dataset, Value
from peft import PeftConfig
from transformers import AutoConfig, PreTrainedTokenizerBase
from trl import ModelConfig, get_peft_config

from elastic import model_source
from elastic.arguments import DataArguments, RunArguments
from elastic.budget import UNLIMITED, ReasoningTokens, inserted_ids, with_number
from elastic.config import ElasticConfig
from elastic.data import BUDGET_COLUMNS, prompt_token_ids, selected_problems
from elastic.engines.transformers import context_length
from elastic.model_source import check_place, find_model
from elastic.problem_text import asking
from elastic.rewarding import Rewards, load_rewards
from elastic.rollout import ROLLOUT_COLUMNS
from elastic.stages import Stage, most_inserted, with_columns
from rewards import REWARDS

# What TRL passes to a reward, whatever the data set holds.
TRL_COLUMNS = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")

logger = logging.getLogger(__name__)


def training_rewards(run: RunArguments, config: ElasticConfig) -> Rewards:
    """The rewards to train on. Raises ValueError when there is none, or none that the budgets allow to be earned."""
    names = run.reward_funcs
    if not names:
        raise ValueError(f"reward_funcs is not set: give one or more of {', '.join(REWARDS)}, or dotted paths.")
    graded = [name for name in names if name in REWARDS]
    without = [stage.solution for stage in config.run_stages if stage.solution.smallest == 0]
    if graded and without:
        raise ValueError(
            f"{without[0].name} {'is' if without[0].is_fixed else 'may be'} 0, which allows no solution, and the "
            f"reward {graded[0]} grades the solution: give 1 token or more."
        )
    for stage in config.run_stages:
        weights = stage.reward_weights
        if weights is not None and len(weights) != len(names):
            where = f"stages.{stage.name}." if stage.name else ""
            raise ValueError(
                f"{where}reward_weights is {list(weights)}, and reward_funcs is {names}: give one weight for each "
                f"reward."
            )
    targets = [stage.targets.largest for stage in config.run_stages if stage.targets is not None]
    if targets and run.length_reward and run.length_reward.get("target_tokens") is not None:
        raise ValueError(
            f"target_tokens is {config.target_tokens!r}, and length_reward gives {run.length_reward['target_tokens']} "
            f"too: leave it out of length_reward."
        )
    if targets:  # every row gets its own when it is sampled; until then this stands for it
        run.length_reward = {**(run.length_reward or {}), "target_tokens": max(targets)}
    return load_rewards(names, run)


def load_tokenizer(model: ModelConfig, config: ElasticConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, padding on the left. Raises ValueError or FileNotFoundError where there is no model."""
    name = model.model_name_or_path
    if name is None:
        raise ValueError("model_name_or_path is not set: give a hub id or a model directory.")
    check_place(name)
    if (Path(name) / "adapter_config.json").is_file():
        raise ValueError(
            f"model_name_or_path is {name!r}, which holds a PEFT adapter: merge it into its base model "
            f"(python -m elastic.export --model_name_or_path {name} --output_dir NEW), and give the directory of that."
        )
    if not Path(name).is_dir():
        find_model(name, model.model_revision)  # one request, where a tokenizer's many files are each tried again
    tokenizer = model_source.load_tokenizer(
        name,
        model.model_revision,
        trust_remote_code=config.trust_remote_code,
        truncation_side="left",
        padding_side="left",
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def training_set(
    data: DataArguments, tokenizer: PreTrainedTokenizerBase, config: ElasticConfig, rewards: Rewards
) -> Dataset:
    """The problems to train on, without those whose prompt is too long, which are counted.

    Raises:
        ValueError: the data set or a row of it cannot be used, or it has fewer problems than a batch needs.
    """
    if config.eval_strategy != "no":
        raise ValueError(
            f"eval_strategy is {config.eval_strategy.value}, but training has no data to evaluate on: leave it unset, "
            f"and measure the model with elastic.evaluate."
        )
    if data.dataset_name is None:
        raise ValueError("dataset_name is not set: give a hub id, or a .json, .jsonl or .parquet file.")
    rows, dropped = selected_problems(
        data,
        tokenizer,
        chat_template_kwargs=config.chat_template_kwargs,
        split=data.dataset_train_split,
        needed=rewards.needed_columns,
        check=rewards.check_rows,
    )
    rewards.check_columns(list(rows[0]), (*TRL_COLUMNS, *ROLLOUT_COLUMNS), data.dataset_name)
    if dropped:
        logger.warning(
            "Dropped %d prompts of more than %d tokens; %d are left.", dropped, data.max_prompt_length, len(rows)
        )
    needed = config.generation_batch_size // config.num_generations
    if len(rows) < needed:
        raise ValueError(
            f"{data.dataset_name} has {len(rows)} problems, and a generation batch needs {needed}: lower "
            f"per_device_train_batch_size or gradient_accumulation_steps, or give more problems."
        )
    dataset = _as_dataset(rows, data.dataset_name)
    _check_budget_columns(dataset, data.dataset_name, config)
    return dataset


def _as_dataset(rows: list[dict], name: str) -> Dataset:
    """Tests may have more than the 2 GiB that a column of Arrow's usual text holds."""
    try:
        dataset = Dataset.from_list([{column: row[column] for column in row if column != "tests"} for row in rows])
        if "tests" not in rows[0]:
            return dataset
        return dataset.add_column("tests", [row["tests"] for row in rows], feature=Value("large_string"))
    except pyarrow.ArrowException as error:
        raise ValueError(f"{name} has a column of mixed types: give each column one ({error}).") from None


def _check_budget_columns(dataset: Dataset, name: str, config: ElasticConfig) -> None:
    own = [column for column in BUDGET_COLUMNS.values() if column in dataset.column_names]
    if own and config.algorithm == "anytime":
        raise ValueError(f"{name} has a column {own[0]}, and algorithm anytime forks at the recipe's budgets: drop it.")
    if own and config.unbudgeted_share:
        raise ValueError(
            f"{name} has a column {own[0]}, and unbudgeted_share is {config.unbudgeted_share}: drop the column, or "
            f"leave unbudgeted_share out and give the rows without budgets -1."
        )
    stages, length = with_columns(config.run_stages, dataset), config.max_completion_length
    if config.longest_of(stages) is None:
        is_open = next(stage for stage in stages if stage.longest == UNLIMITED)
        column = "thinking_token_budget" if is_open.thinking.largest == UNLIMITED else "solution_token_budget"
        raise ValueError(f"Rows of {name} have {column} -1 (no limit): set max_completion_length to end every rollout.")
    longest = max(stage.longest for stage in stages)
    if length is not None and length < longest:
        raise ValueError(
            f"max_completion_length is {length}, but the largest budgets of {name} allow rollouts of {longest} tokens: "
            f"leave it unset, or raise it to at least {longest}."
        )
    _check_someone_is_told(stages, dataset, config)


def _check_someone_is_told(stages: Sequence[Stage], dataset: Dataset, config: ElasticConfig) -> None:
    if config.reminder_every and max(stage.thinking.largest_limit for stage in stages) <= config.reminder_every:
        raise ValueError(
            f"reminder_every is {config.reminder_every}, and no limited thinking budget is larger, so that nobody is "
            f"reminded: lower it, give a larger thinking_token_budget, or leave it out."
        )
    telling = [stage for stage in stages if stage.instruction]
    told = [stage for stage in telling if stage.targets is not None or stage.thinking.largest_limit != UNLIMITED]
    if telling and not told and not own_targets(dataset):
        raise ValueError(
            f"budget_instruction is {telling[0].instruction!r}, and there is no target and no limited thinking budget "
            f"that it could tell: give target_tokens or thinking_token_budget, or leave it out."
        )


def check_solutions(names: list[str], dataset: Dataset) -> None:
    """Raises ValueError when a row allows no solution and one of our rewards has to grade it."""
    graded = [name for name in names if name in REWARDS]
    if graded and "solution_token_budget" in dataset.column_names and 0 in dataset["solution_token_budget"]:
        raise ValueError(
            f"solution_token_budget is 0 in a row of the data set, which allows no solution, and the reward "
            f"{graded[0]} grades the solution: give 1 token or more."
        )


def check_context(
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    data: DataArguments,
    config: ElasticConfig,
    dataset: Dataset,
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
        reminder_every=config.reminder_every,
        reminder_str=config.reminder_str,
    )
    model_config = AutoConfig.from_pretrained(
        name, revision=model.model_revision, trust_remote_code=config.trust_remote_code
    )
    text_config = model_config.get_text_config(decoder=True)
    context = context_length(text_config)
    if config.use_vllm and config.vllm_max_model_length is not None:
        context = min(config.vllm_max_model_length, context or config.vllm_max_model_length)
    if context is None:
        return
    stages = with_columns(config.run_stages, dataset)
    rollout = config.longest_of(stages) + most_inserted(stages, tokens)
    told = _longest_instruction(tokenizer, stages, own_targets(dataset))
    limit = data.max_prompt_length
    if limit and not told and limit + len(tokens.start) + rollout <= context:
        return
    prompt = max(
        len(tokens.open(prompt_token_ids(asking(messages, told), tokenizer, config.chat_template_kwargs)))
        for messages in dataset["prompt"]
    )
    if prompt + rollout > context:
        raise ValueError(
            f"The longest prompt ({prompt} tokens) and the longest rollout ({rollout} tokens) exceed the context of "
            f"{name}, {context} tokens: lower max_prompt_length, thinking_token_budget or solution_token_budget."
        )


def own_targets(dataset: Dataset) -> list[int]:
    """The target_tokens of the problems that bring theirs.

    Raises:
        ValueError: one is no length.
    """
    if "target_tokens" not in dataset.column_names:
        return []
    targets = [target for target in dataset["target_tokens"] if target is not None]
    for target in targets:
        if isinstance(target, bool) or not isinstance(target, int) or target < 1:
            raise ValueError(f"target_tokens is {target!r} in a row of the data set: give a length of 1 token or more.")
    return targets


def _longest_instruction(tokenizer: PreTrainedTokenizerBase, stages: Sequence[Stage], targets: Sequence[int]) -> str:
    """What is appended to a problem where its number is the largest; "" where nothing is told.

    Args:
        targets: those of the problems' own.

    Raises:
        ValueError: the tokenizer does not know its words.
    """
    texts = [""]
    for stage in stages:
        drawn = [] if stage.targets is None else [stage.targets.largest]
        numbers = [1, stage.thinking.largest_limit, *drawn, *targets]
        texts.append(with_number(stage.instruction, max(numbers)))
        inserted_ids(tokenizer, texts[-1], "budget_instruction")
    return max(texts, key=len)


def lora_config(model: ModelConfig) -> PeftConfig | None:
    """TRL's configuration of an adapter; None without use_peft.

    TRL makes a text of a list of one module, which PEFT takes for a pattern of the module's whole path: here a name
    stays a name, and the adapter notes the revision of its base.
    """
    adapter = get_peft_config(model)
    if adapter is None:
        return None
    modules = model.lora_target_modules
    if isinstance(modules, str) and re.fullmatch(r"[\w.]+", modules):
        adapter.target_modules = {modules}
    if model.model_name_or_path and not Path(model.model_name_or_path).is_dir():
        adapter.revision = model.model_revision
    return adapter


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
