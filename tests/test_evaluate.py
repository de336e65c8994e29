"""The evaluation from end to end, on a tiny random Llama: what it measures, resumes, keeps apart and refuses."""

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM
from word_model import TEMPLATE, save_word_model

from elastic import evaluate, export
from elastic.budget import Budget
from elastic.controls import Cell, grid
from elastic.evaluation import Evaluation
from elastic.evaluation_arguments import EvaluationArguments
from elastic.evaluation_cells import Provenance, summarise
from elastic.evaluation_engine import load_engine
from elastic.model_source import ModelSource, find_model
from elastic.parsing import parse
from elastic.results import CELL_FIELDS, Control
from elastic.rollout import Sampling

ROOT = Path(__file__).parents[1]
PROBLEMS = [
    {"problem": problem, "answer": answer, "level": i}
    for i, (problem, answer) in enumerate([("a b", "a"), ("c", "b"), ("d e f", "c"), ("g", "d"), ("h a", "e")])
]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_word_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "test.jsonl"
    path.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    return path


@pytest.fixture
def arguments(model_dir, data_file, tmp_path):
    """The command line of a small evaluation, to which more words may be added: the last one counts."""
    return [
        *(
            "--model_name_or_path",
            str(model_dir),
            "--dataset_name",
            str(data_file),
            "--output_dir",
            str(tmp_path / "out"),
        ),
        *("--thinking_token_budgets", "0", "4", "--solution_token_budget", "3", "--max_completion_tokens", "24"),
        *("--reward", "exact", "--num_generations", "6", "--temperature", "1.0"),
    ]


FULL_GRID = ("--no_budget", "--truncation_budgets", "5", "9", "--trained_budget", "4")


def results(folder):
    return json.loads((folder / "results.json").read_text())


def generations(folder):
    return [json.loads(line) for line in (folder / "generations.jsonl").read_text().splitlines()]


def exact_majority(rows):
    """The share of right answers among the most frequent solutions to one problem."""
    counts = Counter(row["prediction"] for row in rows if row["prediction"] is not None)
    most = [answer for answer in counts if counts[answer] == max(counts.values())]
    right = {row["prediction"] for row in rows if row["reward"] == 1.0}
    return sum(answer in right for answer in most) / len(most) if most else 0.0


def measured(cells):
    return [{name: cell[name] for name in cell if name != "model_name_or_path"} for cell in cells]


def length_reward(completions, answer, solution_text, thinking_text, level, thinking_tokens, **columns):
    """1 where an even level meets a solution that begins with a letter, None at level 4; notes what it was passed."""
    length_reward.calls.append(
        {"completions": completions, "answer": answer, "solution_text": solution_text, "level": level, **columns}
    )
    return [
        None if n == 4 else float(n % 2 == 0 and text[:1].isalpha())
        for n, text in zip(level, solution_text, strict=True)
    ]


length_reward.calls = []


def percent_reward(completions, **columns):
    return [100.0] * len(completions)


def short_reward(completions, **columns):
    return [1.0]


def raising_reward(completions, **columns):
    raise KeyError("no such key")


def one_reward(completions, **columns):
    return [1.0] * len(completions)


async def patient_reward(completions, **columns):
    await asyncio.sleep(0)
    return [0.5] * len(completions)


def failing_reward(completions, log_extra, **columns):
    """1 for every sample; but while it is broken, it fails for the first three of a batch."""
    failures = 3 if failing_reward.broken else 0
    reasons = ["grader_failed: the worker died"] * failures + ["correct"] * (len(completions) - failures)
    log_extra("failing_reason", reasons)
    return [None] * failures + [1.0] * (len(completions) - failures)


def test_the_curve_goes_to_wandb_where_that_is_asked(arguments, tmp_path, monkeypatch):
    tracked = []
    monkeypatch.setattr("elastic.tracked_curve.track_curve", lambda *given: tracked.append(given))
    evaluate.main(arguments)
    assert tracked == []
    evaluate.main([*arguments, "--report_to", "wandb", "--wandb_project", "curves"])
    ((cells, output_dir, options),) = tracked
    assert (cells, output_dir) == (results(tmp_path / "out"), tmp_path / "out")
    assert options.wandb_project == "curves"
    assert "report.html" in {path.name for path in output_dir.iterdir()}


def test_every_cell_is_measured_from_its_own_samples(arguments, tmp_path, capsys):
    evaluate.main([*arguments, *FULL_GRID])
    out = tmp_path / "out"
    cells, rows = results(out), generations(out)
    budgets = [
        (cell["control"], *(cell[f"{phase}_token_budget"] for phase in ("thinking", "solution", "total")))
        for cell in cells
    ]
    assert budgets == [
        ("separate", 0, 3, -1),
        ("separate", 4, 3, -1),
        ("none", -1, -1, 24),
        ("truncate", -1, -1, 5),
        ("truncate", -1, -1, 9),
    ]
    assert Counter(row["key"] for row in rows) == {cell["key"]: 30 for cell in cells}
    for cell in cells:
        own = [row for row in rows if row["key"] == cell["key"]]
        assert {(row["problem_id"], row["sample"]) for row in own} == {(str(p), s) for p in range(5) for s in range(6)}
        assert set(CELL_FIELDS) <= set(cell)
        assert cell["accuracy"] == pytest.approx(np.mean([row["reward"] for row in own]))
        assert cell["ci_low"] <= cell["accuracy"] <= cell["ci_high"]
        assert list(cell["pass_at_k"]) == ["1", "2", "4"]
        assert cell["pass_at_k"]["1"][0] == pytest.approx(cell["accuracy"])
        votes = [[row for row in own if row["problem_id"] == str(p)] for p in range(5)]
        assert cell["majority_at_n"][0] == pytest.approx(np.mean([exact_majority(samples) for samples in votes]))
        assert (cell["n_problems"], cell["n_samples"], cell["ungraded"], cell["trained_budget"]) == (5, 30, 0, 4)
        for phase in ("thinking_tokens", "solution_tokens"):
            assert cell[phase] == pytest.approx(np.mean([row[phase] for row in own]))
            assert cell[f"{phase}_p95"] == pytest.approx(np.percentile([row[phase] for row in own], 95))
        assert cell["total_tokens"] == pytest.approx(cell["thinking_tokens"] + cell["solution_tokens"])
        for rate, name, value in (
            ("forced_rate", "thinking_stop_reason", "budget"),
            ("eos_in_thinking_rate", "thinking_stop_reason", "eos"),
            ("thinking_cut_rate", "thinking_stop_reason", "length"),
            ("solution_truncated_rate", "finish_reason", "length"),
        ):
            assert cell[rate] == pytest.approx(np.mean([row[name] == value for row in own])), rate
        assert cell["reopened_rate"] == pytest.approx(np.mean([row["reopened"] > 0 for row in own]))
    problems = [json.loads(line) for line in (out / "problems.jsonl").read_text().splitlines()]
    data = {cell["data_fingerprint"] for cell in cells}
    assert [(row["problem_id"], row["answer"]) for row in problems] == [
        (str(i), p["answer"]) for i, p in enumerate(PROBLEMS)
    ]
    assert [row["prompt"] for row in problems] == [[{"role": "user", "content": p["problem"]}] for p in PROBLEMS]
    assert {(row["data_fingerprint"], row["benchmark"]) for row in problems} == {(*data, cells[0]["benchmark"])}
    names = {"chains.jsonl", "curve.png", "generations.jsonl", "problems.jsonl", "report.html", "results.json"}
    assert {path.name for path in out.iterdir()} == names | {"table.md", ".lock"}
    assert (out / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    table = (out / "table.md").read_text()
    assert table in capsys.readouterr().out
    _, measures, estimates, reasons = table.strip().split("\n\n")
    for part in (measures, estimates, reasons):
        labels = [line.split("|")[1].strip() for line in part.splitlines()[2:]]
        assert labels == ["0 + 3", "4 + 3 (t*)", "no budget (at most 24)", "truncated at 5", "truncated at 9"]
    shares = Counter(row["reason"] for row in rows if row["key"] == cells[0]["key"])
    assert cells[0]["reasons"] == {reason: n / 30 for reason, n in shares.items()}
    assert set(shares) <= {"correct", "wrong_answer", "no_answer"} and len(shares) >= 2
    assert all((row["reward"] == 1.0) == (row["reason"] == "correct") for row in rows)
    shown = dict(
        zip(*([cell.strip() for cell in reasons.splitlines()[i].split("|")[2:-1]] for i in (0, 2)), strict=True)
    )
    assert {reason: f"{n / 30:.3f}" for reason, n in shares.items()}.items() <= shown.items()


def test_the_controls_are_what_they_say(arguments, tmp_path):
    evaluate.main([*arguments, *FULL_GRID])
    cells, rows = results(tmp_path / "out"), generations(tmp_path / "out")
    closed, thinks, free, *truncated = [[row for row in rows if row["key"] == cell["key"]] for cell in cells]
    assert {row["thinking_tokens"] for row in closed} == {0}
    assert {row["thinking_stop_reason"] for row in closed} == {"budget"}
    assert max(row["thinking_tokens"] for row in thinks) == 4
    assert {"budget", "natural", "eos"} == {row["thinking_stop_reason"] for row in thinks}
    assert max(row["solution_tokens"] for row in closed + thinks) == 3
    for rows_of_cell, total in zip([free, *truncated], (24, 5, 9), strict=True):
        assert "budget" not in {row["thinking_stop_reason"] for row in rows_of_cell}
        assert max(row["thinking_tokens"] + row["solution_tokens"] for row in rows_of_cell) == total


def test_a_complete_evaluation_is_not_sampled_again(arguments, tmp_path, monkeypatch):
    evaluate.main(arguments)
    files = {name: (tmp_path / "out" / name).read_bytes() for name in ("results.json", "generations.jsonl", "table.md")}
    monkeypatch.setattr("elastic.protocol.load_engine", lambda *given: pytest.fail("a model was loaded"))
    evaluate.main(arguments)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("share", [0.02, 0.4, 0.77])
def test_an_interrupted_evaluation_goes_on_to_the_same_results(arguments, tmp_path, capsys, share):
    """200 samples a problem make chunks of two problems; the file is cut in the middle of a line, as by a kill."""
    arguments = [*arguments, "--num_generations", "200"]
    evaluate.main([*arguments, "--output_dir", str(tmp_path / "whole")])
    whole = (tmp_path / "whole" / "generations.jsonl").read_bytes()
    at = int(share * len(whole))
    at += whole[at - 1 : at] == b"\n"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "generations.jsonl").write_bytes(whole[:at])
    capsys.readouterr()
    evaluate.main(arguments)
    said = capsys.readouterr().err
    kept = whole[:at].count(b"\n")
    assert f"Resuming: {kept} of 2000 samples" in said and "cut by an interruption" in said
    assert (tmp_path / "out" / "generations.jsonl").read_bytes() == whole
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_server_that_is_not_there_is_one_sentence(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("elastic.engines.server._RETRIES", 0)
    with pytest.raises(SystemExit) as exit:
        evaluate.main([*arguments, "--engine", "server", "--base_url", "http://127.0.0.1:9"])
    assert exit.value.code == 1
    assert "error: The server at http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_it_says_how_to_get_it(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        evaluate.main([*arguments, "--engine", "vllm"])
    assert exit.value.code == 2
    assert "engine is vllm, and vLLM is not installed" in capsys.readouterr().err


def test_an_interruption_in_the_midst_of_a_chunk_keeps_what_had_finished(arguments, tmp_path, monkeypatch):
    """Chunks are of 400 rollouts: the second is left at its fiftieth, and of it only the rest is sampled later."""
    arguments = [*arguments, "--num_generations", "200"]
    evaluate.main([*arguments, "--output_dir", str(tmp_path / "whole")])
    started = []

    def interrupted(self, problem, rollout):
        started.append(rollout)
        if len(started) == 450:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Evaluation, "_start_grading", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate.main(arguments)
    kept = generations(tmp_path / "out")
    assert len(kept) == 450 and not (tmp_path / "out" / "results.json").exists()
    counted = []
    monkeypatch.setattr(Evaluation, "_start_grading", lambda self, problem, rollout: counted.append(rollout))
    evaluate.main(arguments)
    assert len(counted) == 2000 - 450
    assert generations(tmp_path / "out")[:450] == kept
    in_order = [sorted(generations(tmp_path / name), key=json.dumps) for name in ("out", "whole")]
    assert in_order[0] == in_order[1]
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_other_settings_have_samples_of_their_own(arguments, tmp_path):
    evaluate.main(arguments)
    first, rows = results(tmp_path / "out"), generations(tmp_path / "out")
    evaluate.main([*arguments, "--seed", "1"])
    second, more = results(tmp_path / "out"), generations(tmp_path / "out")
    assert more[: len(rows)] == rows and len(more) == 2 * len(rows)
    assert not {cell["key"] for cell in first} & {cell["key"] for cell in second}
    assert [cell["thinking_tokens"] for cell in second][1] != [cell["thinking_tokens"] for cell in first][1]
    evaluate.main([*arguments, "--thinking_token_budgets", "4", "7"])
    third = results(tmp_path / "out")
    assert measured(third[:1]) == measured(first[1:])
    assert len(generations(tmp_path / "out")) == 2 * len(rows) + 30


PROVENANCE = Provenance(
    *("model", "data", "columns", None, Sampling(), 4, 0, "exact", {}, "<think>", "</think>", "auto", None, "fork"),
    rollouts_in_chunk=512,
)
CHANGES = {
    "model_fingerprint": "m",
    "data_fingerprint": "d",
    "columns_fingerprint": "c",
    "chat_template_kwargs": {"a": 1},
    "sampling": Sampling(top_p=0.9),
    "num_generations": 5,
    "seed": 1,
    "reward": "math",
    "reward_settings": {"math": {"without_box": "last_number"}},
    "reasoning_start_str": "[",
    "reasoning_end_str": "]",
    "dtype": "float32",
    "attn_implementation": "eager",
    "sweep": "independent",
    "engine": "vllm",
    "served_model_name": "mine",
    "solution_model_fingerprint": "s",
    "rollouts_in_chunk": 8,
}


def cell(control="separate", *budget, settings=None, **budgets):
    return Cell(Control(control), Budget(*budget, **budgets), settings or {})


def told(every):
    return {"instruction": "Have 8.", "reminder_every": every, "reminder_str": "{tokens}" * (every > 0)}


def test_only_chains_that_are_not_reminded_are_shared():
    asked, *reminded = (cell("told", 8, 4, settings=told(every)) for every in (0, 2, 3))
    shared = PROVENANCE.chain_key([cell("prompt", 8, settings={"instruction": "Have 8."})])
    assert PROVENANCE.chain_key([asked]) == shared
    crossed = replace(PROVENANCE, solution_model_fingerprint="s").chain_key([asked])
    assert len({shared, crossed, *(PROVENANCE.chain_key([own]) for own in reminded)}) == 4


def test_the_key_follows_everything_that_produced_the_samples():
    assert set(CHANGES) == {field.name for field in fields(Provenance)}
    own = cell("separate", 8, 4)
    others = [replace(PROVENANCE, **{name: value}).key(own) for name, value in CHANGES.items()]
    others += [
        PROVENANCE.key(other)
        for other in (
            *(cell("separate", 8, 5), cell("separate", 9, 4), cell("separate", 8, 4, 20), cell("none", total=8)),
            *(cell("s1", 8, 4, settings={"close": close}) for close in ("{end}", "{end} so")),
            *(cell("wrap_up", 8, 4, settings={"wrap_up_str": text}) for text in ("so", "thus")),
            cell("carry_over", 8, 4, carry_over=True),
            *(cell("told", 8, 4, settings=told(every)) for every in (0, 2, 3)),
        )
    ]
    assert len({PROVENANCE.key(own), *others}) == len(others) + 1
    assert replace(PROVENANCE).key(cell("separate", 8, 4)) == PROVENANCE.key(own)


@pytest.mark.parametrize("sweep", ["fork", "independent"])
def test_random_streams_depend_on_seed_and_chunk_and_alone_on_the_budget_not_on_the_model(sweep):
    provenance, own = replace(PROVENANCE, sweep=sweep), [cell("separate", 8, 4)]
    seeds = [provenance.engine_seed(own, chunk) for chunk in range(100)]
    seeds += [replace(provenance, seed=seed).engine_seed(own, 0) for seed in range(1, 20)]
    asked = {"instruction": "Think for 8 tokens."}
    seeds += [provenance.engine_seed([cell("prompt", 8, total=20, settings=asked)], 0)]
    assert len(set(seeds)) == len(seeds)
    of_budgets = {provenance.engine_seed([cell("separate", t, 4)], 0) for t in range(8, 20)}
    assert len(of_budgets) == (1 if sweep == "fork" else 12)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert replace(provenance, model_fingerprint="m").engine_seed(own, 0) == seeds[0]


def test_the_model_fingerprint_follows_contents_not_places(model_dir, tmp_path):
    copy = shutil.copytree(model_dir, tmp_path / "copy")
    original = find_model(str(model_dir)).fingerprint
    (copy / "trainer_state.json").write_text("{}")
    (copy / "training_args.bin").write_bytes(b"anything")
    assert find_model(str(copy)).fingerprint == original
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    other_weights = find_model(str(copy)).fingerprint
    (copy / "chat_template.jinja").write_text(TEMPLATE + " ")
    assert len({original, other_weights, find_model(str(copy)).fingerprint}) == 3


def test_other_weights_in_the_same_place_are_sampled_anew(arguments, model_dir, tmp_path):
    copy = shutil.copytree(model_dir, tmp_path / "copy")
    arguments = [*arguments, "--model_name_or_path", str(copy)]
    evaluate.main(arguments)
    before = results(tmp_path / "out")
    weights = load_file(copy / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].flip(0).contiguous()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    evaluate.main(arguments)
    assert not {cell["key"] for cell in before} & {cell["key"] for cell in results(tmp_path / "out")}
    assert len(generations(tmp_path / "out")) == 120


def test_an_adapter_is_measured_with_its_base(arguments, model_dir, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = shutil.copytree(model_dir, tmp_path / "base")
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(target_modules=["q_proj", "lm_head"]))
    adapter = tmp_path / "adapter"
    model.save_pretrained(adapter)
    for path in base.glob("tokenizer*"):
        shutil.copy(path, adapter)
    shutil.copy(base / "chat_template.jinja", adapter)
    evaluate.main([*arguments, "--model_name_or_path", str(base), "--output_dir", str(tmp_path / "of_base")])
    evaluate.main([*arguments, "--model_name_or_path", str(adapter)])
    tokens = [[cell["total_tokens"] for cell in results(tmp_path / name)] for name in ("of_base", "out")]
    assert tokens[0] == tokens[1]  # a fresh LoRA changes nothing, and random streams do not depend on the model
    fingerprint = find_model(str(adapter)).fingerprint
    (base / "generation_config.json").write_text("{}")
    assert find_model(str(adapter)).fingerprint != fingerprint


def test_an_adapter_and_its_export_give_the_same_greedy_rollouts_and_results(arguments, model_dir, tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    lora = LoraConfig(target_modules=["q_proj", "down_proj", "lm_head"], init_lora_weights=False)
    get_peft_model(LlamaForCausalLM.from_pretrained(model_dir), lora).save_pretrained(tmp_path / "adapter")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(model_dir / name, tmp_path / "adapter")
    export.main(["--model_name_or_path", str(tmp_path / "adapter"), "--output_dir", str(tmp_path / "merged")])
    greedy = [*arguments, "--temperature", "0", "--num_generations", "1"]
    cells, rows = [], []
    for name in ("adapter", "merged"):
        places = ["--model_name_or_path", str(tmp_path / name), "--output_dir", str(tmp_path / f"of_{name}")]
        evaluate.main([*greedy, *places])
        cells.append([without(cell, "model_", "key") for cell in results(tmp_path / f"of_{name}")])
        rows.append([without(row, "key") for row in generations(tmp_path / f"of_{name}")])
    assert cells[0] == cells[1] and rows[0] == rows[1] and len(rows[0]) == 10
    evaluate.main([*greedy, "--output_dir", str(tmp_path / "of_base")])
    assert [without(row, "key") for row in generations(tmp_path / "of_base")] != rows[0]


def without(row, *starts):
    return {name: value for name, value in row.items() if not name.startswith(starts)}


def test_the_base_of_an_adapter_is_loaded_at_the_revision_that_it_notes(monkeypatch):
    load = Mock(side_effect=ConnectionError)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", load)
    source = ModelSource("adapter", None, "org/base", "0123abc", "f")
    with pytest.raises(ConnectionError):
        load_engine(Mock(engine="transformers"), source, Mock())
    assert load.call_args.kwargs["revision"] == "0123abc"


def test_a_reward_sees_the_columns_and_none_is_counted_as_ungraded(arguments, tmp_path):
    length_reward.calls.clear()
    evaluate.main([*arguments, "--reward", f"{__name__}.length_reward", "--max_ungraded_rate", "1"])
    cell, rows = results(tmp_path / "out")[0], generations(tmp_path / "out")[:30]
    call = length_reward.calls[0]
    assert call["level"] == [row["level"] for row in PROBLEMS for _ in range(6)]
    assert call["answer"] == [row["answer"] for row in PROBLEMS for _ in range(6)]
    assert call["prompts"][0] == [{"role": "user", "content": "a b"}]
    assert call["solution_text"] == [row["solution_text"] for row in rows]
    words = [[word for word in row["solution_text"].split() if word in "abcdefgh"] for row in rows]
    assert [completion[0]["content"].split() for completion in call["completions"]] == words
    assert {completion[0]["role"] for completion in call["completions"]} == {"assistant"}
    assert call["thinking_stop_reason"] == ["budget"] * 30
    assert call["thinking_token_budget"] == [0] * 30 and call["solution_token_budget"] == [3] * 30
    assert (cell["n_problems"], cell["n_samples"], cell["ungraded"]) == (4, 24, 6)
    right = [row["reward"] for row in rows if row["problem_id"] != "4"]
    assert cell["accuracy"] == pytest.approx(sum(right) / 24) and 0 < cell["accuracy"] < 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("percent_reward", "The reward test_evaluate.percent_reward gave 100.0: an accuracy needs scores from 0 to 1"),
        ("short_reward", "The reward short_reward failed with ValueError: it gave 1 scores for 30 rows"),
        ("raising_reward", "The reward raising_reward failed with KeyError at {} line {}: 'no such key'; mend it"),
    ],
)
def test_a_reward_that_fails_or_gives_no_accuracy_stops_with_a_sentence(arguments, tmp_path, capsys, name, said):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([*arguments, "--reward", f"{__name__}.{name}"])
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert stopped.value.code == 1 and last_line.startswith("python -m elastic.evaluate: error: ")
    assert said.format(__file__, raising_reward.__code__.co_firstlineno + 1) in last_line
    assert not (tmp_path / "out" / "generations.jsonl").exists()


def stumbling_reward(completions, level, **columns):
    if stumbling_reward.broken and 4 in level:
        raise KeyError("no such key")
    return [0.5] * len(completions)


def test_samples_that_a_reward_raises_on_are_left_out_and_graded_anew_later(arguments, tmp_path):
    command = [*arguments, "--reward", f"{__name__}.stumbling_reward", "--max_ungraded_rate", "1"]
    command += ["--on_reward_error", "drop"]
    stumbling_reward.broken = True
    evaluate.main(command)
    rows = generations(tmp_path / "out")
    failed = [row for row in rows if row["reward"] is None]
    assert 0 < len(failed) < len(rows)
    assert {row["reason"] for row in failed} == {"grader_failed: KeyError: 'no such key'"}
    lines = list(map(json.loads, (tmp_path / "out" / "failed_rewards.jsonl").read_text().splitlines()))
    assert [line["columns"]["solution_text"] for line in lines] == [row["solution_text"] for row in failed]
    stumbling_reward.broken = False
    evaluate.main(command)
    again = generations(tmp_path / "out")
    assert [row["reward"] for row in again[len(rows) :]] == [0.5] * len(failed)


def test_a_reward_may_be_a_coroutine(arguments, tmp_path):
    evaluate.main([*arguments, "--reward", f"{__name__}.patient_reward"])
    assert {row["reward"] for row in generations(tmp_path / "out")} == {0.5}


def test_the_reasons_are_kept_and_too_many_ungraded_samples_stop_the_evaluation(arguments, tmp_path, capsys):
    """Two cells of 200 samples; 3 of each 200 fail, which is above 1 % and below 2 %."""
    command = [*arguments, "--num_generations", "40", "--reward", f"{__name__}.failing_reward"]
    failing_reward.broken = True
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(command)
    assert stopped.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "python -m elastic.evaluate: error: 3 of the last 200 rows could not be graded (1.5%), more than "
        "max_ungraded_rate 0.01 allows: test_evaluate.failing_reward grader_failed 3 (such as: the worker died); mend "
        "what the reasons name, or raise max_ungraded_rate."
    )
    kept = generations(tmp_path / "out")
    assert Counter(row["reason"] for row in kept) == {"grader_failed: the worker died": 6, "correct": 394}

    evaluate.main([*command, "--max_ungraded_rate", "0.02"])
    assert [cell["ungraded"] for cell in results(tmp_path / "out")] == [3, 3]
    assert results(tmp_path / "out")[0]["reasons"] == {"correct": 0.985, "grader_failed": 0.015}

    failing_reward.broken = False
    evaluate.main(command)
    rows, cells = generations(tmp_path / "out"), results(tmp_path / "out")
    assert [(cell["ungraded"], cell["n_samples"], cell["accuracy"]) for cell in cells] == [(0, 200, 1.0)] * 2
    by_sample = {(row["key"], row["problem_id"], row["sample"]): row["solution_text"] for row in kept}
    again = [row for row in rows[len(kept) :] if (row["key"], row["problem_id"], row["sample"]) in by_sample]
    assert len(again) >= 3
    assert all(row["solution_text"] == by_sample[row["key"], row["problem_id"], row["sample"]] for row in again)


def test_samples_that_no_reward_can_ever_grade_are_not_sampled_again(arguments, tmp_path):
    command = [*arguments, "--reward", f"{__name__}.length_reward", "--max_ungraded_rate", "1"]
    evaluate.main(command)
    before = (tmp_path / "out" / "generations.jsonl").read_bytes()
    evaluate.main(command)
    assert (tmp_path / "out" / "generations.jsonl").read_bytes() == before


def test_rows_that_the_reward_cannot_grade_are_listed_before_a_model_is_loaded(
    arguments, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("elastic.protocol.load_engine", lambda *given: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([*arguments, "--reward", "l1_max", "--length_reward", "{correctness: exact}"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "5 rows of " in said
    assert all(f"test.jsonl line {n}: target_tokens is None: give a whole number" in said for n in range(1, 6))


def test_settings_of_a_reward_reach_it_and_make_other_keys(arguments, tmp_path):
    command = [*arguments, "--reward", "l1_max"]
    for alpha in ("0.1", "0.125"):
        settings = f"{{correctness: test_evaluate.one_reward, target_tokens: 4, alpha: {alpha}}}"
        evaluate.main([*command, "--length_reward", settings])
    rows = generations(tmp_path / "out")
    assert len({row["key"] for row in rows}) == 4 and len(rows) == 120
    for alpha, half in ((0.1, rows[:60]), (0.125, rows[60:])):
        for row in half:
            n = row["thinking_tokens"] + row["solution_tokens"]
            assert row["reward"] == pytest.approx(min(1, max(0, alpha * (4 - n) + 0.5)))


def test_when_nothing_can_be_graded_there_is_no_accuracy():
    row = dict.fromkeys(("thinking_tokens", "solution_tokens", "reopened", "extra_end_markers"), 2)
    row |= {"problem_id": "0", "reward": None, "thinking_stop_reason": "natural", "finish_reason": "stop"}
    cell = summarise(Cell(Control.NONE, Budget(total=8)), [row], ["0"], "exact")
    assert (cell["accuracy"], cell["ci_low"], cell["n_problems"], cell["ungraded"]) == (None, None, 0, 1)
    assert (cell["pass_at_k"], cell["majority_at_n"]) == ({}, None)
    assert (cell["total_tokens"], cell["reopened_rate"]) == (4.0, 1.0)


def test_there_is_a_majority_where_answers_can_be_compared():
    row = dict.fromkeys(("thinking_tokens", "solution_tokens", "reopened", "extra_end_markers"), 2)
    row |= {"problem_id": "0", "reward": 1.0, "thinking_stop_reason": "natural", "finish_reason": "stop"}
    told, cell = row | {"prediction": "a"}, Cell(Control.NONE, Budget(total=8))
    assert summarise(cell, [told], ["0"], "exact")["majority_at_n"][0] == 1.0
    assert summarise(cell, [told], ["0"], "code")["majority_at_n"] is None
    assert summarise(cell, [told, row], ["0"], "exact")["majority_at_n"] is None  # a sample of before predictions


def test_the_grid_caps_what_has_no_limit(arguments):
    words = [*arguments, "--thinking_token_budgets", "-1", "8", "--max_completion_tokens", "50"]
    (parsed,) = parse((EvaluationArguments,), words, prog="evaluate")
    assert [cell.budget for cell in grid(parsed)] == [Budget(-1, 3, 50), Budget(8, 3)]


def test_long_prompts_are_dropped_and_counted(arguments, tmp_path, capsys):
    evaluate.main([*arguments, "--max_prompt_length", "3"])
    assert "Dropped 1 prompts of more than 3 tokens" in capsys.readouterr().err
    assert {row["problem_id"] for row in generations(tmp_path / "out")} == {"0", "1", "3", "4"}


def test_max_problems_takes_the_first(arguments, tmp_path):
    evaluate.main([*arguments, "--max_problems", "2"])
    assert {cell["n_problems"] for cell in results(tmp_path / "out")} == {2}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model_name_or_path", "/no/such/model"], "'/no/such/model'"),
        (["--model_name_or_path", str(ROOT / "tests")], "which holds neither config.json nor"),
        (["--dataset_name", "/no/such/data.jsonl"], "'/no/such/data.jsonl'"),
        (["--thinking_token_budgets", "8", "8"], "thinking_token_budgets is [8, 8]"),
        (["--truncation_budgets", "9", "9"], "truncation_budgets is [9, 9]"),
        (["--truncation_budgets", "0"], "truncation_budgets is [0]"),
        (["--thinking_token_budgets", "8", "-2"], "thinking_token_budgets is -2"),
        (["--thinking_token_budgets", "8.5"], "8.5"),
        (["--solution_token_budget", "-2"], "solution_token_budget is -2"),
        (["--solution_token_budget", "0"], "solution_token_budget is 0"),
        (["--thinking_token_budgets", "60"], "thinking_token_budget (60)"),
        (["--max_completion_tokens", "0"], "max_completion_tokens is 0"),
        (["--num_generations", "0"], "num_generations is 0"),
        (["--temperature", "-1"], "temperature is -1.0"),
        (["--reward", "nonsense"], "'nonsense'"),
        (["--reward", "no_such_module.reward"], "'no_such_module.reward'"),
        (["--reasoning_end_str", "</thought>"], "reasoning_end_str is '</thought>'"),
        (["--chat_template_kwargs", "thinking"], "chat_template_kwargs is 'thinking'"),
        (["--answer_column", "reply"], "answer_column is 'reply'"),
        (["--engine", "server"], "base_url is not set"),
        (["--engine", "server", "--base_url", "localhost:8000"], "base_url is 'localhost:8000'"),
        (["--base_url", "http://localhost:8000"], "base_url is set, and engine is transformers"),
        (["--engine", "vllm", "--served_model_name", "a"], "served_model_name is set, and engine is vllm"),
        (["--max_concurrent_requests", "0"], "max_concurrent_requests is 0"),
        (["--engine", "vllm", "--vllm_gpu_memory_utilization", "1.5"], "vllm_gpu_memory_utilization is 1.5"),
        (["--engine", "vllm", "--vllm_max_model_length", "99"], "vllm_max_model_length is 99, and the model's context"),
        (["--engine", "vllm", "--vllm_max_model_length", "8"], "does not fit the model's context of 8"),
        (["--vllm_one_pass"], "vllm_one_pass is True, and engine is transformers"),
        (["--no_such_field", "1"], "no_such_field"),
        (["--output_dir", __file__], "output_dir is"),
        (["--config", "/no/such/recipe.yaml"], "'/no/such/recipe.yaml'"),
    ],
)
def test_bad_input_stops_with_a_sentence_before_a_model_is_loaded(arguments, capsys, monkeypatch, words, said):
    monkeypatch.setattr("elastic.protocol.load_engine", lambda *given: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([*arguments, *words])
    assert stopped.value.code == 2
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith("python -m elastic.evaluate: error: ") and said in last_line


@pytest.mark.parametrize("field", ["--model_name_or_path", "--dataset_name", "--output_dir"])
def test_what_must_be_given_is_named(arguments, capsys, field):
    at = arguments.index(field)
    with pytest.raises(SystemExit):
        evaluate.main(arguments[:at] + arguments[at + 2 :])
    assert f"{field[2:]} is not set" in capsys.readouterr().err


def test_an_empty_grid_is_refused(arguments, capsys):
    at = arguments.index("--thinking_token_budgets")
    with pytest.raises(SystemExit):
        evaluate.main(arguments[:at] + arguments[at + 3 :])
    assert "The grid is empty" in capsys.readouterr().err


def test_a_spoilt_line_is_named(arguments, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "generations.jsonl").write_text('{"key": "another"}\nnot json\n')
    with pytest.raises(SystemExit):
        evaluate.main(arguments)
    assert "generations.jsonl line 2 is not JSON" in capsys.readouterr().err


def test_help_needs_no_torch():
    """What makes `--help` quick. The command answered in 1.6 s on two busy cores."""
    program = (
        "import sys\nfrom elastic import evaluate\ntry:\n    evaluate.main(['--help'])\n"
        "except SystemExit:\n    sys.exit(bool({'torch', 'trl', 'datasets', 'scipy'} & sys.modules.keys()))"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "--thinking_token_budgets" in answer.stdout


def test_each_recipe_of_an_evaluation_is_one():
    recipes = sorted((ROOT / "recipes" / "eval").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        (parsed,) = parse((EvaluationArguments,), ["--config", str(recipe)], prog="evaluate")
        assert len(grid(parsed)) > 1
        first_line = recipe.read_text().splitlines()[0]
        assert first_line.startswith(f"# python -m elastic.evaluate --config recipes/eval/{recipe.name} ")


def test_results_of_another_model_are_kept_beside(arguments, model_dir, tmp_path, capsys):
    evaluate.main(arguments)
    first = results(tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(model_dir, other)
    weights = {name: 2 * value for name, value in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    evaluate.main([*arguments, "--model_name_or_path", str(other)])
    kept = tmp_path / "out" / f"results-{first[0]['model_fingerprint'][:8]}.json"
    assert json.loads(kept.read_text()) == first
    assert kept.name in capsys.readouterr().err
    assert results(tmp_path / "out")[0]["model_fingerprint"] != first[0]["model_fingerprint"]


def test_malformed_rows_can_be_left_out(arguments, tmp_path):
    rows = [*PROBLEMS, {"problem": "b", "answer": None, "level": 9}]
    data = tmp_path / "malformed.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate.main([*arguments, "--dataset_name", str(data), "--drop_malformed_rows", "true"])
    assert {cell["n_problems"] for cell in results(tmp_path / "out")} == {len(PROBLEMS)}


def test_a_longrope_model_is_refused_past_its_original_context_before_it_loads(arguments, model_dir, tmp_path, capsys):
    """Its keys change their angles there, so that no cache goes on; the engine and this check share one definition."""
    other = shutil.copytree(model_dir, tmp_path / "longrope")
    config = json.loads((other / "config.json").read_text())
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 8, **factors}
    (other / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([*arguments, "--model_name_or_path", str(other)])
    assert stopped.value.code == 2
    assert "does not fit the model's context of 8" in capsys.readouterr().err
