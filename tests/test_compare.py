"""elastic.compare: what it runs, that it goes on, what it computes; its commands are those of fake_runs.py."""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import compare_on_fakes
import numpy as np
import pandas as pd
import pytest
import yaml
from killed_runs import Server, wait_until
from markdown_rows import rows
from scipy import integrate
from simulated import coverage

from elastic.compare import __main__, runs
from elastic.compare.arguments import CompareArguments
from elastic.compare.figure import spread
from elastic.compare.measures import Measured, differences
from elastic.compare.plan import plan
from elastic.compare.questions import nowhere_table
from elastic.compare.statistics import COUNT, DIFFERENCE, RATE, UNBOUNDED, Estimate, over_seeds, over_seeds_alone
from elastic.results import Run

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes" / "compare").glob("*.yaml"))
CHECK_TRAININGS = __main__.check_trainings  # which the fakes are spared
KILLS = 9


def fields(output_dir: Path, **changes) -> dict:
    """Two methods, of which the second goes on from the first, and what stands in for their commands."""
    nano = str(ROOT / "recipes" / "nano.yaml")
    told = {"control": ["separate", "prompt"]}
    return {
        "output_dir": str(output_dir),
        "task": {"skill": 0.3},
        "seeds": [0, 1],
        "rollout_tokens": 1800,
        "launch": str(ROOT / "launch" / "cpu.yaml"),
        "evaluation": str(ROOT / "recipes" / "eval" / "nano.yaml"),
        "evaluation_options": {"control": ["separate", "s1", "zero"]},
        "matched_tokens": [8, 16, 24],
        "methods": {
            "e1": {"recipe": nano, "options": {"learning_rate": 0.01, "thinking_token_budget": 16}},
            "second": {
                "recipe": nano,
                "options": {"learning_rate": 0.005, "thinking_token_budget": 32},
                "base": "e1",
                "evaluation": told,
                "curve": "prompt",
            },
        },
        "crossed": {"e1": ["base"]},
    } | changes


def written(folder: Path, **changes) -> Path:
    path = folder / "compare.yaml"
    path.write_text(yaml.safe_dump(fields(folder / "out", **changes)))
    return path


@pytest.fixture(scope="module")
def fakes():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MAKE_TASK", "EVALUATE", "LAUNCHER", "TRAIN"):
            patch.setattr(compare_on_fakes.plan, name, getattr(compare_on_fakes.plan, name))
        patch.setattr(__main__, "check_trainings", __main__.check_trainings)
        compare_on_fakes.fake_commands()
        yield


@pytest.fixture(scope="module")
def finished(fakes, tmp_path_factory) -> tuple[Path, dict]:
    """The folder of a comparison of two seeds that has been run, and what it says."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, compared(folder)


@pytest.fixture
def again(finished, tmp_path, monkeypatch) -> Path:
    """A copy of it, to be run again, without the second that a figure takes."""
    monkeypatch.setattr("elastic.compare.figure.draw_comparison", lambda contents, path: path.write_bytes(b""))
    shutil.copytree(finished[0] / "out", tmp_path / "out")
    return tmp_path


def compared(folder: Path, *words: str, **changes) -> dict:
    """What a comparison in `folder` says."""
    __main__.main(["--config", str(written(folder, **changes)), *words])
    quick = "quick" if "--quick" in words else "."
    return json.loads((folder / "out" / quick / "comparison.json").read_text())


def journals(output_dir: Path) -> dict[str, list[str]]:
    """What was done in each run's folder, line by line."""
    return {path.parent.name: path.read_text().splitlines() for path in sorted(output_dir.glob("*/journal"))}


def test_a_comparison_trains_evaluates_and_writes_its_table(finished):
    folder, found = finished
    assert list(found["methods"]) == ["base", "e1", "second"] and list(found["crossed"]) == ["e1 → base"]
    assert [found["methods"][name]["curve"] for name in found["methods"]] == ["separate", "separate", "prompt"]
    e1 = found["methods"]["e1"]
    assert e1["seeds"] == [0, 1] and e1["trained_budget"] == 16
    cost = {"updates": [20, 20, 20, 2], "rollout_tokens": [1800] * 3 + [2], "tokens_per_update": [90] * 3 + [2]}
    assert e1["cost"] == cost | {"with_bases": {name: cost[name] for name in ("updates", "rollout_tokens")}}
    second = found["methods"]["second"]["cost"]
    assert second["with_bases"] == {"updates": [40, 40, 40, 2], "rollout_tokens": [3600] * 3 + [2]}
    assert second["rollout_tokens"] == cost["rollout_tokens"]
    assert e1["over_base"]["area"][0] > 0 and e1["over_reference"] == {}
    assert found["methods"]["base"]["over_reference"]["area"][0] == pytest.approx(-e1["over_base"]["area"][0])
    assert "| second |   prompt |     2 |" in (folder / "out" / "comparison.md").read_text()
    assert (folder / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def shown(found: list, form: str = "{:.3f} [{:.2f}, {:.2f}]") -> str:
    """An estimate as tables have it; without its interval where that has no width."""
    text = form.format(*found[:3])
    return text if found[1] < found[2] else text.split(" ")[0]


SIGNED = "{:+.3f} [{:+.3f}, {:+.3f}]"


def test_the_tables_say_what_the_numbers_are(finished):
    folder, found = finished
    tables = (folder / "out" / "comparison.md").read_text()
    e1, second, base = (found["methods"][name] for name in ("e1", "second", "base"))
    at_t = {cell["budget"]: cell for cell in e1["cells"]["separate"]}
    levels = rows(tables, "# Comparison")
    assert levels["second"]["training tokens"] == "3,600" and levels["second"]["updates"] == "40"
    assert levels["e1"]["training tokens"] == "1,800"
    assert "second goes on from e1, and has sampled more than the others" in tables
    assert levels["second"]["area, separate"] == shown(second["values"]["separate_area"])
    assert levels["second"]["area"] == shown(second["values"]["area"]) != levels["second"]["area, separate"]
    assert levels["e1"]["area"] == levels["e1"]["area, separate"]
    of_kind = found["seconds"]["all_runs"]
    assert set(of_kind) == {"task", "training", "evaluation"}
    assert f"together took {sum(of_kind.values()):,.0f} CPU-seconds" in tables
    per_1000 = [found["seconds"]["methods"][name]["per_1000_tokens"][0] for name in ("second", "e1")]
    assert rows(tables, "## What a step costs")["second"]["× e1"] == f"{per_1000[0] / per_1000[1]:.2f}"
    told = rows(tables, "## What is told, and what is spent")
    largest = second["cells"]["prompt"][-1]
    assert list(told) == ["second"] and told["second"]["told"] == "32"
    assert told["second"]["spends"] == shown(largest["tokens"], "{:,.1f} [{:,.1f}, {:,.1f}]")
    s1 = e1["controls"]["s1"]
    assert rows(tables, "### Controls of e1")["s1"]["at 16 tokens"] == shown(s1["at_16"])
    assert rows(tables, "### Controls of e1")["s1"]["less separate"] == shown(s1["over_separate_at_24"], SIGNED)
    above = rows(tables, "**Above t")
    assert above["e1"]["t*"] == "16"
    assert above["second"]["t = 32"] == "–"  # not measured above
    (step, none) = found["above_t_star"]["e1"]
    assert above["e1"]["t = 32"].startswith(shown(step["over_t_star"], SIGNED))
    gained = e1["cells"]["none"][0]["accuracy"][0] - at_t[16]["accuracy"][0]
    assert none["over_t_star"][0] == pytest.approx(gained)
    assert above["e1"]["t = none"].startswith(shown(none["over_t_star"], SIGNED))
    zero = rows(tables, "**No thinking**")
    assert zero["base"]["t = 0"] == shown(base["cells"]["zero"][0]["accuracy"])
    assert zero["base"]["no budget"] == shown(base["values"]["none_accuracy"])
    seed_by_seed = rows(tables, "**No budget, seed by seed**")
    of_seed_1 = [model["by_seed"]["none_accuracy"][1] for model in (base, e1)]
    assert np.mean([one["mean"] for one in e1["by_seed"]["none_accuracy"]]) == pytest.approx(
        e1["values"]["none_accuracy"][0]
    )
    assert of_seed_1[1]["over_base"] == pytest.approx(np.diff([one["mean"] for one in of_seed_1])[0])
    assert seed_by_seed["base"]["seed 1"] == "{mean:.3f}".format(**of_seed_1[0])
    at_16 = rows(tables, "**At 16 tokens, seed by seed**")["e1"]["seed 0"]
    assert at_16 == "{mean:.3f} ({over_base:+.3f})".format(**e1["by_seed"]["at_16"][0])
    assert seed_by_seed["e1"]["seed 1"] == "{mean:.3f} ({over_base:+.3f})".format(**of_seed_1[1])
    crossed = rows(tables, "**Thinking of one model")
    assert crossed["e1 → base"]["t = 0"] == shown(found["crossed"]["e1 → base"]["separate"][0]["accuracy"])
    assert crossed["e1 → e1"]["t = 16"] == shown(at_t[16]["accuracy"])


def test_how_far_below_a_method_may_lie_is_said(finished):
    """The lowest end of all intervals: of its own curve at equal t, unless that is a prompt's, and at equal tokens."""
    folder, found = finished
    told = rows((folder / "out" / "comparison.md").read_text(), "**Nowhere below")
    second, base = found["methods"]["second"], found["methods"]["base"]
    assert all("over_reference" not in cell for cell in second["cells"]["prompt"])
    assert all("over_reference" in cell for cell in base["cells"]["separate"])
    lows = {f"{tokens} tokens": over[1] for tokens in (8, 16, 24) if (over := second["over_reference"][f"at_{tokens}"])}
    place = min(lows, key=lows.get)
    assert told["second"]["may lie below e1 by up to"] == f"{-lows[place]:.3f} ({place})"
    assert lows[place] < 0 and told["second"]["t below e1"] == "–"


def over(*ends: float) -> Estimate:
    return Estimate(sum(ends) / 2, *ends, 3)


def test_where_a_method_lies_below_and_above_is_said_at_equal_budgets_and_at_equal_tokens():
    """A method whose interval touches 0 lies on neither side."""
    cells = {
        "separate": [
            {"budget": 8, "over_reference": over(-0.2, -0.1)},
            {"budget": 16, "over_reference": over(-0.2, 0.0)},
            {"budget": 24, "over_reference": over(0.1, 0.2)},
        ],
        "none": [{"budget": -1, "over_reference": over(-0.3, 0.2)}],
    }
    own = {
        "curve": "separate",
        "seeds": [0, 1, 2],
        "cells": cells,
        "over_reference": {"at_8": over(-0.4, -0.1), "at_16": over(0.1, 0.3), "at_24": None},
        "values": {"at_8": over(0.1, 0.2), "at_16": over(0.8, 0.9), "at_24": None},
        "over_base": {"none_accuracy": over(-0.1, 0.1)},
    }
    asked = own | {"curve": "prompt", "cells": {"prompt": [{"budget": 8}], "none": []}, "over_reference": {}}
    methods = {"e1": own, "own": own, "asked": asked | {"values": dict.fromkeys(own["values"])}}
    table = nowhere_table({"reference": "e1", "matched_tokens": [8, 16, 24], "methods": methods})
    told = rows(table, "")
    assert told.pop("e1")["no budget, less base"] == "+0.000 [-0.100, +0.100]"
    assert told == {
        "own": {
            "method": "own",
            "seeds": "3",
            "t below e1": "8",
            "tokens below e1": "8",
            "may lie below e1 by up to": "0.400 (8 tokens)",
            "t above e1": "24",
            "tokens above e1": "16",
            "no budget, less base": "+0.000 [-0.100, +0.100]",
        },
        "asked": {
            "method": "asked",
            "seeds": "3",
            "t below e1": "–",
            "tokens below e1": "– (8, 16)",
            "may lie below e1 by up to": "–",
            "t above e1": "–",
            "tokens above e1": "–",
            "no budget, less base": "+0.000 [-0.100, +0.100]",
        },
    }


def samples_at_16(run: Path) -> pd.DataFrame:
    """Under separate budgets."""
    cells = json.loads((run / "evaluation" / "results.json").read_text())
    key = next(c["key"] for c in cells if c["control"] == "separate" and c["thinking_token_budget"] == 16)
    lines = (run / "evaluation" / "generations.jsonl").read_text().splitlines()
    return pd.DataFrame([row for row in map(json.loads, lines) if row["key"] == key])


def test_crossed_accuracy_is_told_apart_by_how_the_thinking_ended(finished):
    """Each problem counts once; read from generations.jsonl by another way."""
    folder, found = finished
    of_seeds = []
    for run in sorted((folder / "out").glob("crossed-*")):
        drawn = samples_at_16(run)
        drawn["is_cut"] = drawn["thinking_stop_reason"] == "budget"
        by_problem = drawn.groupby(["is_cut", "problem_id"])["reward"].mean().groupby("is_cut").mean()
        of_seeds.append((drawn["is_cut"].mean(), by_problem[True], by_problem[False]))
    assert list(found["by_end"]) == ["e1 → e1", "e1 → base"]
    (cell,) = [cell for cell in found["by_end"]["e1 → base"] if cell["budget"] == 16]
    assert [cell[what][0] for what in ("share_cut", "cut", "ended")] == pytest.approx(np.mean(of_seeds, axis=0))
    told = rows((folder / "out" / "comparison.md").read_text(), "**The same, where the budget cut")
    assert told["e1 → base, cut"]["t = 16"] == shown(cell["cut"])
    assert told["e1 → base, ended"]["t = 16"] == shown(cell["ended"]) != shown(cell["cut"])


def test_the_numbers_are_those_of_the_samples(finished):
    """Accuracy and tokens of a cell, over seeds, read from generations.jsonl by another way."""
    folder, found = finished
    of_seeds = []
    for run in sorted((folder / "out").glob("e1-*")):
        drawn = samples_at_16(run)
        of_seeds.append((drawn["reward"].mean(), (drawn["thinking_tokens"] + drawn["solution_tokens"]).mean()))
    (cell,) = [cell for cell in found["methods"]["e1"]["cells"]["separate"] if cell["budget"] == 16]
    assert [cell["accuracy"][0], cell["tokens"][0]] == pytest.approx(np.mean(of_seeds, axis=0))
    assert cell["accuracy"][3] == 2


def test_finished_work_is_found_again_and_only_what_is_added_is_run(finished, again):
    before = journals(again / "out")
    assert compared(again) == finished[1]
    assert journals(again / "out") == before and len(before) == 8
    methods = fields(again)["methods"]
    methods["third"] = methods["e1"] | {"options": {"learning_rate": 0.01, "thinking_token_budget": 32}}
    found = compared(again, methods=methods)
    after = journals(again / "out")
    assert {name: after[name] for name in before} == before and len(after) == 10
    assert found["methods"]["third"]["seeds"] == [0, 1]


def test_a_changed_recipe_is_a_new_run_and_a_changed_evaluation_samples_what_is_missing(again):
    before = journals(again / "out")
    methods = fields(again)["methods"]
    methods["second"]["options"]["learning_rate"] = 0.004
    methods["e1"]["evaluation"] = {"control": ["separate", "s1", "zero", "prompt"]}
    compared(again, seeds=[0], methods=methods)
    after = journals(again / "out")
    assert [name.rsplit("-", 1)[0] for name in after.keys() - before.keys()] == ["second-0"]
    (e1,) = [name for name in before if name.startswith("e1-0-")]
    added = after.pop(e1)[len(before[e1]) :]
    assert {line.split()[0] for line in added} == {"prompt"} and len(added) == 4 * 12 * 2
    assert all(after[name] == before[name] for name in before if name != e1)


@pytest.mark.parametrize(
    ("lost", "made"),
    [
        ("e1-0-*/training", "update 20"),
        ("e1-0-*/evaluation/results.json", None),  # from the samples that are there
        ("e1-0-*/evaluation/generations.jsonl", "separate 0 0 0"),
        ("base-0-*/task", "task"),
    ],
)
def test_an_output_that_is_lost_is_made_again(finished, again, lost, made):
    before = journals(again / "out")
    (path,) = (again / "out").glob(lost)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert without_seconds_of(compared(again)) == without_seconds_of(finished[1])
    assert path.exists()
    after = journals(again / "out")
    folder = path.relative_to(again / "out").parts[0]
    added = after.pop(folder)[len(before.pop(folder)) :]
    assert after == before
    assert (made in added) if made else not added


def without_seconds_of(contents: dict) -> dict:
    return {name: value for name, value in contents.items() if name != "seconds"}


def test_quick_is_one_seed_and_a_third_of_the_tokens_beside_the_whole(finished, again):
    quick = compared(again, "--quick")
    assert (quick["seeds"], quick["rollout_tokens"]) == ([0], 600)
    assert quick["methods"]["e1"]["cost"]["updates"][0] == 7
    assert json.loads((again / "out" / "comparison.json").read_text()) == finished[1]
    assert len(list((again / "out").glob("base-*"))) == 2


def test_only_runs_what_a_method_needs_and_shows_what_is_there(fakes, tmp_path):
    found = compared(tmp_path, "--only", "e1", seeds=[0])
    assert list(found["methods"]) == ["base", "e1"] and list(found["crossed"]) == ["e1 → base"]
    assert list(compared(tmp_path, "--only", "second", seeds=[0])["methods"]) == ["base", "e1", "second"]


def test_a_failure_is_said_and_the_others_go_on(fakes, tmp_path, capsys):
    methods = fields(tmp_path)["methods"]
    methods["e1"]["options"]["learning_rate"] = 2
    methods["third"] = {"recipe": methods["e1"]["recipe"], "options": {"learning_rate": 0.01}}
    with pytest.raises(SystemExit) as exit:
        compared(tmp_path, seeds=[0], methods=methods)
    said = capsys.readouterr().err
    assert exit.value.code == 1
    assert "e1, seed 0, training: failed with exit code 1; the end of " in said
    assert "\n  learning_rate is too high" in said
    assert "second, seed 0, training: left out, for it needs what has failed." in said
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert list(found["methods"]) == ["base", "third"] and found["methods"]["third"]["over_reference"] == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rollout_tokens": 0}, "rollout_tokens is not set"),
        ({"jobs": 0}, "jobs is 0: give a whole number of 1 or more."),
        ({"seeds": [0, 0]}, "seeds is [0, 0]: give a list of different whole numbers"),
        ({"matched_tokens": [16, 8]}, "matched_tokens is [16, 8]: give two or more positive, ascending"),
        ({"matched_tokens": [-5, 16]}, "matched_tokens is [-5, 16]: give two or more positive, ascending"),
        ({"reference": "grpo"}, "reference is 'grpo': give one of the methods e1, second."),
        ({"launch": "nowhere.yaml"}, "launch is 'nowhere.yaml', and there is no such file"),
        ({"task": {"seed": 1}}, "task sets seed, which the comparison gives every run"),
        ({"only": ["l1"]}, "only has 'l1': give some of the methods e1, second."),
        ({"crossed": {"e1": "base"}}, "crossed: e1 is 'base': give a list of methods."),
        ({"crossed": {"e1": ["l1"]}}, "crossed has 'l1': give base or methods"),
        ({"crossed": {"e1": ["base", "base"]}}, "crossed: e1 is ['base', 'base'], which names a method twice"),
        ({"evaluation_options": {"engine": "vllm"}}, "The evaluation of crossed models: solution_model_name_or_path"),
        ({"evaluation": str(ROOT / "recipes/eval/e1_math.yaml")}, "each of the benchmarks has its own"),
        (
            {"evaluation_options": {"thinking_token_budgets": [0, 8]}},
            "methods: e1: it is trained at a thinking_token_budget of 16, at which it is not measured: add it to",
        ),
        ({"evaluation_options": {"seed": 3}}, "evaluation_options sets seed"),
        ({"evaluation_options": {"controls": ["none"]}}, "controls in it is not a field: did you mean control?"),
        ({"method": {}}, "method in"),
    ],
)
def test_a_wrong_option_is_one_sentence(changes, said, tmp_path, capsys):
    assert_refused(tmp_path, capsys, said, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": "nowhere.yaml"}, "methods: e1: recipe is 'nowhere.yaml', and there is no such file"),
        ({"recipes": 1}, "methods: e1: recipes in it is not a field: did you mean recipe?"),
        ({"curve": "prompt"}, "methods: e1: curve is 'prompt', which is not measured: give one of separate, s1, zero"),
        ({"base": "second"}, "methods: e1: base is 'second': give base, or a method before this one."),
        ({"options": {"seed": 1}}, "methods: e1: options sets seed, which the comparison gives every run"),
        ({"options": {"save_strategy": "no"}}, "methods: e1: options sets save_strategy, which the comparison gives"),
        ({"options": {"stages": {"a": 1}}}, "methods: e1: stages is {'a': 1}: give {name: {share"),
        ({"options": 7}, "methods: e1: options is 7: give a mapping"),
        ({"evaluation": {"control": ["sepparate"]}}, "The evaluation of e1: control has 'sepparate'"),
    ],
)
def test_a_wrong_method_is_one_sentence(changes, said, tmp_path, capsys):
    methods = fields(tmp_path)["methods"]
    assert_refused(tmp_path, capsys, said, methods=methods | {"e1": methods["e1"] | changes})


@pytest.mark.parametrize(("name", "value"), [("rollout_tokens", "600k"), ("seeds", 3), ("seeds", ["0"]), ("jobs", 1.5)])
def test_a_value_of_another_type_is_refused_without_a_recipe_too(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"^{name} is "):
        CompareArguments(**fields(tmp_path, **{name: value}))


def test_crossed_models_are_measured_without_the_fields_of_other_controls(tmp_path):
    methods = {"e1": fields(tmp_path)["methods"]["e1"]}
    options = {"control": ["separate", "wrap_up"], "wrap_up_str": "ok", "truncation_budgets": [20]}
    wrapped = CompareArguments(**fields(tmp_path, methods=methods, evaluation_options=options))
    assert "wrap_up_str" not in wrapped.crossed_evaluation_fields()
    options = {"control": ["separate", "told"], "reminder_every": 8, "reminder_str": "left {tokens}"}
    told = CompareArguments(**fields(tmp_path, methods=methods, evaluation_options=options))
    assert told.evaluation_fields("e1")["reminder_every"] == 8


@pytest.mark.parametrize(
    ("options", "budgets"),
    [
        ({}, [40]),
        ({"thinking_token_budget": {"choices": [8, 16]}}, [None]),
        ({"stages": {"a": {"share": 0.5}, "b": {"share": 0.5, "thinking_token_budget": 64}}}, [40, 64]),
        ({"stages": '{"a": {"share": 0.5, "thinking_token_budget": -1}, "b": {"share": 0.5}}'}, [None, 40]),
    ],
)
def test_t_star_is_that_of_each_stage_and_the_last_is_what_is_measured_from(options, budgets, tmp_path):
    methods = {"e1": {"recipe": str(ROOT / "recipes" / "nano.yaml"), "options": options}}
    arguments = CompareArguments(**fields(tmp_path, methods=methods, seeds=[0]))
    assert arguments.methods["e1"].trained_budgets == budgets
    evaluation = plan(arguments).evaluation["e1", 0].recipe
    assert evaluation.get("trained_budget") == budgets[-1]


def folders(output_dir: Path, **changes) -> list[str]:
    return [step.folder.name for step in plan(CompareArguments(**fields(output_dir, **changes))).steps]


def test_a_launch_file_of_more_than_one_process_on_a_cpu_is_a_setting_of_the_trainings(tmp_path):
    """And launch/cpu.yaml is none, wherever it is."""
    text = (ROOT / "launch" / "cpu.yaml").read_text()
    same, two = tmp_path / "same.yaml", tmp_path / "two.yaml"
    same.write_text(text)
    two.write_text(text.replace("num_processes: 1", "num_processes: 2").replace("'NO'", "MULTI_CPU"))
    assert CompareArguments(**fields(tmp_path)).launch_fields == {}
    ours = folders(tmp_path)
    assert folders(tmp_path, launch=str(same)) == ours
    others = folders(tmp_path, launch=str(two))
    assert [name.startswith("base-") for name in ours] == [
        one == other for one, other in zip(ours, others, strict=True)
    ]


def assert_refused(folder: Path, capsys, said: str, **changes) -> None:
    with pytest.raises(SystemExit) as exit:
        compared(folder, **changes)
    error = capsys.readouterr().err
    assert exit.value.code == 2 and said in error and error.count("\n") == 1, error
    assert not (folder / "out").exists()


def test_a_recipe_that_training_would_refuse_is_refused_at_the_start(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(__main__, "check_trainings", CHECK_TRAININGS)
    methods = fields(tmp_path)["methods"]
    methods["second"]["options"]["lerning_rate"] = 1
    with pytest.raises(SystemExit) as exit:
        compared(tmp_path, methods=methods)
    assert exit.value.code == 2
    assert "methods: second: error: lerning_rate in" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*-*"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_of_comparisons_parse(recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert recipe.read_text().startswith(f"# python -m elastic.compare --config recipes/compare/{recipe.name}\n")
    arguments = CompareArguments(**yaml.safe_load(recipe.read_text()))
    assert len(arguments.seeds) >= 3 and arguments.reference == "e1"
    planned = plan(arguments)
    CHECK_TRAININGS(list(planned.training.values()), arguments.launch)
    assert len({step.folder for step in planned.training.values()}) == len(arguments.methods) * len(arguments.seeds)


def test_finds_the_recipes():
    assert {recipe.stem for recipe in RECIPES} == {"nano", "paths"}


# Stopped and killed


@pytest.fixture(scope="module")
def server():
    server = Server(("elastic.compare.__main__", "elastic.compare.contents", "elastic.compare.figure"))
    yield server
    server.close()


def done_files(output_dir: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in output_dir.glob("*/*.done.json")}


def done_lines(output_dir: Path) -> dict[tuple[str, str], list[str]]:
    """The journal's lines of each step that has finished."""
    lines = {}
    for path in done_files(output_dir):
        kind, whole = path.name.split(".")[0], journals(output_dir).get(path.parent.name, [])
        lines[path.parent.name, kind] = [line for line in whole if kind_of(line) == kind]
    return lines


def kind_of(line: str) -> str:
    return {"task": "task", "update": "training"}.get(line.split()[0], "evaluation")


def without_seconds(output_dir: Path) -> bytes:
    contents = json.loads((output_dir / "comparison.json").read_text())
    del contents["seconds"]
    return json.dumps(contents).encode()


@pytest.mark.skipif(sys.platform != "linux", reason="the server of forks looks at /proc")
def test_stopped_and_killed_again_and_again_it_ends_as_the_undisturbed_one(tmp_path, server):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for folder in (calm, killed):
        folder.mkdir()
        written(folder)
    assert ended(server, calm) == 0, (calm / "log").read_text()[-3000:]
    rng, signals, kept = random.Random(1), set(), {}
    for number in range(KILLS):
        process = server.start("compare_on_fakes", ["--config", str(killed / "compare.yaml")], killed / "log")
        done = len(done_files(killed / "out"))
        wait_until(
            lambda done=done: len(done_files(killed / "out")) > done or (killed / "out/comparison.json").exists()
        )
        time.sleep(rng.uniform(0, 0.3))
        sent = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 3]
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, sent)
        signals.add(server.ended())
        now = done_lines(killed / "out")
        assert kept.items() <= now.items()
        kept = now
    assert {-signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGINT} <= signals
    assert ended(server, killed) == 0, (killed / "log").read_text()[-3000:]
    assert kept.items() <= done_lines(killed / "out").items()
    assert without_seconds(killed / "out") == without_seconds(calm / "out")
    assert (killed / "out" / "comparison.png").read_bytes()
    attempts = [json.loads(path.read_text()) for path in (killed / "out").glob("*/*.attempts.json")]
    assert max(map(len, attempts)) > 1 and all(of[-1] > 0 for of in attempts)


def ended(server: Server, folder: Path) -> int:
    server.start("compare_on_fakes", ["--config", str(folder / "compare.yaml")], folder / "log")
    return server.ended()


@pytest.mark.skipif(sys.platform != "linux", reason="the server of forks looks at /proc")
def test_told_to_stop_it_leaves_no_process_and_alone_it_is(tmp_path, server, capsys):
    recipe = written(tmp_path, rollout_tokens=10**7)
    process = server.start("compare_on_fakes", ["--config", str(recipe)], tmp_path / "log")
    out = tmp_path / "out"
    wait_until(lambda: any("update 3" in of for of in journals(out).values()))
    with pytest.raises(SystemExit) as exit:
        __main__.main(["--config", str(recipe), "--only", "e1"])
    assert exit.value.code == 2 and "where another process is writing" in capsys.readouterr().err
    os.kill(process, signal.SIGTERM)
    assert server.ended() == 143
    before = journals(out)
    time.sleep(0.2)
    assert journals(out) == before
    assert "the same command goes on from here" in (tmp_path / "log").read_text()


def test_what_a_killed_comparison_left_running_is_ended_first(tmp_path, fakes):
    """Two processes must not write the same files."""
    arguments = CompareArguments(**fields(tmp_path / "out", rollout_tokens=10**9))
    steps = plan(arguments).steps
    with runs.told_to_stop() as stop:
        runs.execute(steps[0], stop)
    training = next(step for step in steps if step.kind == "training")
    training.folder.mkdir()
    training.file("yaml").write_text(yaml.safe_dump(dict(training.recipe)))
    command = [*training.command, "--config", str(training.file("yaml"))]
    left = runs.subprocess.Popen(command, start_new_session=True)
    training.file("attempts.json").write_text("[7, 0.01]")
    wait_until(lambda: runs._cpu_seconds(left.pid) > 0.05)
    created = runs.psutil.Process(left.pid).create_time() - 0.5  # the clock has been set since
    training.file("process.json").write_text(json.dumps({"pid": left.pid, "created": created}))
    try:
        runs._end_left_over(training)
        assert left.wait(timeout=10) == -signal.SIGKILL
    finally:
        left.kill()
    first, last = json.loads(training.file("attempts.json").read_text())
    assert first == 7 and last > 0.05


def test_no_command_outlives_a_disk_that_is_full(tmp_path, fakes, monkeypatch):
    write, written_of = runs._write, []

    def full(path: Path, content: object) -> None:
        written_of.append(path.name)
        if path.name == "training.attempts.json" and written_of.count(path.name) > 1:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(runs, "_write", full)
    monkeypatch.setattr(runs, "_COUNT_EVERY_S", 0.2)
    steps = plan(CompareArguments(**fields(tmp_path / "out", rollout_tokens=10**9))).steps
    before = set(runs.psutil.Process().children(recursive=True))
    with runs.told_to_stop() as stop:
        failures = runs.run_steps([step for step in steps if step.model in ("base", "e1")], 1, stop, print)
    assert any("e1, seed 0, training: [Errno 28] No space left on device." in failure for failure in failures)
    assert not runs.psutil.wait_procs({*runs.psutil.Process().children(recursive=True)} - before, timeout=10)[1]


def test_a_command_does_not_begin_before_its_process_is_known(tmp_path, fakes, monkeypatch):
    """Where the comparison ends just then, nothing goes on that the next one would not find."""

    def ends(path: Path, content: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "_write", ends)
    step = plan(CompareArguments(**fields(tmp_path / "out"))).steps[0]
    with runs.told_to_stop() as stop, pytest.raises(KeyboardInterrupt):
        runs.execute(step, stop)
    runs.psutil.wait_procs(runs.psutil.Process().children(), timeout=10)
    assert step.folder.exists() and not (step.folder / "journal").exists()


# Numbers


def series(*values: float) -> pd.Series:
    return pd.Series(values, index=[str(n) for n in range(len(values))], dtype=float)


def test_an_interval_over_seeds_by_hand():
    """Means .2, .4 and .9 over seeds: mean .5, standard deviation .360555, t(.975, 2) = 4.302653."""
    found = over_seeds([series(0.2, 0.2), series(0.4, 0.4), series(0.9, 0.9)], UNBOUNDED)
    half = 4.302653 * 0.360555 / 3**0.5
    assert found == pytest.approx((0.5, 0.5 - half, 0.5 + half, 3), rel=1e-5)
    assert over_seeds([series(0.2), series(0.4), series(0.9)], RATE)[1:3] == (0.0, 1.0)
    assert over_seeds_alone([2.0, 4.0, 9.0]) == pytest.approx((5, 0.0, 5 + 10 * half, 3), rel=1e-5)
    assert over_seeds_alone([7.0]) == (7.0, None, None, 1) and over_seeds_alone([]) is None


def test_seeds_that_agree_are_no_surer_than_their_problems():
    """One seed of differences -1, 0, 1: mean 0, standard error .57735, t = 4.302653. Two alike: over the root of 2."""
    half = 4.302653 * 0.577350
    one, two = (over_seeds([series(-1, 0, 1)] * seeds, UNBOUNDED) for seeds in (1, 2))
    assert one == pytest.approx((0, -half, half, 1), rel=1e-5)
    assert two == pytest.approx((0, -half / 2**0.5, half / 2**0.5, 2), rel=1e-5)
    always = over_seeds([series(*[1.0] * 20)] * 3, RATE)
    assert always.mean == always.high == 1 and 0.8 < always.low < 0.95


def test_differences_are_of_common_seeds_and_problems():
    after = [series(1, 1, 0), None, series(1)]
    before = [series(0, 1), series(1), None]
    (found,) = differences(after, before)
    assert found.to_dict() == {"0": 1.0, "1": 0.0}


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds):
    """Accuracies and paired differences of seeds that have their own base, problems and trainings, simulated.

    A method's chance at a problem is logistic in its own effect of the seed, the base's, and the problem's. What the
    intervals are to hold is the mean over many seeds.
    """
    rng, repeats, problems, samples = np.random.default_rng(seeds), 500, 60, 4

    def chances(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        base, hard = rng.normal(0.3, 0.3, (*shape, 1)), rng.normal(0, 1.0, (*shape, problems))
        one, other = (rng.normal(mean, 0.3, (*shape, 1)) for mean in (0.0, 0.4))
        return tuple(1 / (1 + np.exp(-(base + hard + own))) for own in (one, other))

    truth, other_truth = (of.mean() for of in chances((20_000,)))
    drawn = [rng.binomial(samples, of) / samples for of in chances((repeats, seeds))]
    levels, gains = [], []
    for one, other in zip(*drawn, strict=True):
        ours, theirs = ([pd.Series(of_seed) for of_seed in of] for of in (one, other))
        levels.append(over_seeds(ours, RATE))
        gains.append(over_seeds(differences(theirs, ours), DIFFERENCE))
    for what, found, true in (("accuracies", levels, truth), ("differences", gains, other_truth - truth)):
        held = coverage(*(np.array([getattr(of, end) for of in found]) for end in ("low", "high")), true)
        print(f"{seeds} seeds, {what}: {held:.3f} of {repeats} intervals hold the truth")
        assert 0.93 <= held <= 0.99


def measured(cells: list[tuple[int, float, list[float]]], control: str = "separate") -> Measured:
    """A model with these cells of a control: t, tokens, and the accuracy of each problem; t = -1: no budget."""
    from elastic.problem_means import ProblemMean

    made = [
        {
            "control": "none" if t == -1 else control,
            "thinking_token_budget": t,
            "total_token_budget": -1,
            "key": str(t),
            "total_tokens": tokens,
            "data_fingerprint": "d",
            "benchmark": "b",
        }
        for t, tokens, _ in cells
    ]
    means = {
        str(t): {str(n): ProblemMean(accuracy, tokens) for n, accuracy in enumerate(accuracies)}
        for t, tokens, accuracies in cells
    }
    return Measured(Run("m", made, known_means=lambda: means))


def test_a_curve_between_below_and_above_its_cells():
    model = measured([(8, 10.0, [0.2, 0.4]), (16, 20.0, [0.6, 1.0])])
    at = {tokens: model.at("separate", tokens) for tokens in (5, 10, 15, 20, 40)}
    assert at.pop(5) is None
    assert [of.tolist() for of in at.values()] == [
        pytest.approx(expected) for expected in ([0.2, 0.4], [0.4, 0.7], [0.6, 1.0], [0.6, 1.0])
    ]
    assert [model.is_held_at("separate", tokens) for tokens in (5, 10, 20, 40)] == [False, False, False, True]
    assert model.at("s1", 10) is None and model.area("s1", (5, 40)) is None and not model.is_held_at("s1", 10)
    assert model.accuracy("separate", 16).tolist() == [0.6, 1.0] and model.accuracy("separate", 9) is None


def test_a_curve_goes_on_to_no_budget_where_that_spends_more():
    """Base of two problems: .2 and .6 at 10 tokens, .4 and .8 at 20, 1 and .8 without a budget at 60."""
    cells = [(8, 10.0, [0.2, 0.6]), (16, 20.0, [0.4, 0.8])]
    model = measured([*cells, (-1, 60.0, [1.0, 0.8])])
    assert model.at("separate", 40).tolist() == pytest.approx([0.7, 0.8])
    assert [model.is_held_at("separate", tokens) for tokens in (40, 70)] == [False, True]
    assert measured([*cells, (-1, 15.0, [1.0, 1.0])]).at("separate", 40).tolist() == [0.4, 0.8]
    other = measured([*cells, (-1, 60.0, [1.0])])
    assert other.at("separate", 40).to_dict() == {"0": pytest.approx(0.7)}


@pytest.mark.parametrize("control", ["prompt", "told", "s1"])
def test_no_budget_is_no_end_of_what_is_told_or_made_to_wait(control):
    """Above its tokens such a curve has its largest budget's accuracy, whichever of its cells spends most."""
    cells = [(8, 10.0, [0.2]), (16, 22.0, [0.5]), (32, 20.0, [0.7]), (-1, 60.0, [1.0])]
    model = measured(cells, control)
    assert [model.at(control, tokens).item() for tokens in (22, 23, 70)] == [0.5, 0.7, 0.7]
    assert model.is_held_at(control, 23) and model.at("none", 60).item() == 1.0


def test_the_area_is_the_mean_over_log_tokens():
    model = measured([(8, 10.0, [0.2]), (16, 20.0, [0.6])])

    def accuracy(log_tokens: float) -> float:
        tokens = np.exp(log_tokens)
        return 0.0 if tokens < 10 else min(0.6, 0.2 + 0.4 * (tokens - 10) / 10)

    low, high = np.log(5), np.log(40)
    expected = integrate.quad(accuracy, low, high, points=[np.log(10), np.log(20)])[0] / (high - low)
    assert model.area("separate", (5, 40)).item() == pytest.approx(expected, abs=1e-3)


def test_labels_are_moved_apart_and_stay_in_order():
    assert spread([0.2, 0.5, 0.99, 1.0, 1.0], step=0.05) == pytest.approx([0.2, 0.5, 0.9, 0.95, 1.0])
    assert spread([0.1] * 4, step=0.05) == pytest.approx([0.1, 0.15, 0.2, 0.25])
    assert spread([0.4] * 41, step=0.05) == pytest.approx(np.linspace(0, 1, 41))
    assert spread([0.3]) == [0.3] and spread([]) == []


def test_counts_have_no_ends_below_zero():
    assert over_seeds([series(1.0, 30.0), series(90.0, 60.0)], COUNT).low == 0.0
