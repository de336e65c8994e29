"""A merged model is what its adapter and its base are together, or there is one sentence for why it cannot be."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file
from trainer_fixtures import save_model, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from elastic import export
from elastic.nano.tokenizer import make_tokenizer

TOKENIZER = make_tokenizer()
IDS = torch.arange(3, 33).view(3, 10)


def save_adapter(folder, base, **changes):
    """An adapter that changes what its base computes, beside the tokenizer, as the trainer saves it."""
    torch.manual_seed(1)
    fields = dict(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM") | changes
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**fields))
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a base, an adapter, and what a person may name in its place."""
    folder = tmp_path_factory.mktemp("export")
    base = save_model(folder / "base")
    GenerationConfig(eos_token_id=[1, 2], max_new_tokens=7).save_pretrained(base)
    save_adapter(folder / "adapter", base)
    for name in ("no base", "base gone", "prefix", "quantized"):
        shutil.copytree(folder / "adapter", folder / name)
    edit(folder / "no base" / "adapter_config.json", base_model_name_or_path=None)
    edit(folder / "base gone" / "adapter_config.json", base_model_name_or_path=str(folder / "gone"))
    edit(folder / "quantized" / "adapter_config.json", base_model_name_or_path=str(folder / "base in 4 bits"))
    shutil.copytree(base, folder / "base in 4 bits")
    edit(folder / "base in 4 bits" / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    prefix = PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(tiny_model(TOKENIZER), prefix).save_pretrained(folder / "prefix")
    model = tiny_model(TOKENIZER)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder / "tied")
    save_adapter(folder / "adapter of the head", folder / "tied", target_modules=["lm_head"])
    save_adapter(folder / "copy of the embedding", folder / "tied", modules_to_save=["embed_tokens"])
    (folder / "full").mkdir()
    (folder / "full" / "thesis.tex").touch()
    (folder / "empty").mkdir()
    return folder


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def exported(folder, adapter, output_dir, *more):
    export.main(["--model_name_or_path", str(folder / adapter), "--output_dir", str(output_dir), *more])


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_the_merged_model_computes_what_the_adapter_does(folder, tmp_path, capsys):
    exported(folder, "adapter", tmp_path / "new" / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "merged")
    adapted = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter")
    torch.testing.assert_close(logits(merged), logits(adapted), atol=1e-5, rtol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    assert (logits(base) - logits(merged)).abs().max() > 1e-2
    count = sum(weight.numel() for weight in base.parameters())
    assert (
        f"adapter is merged into {folder}/base: {count} parameters, in {tmp_path}/new/merged."
        in capsys.readouterr().out
    )


def test_what_lies_beside_the_weights_comes_along(folder, tmp_path):
    exported(folder, "adapter", tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.chat_template == TOKENIZER.chat_template and tokenizer.get_vocab() == TOKENIZER.get_vocab()
    generation = GenerationConfig.from_pretrained(tmp_path / "merged")
    assert (generation.eos_token_id, generation.max_new_tokens) == ([1, 2], 7)
    assert not list((tmp_path / "merged").glob("adapter*"))
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_weights_are_stored_as_asked(folder, tmp_path, dtype):
    exported(folder, "adapter", tmp_path, "--dtype", dtype)
    stored = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {getattr(torch, dtype)}
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype is getattr(torch, dtype)


@pytest.mark.parametrize(
    "kind", [dict(use_dora=True), dict(use_rslora=True), dict(modules_to_save=["lm_head"])], ids=str
)
def test_other_forms_of_lora(folder, tmp_path, kind):
    save_adapter(tmp_path / "adapter", str(folder / "base"), **kind)
    exported(tmp_path, "adapter", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    adapted = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(logits(merged), logits(adapted), atol=1e-5, rtol=1e-5)


BAD_INPUT = [
    (["--output_dir", "{}/new"], "model_name_or_path is not set: give it as --model_name_or_path."),
    (["--model_name_or_path", "{}/adapter"], "output_dir is not set: give it as --output_dir."),
    ("none", "model_name_or_path is '{}/none', and there is no such directory: correct the path."),
    ("empty", "model_name_or_path is '{}/empty', which holds neither config.json nor adapter_config.json: give the"),
    ("base", "which holds no adapter (adapter_config.json): it is a whole model, to be used as it is."),
    (
        ["--model_name_or_path", "org/adapter", "--output_dir", "{}/new"],
        "model_name_or_path is 'org/adapter', which holds no adapter (adapter_config.json): it is no directory",
    ),
    ("prefix", "model_name_or_path is '{}/prefix', an adapter of type PREFIX_TUNING: only LORA is merged here."),
    (
        "no base",
        "The base model of the adapter in '{}/no base' (base_model_name_or_path in adapter_config.json) is not",
    ),
    ("base gone", "is not to be had: '{}/gone', and there is no such directory: correct the path."),
    ("quantized", "The base model of '{}/quantized', '{}/base in 4 bits', is quantized"),
    ("adapter of the head", "The adapter '{}/adapter of the head' changes the output layer, whose weights are also"),
    ("copy of the embedding", "The adapter '{}/copy of the embedding' changes the embedding, whose weights are also"),
    (["--model_name_or_path", "{}/adapter", "--output_dir", "{}/full"], "output_dir is '{}/full', which is not empty"),
    (
        ["--model_name_or_path", "{}/adapter", "--output_dir", "{}/full/thesis.tex/new"],
        "output_dir is '{}/full/thesis.tex/new', but '{}/full/thesis.tex' is a file",
    ),
]


@pytest.mark.parametrize(("given", "sentence"), BAD_INPUT, ids=[sentence[:50] for _, sentence in BAD_INPUT])
def test_bad_input_is_one_sentence_and_leaves_nothing(folder, capfd, given, sentence):
    words = ["--model_name_or_path", f"{{}}/{given}", "--output_dir", "{}/new"] if isinstance(given, str) else given
    with pytest.raises(SystemExit) as stopped:
        export.main([word.replace("{}", str(folder)) for word in words])
    said = capfd.readouterr()
    assert (stopped.value.code, said.out) == (2, "")
    (line,) = [line for line in said.err.splitlines() if line.startswith("python -m elastic.export: error: ")]
    assert sentence.replace("{}", str(folder)) in line and line.endswith(".")
    assert not (folder / "new").exists() and not list(folder.glob(".*"))


def test_a_directory_that_is_interrupted_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(TOKENIZER), "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        exported(folder, "adapter", tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_help_comes_without_the_heavy_imports():
    program = (
        "import sys; from elastic import export\ntry: export.main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(' '.join({'torch', 'trl', 'peft'} & sys.modules.keys()) or 0)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stderr) == (0, "") and "--dtype" in done.stdout
