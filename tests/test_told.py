"""The control told: a budget in the prompt, and reminders of what is left of it while the model thinks."""

import json

import pytest
import torch
from reference import greedy, reference_rollout, segments
from test_controls import GREEDY, NEEDED, PLAIN, PROMPTS, cells_of, engine_of
from test_reminders import left, reminded
from tiny_models import CONTEXT, tiny
from trainer_fixtures import save_model, write_problems
from transformers import AutoModelForCausalLM, AutoTokenizer

from elastic import evaluate
from elastic.budget import Budget, ReasoningTokens
from elastic.chains import Chains
from elastic.controls import Texts, grid, sweeps
from elastic.evaluation_arguments import EvaluationArguments
from elastic.results import BudgetKey
from elastic.sweep import Sweep

TOLD = dict(
    control=["separate", "told"],
    thinking_token_budgets=[2, 9, 20, -1],
    solution_token_budget=5,
    max_completion_tokens=40,
    budget_instruction="Have {tokens}.",
    reminder_every=4,
    reminder_str="left {tokens}",
)


class Digits:
    """A tokenizer that knows one word, and digits."""

    unk_token_id = 0

    def encode(self, text, add_special_tokens):
        word, number = text.split()
        assert word == "left"
        return list(left(int(number)))


def test_each_told_budget_is_in_its_own_prompt_and_no_limit_in_none():
    cells = grid(EvaluationArguments(**NEEDED, **TOLD))
    told = cells[4:]
    assert [cell.asks for cell in told] == ["Have 2.", "Have 9.", "Have 20.", ""]
    assert [cell.budget for cell in told] == [cell.budget for cell in cells[:4]]
    assert [cell.reminded for cell in told] == [True, True, True, False]
    assert sweeps(cells, "fork") == [[*cells[:4], told[3]], [told[0]], [told[1]], [told[2]]]
    assert BudgetKey.of({"control": "told", **budget_fields(told[1])}).label == "told 9 + 5"
    asked = grid(EvaluationArguments(**NEEDED, **TOLD | dict(control=["prompt", "told"])))
    assert sweeps(asked, "fork") == [[cell] for cell in asked]
    alone = grid(
        EvaluationArguments(**NEEDED, **TOLD | dict(control=["prompt", "told"], reminder_every=0, reminder_str=""))
    )
    assert sweeps(alone, "fork") == [[alone[place], alone[3 + place]] for place in range(3)] + [[alone[6]]]


def budget_fields(cell):
    budget = cell.budget
    return {
        "thinking_token_budget": budget.thinking,
        "solution_token_budget": budget.solution,
        "total_token_budget": budget.total,
    }


def sampled(engine, cells, how, chains):
    """The greedy rollouts of each cell, by the place of its prompt."""
    found, places = {}, range(len(PROMPTS))
    for number, together in enumerate(sweeps(cells, how)):
        sweep = Sweep(together, PROMPTS, engine, Texts(PLAIN, Digits()), GREEDY, str(number), chains)
        sweep.sample(
            *(places, [(str(place), 0) for place in places], [together] * len(PROMPTS)),
            seed=0,
            streams=places,
            on_sample=lambda cell, place, rollout: found.setdefault((cells.index(cell), place), rollout),
        )
    return found


@pytest.mark.parametrize("how", ["fork", "independent"])
def test_told_rollouts_are_the_references_and_their_chains_are_kept(tmp_path, how):
    model = tiny()
    model.get_output_embeddings().weight.data[[1, 2, 4, 5]] *= 3.0
    cells = grid(EvaluationArguments(**NEEDED, **TOLD | dict(control=["told"])))
    engine = engine_of(model)
    found = sampled(engine, cells, how, Chains(tmp_path / "chains.jsonl"))
    engine.grow = lambda builders, *rest: pytest.fail("it was sampled again") if builders else []
    again = sampled(engine, cells, how, Chains(tmp_path / "chains.jsonl"))
    assert len(found) == len(again) == len(cells) * len(PROMPTS)
    for (number, place), rollout in found.items():
        tokens = reminded(4, PLAIN) if cells[number].reminded else PLAIN
        expected = reference_rollout(greedy(model), PROMPTS[place], cells[number].budget, tokens, CONTEXT)
        assert segments(rollout) == expected == segments(again[number, place])
        assert list(rollout.interjected) == list(again[number, place].interjected)
    assert sum(len(rollout.interjected) > 2 for rollout in found.values()) > 2


@pytest.fixture
def command(tmp_path):
    model, data = save_model(tmp_path / "model"), write_problems(tmp_path / "test.jsonl", 3)
    return [
        *("--model_name_or_path", model, "--dataset_name", data, "--answer_column", "answer", "--reward", "exact"),
        *("--num_generations", "2", "--temperature", "0", "--thinking_token_budgets", "8", "20"),
        *("--solution_token_budget", "3", "--control", "told", "--budget_instruction", "budget {tokens}"),
        *("--reminder_str", "left {tokens}", "--output_dir", str(tmp_path / "out")),
    ]


def test_an_evaluation_tells_and_reminds_and_keeps_the_settings_apart(command, tmp_path, capsys):
    evaluate.main([*command, "--reminder_every", "6"])
    first = cells_of(tmp_path / "out")
    assert [cell["control_settings"] for cell in first] == [
        {"instruction": f"budget {t}", "reminder_every": 6, "reminder_str": "left {tokens}"} for t in (8, 20)
    ]
    assert "Caution" not in capsys.readouterr().err
    model = AutoModelForCausalLM.from_pretrained(command[1], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(command[1])
    tokens = ReasoningTokens.from_tokenizer(tokenizer, reminder_every=6, reminder_str="left {tokens}")
    problems = [json.loads(line)["problem"] for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (tmp_path / "out" / "generations.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 6
    for row in rows:
        t = next(cell["thinking_token_budget"] for cell in first if cell["key"] == row["key"])
        asked = [{"role": "user", "content": f"{problems[int(row['problem_id'])]} budget {t}"}]
        prompt = tokenizer.apply_chat_template(asked, return_dict=False, add_generation_prompt=True)
        rollout = reference_rollout(greedy(model), prompt, Budget(t, 3), tokens, 256)
        assert row["thinking_stop_reason"] == rollout["reason"]
        own = [token for token in rollout["thinking"] if token not in {*tokens.end, *tokens.eos}]
        assert row["thinking_text"] == tokenizer.decode(own)
    assert any("left 2" in row["thinking_text"] for row in rows)
    evaluate.main([*command, "--reminder_every", "5"])
    assert {cell["key"] for cell in first}.isdisjoint(cell["key"] for cell in cells_of(tmp_path / "out"))
    assert len((tmp_path / "out" / "chains.jsonl").read_text().splitlines()) == 2 * 12


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(control=["separate"]), "reminder_every is 4, and the controls are separate: add the control told"),
        (dict(reminder_str="left"), "reminder_str is 'left', and reminder_every is 4: write {tokens}"),
        (dict(thinking_token_budgets=None), "control is separate, which needs thinking_token_budgets"),
    ],
)
def test_fields_that_contradict_each_other_are_one_sentence(options, sentence):
    with pytest.raises(ValueError) as refused:
        EvaluationArguments(**NEEDED, **TOLD | options)
    assert sentence in str(refused.value)


def test_words_that_the_tokenizer_does_not_know_are_refused_before_a_model_is_loaded(command, capsys, monkeypatch):
    monkeypatch.setattr("elastic.protocol.load_engine", lambda *given: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([*command, "--reminder_every", "5", "--reminder_str", "remaining {tokens}"])
    assert stopped.value.code == 2
    assert "reminder_str has 'remaining 1234567890', of which the tokenizer does not know" in capsys.readouterr().err
