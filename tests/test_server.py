"""ServerEngine against servers of our own: some give token ids as vLLM does, some know the protocol only."""

import json
import os
import random
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from reference import reference_rollout, segments
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from trainer_fixtures import save_model, write_problems
from transformers import PreTrainedTokenizerFast

from elastic import evaluate
from elastic.budget import Budget, ReasoningTokens
from elastic.engines import server
from elastic.engines.requested import EngineError
from elastic.engines.server import ServerEngine, first_model
from elastic.nano.tokenizer import make_tokenizer
from elastic.rollout import Sampling

TOKENIZER = make_tokenizer()
TOKENS = ReasoningTokens.from_tokenizer(TOKENIZER)
GREEDY = Sampling(temperature=0)
CONTEXT = 80
PROTOCOL = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "logprobs"}


def choose(ids):
    """The model: the next token as a function of all before it, markers and EOS among the frequent ones."""
    rng = random.Random(str(list(ids)))
    return rng.choice([rng.randrange(len(TOKENIZER)), *TOKENS.end, *TOKENS.eos, *range(12, 30), *TOKENS.start])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"object": "list", "data": [{"id": "small", "object": "model"} | self.server.of_model]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        if self.server.failures:
            return self.answer({"message": "busy"}, status=self.server.failures.pop(0))
        if self.server.strict and asked.keys() - PROTOCOL:
            return self.answer({"message": f"unknown: {sorted(asked.keys() - PROTOCOL)}"}, status=400)
        stops = TOKENS.eos if self.server.plain else asked.get("stop_token_ids", TOKENS.eos)
        ids, finish = list(asked["prompt"]), "length"
        for _ in range(asked["max_tokens"]):
            ids.append(choose(ids))
            if ids[-1] in stops:
                finish = "stop"
                break
        sampled = ids[len(asked["prompt"]) :]
        shown = sampled[:-1] if self.server.plain and finish == "stop" else sampled
        choice = {"index": 0, "text": TOKENIZER.decode(shown), "finish_reason": finish, "logprobs": None}
        if not self.server.plain:
            choice["token_ids"] = sampled
        if asked.get("logprobs") is not None:
            own = [TOKENIZER.decode([token]) for token in shown]
            texts = own if self.server.texts is None else self.server.texts
            choice["logprobs"] = {"tokens": texts, "token_logprobs": [-0.5] * len(shown)}
        self.answer(
            {
                "id": "1",
                "object": "text_completion",
                "created": 0,
                "model": "small",
                "choices": [choice] * self.server.choices,
            }
        )

    def answer(self, content, status=200):
        body = b"<html>hello</html>" if self.server.html else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if self.server.html else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """`plain`: the protocol only; `strict`: refuses what is not in it; `failures`: statuses to give first."""

    daemon_threads = True

    def __init__(self, plain=False, strict=False, of_model=None, texts=None, html=False, choices=1):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plain, self.strict, self.of_model, self.texts = plain, strict, of_model or {}, texts
        self.html, self.choices = html, choices
        self.failures, self.asked = [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def serve():
    servers = []

    def start(**options):
        servers.append(Server(**options))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for running in servers:
        running.shutdown()
        running.server_close()


def engine_of(served, **options):
    return ServerEngine(served.url, TOKENS, tokenizer=TOKENIZER, context_length=CONTEXT, **options)


def make_rows(count):
    rng = random.Random(0)
    prompts = [[1, *rng.choices(range(6, 30), k=rng.randrange(1, 9)), *TOKENS.start] for _ in range(count)]
    budgets = [rng.choice([Budget(rng.randrange(12), rng.randrange(9)), Budget(total=30), Budget(4)]) for _ in prompts]
    return prompts, budgets


KINDS = {"vllm": {}, "plain": {"plain": True}, "strict": {"plain": True, "strict": True}}


@pytest.mark.parametrize("kind", KINDS)
def test_rollouts_are_the_references(serve, kind):
    served = serve(**KINDS[kind])
    engine = engine_of(served)
    assert engine.gives_ids == (kind == "vllm")
    prompts, budgets = make_rows(200)
    rollouts = engine.generate(prompts, budgets, GREEDY)
    expected = [
        reference_rollout(choose, prompt, budget, TOKENS, CONTEXT)
        for prompt, budget in zip(prompts, budgets, strict=True)
    ]
    assert [segments(rollout) for rollout in rollouts] == expected
    assert {rollout["reason"] for rollout in expected} == {"natural", "budget", "eos", "length"}


def test_what_is_asked_of_vllm(serve):
    served = serve()
    sampling = Sampling(temperature=0.6, top_p=0.9, top_k=5, min_p=0.1)
    engine_of(served, logprobs=True).generate([[1, 4]], [Budget(3, 2)], sampling, seed=1)
    asked = served.asked[1]
    assert asked["prompt"] == [1, 4] and asked["max_tokens"] == 3 and asked["logprobs"] == 0
    assert (asked["temperature"], asked["top_p"], asked["top_k"], asked["min_p"]) == (0.6, 0.9, 5, 0.1)
    assert asked["ignore_eos"] and asked["stop_token_ids"] == sorted({*TOKENS.end, *TOKENS.eos})


def test_logprobs_come_beside_the_ids(serve):
    (rollout,) = engine_of(serve(), logprobs=True).generate([[1, 9, 4]], [Budget(3, 2)], Sampling(temperature=0.6))
    assert rollout.logprobs == [-0.5] * rollout.completion_tokens and rollout.raw_logprobs is None
    (rollout,) = engine_of(serve(), logprobs=True).generate([[1, 9, 4]], [Budget(3, 2)], Sampling())
    assert rollout.raw_logprobs == rollout.logprobs


def test_the_servers_context_and_model_are_asked_for(serve):
    served = serve(of_model={"max_model_len": 20})
    engine = engine_of(served)
    assert (engine.context_length, engine.model) == (20, "small")
    with pytest.raises(ValueError, match="does not fit the model's context of 20"):
        engine.generate([[1] * 20], [Budget(4, 4)], GREEDY)
    assert engine_of(served, model="small").model == "small"
    with pytest.raises(EngineError, match="has no model 'large': it has small"):
        engine_of(served, model="large")


def test_a_server_that_is_busy_is_asked_again(serve, monkeypatch):
    served = serve()
    engine = engine_of(served)
    prompts, budgets = make_rows(4)
    undisturbed = engine.generate(prompts, budgets, GREEDY)
    served.failures = [429, 503, 500]
    assert engine.generate(prompts, budgets, GREEDY) == undisturbed


def test_what_cannot_be_had_is_one_sentence(serve, monkeypatch):
    monkeypatch.setattr(server, "_RETRIES", 0)
    with pytest.raises(EngineError, match=r"The server at http://127.0.0.1:9 cannot be reached \(.*\): start it"):
        ServerEngine("http://127.0.0.1:9/v1/", TOKENS)
    with pytest.raises(EngineError, match="gives no token ids: serve the model with vLLM"):
        ServerEngine(serve(plain=True).url, TOKENS)
    with pytest.raises(EngineError, match=r"top_k is 5 and min_p is 0\.0, which are not in the protocol"):
        engine_of(serve(plain=True)).generate([[1, 4]], [Budget(1, 1)], Sampling(top_k=5))
    with pytest.raises(EngineError, match="gave the token 'unheard', which is none or several of the tokenizer's"):
        engine_of(serve(plain=True, texts=["unheard"])).generate([[1, 4]], [Budget(1, 1)], Sampling())
    with pytest.raises(EngineError, match="has not the OpenAI protocol"):
        ServerEngine(serve(html=True).url, TOKENS)
    with pytest.raises(EngineError, match="a completion without a choice"):
        engine_of(serve(choices=0))
    with pytest.raises(EngineError, match="gave no token for a request"):
        engine_of(serve(plain=True, texts=[])).generate([[1, 4]], [Budget(1, 1)], Sampling())
    served = serve()
    served.failures = [503]
    with pytest.raises(EngineError, match=r"answered 503: .*busy"):  # it is not taken for one of the protocol only
        engine_of(served)
    served = serve()
    engine = engine_of(served)
    served.failures = [400]
    with pytest.raises(EngineError, match=r"answered 400: .*busy"):
        engine.generate([[1, 4]], [Budget(1, 1)], Sampling())


def test_what_had_finished_when_the_server_fails_has_been_told(serve, monkeypatch):
    monkeypatch.setattr(server, "_RETRIES", 0)
    served, told = serve(), []
    engine = engine_of(served, concurrency=1)
    prompts, budgets = make_rows(20)

    def fail_soon(row, rollout):
        told.append(row)
        if len(told) == 8:
            served.failures = [500]

    with pytest.raises(EngineError, match="answered 500"):
        engine.generate(prompts, budgets, GREEDY, on_rollout=fail_soon)
    assert 8 <= len(told) < 20


def test_what_on_rollout_and_on_step_raise_ends_it(serve):
    def fail(*_):
        raise LookupError("enough")

    engine = engine_of(serve())
    with pytest.raises(LookupError, match="enough"):
        engine.generate(*make_rows(4), GREEDY, on_rollout=fail)
    with pytest.raises(LookupError, match="enough"):
        engine.generate(*make_rows(4), GREEDY, on_step=fail)


def test_an_interruption_by_the_keyboard_ends_it(serve):
    engine = engine_of(serve())
    with pytest.raises(KeyboardInterrupt):
        engine.generate(*make_rows(4), GREEDY, on_step=lambda: os.kill(os.getpid(), signal.SIGINT))


def test_texts_that_several_tokens_share_are_refused(serve):
    """A tokenizer of bytes gives each part of a character the same text, from which no id can be told."""
    core = Tokenizer(BPE({character: i for i, character in enumerate(sorted(ByteLevel.alphabet()))}, []))
    core.pre_tokenizer, core.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == tokenizer.decode(tokenizer.encode("ü")[1:]) == "\ufffd"
    served = serve(plain=True, texts=["\ufffd"])
    engine = ServerEngine(served.url, TOKENS, tokenizer=tokenizer, context_length=CONTEXT)
    with pytest.raises(EngineError, match="which is none or several of the tokenizer's"):
        engine.generate([[1, 4]], [Budget(1, 1)], Sampling())


def test_the_first_model_is_named(serve):
    assert first_model(serve().url + "/v1/") == "small"


@pytest.fixture
def command(tmp_path):
    """The command line of an evaluation of two budgets, to which the server's address is added."""
    model, problems = save_model(tmp_path / "model"), write_problems(tmp_path / "problems.jsonl", 6)
    return [
        *("--model_name_or_path", model, "--dataset_name", problems, "--answer_column", "answer", "--reward", "exact"),
        *("--num_generations", "2", "--thinking_token_budgets", "3", "9", "--solution_token_budget", "5"),
        *("--output_dir", str(tmp_path / "out"), "--engine", "server"),
    ]


def test_an_evaluation_says_whose_samples_they_are(serve, command, tmp_path, capsys):
    served = serve()
    evaluate.main([*command, "--base_url", served.url])
    assert f"The samples are of the model small at {served.url}." in capsys.readouterr().err
    cells = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [cell["served_model_name"] for cell in cells] == ["small", "small"]
    asked = len(served.asked)
    evaluate.main([*command, "--base_url", serve(of_model={"id": "other"}).url])
    other = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {cell["key"] for cell in other}.isdisjoint(cell["key"] for cell in cells)
    evaluate.main([*command, "--base_url", served.url])
    assert len(served.asked) == asked


def test_a_server_with_less_context_than_the_budgets_is_one_sentence(serve, command, capsys):
    with pytest.raises(SystemExit) as exit:
        evaluate.main([*command, "--base_url", serve(of_model={"max_model_len": 16}).url])
    said = capsys.readouterr().err
    assert exit.value.code == 2 and "does not fit the model's context of 16" in said and "Traceback" not in said
