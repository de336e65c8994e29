"""Every recipe parses against the real dataclasses, names what launches it, and says what the paper says."""

import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from benchmark_rows import ROWS, written
from trl import ModelConfig
from word_model import save_word_model

from elastic import evaluate
from elastic.arguments import DataArguments, RunArguments
from elastic.benchmarks import benchmark_arguments
from elastic.config import ElasticConfig
from elastic.controls import grid
from elastic.evaluation import load_prompts
from elastic.evaluation_arguments import EvaluationArguments
from elastic.parsing import parse
from elastic.protocol import rewards_of
from elastic.setup import training_rewards
from elastic.stages import stage_at
from rewards import REWARDS
from rewards.code_reward import CodeSettings
from rewards.sandbox import SandboxError, choose_sandbox

ROOT = Path(__file__).parents[1]
# Folders of recipes that are not of a training.
OTHERS = {"eval", "compare"}
# What the recipes of the embedded tasks begin with.
EMBEDDED = ("nano", "paths")
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name not in OTHERS)
NAMES = [str(path.relative_to(ROOT / "recipes").with_suffix("")) for path in RECIPES]
EVALUATION_RECIPES = sorted((ROOT / "recipes" / "eval").glob("*.yaml"))
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.yaml"))
PAPER = ["e1_code_14b", "e1_math_1.5b", "e1_math_7b"]
# Of the methods' recipes for the 1.5B model, with 128 prompts a batch: group size, rollouts an update, updates.
METHODS = {
    "grpo": (16, 1024, 400),
    "l1_exact": (16, 1024, 2 * 700),
    "l1_max": (16, 1024, 2 * (700 + 120)),
    "thinkprune": (16, 2048, 3 * 180),
    "e1_sampled": (8, 512, 400),
    "e1_anchor": (8, 512, 400),
    "e1_told": (8, 512, 400),
}
# The benchmarks of each evaluation, of which tests/benchmark_rows.py has rows.
PROTOCOLS = {
    "e1_math": ["aime24", "amc", "math500", "minerva", "olympiadbench"],
    "e1_code": ["livecodebench_v5", "humaneval_plus", "codeforces"],
    "ood": ["gpqa_diamond", "mmlu_pro"],
    "fresh": ["aime25", "hmmt_feb_2025"],
}


def path_of(name: str) -> Path:
    return ROOT / "recipes" / f"{name}.yaml"


def parsed(name: str, *more: str):
    """(data, run, model, config), on this machine."""
    kinds = (DataArguments, RunArguments, ModelConfig, ElasticConfig)
    return parse(kinds, ["--config", str(path_of(name)), "--use_cpu", "true", *more], prog="test")


def fields(name: str) -> dict:
    return yaml.safe_load(path_of(name).read_text())


def launch_command(recipe: Path) -> list[str]:
    first_line = recipe.read_text().splitlines()[0]
    assert first_line.startswith("# ")
    return shlex.split(first_line.removeprefix("# "))


def processes(name: str) -> int:
    """How many processes the first line of a training recipe starts."""
    words = launch_command(path_of(name))
    assert words[:2] == ["accelerate", "launch"]
    options = launch_command_parser().parse_args(words[2:])
    if options.config_file is None:
        return options.num_processes
    return yaml.safe_load((ROOT / options.config_file).read_text())["num_processes"]


def test_finds_the_recipes():
    assert {*PAPER, "nano", "paths/e1", *(f"math_1.5b/{name}" for name in METHODS)} <= set(NAMES)
    assert [recipe.stem for recipe in EVALUATION_RECIPES] == sorted([*PROTOCOLS, "nano", "paths"])
    assert {"cpu", "single_gpu"} <= {launch_file.stem for launch_file in LAUNCH_FILES}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_parses_and_every_field_of_it_counts(name):
    merged = {field: value for part in parsed(name) for field, value in vars(part).items()}
    given = fields(name)
    assert len(given) >= 20
    for field, value in given.items():
        found = merged[field]
        if isinstance(found, list) and not isinstance(value, list):
            found = found[0]
        assert found == value or str(getattr(found, "value", found)) == value, field


@pytest.mark.parametrize("recipe", EVALUATION_RECIPES, ids=lambda path: path.stem)
def test_an_evaluation_recipe_parses(recipe):
    (arguments,) = parse((EvaluationArguments,), ["--config", str(recipe)], prog="test")
    benchmarks = benchmark_arguments(arguments)
    assert all(benchmark.dataset_name and benchmark.thinking_token_budgets for benchmark in benchmarks)
    words = launch_command(recipe)
    assert words[:5] == ["python", "-m", "elastic.evaluate", "--config", f"recipes/eval/{recipe.name}"]


@pytest.mark.parametrize("name", ["e1_code", "ood"])
def test_one_row_that_cannot_be_asked_does_not_refuse_a_data_set_of_the_hub(name):
    (arguments,) = parse((EvaluationArguments,), ["--config", str(ROOT / "recipes/eval" / f"{name}.yaml")], prog="test")
    checked = [each for each in benchmark_arguments(arguments) if each.dataset_name != "evalplus/humanevalplus"]
    assert len(checked) == 2 and all(each.drop_malformed_rows for each in checked)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_launches_this_recipe(name):
    command = launch_command(path_of(name))
    options = launch_command_parser().parse_args(command[2:])
    assert options.module and options.training_script == "elastic.train"
    assert fields(name)["resume"] == "auto"
    assert options.training_script_args[:2] == ["--config", f"recipes/{name}.yaml"]
    assert all((ROOT / word).is_file() for word in command if word.startswith("launch/"))
    assert processes(name) == (1 if name.startswith(EMBEDDED) else 8)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_holds_no_hardware_and_a_launch_file_no_hyperparameter(name):
    hardware = {"use_cpu", "num_processes", "deepspeed", "fsdp", "mixed_precision"}
    for launch_file in LAUNCH_FILES:
        launched = yaml.safe_load(launch_file.read_text()).keys()
        assert launched.isdisjoint(fields(name).keys())
    assert hardware.isdisjoint(fields(name).keys())


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(name):
    """arXiv 2505.05315, section 4: 128 prompts of 8 samples a batch, in mini-batches of 64 prompts, and so on."""
    recipe = fields(name)
    rows_a_step = recipe["per_device_train_batch_size"] * processes(name)
    assert rows_a_step * recipe["steps_per_generation"] == 128 * recipe["num_generations"] == 1024
    assert rows_a_step * recipe["gradient_accumulation_steps"] == 64 * 8
    updates_a_batch = recipe["steps_per_generation"] // recipe["gradient_accumulation_steps"]
    assert (updates_a_batch, recipe["num_iterations"]) == (2, 1)
    code = name.startswith("e1_code")
    assert recipe["max_steps"] == (30 if code else 200) * updates_a_batch
    assert (recipe["thinking_token_budget"], recipe["solution_token_budget"]) == (1024, 1024)
    assert (recipe["learning_rate"], recipe["lr_scheduler_type"], recipe["temperature"]) == (1e-6, "constant", 0.6)
    assert (recipe["beta"], recipe["epsilon"]) == ((0.0 if code else 0.001), 0.2)
    assert recipe.get("epsilon_high", 0.2) == (0.28 if code else 0.2)
    assert recipe["max_prompt_length"] == (2048 if code else 1024)
    assert (recipe["loss_type"], recipe["scale_rewards"], recipe["max_grad_norm"]) == ("dapo", "group", 1.0)
    assert recipe["solution_truncated_reward"] == "keep"


@pytest.mark.parametrize(("method", "work"), METHODS.items())
def test_the_methods_work_on_the_same_model_problems_and_batches(method, work):
    """What is not a method's own is E1's: 128 prompts a batch, learning rate, KL, clip, loss."""
    name = f"math_1.5b/{method}"
    recipe, group = fields(name), work[0]
    rows_a_step = recipe["per_device_train_batch_size"] * processes(name)
    assert rows_a_step * recipe["steps_per_generation"] == 128 * group
    assert (group, rows_a_step * recipe["gradient_accumulation_steps"]) == (recipe["num_generations"], work[1])
    assert recipe["max_steps"] == work[2]
    assert path_of(name).read_text().splitlines()[1].startswith("# ")
    own = {
        *("output_dir", "run_name", "reward_funcs", "thinking_token_budget", "solution_token_budget", "max_steps"),
        *("num_generations", "per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation"),
        *(("solution_truncated_reward", "temperature", "max_prompt_length") if method == "thinkprune" else ()),
    }
    e1 = {field: value for field, value in fields("e1_math_1.5b").items() if field not in own}
    assert {field: recipe[field] for field in e1} == e1


def stages_of(method: str) -> list[tuple]:
    """(updates, thinking budgets, solution budgets, most tokens, weights of the rewards) of each stage."""
    *_, config = parsed(f"math_1.5b/{method}")
    updates = Counter(stage_at(config.run_stages, step / config.max_steps).name for step in range(config.max_steps))
    return [
        (updates[stage.name], stage.thinking.choices, stage.solution.choices, stage.total, stage.reward_weights)
        for stage in config.run_stages
    ]


def test_grpo_has_the_cap_of_the_last_stage_of_its_base_model():
    *_, config = parsed("math_1.5b/grpo")
    assert config.longest_rollout == 24576 == 24 * 1024
    assert stages_of("grpo") == [(400, (-1,), (-1,), -1, None)]


@pytest.mark.parametrize(("method", "words"), [("l1_exact", ["for"]), ("l1_max", ["for", "for maximum"])])
def test_l1_asks_for_100_to_4000_tokens(method, words):
    """arXiv 2503.04697, eq. 1 and 2."""
    _, run, _, config = parsed(f"math_1.5b/{method}")
    assert config.target_tokens == {"uniform": [100, 4000]}
    asked = [stage.instruction for stage in config.run_stages]
    assert asked == [f"Think {wanted} {{tokens}} tokens." for wanted in words]
    rewards = training_rewards(run, config)
    # 300 tokens more than asked for, of a right answer.
    scores = [
        function(completions=[r"\boxed{1}"], answer=["1"], target_tokens=[1000], completion_ids=[[0] * 1300])
        for function in rewards.functions
    ]
    assert scores == [[pytest.approx(1 - 0.0003 * 300)], [pytest.approx(0.5 - 0.001 * 300)]][: len(scores)]


def test_l1_is_priced_for_the_lengths_of_nano():
    """N is at most 130: the papers' prices, made for 4000, would reward short answers whatever N is."""
    scores = {}
    for method in ("l1_exact", "l1_max"):
        _, run, _, config = parsed(f"nano/{method}")
        assert config.target_tokens == {"uniform": [10, 130]}
        function = training_rewards(run, config).functions[-1]
        columns = dict(completions=["ans 1"], solution_text=["ans 1"], answer=["ans 1"])
        scores[method] = [
            function(**columns, target_tokens=[target], completion_ids=[[0] * n])[0]
            for target, n in ((130, 40), (130, 130), (50, 50), (50, 110))
        ]
    assert scores["l1_exact"] == pytest.approx([0.1, 1.0, 1.0, 0.4])
    assert scores["l1_max"] == pytest.approx([1.0, 0.5, 0.5, 0.0])


def test_l1_max_goes_on_from_l1_exact():
    """700 batches of 2 updates at 4096 tokens, then 120 at 4500."""
    exact = (1400, (-1,), (-1,), 4096)
    assert stages_of("l1_exact") == [(*exact, None)]
    assert stages_of("l1_max") == [(*exact, (1.0, 0.0)), (240, (-1,), (-1,), 4500, (0.0, 1.0))]


def test_thinkprune_lowers_its_limit_and_rewards_nothing_unfinished():
    """arXiv 2504.01296: 4k, 3k, 2k; on-policy, so at temperature 1 one update a batch."""
    assert stages_of("thinkprune") == [(180, (-1,), (-1,), limit, None) for limit in (4000, 3000, 2000)]
    recipe = fields("math_1.5b/thinkprune")
    assert (recipe["temperature"], recipe["max_prompt_length"]) == (1.0, 768)
    assert recipe["solution_truncated_reward"] == "zero"


def test_the_methods_of_ours_have_the_budgets_that_the_paper_measures_at():
    measured = tuple(yaml.safe_load(path_of("eval/e1_math").read_text())["thinking_token_budgets"])
    for method, thinking, solution, share in (
        ("e1_sampled", measured, (512, 1024), 0.2),
        ("e1_told", measured, (1024,), 0.2),
        ("e1_anchor", (1024,), (1024,), 0.25),
    ):
        assert stages_of(method) == [(400, thinking, solution, -1, None)]
        *_, config = parsed(f"math_1.5b/{method}")
        assert (config.unbudgeted_share, config.longest_rollout) == (share, 8192)
        told = method == "e1_told"
        assert (config.reminder_every, bool(config.budget_instruction)) == ((512, True) if told else (0, False))
        assert ("{tokens}" in config.reminder_str) == told


@pytest.mark.parametrize("name", ["e1_math_1.5b", "e1_math_7b"])
def test_the_papers_prompt_for_mathematics(name):
    suffix = r"Let's think step by step and output the final answer within \boxed{}."
    assert fields(name)["prompt_suffix"] == suffix
    assert parsed(name)[0].prompt_suffix == suffix


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("e1_math_1.5b", "agentica-org/DeepScaleR-1.5B-Preview"),
        ("e1_math_7b", "Skywork/Skywork-OR1-Math-7B"),
        ("e1_code_14b", "agentica-org/DeepCoder-14B-Preview"),
    ],
)
def test_the_papers_base_models(name, model):
    assert fields(name)["model_name_or_path"] == model


@pytest.mark.parametrize("name", NAMES)
def test_the_rewards_of_a_recipe_are_there_with_their_settings(name, monkeypatch):
    monkeypatch.setattr("rewards.choose_sandbox", lambda wanted: None)  # the machine of a recipe is another one
    _, run, _, config = parsed(name)
    rewards = training_rewards(run, config)
    functions = [getattr(function, "func", function) for function in rewards.functions]
    assert functions == [REWARDS[reward] for reward in run.reward_funcs]
    assert rewards.needed_columns == {"completions", "tests" if name == "e1_code_14b" else "answer"}


def test_the_settings_of_the_code_recipe_are_the_code_rewards():
    _, run, _, config = parsed("e1_code_14b", "--code_reward", "{mode: fraction, timeout_s: 2}")
    (function,) = training_rewards(run, config).functions
    assert function.func is REWARDS["code"]
    assert function.keywords == {"code_settings": CodeSettings(mode="fraction", timeout_s=2)}


@pytest.mark.parametrize("name", [*PAPER, "nano"])
def test_the_command_line_wins_over_the_recipe(name):
    *_, config = parsed(name, "--learning_rate", "0.5", "--thinking_token_budget", "{uniform: [1, 1024]}")
    assert (config.learning_rate, config.run_stages[0].thinking.largest) == (0.5, 1024)
    assert config.run_stages[0].thinking.smallest == 1


def test_nano_measures_at_the_budget_that_it_trains_at():
    trained, measured = fields("nano"), yaml.safe_load((ROOT / "recipes" / "eval" / "nano.yaml").read_text())
    t = trained["thinking_token_budget"]
    assert t == measured["trained_budget"] and t in measured["thinking_token_budgets"]
    assert sum(budget > t for budget in measured["thinking_token_budgets"]) >= 2
    assert any(0 < budget < t for budget in measured["thinking_token_budgets"]) and measured["no_budget"]
    assert trained["solution_token_budget"] == measured["solution_token_budget"]
    assert trained["reward_funcs"] == [measured["reward"]]


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_of_the_paper_does_not_fill_a_disk_with_checkpoints(name):
    assert fields(name)["save_total_limit"] == 2


@pytest.fixture(scope="module")
def word_model(tmp_path_factory):
    """A tiny model with room for the budgets of the protocols."""
    return save_word_model(tmp_path_factory.mktemp("model"), context=100_000)


def protocol_words(name: str, folder: Path, model: Path) -> list[str]:
    """The command line that runs a protocol on rows that are made here."""
    files = [f"{benchmark}={written(folder, benchmark)}" for benchmark in PROTOCOLS[name]]
    recipe = ROOT / "recipes" / "eval" / f"{name}.yaml"
    words = ["--config", str(recipe), "--model_name_or_path", str(model), "--output_dir", str(folder / "out")]
    return [*words, "--benchmark_files", *files]


def protocol_arguments(words: list[str]) -> list[EvaluationArguments]:
    (arguments,) = parse((EvaluationArguments,), words, prog="test")
    return benchmark_arguments(arguments)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_runs_on_files_with_the_columns_of_the_hub(name, tmp_path, word_model):
    """With the recipe's own budgets, which a model of 13 words seldom spends."""
    words = [*protocol_words(name, tmp_path, word_model), "--engine", "transformers"]
    sandbox = ["--code_reward", "{sandbox: unsafe}"] if name == "e1_code" else []
    evaluate.main([*words, *sandbox, "--num_generations", "2"])
    cells = json.loads((tmp_path / "out" / "results.json").read_text())
    kept = {benchmark: len(ROWS[benchmark][1]) for benchmark in PROTOCOLS[name]}
    expected = [
        (benchmark.benchmark, cell.budget.thinking, kept[benchmark.benchmark])
        for benchmark in protocol_arguments(words)
        for cell in grid(benchmark)
    ]
    found = [(cell["benchmark"], cell["thinking_token_budget"], cell["n_problems"]) for cell in cells]
    assert found == expected and len(found) == 5 * len(PROTOCOLS[name])
    assert all(cell["accuracy"] == 0 and cell["ungraded"] == 0 for cell in cells)
    assert all(cell["n_samples"] == kept[cell["benchmark"]] * cell["num_generations"] for cell in cells)


def holds() -> bool:
    try:
        choose_sandbox("auto")
    except SandboxError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "benchmark"), [(name, benchmark) for name, benchmarks in PROTOCOLS.items() for benchmark in benchmarks]
)
def test_the_rows_of_a_benchmark_reach_its_reward(name, benchmark, tmp_path, word_model):
    if name == "e1_code" and not holds():
        pytest.skip("no sandbox holds here")
    words = protocol_words(name, tmp_path, word_model)
    (arguments,) = (one for one in protocol_arguments(words) if one.benchmark == benchmark)
    rewards = rewards_of(arguments)
    problems, _, dropped = load_prompts(arguments, Splitting(), rewards)
    _, right, wrong = ROWS[benchmark]
    assert len(problems) == len(right) and dropped == 0
    columns = {name: [problem[name] for problem in problems] for name in problems[0] if name != "prompt"}
    if benchmark == "gpqa_diamond":  # where the letter depends on the order of the options
        letters = [re.search(rf"^(.)\) {n}$", asked(problem), re.M)[1] for n, problem in enumerate(problems, 10)]
        assert columns["answer"] == letters
        right = [rf"\boxed{{{letter}}}" for letter in letters]
    for solutions, score in ((right, 1.0), (wrong, 0.0)):
        (function,) = rewards.functions
        assert function(completions=solutions, **columns, solution_text=solutions) == [score] * len(problems)


class Splitting:
    """As much of a tokenizer as load_prompts needs."""

    chat_template = None

    def encode(self, text: str) -> list[str]:
        return text.split()


def asked(problem: dict) -> str:
    return problem["prompt"][-1]["content"]


def prompts(name: str, benchmark: str, folder: Path) -> list[str]:
    words = protocol_words(name, folder, folder)
    (arguments,) = (
        one for one in protocol_arguments([*words, "--code_reward", "{sandbox: unsafe}"]) if one.benchmark == benchmark
    )
    return [asked(problem) for problem in load_prompts(arguments, Splitting(), rewards_of(arguments))[0]]


def test_what_the_models_are_asked(tmp_path):
    suffix = r"Let's think step by step and output the final answer within \boxed{}."
    assert prompts("e1_math", "aime24", tmp_path)[0] == f"Add 1 and 203. {suffix}"
    assert prompts("fresh", "aime25", tmp_path)[0] == f"Add 30 and 40. {suffix}"
    question, options, suffix = prompts("ood", "mmlu_pro", tmp_path)[0].split("\n\n")
    assert (question, options) == ("Which is a letter?", "A) 1\nB) 2\nC) 3\nD) a")
    assert suffix == r"Let's think step by step and output the letter of the right option within \boxed{}."
    stdin, call = prompts("e1_code", "livecodebench_v5", tmp_path)
    assert stdin.startswith("Print the sum of two numbers.\n\nWrite a Python program that reads standard input")
    assert call.startswith("Return the sum of a list.\n\nComplete this code") and "def total(self" in call
    assert "def add(a, b):" in prompts("e1_code", "humaneval_plus", tmp_path)[0]
    assert prompts("e1_code", "codeforces", tmp_path)[0] == "Split n into two parts, in Python."


def test_a_benchmark_is_read_from_a_local_folder_with_its_split(tmp_path, word_model):
    """As from the hub: `datasets` finds the split by the file's name, and the recipe names the split."""
    (tmp_path / "aime_2024").mkdir()
    written(tmp_path, "aime24").rename(tmp_path / "aime_2024" / "train.jsonl")
    recipe = ROOT / "recipes" / "eval" / "e1_math.yaml"
    words = ["--config", str(recipe), "--model_name_or_path", str(word_model), "--only_benchmarks", "aime24"]
    (arguments,) = protocol_arguments([*words, "--benchmark_files", f"aime24={tmp_path / 'aime_2024'}"])
    problems, _, _ = load_prompts(arguments, Splitting(), rewards_of(arguments))
    assert [problem["answer"] for problem in problems] == ["204", "025"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_papers_evaluation(name):
    """arXiv 2505.05315, section 5: s = 1K, 16 samples at t = 0.5 to 3K, and for code 8 at 1 to 4K."""
    code = name == "e1_code"
    for arguments in protocol_arguments(["--config", str(ROOT / "recipes" / "eval" / f"{name}.yaml")]):
        budgets = [1024, 2048, 3072, 4096] if code else [512, 1024, 2048, 3072]
        assert (arguments.thinking_token_budgets, arguments.solution_token_budget) == (budgets, 1024)
        assert arguments.no_budget and arguments.max_completion_tokens == (65536 if code else 32768)
        assert (arguments.temperature, arguments.top_p, arguments.trained_budget) == (0.6, 0.95, 1024)
        samples = 1 if arguments.benchmark == "mmlu_pro" else 8 if code else 16
        assert arguments.num_generations == samples
