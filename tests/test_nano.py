"""The nano default: its problems, tokenizer, tiny model, cold start and command."""

import json
import random
import re
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from elastic.budget import ReasoningTokens
from elastic.nano.__main__ import main
from elastic.nano.arguments import NanoArguments
from elastic.nano.chains import CHAINS, CONCISE, VERBOSE, Problem
from elastic.nano.cold_start import batches, cold_start, draw_example
from elastic.nano.model import make_model
from elastic.nano.task import draw_of_split, draw_problems, rows, split_of
from elastic.nano.tokenizer import make_tokenizer
from rewards import REWARDS

PROMPT = "<bos> 4 a *4 b +2 ? <think>"
SHORT = {"cold_start_steps": 61, "most_concise_steps": 60}
SHORT_OPTIONS = [part for name, value in SHORT.items() for part in (f"--{name}", str(value))]
SMALL_OPTIONS = ["--train_problems", "30", "--test_problems", "10", *SHORT_OPTIONS]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("nano") / "new" / "nano"
    main(["--output_dir", str(output_dir), "--seed", "3", *SMALL_OPTIONS])
    return output_dir


def answer_of(text: str) -> str:
    """The answer worked out from the text alone: Python's own precedence, one bracket a step."""
    start, *steps = text.split()
    expression = start
    for operation in steps[1::2]:
        expression = f"({expression}){operation}"
    return f"ans {eval(expression) % 7}"


def test_a_problem_worked_out_by_hand():
    problem = Problem(4, ("*4", "+2", "*3"))
    assert problem.text == "4 a *4 b +2 c *3"
    assert problem.values == [4, 2, 4, 5]
    assert problem.cores == ["a 4 *4 2", "b 2 +2 4", "c 4 *3 5"]
    assert problem.answer == "ans 5"
    assert CONCISE.write(problem, random.Random(0)) == "a 4 *4 2 b 2 +2 4 c 4 *3 5"


def test_answers_agree_with_an_independent_evaluator():
    made = rows(draw_problems(CHAINS, "train", 500, seed=1))
    assert [row["answer"] for row in made] == [answer_of(row["problem"]) for row in made]
    assert {row["answer"] for row in made} == {f"ans {n}" for n in range(7)}


def test_problems_are_the_same_for_the_same_seed():
    first = draw_problems(CHAINS, "test", 50, seed=4)
    assert first == draw_problems(CHAINS, "test", 80, seed=4)[:50]
    assert first != draw_problems(CHAINS, "test", 50, seed=5)
    assert rows(first)[0] == {"problem": "1 a +2 b +2 c *5 d *4", "answer": "ans 2"}


def test_train_and_test_are_disjoint_for_all_seeds():
    train = {p for seed in range(3) for p in draw_problems(CHAINS, "train", 2000, seed)}
    test = {p for seed in range(3) for p in draw_problems(CHAINS, "test", 2000, seed)}
    assert len(train) > 4000 and len(test) > 4000
    assert not train & test
    assert {split_of(p) for p in train} == {"train"}


def test_steps_are_drawn_uniformly_from_3_to_8():
    rng = random.Random(0)
    counts = [0] * 9
    for _ in range(6000):
        counts[len(draw_of_split(CHAINS.draw, rng, "train", 8).operations)] += 1
    assert counts[:3] == [0, 0, 0]
    assert all(880 < count < 1120 for count in counts[3:])


def test_a_verbose_chain_is_cores_checks_and_repetitions():
    rng = random.Random(0)
    concise_steps = steps = repeats = 0
    lengths = []
    for problem in draw_problems(CHAINS, "train", 1000, seed=0):
        chain = VERBOSE.write(problem, rng)
        lengths.append(len(chain.split()))
        passes = chain.split(" again ")
        repeats += len(passes) - 1
        for written in passes:
            unchecked = re.sub(r" wait check (\w \d \S\d \d) ok \.", "", written)
            assert unchecked == CONCISE.write(problem, rng)
            checks = [written.count(f"check {core} ok .") for core in problem.cores]
            assert set(checks) <= {0, 1, 2, 3}
            concise_steps, steps = concise_steps + checks.count(0), steps + len(checks)
    assert max(lengths) <= VERBOSE.most_tokens
    assert 90 < sum(lengths) / 1000 < 125
    assert 0.17 < concise_steps / steps < 0.25
    assert repeats > 250


def test_the_chat_template_opens_the_thinking(tokenizer):
    messages = [{"role": "user", "content": "4 a *4 b +2"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.convert_ids_to_tokens(ids) == PROMPT.split()
    assert ids == tokenizer.encode(PROMPT)
    reply = {"role": "assistant", "content": "<think> a 4 *4 2 b 2 +2 4 </think> ans 4"}
    whole = tokenizer.apply_chat_template([*messages, reply], return_dict=False)
    assert tokenizer.decode(whole) == f"{PROMPT} a 4 *4 2 b 2 +2 4 </think> ans 4 <eos>"
    with pytest.raises(Exception, match="roles user and assistant only, not system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "?"}])


def test_every_word_of_the_task_is_one_token(tokenizer):
    assert len(tokenizer) == 44
    rng = random.Random(0)
    for problem in draw_problems(CHAINS, "train", 200, seed=0):
        for text in (problem.text, VERBOSE.write(problem, rng), problem.answer):
            ids = tokenizer.encode(text)
            assert len(ids) == len(text.split()) and tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text
    assert tokenizer.encode("ans z") == [tokenizer.convert_tokens_to_ids("ans"), tokenizer.unk_token_id]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("4 a *4 budget 40", ["4", "a", "*4", "budget", "4", "0"]),
        ("left 7", ["left", "7"]),
        ("b +2 left 1089 2 *4", ["b", "+2", "left", "1", "0", "8", "9", "2", "*4"]),
    ],
)
def test_a_number_is_written_in_digits_and_an_operand_stays_whole(tokenizer, text, tokens):
    assert tokenizer.tokenize(text) == tokens


def test_the_markers_and_special_ids(tokenizer):
    special = tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id
    start, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert len({*special, start, end}) == 6
    tokens = ReasoningTokens.from_tokenizer(tokenizer)
    assert (tokens.start, tokens.end, tokens.bridge) == ((start,), (end,), (end,))
    assert tokens.eos == {tokenizer.eos_token_id}
    assert tokens.open(tokenizer.encode(PROMPT)) == tokenizer.encode(PROMPT)


def test_the_model_is_tiny_and_seeded(tokenizer):
    before = torch.random.get_rng_state()
    model, same, other = (make_model(CHAINS, tokenizer, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.num_parameters() == 189_024
    assert model.dtype == torch.float32
    weight = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(model.state_dict()[weight], same.state_dict()[weight])
    assert not torch.equal(model.state_dict()[weight], other.state_dict()[weight])
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def without_reminders(reply: list[str], trained: list[bool], budget: int) -> tuple[list[str], list[bool]]:
    """The reply as it was before reminders were put into it, each of which is checked."""
    words, flags, intervals, at = [], [], set(), 0
    while at < len(reply):
        if reply[at] == "left":
            digits = list(str(budget - len(words)))
            assert reply[at + 1 : at + 1 + len(digits)] == digits and budget > len(words)
            intervals.add(len(words))
            at += 1 + len(digits)
            assert not any(trained[at - 1 - len(digits) : at])
        else:
            words.append(reply[at])
            flags.append(trained[at])
            at += 1
    assert sorted(intervals) == [min(intervals) * n for n in range(1, len(intervals) + 1)] if intervals else True
    return words, flags


def test_examples_train_the_reply_or_after_a_cut_the_solution_alone():
    rng = random.Random(0)
    cut = told = reminded = 0
    for _ in range(1000):
        (user, assistant), trained = draw_example(CHAINS, 8, VERBOSE, rng)
        problem, _, budget = user["content"].partition(" budget ")
        reply = assistant["content"].split()[1:]
        told, reminded = told + bool(budget), reminded + ("left" in reply)
        assert len(trained) == len(reply) + 1 and all(trained[-3:])
        if "left" in reply:
            reply, trained = without_reminders(reply, trained, int(budget))
        chain, solution = reply[:-3], " ".join(reply[-2:])
        if all(trained):
            assert solution == answer_of(problem)
            cores = Problem(int(problem[0]), tuple(problem.split()[2::2])).cores
            assert all(core in " ".join(chain) for core in cores)
        else:
            cut += 1
            assert not any(trained[:-3])
            reached = [word for word in [problem[0], *chain] if word.isdigit()][-1]
            assert solution == f"ans {reached}"
    assert 30 < cut < 100 and 110 < told < 190 and 45 < reminded < 100


def test_batches_keep_to_their_size_and_label_only_what_is_trained(tokenizer):
    data = batches(NanoArguments(), VERBOSE, tokenizer, random.Random(0))
    reminders = 0
    for _, (input_ids_BT, labels_BT) in zip(range(60), data, strict=False):
        assert input_ids_BT.numel() <= 512
        labelled = labels_BT != -100
        assert torch.equal(labels_BT[labelled], input_ids_BT[labelled])
        assert not (labelled & (input_ids_BT == tokenizer.pad_token_id)).any()
        for ids, trained in zip(input_ids_BT.tolist(), labelled.tolist(), strict=True):
            words = tokenizer.convert_ids_to_tokens(ids)
            first, last = trained.index(True), len(trained) - 1 - trained[::-1].index(True)
            assert words[first - 1] == ("</think>" if last - first == 2 else "<think>")
            assert words[last] == "<eos>"
            left_out = [word for word, kept in zip(words[first:last], trained[first:last], strict=True) if not kept]
            assert all(word == "left" or word.isdigit() for word in left_out)
            assert left_out.count("left") == words[first:last].count("left")
            reminders += left_out.count("left")
    assert reminders > 20


def test_a_short_cold_start_lowers_the_loss_and_repeats_exactly(tokenizer):
    arguments = NanoArguments(seed=0, **SHORT)
    model, losses = cold_start(arguments, tokenizer)
    assert len(losses) == 61
    assert losses[0] > 3.3 and sum(losses[50:60]) / 10 < 2.2
    again, same_losses = cold_start(arguments, tokenizer)
    assert losses == same_losses
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_folder_loads_as_an_ordinary_model_with_the_same_logits(made):
    model = AutoModelForCausalLM.from_pretrained(made / "base")
    tokenizer = AutoTokenizer.from_pretrained(made / "base")
    expected, _ = cold_start(NanoArguments(seed=3, **SHORT), make_tokenizer())
    ids = torch.tensor([tokenizer.encode(PROMPT)])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, expected(ids).logits)
    messages = [{"role": "user", "content": "4 a *4 b +2"}]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == PROMPT
    assert ReasoningTokens.from_tokenizer(tokenizer) == ReasoningTokens.from_tokenizer(make_tokenizer())
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id


def test_the_folder_holds_the_problems_and_nothing_half_made(made):
    files = (made / "train.jsonl", made / "test.jsonl")
    train, test = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    assert train == rows(draw_problems(CHAINS, "train", 30, 3)) and test == rows(draw_problems(CHAINS, "test", 10, 3))
    assert sorted(path.name for path in made.iterdir()) == ["base", "settings.json", "test.jsonl", "train.jsonl"]
    assert list(made.parent.iterdir()) == [made]
    texts = [row["answer"] + " " for row in train]
    answers = [row["answer"] for row in train]
    assert REWARDS["exact"](completions=texts, answer=answers, solution_text=texts) == [1.0] * 30


def test_the_same_settings_use_the_folder_again(made, capsys):
    written = (made / "base" / "model.safetensors").stat().st_mtime_ns
    main(["--output_dir", str(made), "--seed", "3", *SMALL_OPTIONS])
    assert "is used again" in capsys.readouterr().out
    assert (made / "base" / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--seed", "4", *SMALL_OPTIONS], "was made with seed 3, not 4: give another --output_dir"),
        (["--train_problems", "0"], "train_problems is 0: give a whole number of 1 or more."),
        (["--learning_rate", "0"], "learning_rate is 0.0: give a number between 0 and 1"),
        (["--stepz", "9"], "stepz"),
    ],
)
def test_bad_options_get_one_sentence(made, capsys, options, sentence):
    with pytest.raises(SystemExit) as stopped:
        main(["--output_dir", str(made), *options])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path, capsys):
    (tmp_path / "base").mkdir()
    with pytest.raises(SystemExit):
        main(["--output_dir", str(tmp_path), *SMALL_OPTIONS])
    assert "which holds something else: give a new folder." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_folder_that_lost_its_model_is_refused(made, tmp_path, capsys):
    shutil.copytree(made, tmp_path / "nano", ignore=shutil.ignore_patterns("model.safetensors"))
    with pytest.raises(SystemExit):
        main(["--output_dir", str(tmp_path / "nano"), "--seed", "3", *SMALL_OPTIONS])
    assert "has lost base/model.safetensors: delete it" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_stops_before_the_cold_start(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        main(["--output_dir", str(tmp_path / "file" / "nano")])
    error = capsys.readouterr().err
    assert "which cannot be made: " in error and "cold start" not in error


def test_more_problems_than_there_are_stop_before_the_cold_start(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("elastic.nano.cold_start.cold_start", lambda *given: pytest.fail("it was trained"))
    with pytest.raises(SystemExit) as stopped:
        main(["--output_dir", str(tmp_path / "nano"), "--difficulty", "3", "--test_problems", "5000"])
    assert stopped.value.code == 2
    said = r"test_problems is 5000, and of difficulty 3 there are about 18\d\d: give fewer, or another difficulty.\n"
    assert re.search(said, capsys.readouterr().err)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("elastic.nano.__main__._write_problems", interrupt)
    with pytest.raises(KeyboardInterrupt):
        main(["--output_dir", str(tmp_path / "nano"), *SMALL_OPTIONS])
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch():
    program = (
        "import sys\nfrom elastic.nano.__main__ import main\n"
        "try:\n    main(['--help'])\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0 and "--cold_start_steps" in result.stdout and "--difficulty" in result.stdout
    assert result.stderr.strip().endswith("False")
