"""The entry point: what it refuses before a model is loaded, and what it leaves behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trainer_fixtures
from safetensors.torch import load_file
from trainer_fixtures import config_fields, save_model, tiny_model, write_problems
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import ModelConfig

from elastic import train
from elastic.checkpoints import complete_checkpoints
from elastic.nano.tokenizer import make_tokenizer
from elastic.setup import lora_config

ROOT = Path(__file__).parents[1]
HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a model, problems, and files that a person may name by mistake."""
    folder = tmp_path_factory.mktemp("train")
    model = Path(save_model(folder / "model"))
    write_problems(folder / "problems.jsonl")
    write_problems(folder / "one.jsonl", 1)
    write_problems(folder / "no_solution.jsonl", 2, solution_token_budget=[0, 3])
    write_problems(folder / "unlimited.jsonl", 2, thinking_token_budget=[4, -1])
    write_problems(folder / "long.jsonl", 2, thinking_token_budget=[4, 400])
    (folder / "broken.jsonl").write_text('{"problem": "1 a +2", "answer": "ans 3"}\n{"problem":\n')
    (folder / "one_choice.jsonl").write_text(
        "".join(json.dumps({"problem": "1 a", "answer": answer}) + "\n" for answer in ("B", "12", "C"))
    )
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").touch()
    shutil.copytree(model, folder / "no_weights")
    (folder / "no_weights" / "model.safetensors").unlink()
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    (folder / "adapter" / "adapter_model.safetensors").touch()
    (folder / "typo.yaml").write_text("learning_rat: 1.0e-3\n")
    (folder / "text.yaml").write_text("learning_rate: quick\n")
    split_marker(folder / "split_marker")
    return folder


def split_marker(folder):
    """A tokenizer that has </think> alone, and joins it with a full stop before it to another token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<eos>", "<think>", "</think>", ".</think>", ".", "\n", "7", *" ansbcdefghi*+?0123456"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="<eos>", continuing_subword_prefix=""))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Split("\n", "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    save_model(folder, tokenizer)


def command_line(folder, **changes):
    fields = dict(
        model_name_or_path=folder / "model", dataset_name=folder / "problems.jsonl", reward_funcs="exact", max_steps=2
    )
    fields = config_fields(folder) | fields | changes
    return [f"--{name}={value}" for name, value in fields.items() if value is not None]


BAD_INPUT = [
    (dict(config="recipes/none.yaml"), "--config is 'recipes/none.yaml', and there is no such file"),
    (dict(config="{}/typo.yaml"), "learning_rat in {}/typo.yaml is not a field: did you mean learning_rate?"),
    (dict(config="{}/text.yaml", learning_rate=None), "invalid float value: 'quick'"),
    (
        dict(thinking_tokens=3),
        "thinking_tokens=3 in the command line is not a field: did you mean thinking_token_budget?",
    ),
    (dict(max_steps="few"), "argument --max_steps/--max-steps: invalid int value: 'few'"),
    (dict(model_name_or_path=None), "model_name_or_path is not set"),
    (dict(model_name_or_path="{}/none"), "model_name_or_path is '{}/none', and there is no such directory"),
    (dict(model_name_or_path="{}/empty"), "model_name_or_path is '{}/empty', which holds neither config.json nor"),
    (dict(model_name_or_path="{}/no_weights"), "model_name_or_path is '{}/no_weights', which holds no weights"),
    (dict(model_name_or_path="{}/adapter"), "model_name_or_path is '{}/adapter', which holds a PEFT adapter: merge it"),
    (
        dict(model_name_or_path="{}/adapter"),
        "(python -m elastic.export --model_name_or_path {}/adapter --output_dir NEW)",
    ),
    (dict(model_name_or_path="org/none"), "'org/none' (revision 'main'), which is no directory and not to be had"),
    (dict(dataset_name=None), "dataset_name is not set"),
    (dict(dataset_name="{}/none.jsonl"), "dataset_name is '{}/none.jsonl', and there is no such file"),
    (dict(dataset_name="{}/broken.jsonl"), "{}/broken.jsonl line 2 is not JSON"),
    (dict(dataset_name="{}/one.jsonl"), "{}/one.jsonl has 1 problems, and a generation batch needs 2"),
    (dict(thinking_token_budget=-2), "thinking_token_budget is -2: give a whole number of tokens"),
    (dict(thinking_token_budget="1.5"), "thinking_token_budget is 1.5: give a whole number of tokens"),
    (dict(solution_token_budget="three"), "solution_token_budget is 'three': give a whole number of tokens"),
    (dict(thinking_token_budget="{uniform: [9, 2]}"), "thinking_token_budget.uniform is [9, 2]"),
    (dict(thinking_token_budget=-1), "thinking_token_budget may be unlimited (-1)"),
    (dict(thinking_token_budget=300), "The longest prompt (20 tokens) and the longest rollout (304 tokens) exceed"),
    (dict(dataset_name="{}/unlimited.jsonl"), "Rows of {}/unlimited.jsonl have thinking_token_budget -1 (no limit)"),
    (dict(dataset_name="{}/long.jsonl"), "the longest rollout (404 tokens) exceed the context"),
    (dict(dataset_name="{}/long.jsonl", max_completion_length=50), "max_completion_length is 50, but the largest"),
    (dict(max_prompt_length=3), "max_prompt_length is 3, and the shortest of the 8 prompts has 10 tokens"),
    (dict(solution_token_budget=0), "solution_token_budget is 0, which allows no solution, and the reward exact"),
    (dict(dataset_name="{}/no_solution.jsonl"), "solution_token_budget is 0 in a row of the data set"),
    (dict(reasoning_end_str="</thinking>"), "reasoning_end_str is '</thinking>', which is not in the tokenizer's"),
    (dict(reasoning_start_str="<reason>"), "reasoning_start_str is '<reason>', which is not in the tokenizer's"),
    (
        dict(model_name_or_path="{}/split_marker"),
        "reasoning_end_str is '</think>', which the tokenizer splits differently between '.' and ''",
    ),
    (dict(num_generations=3), "generation_batch_size (8) must be divisible by num_generations (3)"),
    (dict(reward_funcs=None), "reward_funcs is not set"),
    (dict(reward_funcs="kindness"), "There is no reward 'kindness'"),
    (dict(reward_funcs="math.pi"), "The reward 'math.pi' is float, not a function"),
    (dict(reward_funcs="cosine"), "length_reward: max_tokens is not set: give {max_tokens: N}"),
    (dict(reward_funcs="trl.rewards.get_soft_overlong_punishment"), "takes (max_completion_len, soft_punish_cache)"),
    (dict(code_reward="{mode: some}"), "code_reward: mode is 'some': give one of all, fraction."),
    (dict(math_reward="{box: no}"), "math_reward: box is no setting"),
    (dict(math_reward="last_number"), "math_reward is 'last_number': give a mapping such as {without_box: ...}"),
    (dict(length_reward="{max_tokens: [}"), "length_reward is '{max_tokens: [}', which is not YAML"),
    (dict(max_ungraded_rate=1.5), "max_ungraded_rate is 1.5: give a share from 0 to 1, such as 0.01."),
    (dict(reward_funcs="code"), "tests_column is not set, {}/problems.jsonl has the columns"),
    (
        dict(reward_funcs="accuracy_reward"),
        "The reward accuracy_reward needs the column solution, and {}/problems.jsonl",
    ),
    (
        dict(reward_funcs="choice", dataset_name="{}/one_choice.jsonl"),
        "{}/one_choice.jsonl line 2: answer is '12': give",
    ),
    (
        dict(reward_weights="2.0", reward_funcs=None, more=["--reward_funcs", "exact", "math"]),
        "reward_weights is [2.0]",
    ),
    (dict(eval_strategy="steps"), "eval_strategy is steps, but training has no data to evaluate on"),
    (dict(output_dir="{}/problems.jsonl"), "output_dir is '{}/problems.jsonl', but '{}/problems.jsonl' is a file"),
    (dict(output_dir="{}/full"), "output_dir '{}/full' is not empty and not from a run of this program"),
    (dict(resume="{}/none"), "resume is '{}/none': give auto, never, or the path of a complete checkpoint"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_INPUT, ids=[sentence[:60] for _, sentence in BAD_INPUT])
def test_bad_input_is_one_sentence_before_a_model_is_loaded(folder, capfd, monkeypatch, changes, sentence):
    def load(*args, **kwargs):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("trl.trainer.grpo_trainer.create_model_from_path", load)
    changes = {
        name: str(value).replace("{}", str(folder)) if value is not None else None for name, value in changes.items()
    }
    more = ["--reward_funcs", "exact", "math"] if changes.pop("more", None) else []
    with pytest.raises(SystemExit) as stopped:
        train.main(command_line(folder, **changes) + more)
    said = capfd.readouterr()
    assert (stopped.value.code, said.out) == (2, "")
    assert said.err.startswith("python -m elastic.train: error: ") and said.err.count("\n") == 1
    assert sentence.replace("{}", str(folder)) in said.err
    assert not (folder / "run").exists()


def test_bad_input_ends_the_process_with_2_and_the_sentence_alone(folder):
    done = subprocess.run(
        [sys.executable, "-m", "elastic.train", *command_line(folder, thinking_token_budget=-2)],
        env={name: value for name, value in os.environ.items() if name != "WANDB_MODE"},  # which wandb would print
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "python -m elastic.train: error: thinking_token_budget is -2: give a whole number of tokens, 0 or more, or -1 "
        "for no limit.\n"
    )


def test_help_comes_without_the_heavy_imports():
    program = (
        "import sys; from elastic import train; train.main(['--help']); "
        "sys.exit(' '.join({'torch', 'trl', 'datasets', 'wandb'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("--thinking_token_budget", "--solution_truncated_reward", "--dataset_name", "--resume", "--config"):
        assert name in done.stdout
    assert "as the paper does" in " ".join(done.stdout.split())


def test_accelerate_launches_a_recipe_and_leaves_a_model(folder, tmp_path):
    """The whole path as a person goes it: launch file, recipe, command line, and a directory that loads."""
    recipe = tmp_path / "tiny.yaml"
    fields = config_fields(tmp_path) | {
        "reward_funcs": ["exact", "trainer_fixtures.even_reward"],
        "learning_rate": 1e-2,
    }
    del fields["max_steps"], fields["use_cpu"]
    recipe.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in fields.items()))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "launch" / "cpu.yaml")]
    options = ["--model_name_or_path", str(folder / "model"), "--dataset_name", str(folder / "problems.jsonl")]
    done = subprocess.run(
        [*launch, "-m", "elastic.train", "--config", str(recipe), *options, "--max_steps", "3"],
        env=os.environ | {"PYTHONPATH": HERE},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    output = tmp_path / "run"
    assert f"The trained model is in {output}." in done.stdout
    assert "'reward': " in done.stdout and done.stdout.count("'loss': ") == 3
    model, tokenizer = AutoModelForCausalLM.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    assert tokenizer.chat_template == make_tokenizer().chat_template
    before = tiny_model(tokenizer).state_dict()
    assert any((model.state_dict()[name] != weight).any() for name, weight in before.items())
    assert json.loads((output / "elastic_run.json").read_text())["thinking_token_budget"] == 6


STOPS = {
    "failing": (
        "110 of the last 224 rows could not be graded (49.1%), more than max_ungraded_rate 0.01 allows: failing "
        "grader_failed 110 (such as: it died); mend what the reasons name, or raise max_ungraded_rate."
    ),
    "raising": (
        "The reward raising_reward failed with KeyError at {} line {}: 'no such key'; mend it, and start again "
        "(56 of 56 rows fail and are in {}/run/failed_rewards.jsonl)."
    ),
}


@pytest.mark.parametrize("name", STOPS)
def test_two_processes_stop_together_when_rows_cannot_be_graded_and_keep_the_last_checkpoint(folder, tmp_path, name):
    """In the second step, on one process alone (raising) or on both (failing)."""
    write_problems(tmp_path / "problems.jsonl", 28)
    options = command_line(
        folder,
        output_dir=tmp_path / "run",
        dataset_name=tmp_path / "problems.jsonl",
        reward_funcs=f"trainer_fixtures.{name}_reward",
        per_device_train_batch_size=56,
        save_strategy="steps",
        save_steps=1,
        max_steps=3,
    )
    done = subprocess.run(
        ["torchrun", "--standalone", "--nproc_per_node", "2", "-m", "elastic.train", *options],
        env=os.environ | {"PYTHONPATH": HERE, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    line = trainer_fixtures.raising_reward.__code__.co_firstlineno + 3
    sentence = f"python -m elastic.train: error: {STOPS[name].format(trainer_fixtures.__file__, line, tmp_path)}"
    assert done.returncode != 0 and done.stderr.splitlines().count(sentence) == 1, done.stderr[-3000:]
    assert done.stderr.count("Traceback (most recent call last)") == 1  # torchrun's own
    complete, partial = complete_checkpoints(tmp_path / "run")
    assert ([path.name for path in complete], partial) == (["checkpoint-1"], [])
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_reward_that_fails_ends_the_process_with_1(folder, tmp_path):
    options = command_line(folder, output_dir=tmp_path / "run", reward_funcs="trainer_fixtures.raising_reward")
    done = subprocess.run(
        [sys.executable, "-m", "elastic.train", *options],
        env=os.environ | {"PYTHONPATH": HERE},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("python -m elastic.train: error: The reward raising_reward failed")


LORA = dict(use_peft="true", lora_r=2, beta=0.1, reward_funcs="trainer_fixtures.even_reward", learning_rate=1e-2)


@pytest.mark.parametrize(
    "modules", [["q_proj", "v_proj"], ["self_attn.q_proj"], ["all-linear"], [r".*layers\.1.*_proj"]]
)
def test_lora_from_the_command_line(folder, tmp_path, modules):
    """One module by its name too, which TRL takes for a pattern of a whole path."""
    options = [*command_line(folder, **LORA, output_dir=tmp_path / "run"), "--lora_target_modules", *modules]
    train.main(options)
    adapter = load_file(tmp_path / "run" / "adapter_model.safetensors")
    trained = {name: weight for name, weight in adapter.items() if "lora_B" in name}
    assert len(trained) == {"q_proj": 4, "self_attn.q_proj": 2, "all-linear": 14}.get(modules[0], 7)
    assert all(weight.abs().max() > 0 for weight in trained.values())


def test_lora_is_saved_with_its_tokenizer_and_resumes_exactly(folder, tmp_path):
    lora = LORA | dict(save_strategy="steps", save_steps=2, max_steps=4, lora_dropout=0.3)
    runs = [tmp_path / name for name in ("undisturbed", "interrupted")]
    train.main(command_line(folder, **lora, output_dir=runs[0]))
    shutil.copytree(*runs)
    shutil.rmtree(runs[1] / "checkpoint-4")
    (runs[1] / "adapter_model.safetensors").unlink()
    train.main(command_line(folder, **lora, output_dir=runs[1]))
    adapter, resumed = (load_file(run / "adapter_model.safetensors") for run in runs)
    half_way = load_file(runs[0] / "checkpoint-2" / "adapter_model.safetensors")
    assert adapter.keys() == resumed.keys() == half_way.keys()
    assert all((adapter[name] == resumed[name]).all() for name in adapter)
    assert all((adapter[name] != half_way[name]).any() for name in adapter)
    for place in (runs[0], runs[0] / "checkpoint-2"):
        assert AutoTokenizer.from_pretrained(place).chat_template == make_tokenizer().chat_template
        assert not (place / "model.safetensors").exists()


def test_an_adapter_notes_the_revision_of_its_base_on_the_hub(folder):
    hub = ModelConfig(model_name_or_path="org/model", model_revision="v2", use_peft=True)
    here = ModelConfig(model_name_or_path=str(folder / "model"), model_revision="v2", use_peft=True)
    assert (lora_config(hub).revision, lora_config(here).revision) == ("v2", None)
    assert lora_config(ModelConfig(model_name_or_path="org/model")) is None


def test_the_model_is_loaded_as_the_recipe_says(folder, tmp_path):
    train.main(
        command_line(folder, dtype="bfloat16", attn_implementation="eager", output_dir=tmp_path / "run", max_steps=1)
    )
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run", dtype="auto").dtype is torch.bfloat16
