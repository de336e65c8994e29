import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from vllm_models import CONTEXT, TOKENIZER, TOKENS, load_hf, load_llm

from elastic.budget import Budget, ReasoningTokens, Reminders
from elastic.engines.transformers import TransformersEngine
from elastic.engines.vllm import VLLMEngine, closes_thinking_itself
from elastic.rollout import Sampling

GREEDY = Sampling(temperature=0)
MARKERS = {"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}


def make_prompts(count, seed=0, opened=True):
    rng = random.Random(seed)
    words = range(6, len(TOKENIZER))
    prompts = [[1, *rng.choices(words, k=rng.randrange(1, 40))] for _ in range(count)]
    return [[*prompt, *TOKENS.start] for prompt in prompts] if opened else prompts


def make_budgets(count, seed=0):
    rng = random.Random(seed)
    kinds = [
        lambda: Budget(0, rng.randrange(1, 9)),
        lambda: Budget(rng.randrange(1, 9), rng.randrange(9)),
        lambda: Budget(rng.randrange(16, 70), rng.randrange(1, 20)),
        lambda: Budget(rng.randrange(1, 9), rng.randrange(20, 60)),
        lambda: Budget(-1, 5, total=rng.randrange(1, 80)),
        lambda: Budget(6, -1, total=50),
        lambda: Budget(total=60),
        lambda: Budget(30, 4, carry_over=True),
    ]
    return [kinds[i % len(kinds)]() for i in range(count)]


def segments(rollout):
    return (
        list(rollout.thinking_ids),
        list(rollout.bridge_ids),
        list(rollout.solution_ids),
        str(rollout.thinking_stop_reason),
        str(rollout.finish_reason),
    )


@pytest.fixture(scope="module")
def hf_model(model_dir):
    return load_hf(model_dir)


def engine_of(hf_model, tokens=TOKENS):
    return TransformersEngine(hf_model, tokens, pad_token_id=0, max_batch_tokens=10**5)


@torch.no_grad()
def full_logprobs(model, rollout, temperature=1.0):
    """Of the sampled tokens, by one forward pass over the whole sequence."""
    ids = [*rollout.prompt_ids, *rollout.completion_ids]
    logits = model(torch.tensor([ids])).logits[0].float() / temperature
    logprobs = torch.log_softmax(logits, dim=-1)
    first = len(rollout.prompt_ids)
    return [
        logprobs[first + place - 1, token].item()
        for place, (token, own) in enumerate(zip(rollout.completion_ids, rollout.env_mask, strict=True))
        if own
    ]


@pytest.mark.parametrize("opened", [True, False])
def test_greedy_rollouts_are_those_of_the_transformers_engine(llm, hf_model, opened):
    prompts, budgets = make_prompts(64, opened=opened), make_budgets(64)
    ours = VLLMEngine(llm, TOKENS).generate(prompts, budgets, GREEDY)
    theirs = engine_of(hf_model).generate(prompts, budgets, GREEDY)
    assert [segments(rollout) for rollout in ours] == [segments(rollout) for rollout in theirs]
    assert {str(rollout.thinking_stop_reason) for rollout in ours} >= {"natural", "budget", "eos", "length"}
    for rollout, reference in zip(ours, theirs, strict=True):
        assert rollout.logprobs == pytest.approx(reference.logprobs, abs=1e-4)


def test_markers_of_several_tokens(llm, hf_model):
    one, two, three = TOKENIZER.convert_tokens_to_ids(["a", "b", "ok"])
    tokens = ReasoningTokens(
        start=TOKENS.start, end=(one, two), bridge=(three, one, two), eos=TOKENS.eos, opened=TOKENS.opened
    )
    prompts, budgets = make_prompts(64, seed=1), make_budgets(64, seed=1)
    ours = VLLMEngine(llm, tokens).generate(prompts, budgets, GREEDY)
    theirs = engine_of(hf_model, tokens).generate(prompts, budgets, GREEDY)
    assert [segments(rollout) for rollout in ours] == [segments(rollout) for rollout in theirs]
    assert any(one in rollout.thinking_ids and rollout.thinking_stop_reason != "natural" for rollout in ours)


def test_reminders_of_what_is_left(llm, hf_model):
    tokens = dataclasses.replace(TOKENS, reminders=Reminders.from_tokenizer(TOKENIZER, 7, "left {tokens}"))
    prompts, budgets = make_prompts(64, seed=4), make_budgets(64, seed=4)
    ours = VLLMEngine(llm, tokens).generate(prompts, budgets, GREEDY)
    theirs = engine_of(hf_model, tokens).generate(prompts, budgets, GREEDY)
    assert [segments(rollout) for rollout in ours] == [segments(rollout) for rollout in theirs]
    assert sum(len(rollout.interjected) > 4 for rollout in ours) >= 5
    for rollout, reference in zip(ours, theirs, strict=True):
        assert list(rollout.interjected) == list(reference.interjected)
        assert rollout.logprobs == pytest.approx(reference.logprobs, abs=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.6), Sampling(temperature=1.3)])
def test_logprobs_are_those_that_were_sampled_from(llm, hf_model, sampling):
    rollouts = VLLMEngine(llm, TOKENS).generate(make_prompts(64), make_budgets(64), sampling, seed=3)
    for rollout in rollouts:
        assert rollout.logprobs == pytest.approx(full_logprobs(hf_model, rollout, sampling.temperature), abs=1e-4)
        assert rollout.raw_logprobs == (rollout.logprobs if sampling.temperature == 1 else None)


def test_exact_budgets_for_mixed_rows(llm):
    """Rollout itself refuses what exceeds a budget; here none stays below without a reason."""
    budgets = [Budget(t, s) for t in (0, 1, 5, 40) for s in (1, 3, 30, 64)] * 4
    rollouts = VLLMEngine(llm, TOKENS).generate(make_prompts(64, seed=5), budgets, Sampling(), seed=5)
    assert [rollout.budget for rollout in rollouts] == budgets
    for rollout in rollouts:
        reason, finish = str(rollout.thinking_stop_reason), str(rollout.finish_reason)
        assert reason in ("natural", "eos") or rollout.thinking_tokens == rollout.budget.thinking
        assert finish == "stop" or rollout.solution_tokens == rollout.budget.solution
    assert sum(rollout.forced for rollout in rollouts) > 8


def test_a_row_depends_on_the_seed_and_its_place_alone(llm):
    engine = VLLMEngine(llm, TOKENS)
    prompts, budgets = make_prompts(16, seed=7), [Budget(12, 8)] * 16
    first = engine.generate(prompts, budgets, Sampling(), seed=1)
    assert engine.generate(prompts, budgets, Sampling(), seed=1) == first
    assert engine.generate(prompts[:3], budgets[:3], Sampling(), seed=1) == first[:3]
    assert engine.generate(prompts, budgets, Sampling(), seed=2) != first


def test_rollouts_are_told_as_they_finish_and_a_stop_leaves_nothing_behind(llm):
    engine, told = VLLMEngine(llm, TOKENS), []
    budgets = [Budget(t, 1) for t in (60, 0, 30, 2)]
    rollouts = engine.generate(
        make_prompts(4), budgets, Sampling(), on_rollout=lambda row, rollout: told.append((row, rollout))
    )
    assert sorted(told, key=lambda pair: pair[0]) == list(enumerate(rollouts))
    assert told[0][0] == 1

    def stop(row, rollout):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(make_prompts(4), budgets, Sampling(), on_rollout=stop)
    assert not llm.llm_engine.has_unfinished_requests()
    assert engine.generate(make_prompts(4), budgets, Sampling()) == rollouts


def test_the_second_request_finds_its_prefix_in_the_cache(llm):
    """All but the last block, and what the bridge adds."""
    llm.reset_prefix_cache()
    seen = []
    step = llm.llm_engine.step

    def watched():
        outputs = step()
        seen.extend((len(output.prompt_token_ids), output.num_cached_tokens) for output in outputs if output.finished)
        return outputs

    llm.llm_engine.step = watched
    try:
        VLLMEngine(llm, TOKENS).generate(make_prompts(32), [Budget(100, 4)] * 32, Sampling(), seed=11)
    finally:
        del llm.llm_engine.step
    block = llm.llm_engine.vllm_config.cache_config.block_size
    long = [(prompt, cached) for prompt, cached in seen if prompt > 2 * block]
    assert long and all(prompt - cached <= block + 1 for prompt, cached in long)


def test_a_prompt_that_does_not_fit_is_refused(llm):
    with pytest.raises(ValueError, match="does not fit the model's context of 512"):
        VLLMEngine(llm, TOKENS).generate([[1] * CONTEXT], [Budget(4, 4)], Sampling())


def test_logprobs_of_another_mode_are_refused(llm, monkeypatch):
    monkeypatch.setattr(llm.llm_engine.model_config, "logprobs_mode", "raw_logprobs")
    with pytest.raises(ValueError, match="logprobs_mode of the vLLM engine is 'raw_logprobs'"):
        VLLMEngine(llm, TOKENS)


@pytest.fixture(scope="module")
def reasoning_llm(model_dir, llm):
    return load_llm(model_dir, reasoning_config=MARKERS)


def test_one_pass_gives_what_two_requests_give(reasoning_llm):
    """Beside rows without a thinking budget, which vLLM would close too where a row with one was before."""
    prompts, budgets = make_prompts(240, seed=1), make_budgets(240, seed=1)
    prompts = [[*prompt, 30] if row % 3 == 0 else prompt for row, prompt in enumerate(prompts)]  # something prefilled
    tokens = dataclasses.replace(TOKENS, opened=(*TOKENS.opened, (*TOKENS.start, 30)))
    assert closes_thinking_itself(reasoning_llm, tokens)
    two = VLLMEngine(reasoning_llm, tokens).generate(prompts, budgets, GREEDY)
    one = VLLMEngine(reasoning_llm, tokens, one_pass=True).generate(prompts, budgets, GREEDY)
    assert [segments(rollout) for rollout in one] == [segments(rollout) for rollout in two]
    assert any(rollout.reopened for rollout in two)
    for rollout, reference in zip(one, two, strict=True):
        assert rollout.logprobs == pytest.approx(reference.logprobs, abs=1e-4)


def test_one_pass_is_known_not_to_serve(llm, reasoning_llm):
    """Without a reasoning_config, with a bridge that is more than the marker, with other markers than the engine's."""
    assert not closes_thinking_itself(llm, TOKENS)
    assert not closes_thinking_itself(reasoning_llm, dataclasses.replace(TOKENS, bridge=(30, *TOKENS.end)))
    other_end = dataclasses.replace(TOKENS, end=(31,), bridge=(31,))
    assert not closes_thinking_itself(reasoning_llm, other_end)


def test_on_the_v2_model_runner_too(model_dir, hf_model):
    """By Triton's interpreter, in a process of its own."""
    count, script = 12, Path(__file__).with_name("rollouts_on_v2.py")
    environment = os.environ | {"PYTHONPATH": str(script.parents[2])}
    done = subprocess.run(
        [sys.executable, script, model_dir, str(count)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    by_requests, in_one_pass_too = json.loads(done.stdout.splitlines()[-1])
    rollouts = engine_of(hf_model).generate(make_prompts(count, seed=1), make_budgets(count, seed=1), GREEDY)
    expected = [list(segments(rollout)) for rollout in rollouts]
    assert by_requests == expected and in_one_pass_too


def test_forks_equal_the_other_engines_and_find_their_chain_in_the_cache(llm, hf_model):
    prompts, cuts = make_prompts(80, seed=3), [0, 5, 40, 80, 120, 160, 200]
    engine = VLLMEngine(llm, TOKENS)
    chains = engine.generate(prompts, [Budget(200, 10)] * len(prompts), GREEDY)
    assert sum(chain.thinking_tokens > 120 for chain in chains) >= 4
    engine.prompt_tokens = engine.cached_tokens = 0
    forks = engine.fork(chains, cuts, Budget(solution=10), GREEDY)
    sampled = [fork for own in forks for fork in own if fork.forced and fork.budget.thinking < 200]
    assert engine.prompt_tokens == sum(
        len(fork.prompt_ids) + fork.thinking_tokens + len(fork.bridge_ids) for fork in sampled
    )
    # All but what does not fill a block of 32, and the last token, which is always computed.
    assert engine.cached_tokens >= engine.prompt_tokens - 33 * len(sampled)
    other = engine_of(hf_model)
    thought = other.generate(prompts, [Budget(200, 10)] * len(prompts), GREEDY)
    theirs = other.fork(thought, cuts, Budget(solution=10), GREEDY)
    assert [list(map(segments, own)) for own in forks] == [list(map(segments, own)) for own in theirs]
    alone = engine.generate(prompts, [Budget(80, 10)] * len(prompts), GREEDY)
    assert [segments(own[3]) for own in forks] == [segments(rollout) for rollout in alone]


def test_thinking_on_equals_the_other_engine(llm, hf_model):
    prompts = make_prompts(40, seed=5)
    engine, other = VLLMEngine(llm, TOKENS), engine_of(hf_model)
    chains = engine.generate(prompts, [Budget(150, 0)] * len(prompts), Sampling(), seed=1)
    closed = [chain for chain in chains if chain.thinking_stop_reason == "natural"]
    assert len(closed) >= 5
    ours, theirs = (side.think_on(closed, TOKENIZER.encode("wait", add_special_tokens=False), GREEDY)
                    for side in (engine, other))  # fmt: skip
    assert list(map(segments, ours)) == list(map(segments, theirs))
    assert all(len(rollout.interjected) == 1 for rollout in ours)
