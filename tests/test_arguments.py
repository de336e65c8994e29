import subprocess
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest

from elastic.arguments import BudgetArguments, DataArguments, RunArguments
from elastic.budget import BudgetDistribution
from elastic.parsing import parse, read_recipe

PROG = "python -m elastic.something"


class Schedule(StrEnum):
    LINEAR = "linear"
    CONSTANT = "constant"


@dataclass
class OtherArguments:
    """Fields of the types that TRL's and transformers' configurations have."""

    learning_rate: float = 1e-3
    steps: int = 1
    bf16: bool = False
    shuffle: bool = True
    run_name: str = "unnamed"
    schedule: Schedule | str = "linear"
    save_strategy: str | None = "steps"
    optional_bool: bool | None = None
    options: dict[str, Any] | str | None = None
    plain_options: dict | str | None = field(default=None, metadata={"help": "About half of {these}."})


def fields(argv, recipe=None, tmp_path=None):
    """Every parsed field by name."""
    if recipe is not None:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(recipe if isinstance(recipe, bytes) else recipe.encode())
        argv = ["--config", str(path), *argv]
    parsed = parse((DataArguments, RunArguments, BudgetArguments, OtherArguments), argv, prog=PROG)
    return {name: value for part in parsed for name, value in vars(part).items()}


@pytest.fixture
def read(tmp_path):
    return lambda recipe, *argv: fields(list(argv), recipe, tmp_path)


@pytest.fixture
def refusal(tmp_path, capsys):
    """The one sentence with which a recipe and a command line are refused, with exit code 2."""

    def refuse(recipe, *argv):
        with pytest.raises(SystemExit) as stop:
            fields(list(argv), recipe, tmp_path)
        out, err = capsys.readouterr()
        assert stop.value.code == 2
        assert out == ""
        assert err.count("\n") == 1 and err.endswith("\n")
        assert err.startswith(f"{PROG}: error: ")
        return err.removeprefix(f"{PROG}: error: ").strip()

    return refuse


def test_without_a_recipe_the_dataclasses_own_the_defaults(read):
    assert fields([]) == vars(DataArguments()) | vars(RunArguments()) | vars(BudgetArguments()) | vars(OtherArguments())


def test_a_recipe_sets_fields_of_every_type(read):
    read_fields = read(
        "learning_rate: 1e-6\nsteps: 0x10\nbf16: true\nshuffle: no\nrun_name: a = b --c %s\nschedule: constant\n"
        "optional_bool: false\nsave_strategy: 'no'\nreward_funcs: [math, my.module.reward]\n"
        "system_prompt: |\n  two\n  lines\n"
    )
    assert read_fields["learning_rate"] == 1e-6
    assert read_fields["steps"] == 16
    assert (read_fields["bf16"], read_fields["shuffle"], read_fields["optional_bool"]) == (True, False, False)
    assert read_fields["run_name"] == "a = b --c %s"
    assert (read_fields["schedule"], read_fields["save_strategy"]) == ("constant", "no")
    assert read_fields["reward_funcs"] == ["math", "my.module.reward"]
    assert read_fields["system_prompt"] == "two\nlines\n"


@pytest.mark.parametrize("number", ["1e-6", "1.0e-6", "0.000001", "'1e-6'"])
def test_a_float_may_be_written_as_yaml_reads_text(read, number):
    """YAML 1.1 reads 1e-6 as text."""
    assert read(f"learning_rate: {number}\n")["learning_rate"] == 1e-6


@pytest.mark.parametrize(
    "argv",
    [["--learning_rate", "3e-4"], ["--learning_rate=3e-4"], ["--learning-rate", "3e-4"], ["--learning-rate=3e-4"]],
)
def test_the_command_line_wins(read, argv):
    both = read("learning_rate: 1e-6\nsteps: 7\n", *argv)
    assert (both["learning_rate"], both["steps"]) == (3e-4, 7)


def test_the_command_line_wins_over_lists_switches_and_null(read):
    recipe = (
        "reward_funcs: [math, exact]\nbf16: true\nshuffle: true\nsystem_prompt: null\nsolution_token_budget: null\n"
    )
    both = read(recipe, "--reward_funcs", "exact", "--bf16", "false", "--no_shuffle", "--system_prompt", "Be brief.")
    assert both["reward_funcs"] == ["exact"]
    assert (both["bf16"], both["shuffle"]) == (False, False)
    assert both["system_prompt"] == "Be brief."
    assert both["solution_token_budget"] is None


def test_the_recipe_may_stand_anywhere_on_the_command_line(tmp_path):
    path = tmp_path / "a=b.yaml"
    path.write_text("steps: 7\nlearning_rate: 1e-6\n")
    for argv in (["--steps", "9", "--config", str(path)], [f"--config={path}", "--steps", "9"]):
        assert (fields(argv)["steps"], fields(argv)["learning_rate"]) == (9, 1e-6)


def test_null_is_none_where_a_field_can_be_none(read):
    nulls = read(
        "reward_funcs: null\nsystem_prompt:\nthinking_token_budget: null\nsave_strategy: ~\noptional_bool: null\n"
    )
    names = ("reward_funcs", "system_prompt", "thinking_token_budget", "save_strategy", "optional_bool")
    assert [nulls[name] for name in names] == [None] * 5


def budget_of(parsed):
    return BudgetDistribution.parse(parsed["thinking_token_budget"], "thinking_token_budget")


@pytest.mark.parametrize(
    ("text", "smallest", "largest"),
    [
        ("12", 12, 12),
        ("-1", -1, -1),
        ("0", 0, 0),
        ("{uniform: [4, 60]}", 4, 60),
        ("{log_uniform: [4, 60]}", 4, 60),
        ("{choices: [8, 16, -1], weights: [1, 2.5, 1]}", 8, -1),
        ('{"choices": [8, 16]}', 8, 16),
    ],
)
def test_budgets_from_a_recipe_and_from_the_command_line(read, text, smallest, largest):
    parsed = [
        read(f"thinking_token_budget: {text}\n"),
        read(f"thinking_token_budget: '{text}'\n"),
        read("thinking_token_budget: 99\n", "--thinking_token_budget", text),
        fields([f"--thinking_token_budget={text}"]),
    ]
    for distribution in map(budget_of, parsed):
        assert distribution == budget_of(parsed[0])
        assert (distribution.smallest, distribution.largest) == (smallest, largest)


def test_a_budget_over_several_lines_of_yaml(read):
    parsed = read("thinking_token_budget:\n  choices: [8, 16]\n  weights:\n    - 1\n    - 3\n")
    assert budget_of(parsed).weights == (1.0, 3.0)


@pytest.mark.parametrize("text", ["-5", "1.5", "many", "", "{uniform: [9, 4]}", "[8, 16]", "{8: 16}"])
def test_a_bad_budget_of_the_command_line_is_refused_when_it_is_read(text):
    for argv in (["--thinking_token_budget", text], [f"--thinking_token_budget={text}"]):
        parsed = fields(argv)
        with pytest.raises(ValueError, match=r"^thinking_token_budget"):
            budget_of(parsed)


def test_dictionaries_reach_their_fields_as_text(read):
    """As on a command line: transformers reads the JSON of such fields itself."""
    parsed = read("options: {eta: 0.1, on: 2026-01-01}\nplain_options: {}\n")
    assert (parsed["options"], parsed["plain_options"]) == ('{"eta": 0.1, "true": "2026-01-01"}', "{}")


@pytest.mark.parametrize(
    ("recipe", "name", "mend"),
    [
        ("learnin_rate: 1", "learnin_rate", "did you mean learning_rate?"),
        ("learning-rate: 1", "learning-rate", "did you mean learning_rate?"),
        ("thinking_budget: 1", "thinking_budget", "did you mean thinking_token_budget?"),
        ("no_shuffle: true", "no_shuffle", "did you mean shuffle?"),
        ("zzz: 1", "zzz", "see --help for the fields there are."),
        ("7: 1", "7", "see --help for the fields there are."),
        ("on: 1", "True", "see --help for the fields there are."),
        ("null: 1", "None", "see --help for the fields there are."),
        ("config: other.yaml", "config", "recipe.yaml is not a field: "),
    ],
)
def test_an_unknown_field_of_a_recipe_is_named_with_a_suggestion(refusal, recipe, name, mend):
    sentence = refusal(recipe)
    assert sentence.startswith(f"{name} in ") and "recipe.yaml is not a field: " in sentence
    assert mend in sentence


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--learnin_rate", "1"], "learnin_rate in the command line is not a field: did you mean learning_rate?"),
        (["--learnin_rate=1"], "learnin_rate=1 in the command line is not a field: did you mean learning_rate?"),
        (
            ["--thinking_token", "3"],
            "thinking_token in the command line is not a field: did you mean thinking_token_bu",
        ),
        (["stray"], "stray in the command line is not a field: see --help"),
        (["--thinking_token_budget", "{uniform:", "[1,", "2]}"], "[1, in the command line is not a field: see --help"),
        (["--config"], "--config is given without a recipe: write --config recipes/NAME.yaml."),
        (["--config", "no.yaml"], "--config is 'no.yaml', and there is no such file: give the path of a recipe."),
        (["--config="], "--config is '.', and there is no such file: give the path of a recipe."),
        (["--config", "/"], "--config is '/', and there is no such file: give the path of a recipe."),
        (["--steps"], "argument --steps: expected one argument: see --help for what it takes."),
        (["--steps", "x"], "argument --steps: invalid int value: 'x': see --help for what it takes."),
        (["--reward_funcs"], "argument --reward_funcs/--reward-funcs: expected at least one argument: see --help"),
        (["--bf16", "maybe"], "argument --bf16: Truthy value expected: got maybe but expected one of"),
    ],
)
def test_a_bad_command_line_is_refused(refusal, argv, sentence):
    assert refusal(None, *argv).startswith(sentence)


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("steps: many", "argument --steps: invalid int value: 'many'"),
        ("steps: 1.5", "argument --steps: invalid int value: '1.5'"),
        ("learning_rate: fast", "argument --learning_rate/--learning-rate: invalid float value: 'fast'"),
        ("bf16: maybe", "argument --bf16: Truthy value expected: got maybe"),
        (
            "solution_truncated_reward: drop",
            "argument --solution_truncated_reward/--solution-truncated-reward: invalid",
        ),
        ("reward_funcs: []", "argument --reward_funcs/--reward-funcs: expected at least one argument"),
    ],
)
def test_a_wrong_type_in_a_recipe_is_refused_like_one_of_the_command_line(refusal, recipe, sentence):
    assert refusal(recipe).startswith(sentence)


@pytest.mark.parametrize(
    ("recipe", "found", "mend"),
    [
        ("steps: null", "steps is null", "give a value, or leave the line out for the default."),
        ("run_name:", "run_name is null", "give a value, or leave the line out for the default."),
        ("bf16: null", "bf16 is null", "give a value, or leave the line out for the default."),
        ("steps: [1]", "steps is [1]", "give one value, not a list."),
        ("thinking_token_budget: [8, 16]", "thinking_token_budget is [8, 16]", "give one value, not a list."),
        ("run_name: {a: 1}", "run_name is {'a': 1}", "give one value, not a mapping."),
        ("steps: {a: 1}", "steps is {'a': 1}", "give one value, not a mapping."),
        ("reward_funcs: {math: 1}", "reward_funcs is {'math': 1}", "give one value, not a mapping."),
        ("reward_funcs: [[math]]", "reward_funcs is [['math']]", "give a list of single values."),
        ("reward_funcs: [null]", "reward_funcs is [None]", "give a list of single values."),
        ("save_strategy: no", "save_strategy is False", "put it in quotes if it is meant as text"),
        ("run_name: on", "run_name is True", "put it in quotes if it is meant as text"),
        ("steps: true", "steps is True", "put it in quotes if it is meant as text"),
        ("thinking_token_budget: no", "thinking_token_budget is False", "put it in quotes if it is meant as text"),
    ],
)
def test_a_value_that_a_field_cannot_have_is_named_with_the_mend(refusal, tmp_path, recipe, found, mend):
    assert refusal(recipe).startswith(f"{found} in {tmp_path / 'recipe.yaml'}: {mend}")


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ("steps: [1", "is not YAML: while parsing a flow sequence"),
        ("steps: 1\n learning_rate: 2", "is not YAML: mapping values are not allowed here"),
        ("\tsteps: 1", "is not YAML: while scanning for the next token found character '\\t'"),
        ("steps: 1\nsteps: 2", "is not YAML: steps is given twice"),
        ("thinking_token_budget: {uniform: [1, 2], uniform: [3, 4]}", "is not YAML: uniform is given twice"),
        ("run_name: 2001-99-99", "is not YAML: month must be in 1..12"),
        (b"run_name: \xff\xfe", "is not YAML: 'utf-8' codec can't decode byte 0xff"),
        ("run_name: !!python/object:os.system x", "is not YAML: could not determine a constructor"),
        ("[a, b]: 1", "is not YAML: while constructing a mapping found unhashable key"),
        ("a: 1\n---\nb: 2", "is not YAML: expected a single document"),
        ("", "must hold `field: value` lines, and holds NoneType."),
        ("# nothing", "must hold `field: value` lines, and holds NoneType."),
        ("- steps: 1", "must hold `field: value` lines, and holds list."),
        ("steps", "must hold `field: value` lines, and holds str."),
    ],
)
def test_a_file_that_is_no_recipe_is_named(refusal, tmp_path, recipe, problem):
    assert refusal(recipe).startswith(f"{tmp_path / 'recipe.yaml'} {problem}")


def test_what_a_dataclass_refuses_is_one_sentence_too(capsys):
    @dataclass
    class Checked:
        size: int = 1

        def __post_init__(self):
            if self.size < 1:
                raise ValueError(f"size is {self.size}: give 1 or more.")

    with pytest.raises(SystemExit) as stop:
        parse((Checked,), ["--size", "-3"], prog=PROG)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"{PROG}: error: size is -3: give 1 or more.\n"


def test_a_defect_of_ours_is_no_sentence_but_a_traceback():
    @dataclass
    class Broken:
        size: int = 1

        def __post_init__(self):
            raise TypeError("ours")

    with pytest.raises(TypeError, match="ours"):
        parse((Broken,), [], prog=PROG)


def test_read_recipe_keeps_types(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("steps: 3\nbudget: {uniform: [1, 2]}\nnothing: null\n# a comment\n")
    assert read_recipe(path) == {"steps": 3, "budget": {"uniform": [1, 2]}, "nothing": None}


def test_help_names_every_field_and_exits_well(capsys):
    with pytest.raises(SystemExit) as stop:
        fields(["--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    for name in fields([]):
        assert f"--{name}" in out
    assert "About half of {these}." in out
    assert f"usage: {PROG} --config RECIPE.yaml [--field value ...]" in out


def test_a_mistyped_recipe_needs_neither_torch_nor_trl():
    code = (
        "import sys\nfrom elastic.arguments import *\nfrom elastic.parsing import parse\n"
        "try:\n    parse((DataArguments, RunArguments, BudgetArguments), ['--config', 'no.yaml'], prog='p')\n"
        "except SystemExit as stop:\n    assert stop.code == 2\n"
        "print(sorted({'torch', 'trl', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
    assert "p: error: --config is 'no.yaml'" in done.stderr
