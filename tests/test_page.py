"""What report.html holds: its cells, its choice of generations, and their texts, which are stored once."""

import base64
import json
import random
import re
import zlib
from collections import defaultdict

import pytest
from page_runs import GRID, HOSTILE, make_run

from elastic import report
from elastic.page.build import page_data, write_page
from elastic.page.samples import Sample, chosen, common_length, compressed, pack_chain, packed
from elastic.problems import read_problems
from elastic.results import Run, read_runs


def unpacked(content: str):
    return json.loads(zlib.decompress(base64.b64decode(content)))


def utf16(text: str, units: int) -> str:
    """As JavaScript's slice(0, units)."""
    return text.encode("utf-16-le")[: 2 * units].decode("utf-16-le")


def read_texts(columns, blocks):
    """The texts of each sample, as the page's script puts them together."""
    chains = [unpacked(block) for block in blocks]
    for block, chain, row in zip(columns["block"], columns["chain"], columns["row"], strict=True):
        base, rows = chains[block][chain]
        common, tail, *told = rows[row]
        told = [rows[text][i + 2] if isinstance(text, int) else text for i, text in enumerate(told)]
        yield utf16(base, common) + tail, *told


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return read_runs([make_run(folder / "base", "base", skill=0.5), make_run(folder / "e1", "E1", skill=1.0)])


@pytest.fixture(scope="module")
def page(runs):
    return page_data(runs, trained_budget=32, max_generations=10_000)


def lines(run):
    return [json.loads(line) for line in run.path.with_name("generations.jsonl").read_text("utf-8").splitlines()]


def test_the_page_has_every_generation_with_its_texts(runs, page):
    shown, blocks = page
    columns = unpacked(blocks["samples"][0])
    keys = [cell["key"] for run in runs for cell in run.cells]
    stored = {(row["key"], row["problem_id"], row["sample"]): row for run in runs for row in lines(run)}
    assert len(columns["cell"]) == len(stored) == shown["samples"]["held"] == shown["samples"]["all"]
    for i, texts in enumerate(read_texts(columns, blocks["texts"])):
        problem = shown["problems"][columns["problem"][i]]
        row = stored.pop((keys[columns["cell"][i]], problem, columns["sample"][i]))
        reason, _, detail = row["reason"].partition(": ")
        assert texts == (row["thinking_text"], row["solution_text"], detail, row["prediction"] or "")
        assert (columns["reason"][i], columns["reward"][i]) == (reason, row["reward"])
        assert (columns["stop"][i], columns["finish"][i]) == (row["thinking_stop_reason"], row["finish_reason"])
        assert (columns["thinking"][i], columns["solution"][i]) == (row["thinking_tokens"], row["solution_tokens"])
    assert not stored


def test_the_heat_map_has_the_mean_reward_of_each_problem(runs, page):
    shown, _ = page
    rewards = defaultdict(list)
    for run in runs:
        for row in lines(run):
            if row["reward"] is not None:
                rewards[row["key"], row["problem_id"]].append(row["reward"])
    keys = [cell["key"] for run in runs for cell in run.cells]
    found = {
        (keys[i], shown["problems"][problem]): accuracy
        for i, cell in enumerate(shown["accuracies"])
        for problem, accuracy in cell.items()
    }
    assert found == {at: pytest.approx(sum(row) / len(row), abs=1e-4) for at, row in rewards.items()}


def test_cells_keep_their_numbers_and_two_runs_share_their_problems(runs, page):
    shown, blocks = page
    cells = [cell for run in runs for cell in run.cells]
    for drawn, cell in zip(shown["cells"][: len(cells)], cells, strict=True):
        assert drawn["accuracy"] == cell["accuracy"] and drawn["total_tokens"] == cell["total_tokens"]
        assert drawn["trained"] == (cell["thinking_token_budget"] == 32)
        assert drawn["inserted"] == "</think>"
    assert len(shown["problems"]) == 17
    statements = [row for block in blocks["problems"] for row in unpacked(block)]
    assert statements[3]["prompt"][0]["content"] == f"What is 3 + 0? {HOSTILE[3]}" and statements[3]["answer"] == "3"


def test_a_prefix_is_stored_once():
    rng = random.Random(0)
    chain = "".join(rng.choice("abc 漢🙂") for _ in range(5000))
    rows = [{"thinking_text": chain[:n], "solution_text": "same", "reason": None} for n in (10, 2000, 5000, 3000)]
    base, packed_rows = pack_chain(rows, [True] * 4)
    assert base == chain and [row[1] for row in packed_rows] == [""] * 4
    assert [utf16(base, row[0]) for row in packed_rows] == [row["thinking_text"] for row in rows]
    assert [row[2] for row in packed_rows] == ["same", 0, 0, 0]


def test_what_a_chain_went_on_to_think_holds_no_words_that_were_interjected():
    """Of s1, whose thinking goes on beyond the place where the policy closed it, and is the longest of the chain."""
    texts = ["a b", "a b c", "a b c Wait d e"]
    rows = [{"thinking_text": text, "solution_text": text, "reason": None} for text in texts]
    base, packed_rows = pack_chain(rows, [True, True, False])
    assert base == "a b c" and [row[:2] for row in packed_rows] == [[3, ""], [5, ""], [5, " Wait d e"]]


@pytest.mark.parametrize(
    ("control", "own"), [("separate", True), ("wrap_up", True), ("s1", False), ("prompt", False), ("told", False)]
)
def test_which_controls_keep_the_chain_of_a_sample(tmp_path, control, own):
    path = make_run(tmp_path / "run", "a", skill=1.0, problems=(("math", 1),), samples=1, grid=GRID[:2])
    short, long = json.loads(path.read_text())
    long |= {"control": control, "control_settings": {"instruction": "", "close": "{end}", "wrap_up_str": ""}}
    shown, blocks = page_data([Run("a", [short, long], path)], trained_budget=None, max_generations=9)
    (((base, _),),) = map(unpacked, blocks["texts"])
    rows = [json.loads(line) for line in path.with_name("generations.jsonl").read_text("utf-8").splitlines()]
    assert base == rows[own]["thinking_text"] and rows[0]["thinking_text"] != rows[1]["thinking_text"]
    assert shown["cells"][1]["forked"] == (control not in ("prompt", "told"))


@pytest.mark.parametrize("control", ["s1", "wrap_up", "prompt", "told"])
def test_controls_with_settings_have_a_mean_over_benchmarks(tmp_path, control):
    path = make_run(tmp_path / "run", "a", skill=1.0, problems=(("math", 2), ("aime", 2)), samples=1, grid=GRID[:1])
    cells = json.loads(path.read_text())
    for cell in cells:
        cell |= {"control": control, "control_settings": {"instruction": "b", "close": "c{end}", "wrap_up_str": "d"}}
    shown, _ = page_data([Run("a", cells, path)], trained_budget=None, max_generations=9)
    told = {"s1": "c</think>", "wrap_up": "d</think>"}.get(control, "</think>"), "b" * (control in ("prompt", "told"))
    assert [(cell["mean"], cell["inserted"], cell["asked"]) for cell in shown["cells"]] == [
        *([(False, *told)] * 2),
        (True, "", ""),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_common_length_is_that_of_comparing_letter_by_letter(seed):
    rng = random.Random(seed)
    text, other = ("".join(rng.choice("ab") for _ in range(rng.randint(0, 12))) for _ in range(2))
    slow = 0
    while slow < min(len(text), len(other)) and text[slow] == other[slow]:
        slow += 1
    assert common_length(text, other) == slow


def sample(run, cell, problem, number, size=100):
    return Sample(run, cell, problem, {"sample": number}, None, 0, size)


def test_what_is_chosen_is_whole_across_budgets_and_runs_and_takes_first_samples_first():
    samples = [
        sample(run, cell, problem, number)
        for run in range(2)
        for cell in range(3 * run, 3 * run + 3)
        for problem in range(10)
        for number in range(4)
    ]
    taken = chosen(samples, 100, [f"p{i}" for i in range(10)])
    groups = defaultdict(int)
    for one in taken:
        groups[one.problem, one.row["sample"]] += 1
    assert set(groups.values()) == {6} and len(groups) == 16
    assert {problem for problem, number in groups if number == 0} == set(range(10))
    assert {number for _, number in groups} == {0, 1}
    assert [one.chain for one in taken] == sorted(one.chain for one in taken)
    assert len(chosen(samples, 1, [f"p{i}" for i in range(10)])) == 6


def test_a_page_of_long_texts_ends_at_its_bytes(monkeypatch):
    monkeypatch.setattr("elastic.page.samples.PAGE_BYTES", 1000)
    samples = [sample(0, 0, problem, 0, size=300) for problem in range(10)]
    assert len(chosen(samples, 10_000, [f"p{i}" for i in range(10)])) == 3


def test_a_sample_that_was_graded_later_counts_as_then(tmp_path):
    path = make_run(tmp_path / "run", "one", skill=0.5, problems=(("math", 2),), samples=1, grid=GRID[:1])
    generations = path.with_name("generations.jsonl")
    first, second = (json.loads(line) for line in generations.read_text().splitlines())
    rows = [first | {"reward": None, "reason": "grader_failed"}, second, first | {"reward": 1.0, "reason": "correct"}]
    cut = '{"key": "one'
    generations.write_text("".join(json.dumps(row) + "\n" for row in rows) + cut)
    _, blocks = page_data(read_runs([path]), trained_budget=None, max_generations=10)
    columns = unpacked(blocks["samples"][0])
    assert columns["reward"] == [1.0, second["reward"]] and columns["reason"][0] == "correct"


def test_nothing_of_the_data_is_html_of_the_page(runs, tmp_path):
    write_page([Run("<b>A</b>", runs[0].cells, runs[0].path)], tmp_path / "report.html", trained_budget=None)
    text = (tmp_path / "report.html").read_text("utf-8")
    for hostile in (*HOSTILE, "<b>A</b>", "<i>not it</i>"):
        assert hostile not in text
    elements = re.findall(r"<script[^>]*>", text)
    assert elements.count("<script>") == 1
    assert all(re.fullmatch(r'<script( type="application/octet-stream" id="[a-z]+(-\d+)?")?>', e) for e in elements)
    assert not re.search(
        r"(src|href)=|https?://(?!www\.w3\.org/2000/svg)|url\(|@import", re.sub(r">[\w+/=]+<", "><", text)
    )


def test_results_without_generations_and_problems_make_a_page(tmp_path):
    path = make_run(tmp_path / "run", "one", skill=0.5)
    path.with_name("problems.jsonl").unlink()
    shown, blocks = page_data(read_runs([path]), trained_budget=None, max_generations=10_000)
    assert len(shown["problems"]) == 17
    assert unpacked(blocks["problems"][0])[0] == {"prompt": None, "answer": None}
    path.with_name("generations.jsonl").unlink()
    shown, blocks = page_data(read_runs([path]), trained_budget=None, max_generations=10_000)
    assert shown["problems"] == [] and blocks["texts"] == [] and unpacked(blocks["samples"][0]) == {}


def test_blocks_hold_whole_chains_and_stay_small(monkeypatch, runs):
    monkeypatch.setattr("elastic.page.samples.BLOCK_CHARACTERS", 2000)
    _, blocks = page_data(runs, trained_budget=None, max_generations=10_000)
    columns = unpacked(blocks["samples"][0])
    assert len(blocks["texts"]) > 20
    assert len(list(read_texts(columns, blocks["texts"]))) == len(columns["cell"])


def test_packed_nothing_is_nothing():
    assert packed([]) == ({}, []) and unpacked(compressed({"a": "é"})) == {"a": "é"}


def test_a_line_that_is_no_problem_is_named(tmp_path):
    (tmp_path / "problems.jsonl").write_text('{"problem_id": "1"}\n')
    with pytest.raises(ValueError, match=r"problems.jsonl line 1 is not a problem: delete the file"):
        read_problems(tmp_path / "problems.jsonl")


def test_a_report_without_room_for_generations_is_refused(tmp_path, capsys):
    path = make_run(tmp_path / "run", "one", skill=0.5, problems=(("math", 2),), samples=1, grid=GRID[:1])
    with pytest.raises(SystemExit) as stopped:
        report.main([str(path), "--max_report_generations", "0"])
    assert stopped.value.code == 2
    assert "max_report_generations is 0: give 1 or more." in capsys.readouterr().err
