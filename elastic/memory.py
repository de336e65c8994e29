"""The memory of a training run by part, from the sizes of its model alone.

Every part says what it was computed from. The parts are those of the code that this package runs: TRL's fused language
model head, DeepSpeed's ZeRO (arXiv 1910.02054, section 3) with the buffers of its defaults, and the cache of the
transformers engine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from elastic.machine import Machine

GIB = 1 << 30
ROLLOUTS, TRAINING = "rollouts", "training"
STATES = ("weights", "reference model", "gradients", "optimizer")
# CUDA's context, NCCL's buffers and what the allocator cannot use: an estimate.
_OVERHEAD_BYTES = 2 * GIB
# DeepSpeed's defaults, in numbers: reduce_bucket_size, stage3_max_live_parameters with stage3_prefetch_bucket_size.
_BUCKET, _LIVE = 500_000_000, 1_050_000_000
# TRL's fused head computes logits by tiles of so many tokens and words of the vocabulary.
_TILE_TOKENS, _TILE_WORDS = 4096, 32768
# A cache that is full grows by this factor.
_CACHE_GROWTH = 1.25
# The launch files that split the states, as they are in the checkout.
LAUNCH_FILES = (
    Machine("launch/zero1.yaml", 8, 1, 1),
    Machine("launch/zero2.yaml", 8, 1, 2),
    Machine("launch/zero3.yaml", 8, 1, 3),
    Machine("launch/zero3_offload.yaml", 8, 1, 3, offload_optimizer=True, offload_parameters=True),
)


@dataclass(frozen=True)
class ModelSizes:
    """What decides how much memory a decoder-only model takes.

    Attributes:
        parameters: all of them, those of LoRA's adapters included; tied ones count once.
        trained: those with a gradient.
        key_width: numbers in the keys of one position, over all layers; the values are as many.
    """

    parameters: int
    trained: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    head_dim: int
    vocabulary: int
    key_width: int


@dataclass(frozen=True)
class Work:
    """What a recipe asks of one process.

    Attributes:
        micro_batch_rows: rollouts in one forward and backward pass.
        rollout_rows: rollouts of one generation batch.
        loaded_bytes: of a number as the model is loaded, before DeepSpeed casts it.
        mixed: whether bf16 or fp16 is used.
        most_batch_tokens: rollout_max_batch_tokens.
        vllm_share: the share of the GPU that vLLM takes here; 0 on a server, None without vLLM.
        vllm_sleeps: whether it gives that back while the model is trained.
        vllm_processes: over which its weights are split.
    """

    micro_batch_rows: int
    rollout_rows: int
    prompt_tokens: int
    completion_tokens: int
    loaded_bytes: int
    mixed: bool
    checkpointing: bool
    reference: bool
    most_batch_tokens: int | None = None
    vllm_share: float | None = None
    vllm_sleeps: bool = False
    vllm_processes: int = 1

    @property
    def row_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Part:
    """A part of the memory, in bytes a GPU, or with `host` in a node's main memory a process; and how it came about."""

    name: str
    bytes: float
    arithmetic: str
    phases: tuple[str, ...] = (ROLLOUTS, TRAINING)
    host: bool = False


@dataclass(frozen=True)
class Plan:
    """The parts of a run on a machine, of which the two phases need different ones."""

    machine: Machine
    gpu_bytes: float
    parts: tuple[Part, ...]
    slices: int
    complaints: tuple[str, ...]

    def phase_bytes(self, phase: str) -> float:
        return sum(part.bytes for part in self.parts if phase in part.phases and not part.host)

    @property
    def peak_bytes(self) -> float:
        return max(self.phase_bytes(ROLLOUTS), self.phase_bytes(TRAINING))

    @property
    def host_bytes(self) -> float:
        """Of a node's main memory."""
        a_node = self.machine.processes // self.machine.nodes
        return a_node * sum(part.bytes for part in self.parts if part.host)

    @property
    def fits(self) -> bool:
        return self.peak_bytes <= self.gpu_bytes and not self.complaints


def plan(model: ModelSizes, work: Work, machine: Machine, gpu_bytes: float) -> Plan:
    """Everything that one GPU holds. What the engine slices is sliced to the memory that the other parts leave."""
    parts = [*states(model, work, machine), *working_copies(model, work, machine)]
    parts += [activations(model, work, machine), logits(model, work, machine)]
    parts.append(Part("CUDA, NCCL, fragments", _OVERHEAD_BYTES, "estimate"))
    slices, complaints = 1, ()
    if work.vllm_share is None:
        others = sum(part.bytes for part in parts if ROLLOUTS in part.phases and not part.host)
        sampled, slices = rollouts(model, work, machine, gpu_bytes - others)
        parts += sampled
    elif work.vllm_share > 0:
        part, complaints = colocated_vllm(model, work, gpu_bytes)
        parts.append(part)
    return Plan(machine, gpu_bytes, tuple(part for part in parts if part.bytes), slices, complaints)


def weight_bytes(work: Work, machine: Machine) -> int:
    """Of one number of the weights: DeepSpeed casts them, where autocast leaves them as they were loaded."""
    return 2 if work.mixed and machine.zero_stage else work.loaded_bytes


def states(model: ModelSizes, work: Work, machine: Machine) -> list[Part]:
    """Weights, reference model, gradients and the optimizer (AdamW: two moments, and DeepSpeed's 32-bit weights)."""
    n, stage = machine.processes, machine.zero_stage
    width = weight_bytes(work, machine)
    moments = 8 if stage else 2 * width
    master = 4 if stage else 0
    phases = (ROLLOUTS, TRAINING) if stage == 3 else (TRAINING,)
    reference = model.parameters if work.reference else 0
    return [
        _share("weights", model.parameters, width, n if stage == 3 else 1, host=machine.offload_parameters),
        _share("reference model", reference, width, n if stage == 3 else 1, host=machine.offload_parameters),
        _share("gradients", model.trained, width, n if stage >= 2 else 1, phases, host=machine.offload_optimizer),
        _share("optimizer", model.trained, master + moments, n if stage else 1, host=machine.offload_optimizer),
    ]


def working_copies(model: ModelSizes, work: Work, machine: Machine) -> list[Part]:
    """What the distributed step copies beside the states, for a while or for good."""
    n, width, trained = machine.processes, weight_bytes(work, machine), model.trained
    if not machine.zero_stage:
        buckets = trained if n > 1 else 0
        casts = trained if work.mixed and width == 4 else 0
        return [_share("DDP's buckets", buckets, width), _share("autocast's copies of the weights", casts, 2)]
    copies = [
        _share("reduction bucket", min(_BUCKET, trained), width, phases=(TRAINING,)),
        _share("32-bit gradients at the step", trained, 4, n, (TRAINING,), host=machine.offload_optimizer),
    ]
    if machine.zero_stage == 3:
        gathered = 0 if work.vllm_share is not None else model.parameters
        copies.append(_share("weights gathered for the rollouts", gathered, width, phases=(ROLLOUTS,)))
        copies.append(
            _share("weights gathered layer by layer", min(_LIVE, model.parameters), width, phases=(TRAINING,))
        )
    return copies


def layer_bytes(model: ModelSizes, work: Work, machine: Machine) -> int:
    """What one layer of a Llama or Qwen2 keeps of one token for its backward pass, with PyTorch's attention.

    Two norms (the 32-bit input, the normalized, the scaled or, under autocast, a 16-bit copy for each product);
    queries, keys and values of all heads, the attention's output and its logarithms, and a row of the mask that padding
    needs; of the MLP the gate, its activation, the other half and their product.
    """
    weights = weight_bytes(work, machine)
    width = 2 if work.mixed else weights
    norms = 26 if work.mixed and weights == 4 else 2 * (4 + 2 * width)
    attention = model.heads * (4 * width * model.head_dim + 4) + width * work.row_tokens
    return norms * model.hidden + 8 + attention + 4 * width * model.intermediate


def activations(model: ModelSizes, work: Work, machine: Machine) -> Part:
    """What a micro-batch keeps for its backward pass: with checkpointing, each layer's input and all of one layer."""
    width = weight_bytes(work, machine)
    layer = layer_bytes(model, work, machine)
    positions = work.micro_batch_rows * work.row_tokens
    if work.checkpointing:
        token, how = model.layers * width * model.hidden + layer, f"inputs of {model.layers} layers and one layer"
    else:
        token, how = model.layers * layer, f"{model.layers} layers"
    rows = f"{work.micro_batch_rows} x {work.row_tokens:,} tokens"
    return Part("activations", positions * token, f"{rows} x {token / 1024:.0f} KiB ({how})", (TRAINING,))


def logits(model: ModelSizes, work: Work, machine: Machine) -> Part:
    """A tile of logits, and the 32-bit gradients of the head and of the tokens that it scores."""
    tokens = work.micro_batch_rows * work.completion_tokens
    width = 2 if work.mixed else weight_bytes(work, machine)
    tile = min(tokens, _TILE_TOKENS) * _TILE_WORDS * width
    head = model.vocabulary * model.hidden if model.trained == model.parameters else 0
    total = tile + 4 * (head + tokens * model.hidden)
    what = "a tile and 32-bit gradients of " + ("head and tokens" if head else "tokens")
    return Part("logits", total, what, (TRAINING,))


def rollouts(model: ModelSizes, work: Work, machine: Machine, free_bytes: float) -> tuple[list[Part], int]:
    """(cache and sampling, slices): as many rows at once as half of the free memory holds, as the engine has it."""
    width = weight_bytes(work, machine)
    most = work.most_batch_tokens or max(1, int(free_bytes / 2 / (2 * width * model.key_width)))
    rows = min(work.rollout_rows, max(1, most // work.row_tokens))
    autocast = work.mixed and width == 4
    position = model.key_width * (6 if autocast else 2 * width)
    cache = _CACHE_GROWTH * rows * work.row_tokens * position
    # Logits, and in 32 and 64 bits what the sampler makes of them.
    sampling = rows * model.vocabulary * ((2 if autocast else width) + 28)
    slices = math.ceil(work.rollout_rows / rows)
    arithmetic = f"{rows} rows x {work.row_tokens:,} tokens x {position / 1024:.0f} KiB x {_CACHE_GROWTH}"
    return [
        Part("KV cache", cache, arithmetic, (ROLLOUTS,)),
        Part("sampling", sampling, f"{rows} rows x {model.vocabulary:,} words", (ROLLOUTS,)),
    ], slices


def colocated_vllm(model: ModelSizes, work: Work, gpu_bytes: float) -> tuple[Part, tuple[str, ...]]:
    """The share of vLLM, and a complaint where its weights and one rollout do not fit into it."""
    share = work.vllm_share * gpu_bytes
    width = 2 if work.mixed else work.loaded_bytes
    weights = width * model.parameters / work.vllm_processes
    rollout = 2 * width * model.key_width * work.row_tokens / work.vllm_processes
    part = Part(
        "vLLM",
        share,
        f"{work.vllm_share:g} x {gpu_bytes / GIB:.0f} GiB, of which weights {weights / GIB:.1f} GiB",
        (ROLLOUTS,) if work.vllm_sleeps else (ROLLOUTS, TRAINING),
    )
    if weights + rollout <= share:
        return part, ()
    return part, (
        f"vllm_gpu_memory_utilization is {work.vllm_share:g}, and the weights and one rollout take "
        f"{(weights + rollout) / GIB:.1f} GiB: raise it to {(weights + rollout) / gpu_bytes + 0.05:.2f} or more.",
    )


def remedies(model: ModelSizes, work: Work, machine: Machine, gpu_bytes: float) -> list[str]:
    """What would make the run fit, each by itself; the cheapest first."""
    found = []

    def consider(sentence: str, work: Work = work, machine: Machine = machine) -> None:
        if plan(model, work, machine, gpu_bytes).fits:
            found.append(sentence)

    if work.vllm_share:
        if not work.vllm_sleeps:
            consider("vllm_enable_sleep_mode: true", replace(work, vllm_sleeps=True))
        share = _share_left_to_vllm(model, work, machine, gpu_bytes)
        if 0 < share < work.vllm_share:
            consider(f"vllm_gpu_memory_utilization: {share:g}", replace(work, vllm_share=share))
    if not work.checkpointing:
        consider("activation_checkpointing: true", replace(work, checkpointing=True))
    rows = work.micro_batch_rows
    while rows > 1 and not found:
        rows //= 2
        factor = work.micro_batch_rows // rows
        sentence = f"per_device_train_batch_size: {rows}, with {factor} times the gradient_accumulation_steps and "
        consider(f"{sentence}steps_per_generation", replace(work, micro_batch_rows=rows))
    for file in LAUNCH_FILES:
        if file.processes > machine.processes:
            consider(f"{file.name}: {file}", machine=file)
        if (file.zero_stage, file.offload_optimizer) > (machine.zero_stage, machine.offload_optimizer):
            same = replace(file, processes=machine.processes, nodes=machine.nodes)
            count = f", by num_processes: {same.processes}" if same.processes != file.processes else ""
            consider(f"{file.name}: {same}{count}", machine=same)
    node = machine if machine.processes > 1 else replace(machine, processes=LAUNCH_FILES[0].processes)
    for nodes in (2, 4, 8):
        scaled = replace(node, processes=node.processes * nodes, nodes=node.nodes * nodes, zero_stage=3)
        consider(f"launch/multinode_zero3.yaml: {scaled}", machine=scaled)
        if found:
            break
    return found


def _share_left_to_vllm(model: ModelSizes, work: Work, machine: Machine, gpu_bytes: float) -> float:
    """The most of the GPU that the rest leaves to vLLM, rounded down to a hundredth."""
    rest = plan(model, replace(work, vllm_share=0.0), machine, gpu_bytes)
    busy = rest.phase_bytes(ROLLOUTS) if work.vllm_sleeps else rest.peak_bytes
    return math.floor(100 * (1 - busy / gpu_bytes)) / 100


def _share(
    name: str,
    count: int,
    width: int,
    processes: int = 1,
    phases: tuple[str, ...] = (ROLLOUTS, TRAINING),
    *,
    host: bool = False,
) -> Part:
    over = f" / {processes}" if processes > 1 else ""
    return Part(name, count * width / processes, f"{billions(count)} x {width} bytes{over}", phases, host)


def billions(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 5e6 else f"{count:,}"
