"""elastic.plan: its arithmetic against real models, caches, optimizers and autograd, and what it says."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers as hf
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from reference import TOKENS
from tiny_models import tiny
from trl import ModelConfig
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

from elastic import memory, plan
from elastic.budget import Budget
from elastic.engines import batch as engine_module
from elastic.engines.kv_cache import GrowingCache
from elastic.engines.transformers import TransformersEngine
from elastic.machine import Machine, read_machine
from elastic.memory import GIB, ModelSizes, Work
from elastic.planning import model_sizes
from elastic.rollout import Sampling

ROOT = Path(__file__).parents[1]
ALONE = Machine("one", 1, 1, 0)
EIGHT = Machine("eight", 8, 1, 2)
WORK = Work(2, 64, 100, 60, loaded_bytes=4, mixed=True, checkpointing=True, reference=False)

# config.json of the published models that the recipes train, and their parameters by hand.
_QWEN2 = dict(model_type="qwen2", max_position_embeddings=131072, tie_word_embeddings=False)
PUBLISHED = {
    "qwen2.5-1.5b": _QWEN2
    | dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12)
    | dict(num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True),
    "e1_math_7b": _QWEN2
    | dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28)
    | dict(num_key_value_heads=4, vocab_size=152064),
    "e1_code_14b": _QWEN2
    | dict(hidden_size=5120, intermediate_size=13824, num_hidden_layers=48, num_attention_heads=40)
    | dict(num_key_value_heads=8, vocab_size=152064),
}
PUBLISHED["e1_math_1.5b"] = PUBLISHED["qwen2.5-1.5b"] | dict(tie_word_embeddings=False)


@pytest.fixture
def config_file(tmp_path):
    def write(name="qwen2.5-1.5b", **changes):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(PUBLISHED[name] | changes))
        return str(path)

    return write


def sizes_of(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    return model_sizes(ModelConfig(), str(tmp_path))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", [hf.LlamaConfig, hf.Qwen2Config, hf.Qwen3Config], ids=lambda kind: kind.model_type)
def test_the_parameters_are_those_of_the_model(tmp_path, kind, tied):
    shape = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
    model = hf.AutoModelForCausalLM.from_config(kind(**shape, num_key_value_heads=2, tie_word_embeddings=tied))
    sizes = sizes_of(model, tmp_path)
    assert sizes.parameters == sizes.trained == sum(weight.numel() for weight in model.parameters())
    assert (sizes.layers, sizes.hidden, sizes.intermediate, sizes.heads) == (3, 32, 48, 4)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen2.5-1.5b", 1_543_714_304),
        ("e1_math_1.5b", 1_777_088_000),
        ("e1_math_7b", 7_615_616_512),
        ("e1_code_14b", 14_770_033_664),
    ],
)
def test_the_parameters_of_the_published_models(config_file, name, parameters):
    assert model_sizes(ModelConfig(), config_file(name)).parameters == parameters


def test_the_states_of_zero_by_hand(config_file):
    """1,543,714,304 parameters on 8 GPUs: 2 bytes of weights, 2 of gradients, 4 + 4 + 4 of the optimizer."""
    sizes = model_sizes(ModelConfig(), config_file())
    expected = {
        0: (4 * 1_543_714_304, 4 * 1_543_714_304, 8 * 1_543_714_304),
        1: (2 * 1_543_714_304, 2 * 1_543_714_304, 12 * 192_964_288),
        2: (2 * 1_543_714_304, 2 * 192_964_288, 12 * 192_964_288),
        3: (2 * 192_964_288, 2 * 192_964_288, 12 * 192_964_288),
    }
    for stage, expected_bytes in expected.items():
        weights, reference, gradients, optimizer = memory.states(sizes, WORK, replace(EIGHT, zero_stage=stage))
        assert (weights.bytes, gradients.bytes, optimizer.bytes) == expected_bytes
        assert reference.bytes == 0
    with_reference = memory.states(sizes, replace(WORK, reference=True), replace(EIGHT, zero_stage=3))
    assert with_reference[1].bytes == 2 * 192_964_288


def test_gradients_and_optimizer_are_those_of_torch(tmp_path):
    model = tiny("llama")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    optimizer.step()
    weights, _, gradients, moments = memory.states(sizes_of(model, tmp_path), replace(WORK, mixed=False), ALONE)
    assert weights.bytes == sum(weight.nbytes for weight in model.parameters())
    assert gradients.bytes == sum(weight.grad.nbytes for weight in model.parameters())
    held = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    assert moments.bytes == sum(value.nbytes for value in held)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("most_tokens", [4000, 300, 1])
def test_the_cache_and_its_slices_are_the_engines(tmp_path, monkeypatch, dtype, most_tokens):
    model = tiny("llama").to(dtype)
    model.lm_head.weight.data.zero_()  # greedy decoding takes token 0, which ends nothing
    caches = []

    class Recorded(GrowingCache):
        def __init__(self):
            super().__init__()
            caches.append(self)

    monkeypatch.setattr(engine_module, "GrowingCache", Recorded)
    engine = TransformersEngine(model, TOKENS, pad_token_id=0, max_batch_tokens=most_tokens)
    prompt = TOKENS.open([9] * 9)
    rollouts = engine.generate([prompt] * 8, [Budget(60, 4)] * 8, Sampling(temperature=0))
    assert {len(rollout.completion_ids) for rollout in rollouts} == {64 + len(TOKENS.bridge)}
    work = replace(
        WORK,
        rollout_rows=8,
        prompt_tokens=len(prompt),
        completion_tokens=64 + len(TOKENS.bridge),
        loaded_bytes=dtype.itemsize,
        mixed=False,
        most_batch_tokens=most_tokens,
    )
    (cache, _), slices = memory.rollouts(sizes_of(model, tmp_path), work, ALONE, 0)
    assert slices == len(caches) > (most_tokens < 4000)
    keys = [layer.keys for layer in caches[0].layers]
    assert {key.shape[2] for key in keys} == {work.row_tokens - 1}  # the last token is not fed back
    held = 2 * sum(key.nbytes for key in keys) / (work.row_tokens - 1) * work.row_tokens
    assert cache.bytes / memory._CACHE_GROWTH == pytest.approx(held)


def saved_bytes(config, dtype, autocast):
    """What autograd keeps of the forward pass of 2 x 80 tokens, some of them padding, beside the weights."""
    model = hf.AutoModelForCausalLM.from_config(config, dtype=dtype).model
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    mask = torch.ones(2, 80, dtype=torch.long)
    mask[0, :10] = 0
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    embedded = torch.randn(2, 80, config.hidden_size, dtype=dtype, requires_grad=True)
    casts = torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False)
    with casts, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(inputs_embeds=embedded, attention_mask=mask, use_cache=False)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    shapes = {tuple(weight.shape) for weight in model.parameters() if weight.dim() == 2}
    copies = sum(
        tensor.untyped_storage().nbytes()
        for tensor in {tensor.untyped_storage().data_ptr(): tensor for tensor in kept}.values()
        if autocast and tensor.dtype == torch.bfloat16 and {tuple(tensor.shape), tuple(tensor.shape[::-1])} & shapes
    )
    return sum(size for place, size in storages.items() if place not in weights) - copies


@pytest.mark.parametrize(
    ("dtype", "zero_stage", "autocast"),
    [(torch.float32, 0, False), (torch.bfloat16, 3, False), (torch.float32, 0, True)],
    ids=["float32", "bfloat16 under DeepSpeed", "autocast"],
)
@pytest.mark.parametrize("kind", [hf.LlamaConfig, hf.Qwen2Config], ids=lambda kind: kind.model_type)
def test_a_layer_keeps_what_autograd_saves(tmp_path, kind, dtype, zero_stage, autocast):
    shape = dict(vocab_size=50, hidden_size=64, intermediate_size=144, num_attention_heads=4, num_key_value_heads=2)
    saved = [saved_bytes(kind(**shape, num_hidden_layers=layers), dtype, autocast) for layers in (1, 2)]
    model = hf.AutoModelForCausalLM.from_config(kind(**shape, num_hidden_layers=1))
    work = replace(WORK, mixed=autocast or zero_stage > 0, prompt_tokens=60, completion_tokens=20)
    assert saved[1] - saved[0] == 160 * memory.layer_bytes(
        sizes_of(model, tmp_path), work, replace(ALONE, zero_stage=zero_stage)
    )


def test_the_constants_are_those_of_the_libraries():
    assert memory._TILE_TOKENS == chunked_logprob.TOKEN_CHUNK_SIZE
    assert memory._TILE_WORDS == trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE
    zero = DeepSpeedZeroConfig(stage=3)
    assert zero.reduce_bucket_size == memory._BUCKET
    assert zero.max_live_parameters + zero.prefetch_bucket_size == memory._LIVE


def test_activations_by_hand():
    """10 layers of 64 bytes a token and width, one of them kept whole: 2 rows of 160 tokens."""
    sizes = ModelSizes(1000, 1000, layers=10, hidden=64, intermediate=8, heads=2, head_dim=4, vocabulary=9, key_width=1)
    layer = 2 * ((4 + 2 * 2) * 64 + 4) + 2 * (4 * 2 * 4 + 4) + 2 * 160 + 4 * 2 * 8
    assert memory.layer_bytes(sizes, WORK, EIGHT) == layer
    assert memory.activations(sizes, WORK, EIGHT).bytes == 2 * 160 * (10 * 2 * 64 + layer)
    whole = memory.activations(sizes, replace(WORK, checkpointing=False), EIGHT)
    assert whole.bytes == 2 * 160 * 10 * layer


def run(*words, **environment):
    """(exit code, what it printed)."""
    try:
        plan.main([str(word) for word in words])
    except SystemExit as stopped:
        return stopped.code
    return 0


RECIPES_AND_LAUNCH_FILES = [("e1_math_1.5b", "zero2"), ("e1_math_7b", "zero3"), ("e1_code_14b", "zero3")]


@pytest.mark.parametrize(("recipe", "launch"), RECIPES_AND_LAUNCH_FILES)
def test_a_recipe_fits_the_launch_file_that_its_first_line_names(config_file, capsys, recipe, launch):
    path = f"recipes/{recipe}.yaml"
    assert f"--config_file launch/{launch}.yaml " in (ROOT / path).read_text().splitlines()[0]
    assert (
        run("--config", ROOT / path, "--launch", ROOT / f"launch/{launch}.yaml", "--model_config", config_file(recipe))
        == 0
    )
    said = capsys.readouterr().out
    assert "A generation batch: 128 prompts x 8 = 1,024 rollouts, 128 a GPU in " in said
    assert "at most 2,097,152 sampled tokens" in said
    assert "An update: 512 rollouts, at most 1,048,576 trained tokens; 2 updates a generation batch." in said
    assert "It fits: at most " in said


METHODS = sorted((ROOT / "recipes" / "math_1.5b").glob("*.yaml"))


@pytest.mark.parametrize("recipe", METHODS, ids=lambda path: path.stem)
def test_each_method_fits_the_launch_file_of_the_paper(config_file, capsys, recipe):
    assert recipe.read_text().startswith("# accelerate launch --config_file launch/zero2.yaml ")
    sizes = ["--model_config", config_file("e1_math_1.5b")]
    assert run("--config", recipe, "--launch", ROOT / "launch/zero2.yaml", *sizes) == 0
    assert "It fits: at most " in capsys.readouterr().out


def test_what_does_not_fit_is_said_with_what_would(config_file, capsys):
    command = ["--config", ROOT / "recipes/e1_code_14b.yaml", "--model_config", config_file("e1_code_14b")]
    assert run(*command, "--launch", ROOT / "launch/zero1.yaml") == 1
    said = capsys.readouterr().out
    assert "It does not fit: 94.3 GiB are needed while the model is trained, and there are 80." in said
    changes = said.partition("Each of these would do:\n")[2].splitlines()
    assert changes[:3] == [
        "- launch/zero2.yaml: 8 GPUs on 1 node, ZeRO-2",
        "- launch/zero3.yaml: 8 GPUs on 1 node, ZeRO-3",
        "- launch/zero3_offload.yaml: 8 GPUs on 1 node, ZeRO-3 with offload",
    ]
    assert run(*command, "--launch", ROOT / "launch/single_gpu.yaml", "--gpu_memory_gb", "4") == 1
    assert "No launch file makes it fit: use LoRA" in capsys.readouterr().out


def test_the_launch_files_that_are_tried_are_those_of_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert [read_machine(machine.name) for machine in memory.LAUNCH_FILES] == list(memory.LAUNCH_FILES)


def test_one_gpu_is_told_of_the_launch_files_for_eight(config_file, capsys):
    command = ["--config", ROOT / "recipes/e1_math_7b.yaml", "--model_config", config_file("e1_math_7b")]
    assert run(*command, "--launch", ROOT / "launch/single_gpu.yaml") == 1
    changes = capsys.readouterr().out.partition("Each of these would do:\n")[2].splitlines()
    assert {f"- {machine.name}: {machine}" for machine in memory.LAUNCH_FILES} <= set(changes)
    alone = "- launch/zero3_offload.yaml: 1 GPU on 1 node, ZeRO-3 with offload, by num_processes: 1"
    assert alone in changes
    assert "- launch/multinode_zero3.yaml: 16 GPUs on 2 nodes, ZeRO-3" in changes


def test_vllm_that_takes_too_much_is_told_to_take_less_or_to_sleep(config_file):
    sizes = model_sizes(ModelConfig(), config_file())
    work = replace(WORK, vllm_share=0.9)
    assert not memory.plan(sizes, work, EIGHT, 80 * GIB).fits
    sleeping, lower, *_ = memory.remedies(sizes, work, EIGHT, 80 * GIB)
    assert sleeping == "vllm_enable_sleep_mode: true"
    name, _, share = lower.partition(": ")
    assert name == "vllm_gpu_memory_utilization"
    assert memory.plan(sizes, replace(work, vllm_share=float(share)), EIGHT, 80 * GIB).fits
    assert not memory.plan(sizes, replace(work, vllm_share=float(share) + 0.01), EIGHT, 80 * GIB).fits


@pytest.mark.parametrize(("optim", "said"), [("adamw_torch", False), ("adafactor", True), ("adamw_bnb_8bit", True)])
def test_another_optimizer_is_said_to_be_planned_as_adamw(config_file, capsys, optim, said):
    command = ["--config", ROOT / "recipes/e1_math_1.5b.yaml", "--model_config", config_file(), "--optim", optim]
    assert run(*command, "--launch", ROOT / "launch/zero2.yaml") == 0
    assert (f"optim is {optim}, whose states are planned as AdamW's" in capsys.readouterr().out) == said


def test_several_launch_files_are_compared(config_file, capsys):
    launches = [ROOT / "launch" / f"{name}.yaml" for name in ("ddp", "zero1", "zero3_offload")]
    command = ["--config", ROOT / "recipes/e1_code_14b.yaml", "--model_config", config_file("e1_code_14b")]
    assert run(*command, "--launch", *launches) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "/launch/" in line]
    assert [(row[1].strip(), row[-1].strip(" |")) for row in rows] == [("8", "no"), ("8", "no"), ("8", "yes")]
    assert run(*command, "--launch", *launches[:2]) == 1


def test_lora_trains_its_adapters_alone_and_needs_no_reference_model(config_file, capsys):
    sizes = model_sizes(ModelConfig(use_peft=True, lora_r=8, lora_target_modules=["q_proj", "v_proj"]), config_file())
    adapters = 28 * 8 * (1536 + 1536 + 1536 + 256)
    assert (sizes.trained, sizes.parameters) == (adapters, 1_543_714_304 + adapters)
    of_one = model_sizes(ModelConfig(use_peft=True, lora_r=8, lora_target_modules=["q_proj"]), config_file())
    assert of_one.trained == 28 * 8 * (1536 + 1536)
    command = ["--config", ROOT / "recipes/e1_math_1.5b.yaml", "--model_config", config_file(), "--use_peft"]
    assert run(*command, "--launch", ROOT / "launch/zero2.yaml") == 0
    said = capsys.readouterr().out
    assert "reference model" not in said
    assert "1.55 B parameters, 2,179,072 of them trained" in said


def test_vllm_in_the_same_process_takes_its_share(config_file, capsys):
    sizes = model_sizes(ModelConfig(), config_file())
    work = replace(WORK, vllm_share=0.3)
    with_vllm = memory.plan(sizes, work, EIGHT, 80 * GIB)
    (part,) = [part for part in with_vllm.parts if part.name == "vLLM"]
    assert part.bytes == pytest.approx(24 * GIB) and part.phases == (memory.ROLLOUTS, memory.TRAINING)
    assert not {"KV cache", "sampling"} & {part.name for part in with_vllm.parts} and with_vllm.fits
    small = memory.plan(sizes, replace(work, vllm_share=0.02), EIGHT, 80 * GIB)
    assert not small.fits and "raise it to 0.09 or more" in small.complaints[0]
    asleep = memory.plan(sizes, replace(work, vllm_sleeps=True), EIGHT, 80 * GIB)
    assert asleep.phase_bytes(memory.TRAINING) == with_vllm.phase_bytes(memory.TRAINING) - part.bytes
    served = memory.plan(sizes, replace(work, vllm_share=0.0), EIGHT, 80 * GIB)
    assert "vLLM" not in {part.name for part in served.parts}


def test_vllm_is_planned_where_it_is_not_installed(config_file, capsys):
    command = ["--config", ROOT / "recipes/e1_math_1.5b.yaml", "--model_config", config_file()]
    assert run(*command, "--launch", ROOT / "launch/zero2.yaml", "--use_vllm", "--vllm_mode", "colocate") == 0
    said = capsys.readouterr().out
    assert "0.3 x 80 GiB, of which weights 2.9 GiB" in said and "128 a GPU" not in said


def test_offload_moves_the_states_to_the_main_memory_of_the_node(config_file):
    sizes = model_sizes(ModelConfig(), config_file())
    offloaded = memory.plan(sizes, WORK, read_machine(str(ROOT / "launch/zero3_offload.yaml")), 80 * GIB)
    assert offloaded.host_bytes == pytest.approx((2 + 2 + 12 + 4) * sizes.parameters)
    assert not set(memory.STATES) & {part.name for part in offloaded.parts if not part.host}


def test_the_batch_is_that_of_all_processes(config_file, capsys):
    """A batch that one process could not divide into groups."""
    command = ["--config", ROOT / "recipes/e1_math_1.5b.yaml", "--model_config", config_file()]
    changes = ["--per_device_train_batch_size=1", "--gradient_accumulation_steps=1", "--steps_per_generation=1"]
    assert run(*command, "--launch", ROOT / "launch/zero2.yaml", *changes, "--save_steps=2") == 0
    assert "A generation batch: 1 prompts x 8 = 8 rollouts, 1 a GPU in 1 slice;" in capsys.readouterr().out


def test_a_deepspeed_json_is_taken_with_the_number_of_gpus(config_file, capsys):
    command = ["--config", ROOT / "recipes/e1_math_7b.yaml", "--model_config", config_file("e1_math_7b")]
    json_file = ROOT / "launch" / "deepspeed_zero3.json"
    assert run(*command, "--launch", json_file, "--num_processes", "8") == 0
    assert "8 GPUs on 1 node, ZeRO-3, 80 GiB each" in capsys.readouterr().out


LAUNCH_FILES = sorted((ROOT / "launch").glob("*.yaml"))


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_launch_file_is_understood(path):
    machine = read_machine(str(path))
    assert f"zero{machine.zero_stage}" in path.stem or (machine.zero_stage == 0 and "zero" not in path.stem)
    assert (machine.offload_optimizer, machine.offload_parameters) == (("offload" in path.stem,) * 2)
    assert (machine.nodes > 1) == path.stem.startswith("multinode")


def test_a_launch_file_may_name_a_deepspeed_json(tmp_path):
    json_file = ROOT / "launch" / "deepspeed_zero3.json"
    launch = tmp_path / "launch.yaml"
    launch.write_text(
        f"num_processes: 16\nnum_machines: 2\ndistributed_type: DEEPSPEED\n"
        f"deepspeed_config: {{deepspeed_config_file: {json_file}}}"
    )
    assert read_machine(str(launch)) == Machine(str(launch), processes=16, nodes=2, zero_stage=3)


WRONG = {
    "launch is 'none.yaml', and there is no such file: give a file of launch/.": ["--launch", "none.yaml"],
    "launch is 'bad.yaml', which cannot be read: ": ["--launch", "bad.yaml"],
    "launch is 'list.yaml', which holds no fields": ["--launch", "list.yaml"],
    "launch is 'other.yaml', which names neither num_processes nor zero_optimization": ["--launch", "other.yaml"],
    "the ZeRO stage in 'stage.yaml' is 4: give 0, 1, 2 or 3.": ["--launch", "stage.yaml"],
    "offload_optimizer in 'nvme.json' is 'nvme', which the plan does not know": ["--launch", "nvme.json"],
    "num_processes is not set, and 'zero.json' does not say it": ["--launch", "zero.json", "--num_processes", None],
    "num_processes is 0: give a whole number of 1 or more.": ["--num_processes", "0"],
    "gpu_memory_gb is 0: give the GiB of one GPU, such as 80.": ["--gpu_memory_gb", "0"],
    "gpu_memory_gb is nan: give the GiB of one GPU, such as 80.": ["--gpu_memory_gb", "nan"],
    "deepspeed_config in 'null.yaml' is None: give its fields, or leave it out.": ["--launch", "null.yaml"],
    "num_processes in 'word.yaml' is 'eight': give a whole number of 1 or more.": ["--launch", "word.yaml"],
    "num_processes in 'zero.yaml' is 0: give a whole number of 1 or more.": ["--launch", "zero.yaml"],
    "num_machines in 'yes.yaml' is True: give a whole number of 1 or more.": ["--launch", "yes.yaml"],
    "num_processes for 'three.yaml' is 8, on 3 nodes: give as many to each node.": ["--launch", "three.yaml"],
    "zero_optimization in 'true.json' is True: give its fields, or leave it out.": ["--launch", "true.json"],
    "offload_optimizer in 'null.json' is None: give its fields, or leave it out.": ["--launch", "null.json"],
    "offload_param in 'list.json' is ['cpu'], which the plan does not know": ["--launch", "list.json"],
    "the ZeRO stage in 'stages.json' is True: give 0, 1, 2 or 3.": ["--launch", "stages.json"],
    "distributed_type in 'fsdp.yaml' is 'FSDP', which the plan does not know": ["--launch", "fsdp.yaml"],
    "max_prompt_length is not set in the recipe: give the longest prompt by --prompt_tokens.": [
        "--config",
        "short.yaml",
    ],
    "model_config is 'none.json', which cannot be read: ": ["--model_config", "none.json"],
    "load_in_4bit and load_in_8bit are not planned": ["--load_in_4bit", "true"],
    "qwen3_moe has experts": ["--model_config", "moe.json"],
    "dtype is 'auto': give one of float32, bfloat16, float16 for the plan.": ["--dtype", "auto"],
    "learning_rat in the command line is not a field: did you mean learning_rate?": ["--learning_rat", "1"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    files = {
        "bad.yaml": "a: [",
        "list.yaml": "- a",
        "other.yaml": "a: 1",
        "stage.yaml": "num_processes: 8\ndistributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 4}",
        "fsdp.yaml": "num_processes: 8\ndistributed_type: FSDP",
        "nvme.json": '{"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme"}}}',
        "null.yaml": "num_processes: 8\ndistributed_type: DEEPSPEED\ndeepspeed_config: null",
        "word.yaml": "num_processes: eight",
        "zero.yaml": "num_processes: 0",
        "yes.yaml": "num_processes: 8\nnum_machines: true",
        "three.yaml": "num_processes: 8\nnum_machines: 3\ndistributed_type: MULTI_GPU",
        "true.json": '{"zero_optimization": true}',
        "null.json": '{"zero_optimization": {"stage": 2, "offload_optimizer": null}}',
        "list.json": '{"zero_optimization": {"stage": 2, "offload_param": {"device": ["cpu"]}}}',
        "stages.json": '{"zero_optimization": {"stage": true}}',
        "zero.json": '{"zero_optimization": {"stage": 3}}',
        "short.yaml": "thinking_token_budget: 4\nsolution_token_budget: 4\noutput_dir: out",
        "config.json": json.dumps(PUBLISHED["qwen2.5-1.5b"]),
        "moe.json": json.dumps(hf.Qwen3MoeConfig().to_dict()),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("sentence", WRONG)
def test_bad_input_gives_one_sentence(folder, capsys, sentence):
    options = {"--config": ROOT / "recipes/e1_math_1.5b.yaml", "--launch": ROOT / "launch/zero2.yaml"}
    options |= {"--model_config": "config.json", "--num_processes": "8"}
    words = WRONG[sentence]
    options |= dict(zip(words[::2], words[1::2], strict=True))
    capsys.readouterr()
    assert run(*(word for name, value in options.items() if value is not None for word in (name, value))) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"python -m elastic.plan: error: {sentence}")
    assert said.err.count("\n") == 1


def test_a_model_that_cannot_be_reached_is_said(capsys):
    assert run("--config", ROOT / "recipes/e1_math_1.5b.yaml", "--launch", ROOT / "launch/zero2.yaml") == 2
    said = capsys.readouterr().err
    assert "agentica-org/DeepScaleR-1.5B-Preview" in said and said.count("\n") == 1


def test_help_comes_without_the_heavy_imports():
    program = (
        "import sys; from elastic import plan; plan.main(['--help']); "
        "sys.exit(' '.join({'torch', 'trl', 'datasets', 'wandb'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--launch" in done.stdout and "Exit code 0: it fits" in " ".join(done.stdout.split())
