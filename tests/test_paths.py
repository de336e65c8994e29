"""The task paths: its graphs, searches, guesses, tokenizer, model and command."""

import json
import random
import re
from collections import Counter
from itertools import islice, pairwise
from statistics import mean

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from elastic.nano.__main__ import main
from elastic.nano.arguments import NanoArguments
from elastic.nano.cold_start import batches, cold_start, draw_example
from elastic.nano.model import make_model
from elastic.nano.paths import CONCISE, DEPTHS, PATHS, STARTS, VERBOSE, Problem, guess
from elastic.nano.task import draw_problems, rows, split_of
from elastic.nano.tokenizer import make_tokenizer

PROBLEM = Problem((("c", "d"), ("a", "b"), ("b", "x"), ("d", "y")), "y", ("a", "c"))
SHORT = {"cold_start_steps": 12, "most_concise_steps": 11, "batch_tokens": 512}
OPTIONS = [part for name, value in SHORT.items() for part in (f"--{name}", str(value))]
OPTIONS += ["--task", "paths", "--train_problems", "30", "--test_problems", "10"]


class Graph:
    """A problem as its text alone tells it."""

    def __init__(self, text: str):
        edges, self.goal, starts = re.fullmatch(r"(.*) goal (\w) from (.*)", text).groups()
        self.children = {}
        for parent, child in (edge.split(">") for edge in edges.split()):
            self.children.setdefault(parent, []).append(child)
        numbered = [start.split(">") for start in starts.split()]
        assert [number for number, _ in numbered] == list("123456")[: len(numbered)]
        self.starts = [start for _, start in numbered]

    def depths(self, start: str) -> dict[str, int]:
        """Every node that can be reached from `start`, and after how many edges."""
        depths, waiting = {start: 0}, [start]
        for node in waiting:
            for child in self.children.get(node, ()):
                assert child not in depths
                depths[child] = depths[node] + 1
                waiting.append(child)
        return depths

    @property
    def answer(self) -> str:
        (number,) = [n for n, start in enumerate(self.starts, start=1) if self.goal in self.depths(start)]
        return f"ans {number}"

    def check_search(self, words: list[str]) -> str:
        """Every word follows from the ones before it; returns how the search ended: `found` or `eliminated`."""
        tried, node = 0, None
        for at, word in enumerate(words):
            if word == "found":
                assert node == self.goal and at == len(words) - 1
                return "found"
            if word == "dead":
                assert node and node not in self.children and node != self.goal
                node = None
            elif node:
                parent, child = word.split(">")
                assert parent == node and child in self.children[parent]
                node = child
            elif ">" not in word:
                assert word == str(tried + 1) and (at == 0 or words[at - 1] == "dead")
            else:
                assert word == f"{words[at - 1]}>{self.starts[tried]}"
                tried, node = tried + 1, self.starts[tried]
        assert words[-1] == "dead" and tried == len(self.starts) - 1
        return "eliminated"


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(PATHS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("paths") / "paths"
    main(["--output_dir", str(output_dir), "--seed", "3", *OPTIONS])
    return output_dir


def test_a_problem_worked_out_by_hand():
    assert PROBLEM.text == "c>d a>b b>x d>y goal y from 1>a 2>c"
    assert PROBLEM.answer == "ans 2"
    written = {CONCISE.write(PROBLEM, random.Random(seed)) for seed in range(40)}
    ruled_out = "1 1>a a>b b>x dead"
    assert written == {ruled_out, f"{ruled_out} 2 2>c c>d d>y found"}


@pytest.mark.parametrize("difficulty", DEPTHS)
def test_exactly_one_start_leads_to_the_goal_and_at_the_depth_that_is_asked_for(difficulty):
    answers = Counter()
    for row in rows(draw_problems(PATHS, "train", 300, 1, difficulty)):
        graph = Graph(row["problem"])
        assert row["answer"] == graph.answer
        answers[graph.answer] += 1
        depths = [graph.depths(start) for start in graph.starts]
        assert len(depths) == STARTS and sum(map(len, depths)) == len(set().union(*depths))
        right = int(graph.answer.split()[1]) - 1
        assert depths[right][graph.goal] == max(depths[right].values()) == difficulty
        assert {max(d.values()) for d in depths} <= set(range(max(1, difficulty - 2), difficulty + 1))
        assert graph.goal not in graph.children
    assert len(answers) == STARTS and min(answers.values()) > 30


def test_a_deeper_goal_needs_a_longer_search():
    lengths = {depth: [] for depth in DEPTHS}
    for depth in DEPTHS:
        rng = random.Random(0)
        for problem in draw_problems(PATHS, "train", 300, 0, depth):
            lengths[depth].append(len([word for word in CONCISE.write(problem, rng).split() if ">" in word]))
    means = [mean(lengths[depth]) for depth in DEPTHS]
    assert all(longer > shorter + 1 for shorter, longer in pairwise(means))


def test_problems_are_the_same_for_the_same_seed_and_on_one_side_for_all_seeds():
    first = draw_problems(PATHS, "test", 50, seed=4)
    assert first == draw_problems(PATHS, "test", 80, seed=4)[:50]
    assert first != draw_problems(PATHS, "test", 50, seed=5)
    assert {split_of(problem) for problem in first} == {"test"}
    assert {split_of(problem) for problem in draw_problems(PATHS, "train", 200, seed=4)} == {"train"}


@pytest.mark.parametrize("style", [CONCISE, VERBOSE], ids=["concise", "verbose"])
def test_a_search_is_what_the_graph_allows(style):
    rng, ends, checks, edges = random.Random(0), Counter(), 0, 0
    lengths = []
    for problem in draw_problems(PATHS, "train", 600, seed=0):
        chain = style.write(problem, rng)
        lengths.append(len(chain.split()))
        graph = Graph(problem.text)
        for search in chain.split(" again "):
            core = re.sub(r"(\S>\w)((?: wait check \1 ok \.)+)", r"\1", search)
            ends[graph.check_search(core.split())] += 1
            edges += core.count(">")
            checks += search.count("check")
    assert max(lengths) <= VERBOSE.most_tokens
    assert ends["eliminated"] > 10 and ends["found"] > 500
    if style is CONCISE:
        assert checks == 0 and sum(ends.values()) == 600 and 20 < mean(lengths) < 24
    else:
        assert 0.8 < checks / edges < 1 and sum(ends.values()) > 620 and 88 < mean(lengths) < 108


def test_a_guess_is_any_start_or_the_one_that_is_tried():
    rng = random.Random(0)
    chain = ["1", "1>a", "a>b", "wait", "check", "a>b", "ok", ".", "b>x", "dead", "2", "2>c"]
    many = Problem(PROBLEM.edges, "y", tuple("acfghi"))
    guesses = Counter(guess(many, chain, rng) for _ in range(2000))
    assert set(guesses) == {f"ans {number}" for number in range(1, 7)}
    assert 0.53 < guesses["ans 2"] / 2000 < 0.63
    assert all(0.06 < guesses[f"ans {number}"] / 2000 < 0.11 for number in (1, 3, 4, 5, 6))
    assert 0.13 < Counter(guess(many, [], rng) for _ in range(2000))["ans 1"] / 2000 < 0.2


def test_examples_after_a_cut_train_the_guess_alone():
    rng, cut = random.Random(0), []
    for _ in range(1000):
        (user, assistant), trained = draw_example(PATHS, 4, VERBOSE, rng)
        solution = assistant["content"].rpartition("</think> ")[2]
        if trained[-4]:
            assert solution == Graph(user["content"].partition(" budget ")[0]).answer
        else:
            assert sum(trained) == 3
            cut.append(solution == Graph(user["content"].partition(" budget ")[0]).answer)
    assert 70 < len(cut) < 130 and 0 < mean(cut) < 0.5


def test_every_word_of_the_task_is_one_token(tokenizer):
    rng = random.Random(0)
    for problem in draw_problems(PATHS, "train", 200, seed=0):
        for text in (problem.text, VERBOSE.write(problem, rng), problem.answer):
            assert tokenizer.tokenize(text) == text.split()
    told = "goal a from 1>a 6>b budget 40"
    assert tokenizer.tokenize(told) == told.replace("40", "4 0").split()


def test_an_edge_starts_as_the_sum_of_its_nodes(tokenizer):
    model = make_model(PATHS, tokenizer, 0)
    assert 1e6 < model.num_parameters() < 5e6
    embeddings_VD = model.get_input_embeddings().weight
    names = ("a>b", "a>c", "d>b", "d>c", "b", "c")
    edge = {name: embeddings_VD[tokenizer.convert_tokens_to_ids(name)] for name in names}
    torch.testing.assert_close(edge["a>b"] - edge["a>c"], edge["b"] - edge["c"])
    torch.testing.assert_close(edge["a>b"] - edge["d>b"], edge["a>c"] - edge["d>c"])
    assert (edge["a>b"] - edge["d>b"]).norm() > 0.5


def test_batches_keep_to_their_size(tokenizer):
    arguments = NanoArguments(task="paths", **SHORT)
    data = batches(arguments, VERBOSE, tokenizer, random.Random(0))
    for input_ids_BT, labels_BT in islice(data, 20):
        assert input_ids_BT.numel() <= 512 and (labels_BT != -100).any(1).all()
        assert tokenizer.unk_token_id not in input_ids_BT


def test_the_folder_holds_the_task_and_its_model(made):
    files = (made / "train.jsonl", made / "test.jsonl")
    train, test = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    assert train == rows(draw_problems(PATHS, "train", 30, 3)) and test == rows(draw_problems(PATHS, "test", 10, 3))
    settings = json.loads((made / "settings.json").read_text())
    assert (settings["task"], settings["difficulty"], settings["batch_tokens"]) == ("paths", 4, 512)
    assert settings["learning_rate"] == PATHS.cold_start.learning_rate
    model = AutoModelForCausalLM.from_pretrained(made / "base")
    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    expected, losses = cold_start(NanoArguments(task="paths", seed=3, **SHORT), make_tokenizer(PATHS))
    ids = torch.tensor([tokenizer.encode(train[0]["problem"])])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, expected(ids).logits)
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--task", "trees"], "task is 'trees': give one of chains, paths."),
        (["--task", "paths", "--difficulty", "7"], "difficulty is 7: paths has 2 to 5."),
        (["--difficulty", "2"], "difficulty is 2: chains has 3 to 8."),
        (["--task", "paths", "--batch_tokens", "8"], "batch_tokens is 8: give a whole number of 512 or more."),
        (["--task", "paths", "--difficulty", "5", "--seed", "3", *OPTIONS], "was made with difficulty 4, not 5"),
    ],
)
def test_bad_options_get_one_sentence(made, capsys, options, sentence):
    with pytest.raises(SystemExit) as stopped:
        main(["--output_dir", str(made), *options])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


def test_chains_have_as_many_steps_as_the_difficulty_allows(tmp_path, capsys):
    options = ["--train_problems", "60", "--test_problems", "5", "--cold_start_steps", "1", "--difficulty", "4"]
    main(["--output_dir", str(tmp_path / "made"), *options])
    texts = [json.loads(line)["problem"] for line in (tmp_path / "made" / "train.jsonl").read_text().splitlines()]
    assert {len(text.split()) // 2 for text in texts} == {3, 4}
    tested = [
        json.loads(line)["problem"].split() for line in (tmp_path / "made" / "test.jsonl").read_text().splitlines()
    ]
    mean, most = sum(map(len, tested)) / 5, max(map(len, tested))
    assert f"A test problem has {mean:.1f} tokens (at most {most}); thinking" in capsys.readouterr().out
