"""Separate budgets from a vLLM server: the answers are the rollouts of the transformers engine, token for token."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from serving_requests import CUT, MOST_TOKENS, PLUGIN, ask, load, make_requests
from vllm_models import TOKENIZER, TOKENS, load_hf, load_llm, save_model

from elastic.budget import Budget
from elastic.engines.transformers import TransformersEngine
from elastic.rollout import Sampling

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "launch" / "serve.sh"
EOS = TOKENIZER.eos_token_id


@pytest.fixture(scope="module")
def requests():
    return make_requests(216)


@pytest.fixture(scope="module")
def rollouts(model_dir, requests):
    """Of the transformers engine, greedily."""
    engine = TransformersEngine(load_hf(model_dir), TOKENS, pad_token_id=0, max_batch_tokens=10**5)
    return engine.generate(*zip(*requests, strict=True), Sampling(temperature=0))


@pytest.fixture(scope="module")
def served(model_dir):
    return load(model_dir)


def is_cut(rollout) -> bool:
    return rollout.solution_tokens == rollout.budget.solution and str(rollout.finish_reason) == "length"


def expected(rollout, stop_token_id: int) -> list[int]:
    """The ids of an answer; max_tokens counts the bridge and the forced token, as the total of a budget does not."""
    return [*rollout.completion_ids, *([stop_token_id] if is_cut(rollout) else [])][:MOST_TOKENS]


def test_the_rollouts_meet_every_way_to_end(rollouts):
    ways = {(str(rollout.thinking_stop_reason), is_cut(rollout)) for rollout in rollouts}
    assert ways >= {("natural", True), ("budget", True), ("budget", False), ("eos", False), ("length", False)}
    assert any(rollout.reopened for rollout in rollouts)


def test_greedy_answers_are_the_rollouts(served, requests, rollouts):
    answers = ask(served, requests)
    assert [answer["ids"] for answer in answers] == [expected(rollout, EOS) for rollout in rollouts]


def test_with_a_stop_token_of_its_own_an_answer_says_that_it_was_cut(served, requests, rollouts):
    answers = ask(served, requests, stop_token_ids=[CUT], solution_stop_token_id=CUT)
    pairs = [pair for pair in zip(answers, rollouts, strict=True) if CUT not in pair[1].completion_ids]
    assert len(pairs) > 100
    for answer, rollout in pairs:
        assert answer["ids"] == expected(rollout, CUT)
        assert (answer["stop_reason"] == CUT) == (is_cut(rollout) and answer["finish_reason"] == "stop")


def test_the_thinking_budget_of_vllm_and_our_solution_budget(served, requests, rollouts):
    """The same, but where a solution opens its thinking again, and beside requests without a thinking budget."""
    rows = [row for row, rollout in enumerate(rollouts) if rollout.budget.thinking != -1 and not rollout.reopened]
    assert len(rows) > 100
    answers = ask(served, [requests[row] for row in rows], native=True)
    assert [answer["ids"] for answer in answers] == [expected(rollouts[row], EOS) for row in rows]


def test_the_v2_model_runner_gives_the_same_answers(model_dir, requests, rollouts):
    """By Triton's interpreter, in a process of its own."""
    count = 36
    program = [sys.executable, Path(__file__).with_name("serving_requests.py"), model_dir, str(count)]
    done = subprocess.run(program, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    assert [answer["ids"] for answer in answers] == [expected(rollout, EOS) for rollout in rollouts[:count]]


def test_a_marker_inside_the_prompt_opens_nothing(served):
    """As a user's message may hold one: an answer that does not begin with the marker is all solution."""
    prompts = [[1, *TOKENS.start, word] for word in range(6, 16)]
    free, asked = (ask(served, [(prompt, Budget(thinking, -1)) for prompt in prompts]) for thinking in (-1, 2))
    plain = [row for row, answer in enumerate(free) if answer["ids"][0] != TOKENS.start[0]]
    assert len(plain) > 3
    assert [asked[row]["ids"] for row in plain] == [free[row]["ids"] for row in plain]


def test_without_markers_the_plugin_says_what_is_missing(model_dir):
    with pytest.raises(ValueError, match="TokenBudgets needs the reasoning markers: add --reasoning-config"):
        load_llm(model_dir, logits_processors=[PLUGIN])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"extra_args": {"solution_token_budget": -5}}, "solution_token_budget is -5: give a whole number"),
        ({"extra_args": {"thinking_token_budget": 1}, "thinking_token_budget": 1}, "given twice"),
        (
            {"extra_args": {"solution_token_budget": 1, "solution_stop_token_id": 9}},
            "solution_stop_token_id is 9, which ends no answer: add it to stop_token_ids",
        ),
        ({"extra_args": {"solution_token_budget": 1}, "ignore_eos": True}, "add a solution_stop_token_id"),
        ({"extra_args": {"solution_token_budget": 1}, "structured_outputs": {"regex": "a"}}, "use max_tokens for them"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(served, parameters, message):
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import StructuredOutputsParams

    if "structured_outputs" in parameters:
        parameters = parameters | {"structured_outputs": StructuredOutputsParams(**parameters["structured_outputs"])}
    with pytest.raises(VLLMValidationError, match=message):
        served.generate([{"prompt_token_ids": [1, 9]}], SamplingParams(**parameters), use_tqdm=False)
    assert not served.llm_engine.has_unfinished_requests()


class Server:
    """launch/serve.sh in a process group of its own, on a free port of the loopback."""

    def __init__(self, model_dir: Path, log: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"localhost:{probe.getsockname()[1]}"
        self.log = log
        options = ["--dtype", "float32", "--enforce-eager", "--port", self.address.partition(":")[2]]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.process = subprocess.Popen(
            ["bash", SERVE, model_dir, *options],
            env=os.environ | {"PATH": path, "VLLM_LOGGING_LEVEL": "INFO"},
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self) -> None:
        for _ in range(1000):
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://{self.address}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(self.log.read_text()[-3000:])

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def run(self, command: str) -> dict:
        """The reply to a documented command, but for its port."""
        assert command.count("localhost:8000") == 1
        command = command.replace("localhost:8000", self.address)
        return json.loads(subprocess.run(command, shell=True, capture_output=True, check=True).stdout)

    def post(self, path: str, body: dict) -> tuple[int, dict]:
        request = urllib.request.Request(
            f"http://{self.address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def endless_dir(tmp_path_factory):
    """A model that ends neither its thinking nor its answer, so that every budget is spent."""
    folder = save_model(tmp_path_factory.mktemp("endless"))
    model = load_hf(folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(10)
        model.lm_head.weight[[EOS, *TOKENS.end]] = 0
    model.config.max_position_embeddings = 2048
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(endless_dir, tmp_path_factory):
    server = Server(endless_dir, tmp_path_factory.mktemp("server") / "log")
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def documented():
    """The requests that `serve.sh --help` shows."""
    said = subprocess.run(["bash", SERVE, "--help"], capture_output=True, text=True, check=True).stdout
    requests = re.findall(r"curl .*?}'$", said, re.DOTALL | re.MULTILINE)
    assert len(requests) == 2
    return requests


def chat_ids(server, command: str) -> tuple[list[int], dict]:
    """What the request of a documented command samples, by ids, and the choice that the reply holds."""
    body = json.loads(shlex.split(command)[-1])
    status, reply = server.post("/v1/chat/completions", body | {"return_token_ids": True})
    assert status == 200, reply
    return reply["choices"][0]["token_ids"], reply["choices"][0]


def test_the_documented_request_for_a_thinking_budget(server, documented):
    reply = server.run(documented[0])
    assert (reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 1024)
    ids, _ = chat_ids(server, documented[0])
    assert (ids[512:513], ids.count(TOKENS.end[0])) == (list(TOKENS.end), 1)


def test_the_documented_request_for_a_solution_budget(server, documented):
    reply = server.run(documented[1])
    assert (reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]) == ("stop", 512 + 1 + 128 + 1)
    ids, choice = chat_ids(server, documented[1])
    assert (ids[512], ids[-1], choice["stop_reason"]) == (*TOKENS.end, EOS, None)


def test_a_completion_says_that_it_was_cut(server):
    """From text that opens its thinking, over the other path of the server."""
    budgets = {"thinking_token_budget": 5, "solution_token_budget": 3, "solution_stop_token_id": CUT}
    body = {"prompt": "<bos> 4 a *4 ? <think>", "add_special_tokens": False, "return_token_ids": True}
    status, reply = server.post("/v1/completions", body | {"vllm_xargs": budgets, "stop_token_ids": [CUT]})
    ids, choice = reply["choices"][0]["token_ids"], reply["choices"][0]
    assert (status, len(ids), ids[5], ids[-1]) == (200, 5 + 1 + 3 + 1, *TOKENS.end, CUT)
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", CUT)
    assert len(choice["text"].split()) == 5 + 3


def test_a_bad_request_is_answered_in_one_sentence(server):
    body = {"prompt": "4 a", "vllm_xargs": {"solution_token_budget": -7}}
    status, reply = server.post("/v1/completions", body)
    assert status == 400
    assert reply["error"]["message"].startswith("solution_token_budget is -7: give a whole number of tokens")
