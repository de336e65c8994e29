"""From a recipe to the plan that elastic.plan prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from trl import ModelConfig

from elastic.arguments import DataArguments
from elastic.budget import with_number
from elastic.config import ElasticConfig
from elastic.engines.transformers import key_width
from elastic.machine import Machine
from elastic.memory import GIB, ROLLOUTS, STATES, TRAINING, ModelSizes, Plan, Work, billions, remedies
from elastic.model_source import find_model
from elastic.setup import lora_config
from elastic.tables import markdown_table

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ADAMW = ("adamw_torch", "adamw_torch_fused", "adamw_apex_fused")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


def config_for(machine: Machine) -> type[ElasticConfig]:
    """ElasticConfig as the processes of `machine` would see it, whatever is here."""

    @dataclass
    class PlannedConfig(ElasticConfig):
        def __post_init__(self):
            self.use_cpu = True
            super().__post_init__()

        def _check_vllm(self):
            """Nothing: it need not be installed here."""

        @property
        def world_size(self) -> int:
            return machine.processes

    return PlannedConfig


def model_sizes(model: ModelConfig, config_path: str | None) -> ModelSizes:
    """The sizes of the model that a recipe names, with its adapter, from its configuration.

    Raises:
        ValueError: there is no configuration, or it is of a model that is not planned.
    """
    if model.load_in_4bit or model.load_in_8bit:
        raise ValueError("load_in_4bit and load_in_8bit are not planned: leave them out, which takes more memory.")
    config = _read_config(model, config_path)
    text = config.get_text_config(decoder=True)
    if any(hasattr(text, name) for name in _EXPERTS):
        raise ValueError(
            f"{config.model_type} has experts, of which a token needs a few: only dense models are planned."
        )
    if not hasattr(text, "intermediate_size"):
        raise ValueError(f"{config.model_type} has no intermediate_size: only models built as Llama are planned.")
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
        if (adapter := lora_config(model)) is not None:
            from peft import get_peft_model

            network = get_peft_model(network, adapter)
    heads = text.num_attention_heads
    head_dim = text.head_dim if hasattr(text, "head_dim") and text.head_dim else text.hidden_size // heads
    return ModelSizes(
        parameters=sum(weight.numel() for weight in network.parameters()),
        trained=sum(weight.numel() for weight in network.parameters() if weight.requires_grad),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=heads,
        head_dim=head_dim,
        vocabulary=text.vocab_size,
        key_width=sum(map(key_width, text.per_layer_config)),
    )


def _read_config(model: ModelConfig, config_path: str | None) -> PretrainedConfig:
    if config_path is None:
        if model.model_name_or_path is None:
            raise ValueError("model_name_or_path is not set: give a hub id or a model directory.")
        find_model(model.model_name_or_path, model.model_revision)
    try:
        return AutoConfig.from_pretrained(
            config_path or model.model_name_or_path, revision=None if config_path else model.model_revision
        )
    except (OSError, ValueError) as error:
        sentence = " ".join(str(error).split())
        raise ValueError(f"model_config is {config_path!r}, which cannot be read: {sentence}") from None


def work(
    data: DataArguments, model: ModelConfig, config: ElasticConfig, sizes: ModelSizes, prompt_tokens: int | None
) -> Work:
    """What the recipe asks of one process. Raises ValueError where a length is not known."""
    prompt = data.max_prompt_length or prompt_tokens
    if prompt is None:
        raise ValueError("max_prompt_length is not set in the recipe: give the longest prompt by --prompt_tokens.")
    if (loaded := model.dtype) not in _BYTES:
        raise ValueError(f"dtype is {loaded!r}: give one of {', '.join(_BYTES)} for the plan.")
    vllm = {}
    if config.use_vllm:
        colocated = config.vllm_mode == "colocate"
        vllm = dict(
            vllm_share=config.vllm_gpu_memory_utilization if colocated else 0.0,
            vllm_sleeps=config.vllm_enable_sleep_mode,
            vllm_processes=config.vllm_tensor_parallel_size,
        )
    return Work(
        micro_batch_rows=config.per_device_train_batch_size,
        rollout_rows=config.per_device_train_batch_size * config.steps_per_generation,
        prompt_tokens=prompt,
        completion_tokens=_completion_tokens(config),
        loaded_bytes=_BYTES[loaded],
        mixed=bool(config.bf16 or config.fp16),
        checkpointing=bool(config.gradient_checkpointing),
        reference=config.beta != 0 and sizes.trained == sizes.parameters,
        most_batch_tokens=config.rollout_max_batch_tokens,
        **vllm,
    )


def _completion_tokens(config: ElasticConfig) -> int:
    """The most tokens of a rollout; a text has at most as many as it has bytes."""
    if config.max_completion_length is not None:
        return config.max_completion_length
    t = max(stage.thinking.largest_limit for stage in config.run_stages)
    inserted = len((config.wrap_up_str + config.reasoning_end_str).encode())
    if config.reminder_every and t > 0:
        reminder = with_number(config.reminder_str, t).encode()
        inserted += (t - 1) // config.reminder_every * len(reminder)
    return config.longest_rollout + inserted


def headline(name: str, sizes: ModelSizes, config: ElasticConfig) -> str:
    trained = "all" if sizes.trained == sizes.parameters else billions(sizes.trained)
    line = f"{name}: {billions(sizes.parameters)} parameters, {trained} of them trained"
    if config.optim.value in _ADAMW:
        return line
    return (
        f"{line}\noptim is {config.optim.value}, whose states are planned as AdamW's, two 32-bit moments a parameter."
    )


def details(plan: Plan, sizes: ModelSizes, work: Work, config: ElasticConfig) -> str:
    """One machine: the parts, the phases, the tokens of a step, and the verdict."""
    gpu = f"{plan.gpu_bytes / GIB:.0f} GiB"
    lines = [f"{plan.machine.name}: {plan.machine}, {gpu} each", ""]
    rows = []
    for part in plan.parts:
        host = " (main memory)" if part.host else ""
        only = f"; {part.phases[0]} only" if len(part.phases) == 1 else ""
        rows.append([part.name + host, f"{part.bytes / GIB:.2f}", part.arithmetic + only])
    for phase, name in ((ROLLOUTS, "while rollouts are sampled"), (TRAINING, "while the model is trained")):
        rows.append([name, f"{plan.phase_bytes(phase) / GIB:.2f}", ""])
    lines += [markdown_table(["part", "GiB a GPU", "how"], rows), ""]
    if plan.host_bytes:
        lines.append(f"Main memory of a node: {plan.host_bytes / GIB:.0f} GiB besides the programs.")
    lines += [*_steps(plan, work, config), "", *_verdict(plan, sizes, work)]
    return "\n".join(lines)


def _steps(plan: Plan, work: Work, config: ElasticConfig) -> list[str]:
    processes = plan.machine.processes
    batch = work.rollout_rows * processes
    update = work.micro_batch_rows * config.gradient_accumulation_steps * processes
    updates = config.steps_per_generation * config.num_iterations / config.gradient_accumulation_steps
    at_once = f", {work.rollout_rows} a GPU in {plan.slices} slice{'s' * (plan.slices > 1)}"
    sampled = config.longest_rollout or work.completion_tokens
    return [
        f"A generation batch: {batch // config.num_generations} prompts x {config.num_generations} = {batch:,} rollouts"
        f"{at_once if work.vllm_share is None else ''}; at most {batch * sampled:,} sampled tokens.",
        f"An update: {update:,} rollouts, at most {update * sampled:,} trained tokens; "
        f"{updates:g} update{'s' * (updates != 1)} a generation batch.",
    ]


def _verdict(plan: Plan, sizes: ModelSizes, work: Work) -> list[str]:
    peak, gpu = plan.peak_bytes / GIB, plan.gpu_bytes / GIB
    if plan.fits:
        return [f"It fits: at most {peak:.1f} of {gpu:.0f} GiB."]
    phase = "rollouts are sampled" if plan.phase_bytes(ROLLOUTS) == plan.peak_bytes else "the model is trained"
    lines = list(plan.complaints) or [
        f"It does not fit: {peak:.1f} GiB are needed while {phase}, and there are {gpu:.0f}."
    ]
    changes = remedies(sizes, work, plan.machine, plan.gpu_bytes)
    if changes:
        return [*lines, "Each of these would do:", *(f"- {change}" for change in changes)]
    return [*lines, "No launch file makes it fit: use LoRA (use_peft: true), or GPUs with more memory."]


def comparison(plans: Sequence[Plan]) -> str:
    """Several machines: a row for each."""
    header = ["launch file", "GPUs", "states", "rollouts", "training", "main memory of a node", "fits"]
    rows = []
    for plan in plans:
        states = sum(part.bytes for part in plan.parts if part.name in STATES and not part.host)
        sizes = (states, plan.phase_bytes(ROLLOUTS), plan.phase_bytes(TRAINING))
        rows.append(
            [
                plan.machine.name,
                str(plan.machine.processes),
                *(f"{size / GIB:.1f}" for size in sizes),
                f"{plan.host_bytes / GIB:.0f}",
                "yes" if plan.fits else "no",
            ]
        )
    return f"GiB a GPU, of {plans[0].gpu_bytes / GIB:.0f}:\n\n{markdown_table(header, rows)}"
