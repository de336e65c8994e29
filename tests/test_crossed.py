"""Rollouts whose thinking is one model's and whose solution is another's, against the plain loop over both."""

import json
from functools import cache

import pytest
import test_controls
from reference import TOKENS, greedy, reference_rollout, segments
from test_controls import ALL, NEEDED, PLAIN, PROMPTS, cells_of, engine_of, sampled
from tiny_models import CONTEXT, tiny
from trainer_fixtures import tiny_model, write_problems
from word_model import save_word_model

from elastic import evaluate
from elastic.budget import Budget
from elastic.controls import grid
from elastic.engines.crossed import CrossedEngine
from elastic.evaluation_arguments import EvaluationArguments
from elastic.nano.tokenizer import make_tokenizer
from elastic.rollout import Sampling


def closing(seed):
    model = tiny(seed=seed)
    model.get_output_embeddings().weight.data[[1, 2, 4, 5]] *= 3.0
    return model


@pytest.fixture(scope="module")
def models():
    return closing(0), closing(1)


def remembered(model):
    known = cache(lambda ids: greedy(model)(list(ids)))
    return lambda ids: known(tuple(ids))


def crossed_reference(thinks, solves, prompt, budget):
    """The thinking alone, then the whole with the other model from where that ended."""
    thinking = reference_rollout(thinks, prompt, Budget(budget.thinking, 0, budget.total), PLAIN, CONTEXT)["thinking"]
    whole = Budget(budget.thinking, budget.solution_after(len(thinking)), budget.total)
    before = len(prompt) + len(thinking)
    return reference_rollout(lambda ids: (thinks if len(ids) < before else solves)(ids), prompt, whole, PLAIN, CONTEXT)


@pytest.mark.parametrize("how", ["fork", "independent"])
def test_each_phase_is_its_own_models(models, how, monkeypatch):
    crossed = CrossedEngine(*map(engine_of, models))
    monkeypatch.setattr(test_controls, "engine_of", lambda model: crossed)
    controls = dict(control=["separate", "zero", "carry_over", "none", "truncate"], wrap_up_str="")
    cells = grid(EvaluationArguments(**NEEDED, **ALL | controls))
    thinks, solves = map(remembered, models)
    others = {"natural": 0, "budget": 0}
    for (number, place), rollout in sampled(None, cells, how).items():
        budget, prompt = cells[number].enforced, PROMPTS[place]
        assert segments(rollout) == crossed_reference(thinks, solves, prompt, budget), cells[number].label
        if rollout.solution_ids:
            alone = list(rollout.solution_ids) != plain(thinks, prompt, budget)["solution"]
            others[str(rollout.thinking_stop_reason)] += alone
    assert others["natural"] > 3 and others["budget"] > 3


def plain(choose, prompt, budget):
    return reference_rollout(choose, prompt, budget, PLAIN, CONTEXT)


@pytest.mark.parametrize("how", ["fork", "independent"])
def test_a_model_crossed_with_itself_is_the_model(models, how, monkeypatch):
    """Under every control, also those that insert words and think on."""
    cells = grid(EvaluationArguments(**NEEDED, **ALL, s1_waits=2))
    expected = sampled(models[0], cells, how)
    monkeypatch.setattr(test_controls, "engine_of", lambda model: CrossedEngine(engine_of(model), engine_of(model)))
    found = sampled(models[0], cells, how)
    assert {place: segments(rollout) for place, rollout in found.items()} == {
        place: segments(rollout) for place, rollout in expected.items()
    }


def test_a_crossed_row_depends_on_its_seed_and_stream_alone(models):
    engine, sampling = CrossedEngine(*map(engine_of, models)), Sampling(temperature=2.0)
    rows = dict(budgets=[Budget(8, 8)] * 40, sampling=sampling, seed=3)
    together = engine.generate([[9, 3]] * 40, **rows)
    alone = engine.generate([[9, 3]] * 5, [Budget(8, 8)] * 5, sampling, seed=3, streams=range(20, 25))
    assert list(map(segments, together[20:25])) == list(map(segments, alone))
    assert len({str(segments(rollout)) for rollout in together}) > 30
    uniform = engine.generate([[9, 3]] * 200, [Budget(8, 8)] * 200, Sampling(temperature=1e6))
    whole = [rollout for rollout in uniform if rollout.forced and len(rollout.solution_ids) == 8]
    assert len(whole) > 10 and all(rollout.thinking_ids != rollout.solution_ids for rollout in whole)


def test_either_models_eos_ends_a_rollout(models):
    first, second = map(engine_of, models)
    second.tokens = second.tokens.__class__((3,), (4, 5), (4, 5), frozenset({1, 6}), ((3,),))
    crossed = CrossedEngine(first, second)
    assert crossed.tokens.eos == {1, 2, 6} and crossed.tokens.end == TOKENS.end
    assert crossed.context_length == CONTEXT


@pytest.fixture
def command(tmp_path):
    tokenizer = make_tokenizer()
    for name, seed in (("thinker", 0), ("solver", 1)):
        tiny_model(tokenizer, seed).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    data = write_problems(tmp_path / "test.jsonl", 3)
    return [
        *("--model_name_or_path", str(tmp_path / "thinker"), "--dataset_name", data, "--answer_column", "answer"),
        *("--reward", "exact", "--num_generations", "2", "--temperature", "1", "--thinking_token_budgets", "4", "9"),
        *("--solution_token_budget", "3", "--control", "separate", "zero"),
    ]


def rows_of(folder):
    return [json.loads(line) for line in (folder / "generations.jsonl").read_text().splitlines()]


def test_an_evaluation_has_two_models_and_its_samples_are_their_own(command, tmp_path, monkeypatch):
    out, solver = tmp_path / "out", str(tmp_path / "solver")
    evaluate.main([*command, "--output_dir", str(out)])
    alone, own = cells_of(out), rows_of(out)
    crossing = [*command, "--output_dir", str(out), "--solution_model_name_or_path", solver]
    evaluate.main(crossing)
    crossed, rows = cells_of(out), rows_of(out)
    assert {cell["key"] for cell in alone}.isdisjoint(cell["key"] for cell in crossed)
    assert {cell["model_label"] for cell in crossed} == {"thinker thinking, solver solution"}
    assert {cell["solution_model_name_or_path"] for cell in crossed} == {solver}
    assert len({cell["solution_model_fingerprint"] for cell in crossed}) == 1
    assert crossed[0]["solution_model_fingerprint"] not in (None, crossed[0]["model_fingerprint"])
    thought = [[row["thinking_text"] for row in part] for part in (own, rows[len(own) :])]
    solved = [[row["solution_text"] for row in part] for part in (own, rows[len(own) :])]
    assert sorted(thought[0]) == sorted(thought[1]) and sorted(solved[0]) != sorted(solved[1])
    monkeypatch.setattr("elastic.protocol.load_engine", lambda *given: pytest.fail("a model was loaded"))
    evaluate.main([*crossing, "--model_label", "E1", "--solution_model_label", "base"])
    assert {cell["model_label"] for cell in cells_of(out)} == {"E1 thinking, base solution"}
    evaluate.main([*command, "--output_dir", str(out)])
    assert [cell["key"] for cell in cells_of(out)] == [cell["key"] for cell in alone]


def test_a_second_model_that_does_not_fit_is_one_sentence(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("elastic.protocol.load_engine", lambda *given: pytest.fail("a model was loaded"))
    other = str(save_word_model(tmp_path / "other"))
    for words, sentence in (
        (["--solution_model_name_or_path", other], "whose tokenizer has other tokens than that of"),
        (["--solution_model_name_or_path", "./nowhere"], "solution_model_name_or_path is './nowhere', and there is no"),
        (["--solution_model_label", "a"], "solution_model_label is 'a', and solution_model_name_or_path is not set"),
        (
            ["--solution_model_revision", "v1"],
            "solution_model_revision is 'v1', and solution_model_name_or_path is not",
        ),
        (["--solution_model_name_or_path", other, "--engine", "vllm"], "and engine is vllm: only the transformers"),
    ):
        with pytest.raises(SystemExit) as stopped:
            evaluate.main([*command, "--output_dir", str(tmp_path / "out"), *words])
        assert stopped.value.code == 2
        assert sentence in capsys.readouterr().err
