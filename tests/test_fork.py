"""Forks of a rollout against rollouts that are sampled under their own budget from the start."""

import functools
import random

import numpy as np
import pytest
import torch
from reference import TOKENS, VOCABULARY, greedy, next_logits, reference_rollout, segments
from test_engine_models import full_logprobs
from test_engine_transformers import chi_square_p
from test_requested import CONTEXT as REQUEST_CONTEXT
from test_requested import LONG_MARKERS, ONE_TOKEN_MARKERS, chooser, goes_on, stops
from tiny_models import CONFIGS, CONTEXT, tiny

from elastic.budget import UNLIMITED, Budget, ReasoningTokens
from elastic.engines.engine import Growth
from elastic.engines.requested import Answer, RequestEngine
from elastic.engines.transformers import TransformersEngine
from elastic.rollout import Sampling, ThinkingStopReason
from elastic.rollout_builder import RolloutBuilder

GREEDY = Sampling(temperature=0)
PROMPTS = [[9, 3], [17, 3], [10, 11, 12], [7, 20, 13, 9, 8, 15, 22, 19, 3], [9, 3], [12, 18, 9, 21, 7, 8, 3]]
CUTS = [0, 1, 2, 5, 9, 14, 20, 31]
# Other words before the same end marker.
WRAPPED = ReasoningTokens(start=(3,), end=(4, 5), bridge=(8, 9, 4, 5), eos=frozenset({1, 2}), opened=((3,),))


def engine_of(model, tokens=TOKENS, max_batch_tokens=10**6):
    return TransformersEngine(model, tokens, pad_token_id=0, max_batch_tokens=max_batch_tokens)


def closing_model(name="llama", seed=0):
    """A model some of whose greedy chains close or end by themselves."""
    model = tiny(name, seed)
    model.get_output_embeddings().weight.data[[1, 2, 4, 5]] *= 3.0
    return model


def budget_of(rng):
    t = rng.choice([UNLIMITED, 0, 1, rng.randrange(30)])
    s = rng.choice([UNLIMITED, 0, 1, rng.randrange(20)])
    total = rng.choice([UNLIMITED, rng.randrange(60)])
    return Budget(t, s, total, carry_over=rng.random() < 0.3)


def grown(builder, choose):
    while not builder.finished:
        if builder.forced_token is not None:
            builder.insert()
        else:
            token = choose([*builder.prompt_ids, *builder.completion_ids])
            builder.sample(token, -1.0, -2.0)
    return builder.build()


def carried(budget, choose, prompt, tokens, context):
    """The reference with carry_over: the solution's budget depends on where the thinking ended."""
    probe = reference_rollout(choose, prompt, Budget(budget.thinking, 0, budget.total), tokens, context)
    s = budget.solution_after(len(probe["thinking"]))
    return reference_rollout(choose, prompt, Budget(budget.thinking, s, budget.total), tokens, context)


@pytest.mark.parametrize("tokens", [TOKENS, ONE_TOKEN_MARKERS, LONG_MARKERS])
def test_a_fork_is_the_rollout_of_its_own_budget(tokens):
    """Any budget from any other, where the next token is a function of all ids before it."""
    seen = set()
    for seed in range(1500):
        rng, choose = random.Random(seed), chooser(seed)
        prompt = [rng.randrange(7, VOCABULARY) for _ in range(3)]
        first, second = budget_of(rng), budget_of(rng)
        source = grown(RolloutBuilder(tokens.open(prompt), first, tokens, REQUEST_CONTEXT), choose)
        builder = RolloutBuilder.fork(source, second, REQUEST_CONTEXT)
        taken = builder.sampled_tokens
        fork = grown(builder, choose)
        assert segments(fork) == carried(second, choose, prompt, tokens, REQUEST_CONTEXT)
        assert fork.budget == second
        assert fork.logprobs == [-1.0] * fork.completion_tokens
        whole = taken == fork.completion_tokens
        seen.add((str(source.thinking_stop_reason), str(fork.thinking_stop_reason), whole))
    if tokens is LONG_MARKERS:  # which the chooser never completes
        return
    reasons = list(map(str, ThinkingStopReason))
    assert {(a, b) for a, b, _ in seen} >= {(a, b) for a in ("budget", "natural", "length") for b in reasons[:2]}
    assert ("natural", "natural", True) in seen and ("natural", "budget", False) in seen


def test_a_fork_takes_all_that_it_can():
    """Nothing is sampled for a cut that the thinking does not reach, nor where both were cut at the same place."""
    closed = grown(RolloutBuilder([7, 3], Budget(9, 4), TOKENS, None), iter_of([9, 9, 4, 5, 8, 8, 1]))
    assert RolloutBuilder.fork(closed, Budget(5, 4), None).build().solution_ids == [8, 8, 1]
    assert RolloutBuilder.fork(closed, Budget(4, 2), None).build().solution_ids == [8, 8]
    assert RolloutBuilder.fork(closed, Budget(3, 4), None).bridge_ids == []
    assert RolloutBuilder.fork(closed, Budget(3, 4), None).forced_token == TOKENS.bridge[0]
    assert RolloutBuilder.fork(closed, Budget(total=3), None).build().thinking_ids == [9, 9, 4]
    cut = grown(RolloutBuilder([7, 3], Budget(3, 4), TOKENS, None), iter_of([9, 9, 9, 8, 8, 8, 8]))
    assert RolloutBuilder.fork(cut, Budget(3, 2), None).build().solution_ids == [8, 8]
    assert RolloutBuilder.fork(cut, Budget(3, 6), None).phase_tokens_left == 2
    assert RolloutBuilder.fork(cut, Budget(3, 2), None, WRAPPED).phase_tokens_left == 2
    going_on = RolloutBuilder.fork(cut, Budget(6, 2), None)
    assert (going_on.thinking_ids, going_on.thinking_stop_reason) == ([9, 9, 9], None)


def remembered(model):
    """The greedy next token, looked up where it is known: forks of one chain have most of their ids in common."""
    choose = functools.cache(lambda ids: greedy(model)(list(ids)))
    return lambda ids: choose(tuple(ids))


def iter_of(script):
    policy = iter(script)
    return lambda ids: next(policy)


def test_thinking_on_takes_back_the_end_marker():
    closed = grown(RolloutBuilder([7, 3], Budget(6, 4), TOKENS, 40), iter_of([9, 9, 4, 5, 8, 1]))
    waited = grown(RolloutBuilder.think_on(closed, [10, 11], 40), iter_of([12, 4, 5, 13, 1]))
    assert segments(waited) == {
        "thinking": [9, 9, 10, 11, 12, 4, 5],
        "bridge": [],
        "solution": [13, 1],
        "reason": "natural",
        "finish": "stop",
    }
    assert (waited.thinking_tokens, waited.completion_tokens, list(waited.interjected)) == (5, 7, [2, 3])
    assert waited.env_mask == [1, 1, 0, 0, 1, 1, 1, 1, 1]
    assert waited.completion_logprobs == [-1, -1, 0, 0, -1, -1, -1, -1, -1]
    again = grown(RolloutBuilder.think_on(waited, [10], 40), iter_of([12, 12, 12, 8, 8, 1]))
    assert segments(again)["thinking"] == [9, 9, 10, 11, 12, 10, 12, 12, 12]
    assert (again.thinking_tokens, list(again.interjected), again.forced) == (6, [2, 3, 5], True)
    assert RolloutBuilder.fork(again, Budget(3, 1), 40).thinking_ids == [9, 9, 10, 11, 12]
    with pytest.raises(ValueError, match="budget, not by the policy"):
        RolloutBuilder.think_on(again, [10], 40)
    with pytest.raises(ValueError, match="does not fit"):
        RolloutBuilder.fork(again, Budget(6, 4), 2 + 6 + 3 + 3 + 3)
    with pytest.raises(ValueError, match="does not fit"):
        RolloutBuilder.think_on(closed, [10, 11], 2 + 6 + 3 + 4 + 1)
    RolloutBuilder.think_on(closed, [10, 11], 2 + 6 + 3 + 4 + 2)


@pytest.mark.parametrize("kept", [0, 8, 100])
@pytest.mark.parametrize("max_batch_tokens", [10**6, 300, 1])
def test_greedy_forks_equal_the_plain_loop(kept, max_batch_tokens):
    """From the cache of the rollouts, from a part of it, and from none of it; in slices, and one by one."""
    model = closing_model()
    choose = remembered(model)
    engine = engine_of(model, max_batch_tokens=max_batch_tokens)
    chains = engine.generate(PROMPTS, [Budget(31, 6)] * len(PROMPTS), GREEDY, keep_thinking=kept)
    assert len({chain.thinking_stop_reason for chain in chains}) >= 2
    for budget in (Budget(solution=6), Budget(solution=11), Budget(total=24), Budget(solution=3, carry_over=True)):
        for prompt, chain, forks in zip(PROMPTS, chains, engine.fork(chains, CUTS, budget, GREEDY), strict=True):
            for cut, fork in zip(CUTS, forks, strict=True):
                own = Budget(cut, budget.solution, budget.total, budget.carry_over)
                assert segments(fork) == carried(own, choose, prompt, TOKENS, CONTEXT)
                assert fork.raw_logprobs == pytest.approx(full_logprobs(model, fork), abs=1e-4)
                assert fork.prompt_ids == chain.prompt_ids


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_forks_for_every_kind_of_attention(name):
    model = closing_model(name)
    engine = engine_of(model)
    chains = engine.generate(PROMPTS, [Budget(40, 4)] * len(PROMPTS), GREEDY, keep_thinking=24)
    choose = remembered(model)
    forks = engine.fork(chains, [3, 11, 23, 36], Budget(solution=6), GREEDY)
    for prompt, own in zip(PROMPTS, forks, strict=True):
        for fork in own:
            assert segments(fork) == reference_rollout(choose, prompt, fork.budget, TOKENS, CONTEXT)


def test_forks_with_another_bridge_and_with_cuts_of_their_own():
    model = closing_model()
    engine = engine_of(model)
    chains = engine.generate(PROMPTS, [Budget(20, 6)] * len(PROMPTS), GREEDY, keep_thinking=20)
    choose = remembered(model)
    cuts = [[1], [], [4, 20], [0], [7, 3], [30]]
    forks = engine.fork(chains, cuts, Budget(solution=6), GREEDY, tokens=WRAPPED)
    assert [[fork.budget.thinking for fork in own] for own in forks] == cuts
    for prompt, own in zip(PROMPTS, forks, strict=True):
        for fork in own:
            assert segments(fork) == reference_rollout(choose, prompt, fork.budget, WRAPPED, CONTEXT)


@pytest.mark.parametrize("wait", [[10], [10, 11]])
def test_rollouts_that_think_on_are_the_references(wait):
    model = closing_model()
    engine = engine_of(model)
    chains = engine.generate(PROMPTS * 2, [Budget(31, 6)] * 12, Sampling(), keep_thinking=31)
    closed = [chain for chain in chains if chain.thinking_stop_reason == "natural"]
    assert len(closed) >= 3
    builders = [RolloutBuilder.think_on(chain, wait, CONTEXT) for chain in closed]
    thought = engine.grow(builders, Growth(GREEDY, 0, range(len(builders))))
    for before, after in zip(closed, thought, strict=True):
        there = [*before.thinking_ids[:-2], *wait]
        assert segments(after) == thought_on(remembered(model), before.prompt_ids, there, len(wait), Budget(31, 6))


def thought_on(choose, prompt, there, inserted, budget):
    """The plain loop from the middle of the thinking, of which `inserted` ids are the system's."""
    thinking, solution, reason = list(there), [], None
    while reason is None:
        if len(thinking) - inserted == budget.thinking:
            reason = "budget"
            break
        thinking.append(choose([*prompt, *thinking]))
        if thinking[-1] in TOKENS.eos:
            return {"thinking": thinking, "bridge": [], "solution": [], "reason": "eos", "finish": "stop"}
        if tuple(thinking[-2:]) == TOKENS.end:
            reason = "natural"
    bridge = list(TOKENS.bridge) if reason == "budget" else []
    while len(solution) < budget.solution and not (solution and solution[-1] in TOKENS.eos):
        solution.append(choose([*prompt, *thinking, *bridge, *solution]))
    finish = "stop" if solution[-1] in TOKENS.eos else "length"
    return {"thinking": thinking, "bridge": bridge, "solution": solution, "reason": reason, "finish": finish}


def test_cuts_that_the_thinking_does_not_reach_share_one_solution():
    model = closing_model()
    engine, sampling = engine_of(model), Sampling(temperature=1.5)
    chains = engine.generate(PROMPTS * 20, [Budget(31, 0)] * 120, sampling, seed=1, keep_thinking=31)
    told = []
    forks = engine.fork(
        chains, CUTS, Budget(solution=6), sampling, seed=1, on_rollout=lambda place, fork: told.append((place, fork))
    )
    shared = 0
    for chain, own in zip(chains, forks, strict=True):
        assert all(fork.thinking_ids == chain.thinking_ids[: fork.thinking_tokens] for fork in own)
        natural = [fork for fork in own if fork.thinking_stop_reason == "natural"]
        assert len({(*fork.thinking_ids, -1, *fork.solution_ids) for fork in natural}) <= 1
        shared += len(natural) > 1
    assert shared > 10
    assert sorted((p, fork.budget.thinking) for p, fork in told) == [(p, cut) for p in range(120) for cut in CUTS]


def test_a_forks_random_numbers_depend_on_its_seed_stream_and_cut_alone():
    model = closing_model()
    engine, sampling = engine_of(model), Sampling(temperature=2.0)
    chains = engine.generate([[9, 3]] * 30, [Budget(20, 0)] * 30, sampling, keep_thinking=20)
    together = engine.fork(chains, [4, 9], Budget(solution=8), sampling, seed=3)
    alone = engine.fork(chains[5:9], [9], Budget(solution=8), sampling, seed=3, streams=range(5, 9))
    assert [segments(own[1]) for own in together[5:9]] == [segments(own[0]) for own in alone]
    other = engine.fork(chains, [9], Budget(solution=8), sampling, seed=4)
    assert [own[0].solution_ids for own in other] != [own[1].solution_ids for own in together]
    # The two cuts of one chain do not repeat each other's draws, nor the chain's.
    uniform = Sampling(temperature=1e6)
    chains = engine.generate([[9, 3]] * 120, [Budget(20, 0)] * 120, uniform)
    pairs = zip(chains, engine.fork(chains, [4, 9], Budget(solution=8), uniform), strict=True)
    long = [(chain, own) for chain, own in pairs if all(len(fork.solution_ids) == 8 for fork in own)]
    assert len(long) > 5
    for chain, (first, second) in long:
        assert len({tuple(first.solution_ids), tuple(second.solution_ids), tuple(chain.thinking_ids[:8])}) == 3


def test_solutions_of_forks_follow_the_models_distribution():
    model, sampling = tiny(), Sampling(temperature=3.0)
    engine = engine_of(model, ONE_TOKEN_MARKERS)
    chains = engine.generate([[9, 12, 3]] * 3000, [Budget(2, 1)] * 3000, sampling, seed=2, keep_thinking=2)
    frequent = max(range(7, VOCABULARY), key=[chain.thinking_ids[0] for chain in chains].count)
    forks = engine.fork(chains, [0, 1], Budget(solution=1), sampling, seed=2)
    for ids, tokens in (
        ([9, 12, 3, 4], [own[0].solution_ids[0] for own in forks]),
        (
            [9, 12, 3, frequent, 4],
            [own[1].solution_ids[0] for own in forks if own[1].thinking_ids == [frequent]],
        ),
    ):
        assert len(tokens) > 200
        assert chi_square_p(tokens, torch.softmax(next_logits(model, ids) / 3.0, -1)) > 0.001


@pytest.mark.parametrize("kept", [0, 31])
def test_the_memory_of_forks_has_a_bound(monkeypatch, kept):
    """What is kept, what is prefilled and what a slice of forks fills are a third of max_batch_tokens each."""
    monkeypatch.setattr("elastic.engines.transformers._PREFILL_TOKENS", 80)
    model = tiny()
    engine = engine_of(model, max_batch_tokens=600)
    prompts = [[9, 3]] * 16
    chains = engine.generate(prompts, [Budget(31, 2)] * 16, Sampling(temperature=2.0), keep_thinking=kept)
    if kept:
        assert 100 < sum(len(prefix) for prefix in engine._kept._prefixes.values()) <= 200
    else:
        assert engine._kept is None
    passes, prefilled = [], []
    logits, prefixes = engine._cached_model.logits, TransformersEngine._prefilled

    def watched(ids_BL, mask_BL, positions_BL, cache):
        result = logits(ids_BL, mask_BL, positions_BL, cache)
        passes.append((ids_BL.numel(), len(ids_BL) * cache.get_seq_length()))
        return result

    def counted(self, lacking):
        found = prefixes(self, lacking)
        prefilled.append(sum(map(len, found.values())))
        return found

    monkeypatch.setattr(type(engine._cached_model), "logits", lambda self, *inputs: watched(*inputs))
    monkeypatch.setattr(TransformersEngine, "_prefilled", counted)
    forks = engine.fork(chains, [5, 10, 20, 30], Budget(solution=2), GREEDY)
    assert 100 < max(filled for _, filled in passes) <= 200
    assert max(tokens for tokens, _ in passes) <= 80
    assert 0 < max(prefilled) <= 200
    whole = engine_of(model).fork(chains, [5, 10, 20, 30], Budget(solution=2), GREEDY)
    assert [list(map(segments, own)) for own in forks] == [list(map(segments, own)) for own in whole]


def test_what_goes_on_never_repeats_the_draws_of_what_was_there():
    """Forks of forks, and a chain that is cut, goes on, and is cut again: every part has numbers of its own."""
    engine, uniform = engine_of(tiny(), ONE_TOKEN_MARKERS), Sampling(temperature=1e6)
    chains = engine.generate([[9, 3]] * 200, [Budget(4, 0)] * 200, uniform)
    longer = [own[0] for own in engine.fork(chains, [10], Budget(solution=0), uniform)]
    forks = [own[0] for own in engine.fork(longer, [10], Budget(solution=6), uniform)]
    assert sum(fork.forced and len(fork.solution_ids) == 6 for fork in forks) > 10
    for fork in forks:
        if fork.forced and len(fork.solution_ids) == 6:
            thinking, solution = list(fork.thinking_ids), list(fork.solution_ids)
            assert solution != thinking[4:] and solution[:4] != thinking[:4]
    more = [own[0].solution_ids for own in engine.fork(forks, [10], Budget(solution=12), uniform)]
    assert all(list(ids[6:]) != list(ids[:6]) for ids in more if len(ids) == 12)


def test_a_shared_solution_does_not_depend_on_who_asks_for_it():
    engine, sampling = engine_of(closing_model()), Sampling(temperature=1.5)
    chains = engine.generate(PROMPTS * 10, [Budget(31, 0)] * 60, sampling, keep_thinking=31)
    of_all = engine.fork(chains, [9, 20, 31], Budget(solution=6), sampling)
    of_one = engine.fork(chains, [20], Budget(solution=6), sampling)
    natural = [place for place, own in enumerate(of_all) if own[1].thinking_stop_reason == "natural"]
    assert len(natural) > 10
    assert all(segments(of_all[place][1]) == segments(of_one[place][0]) for place in natural)


def test_thinking_on_prefills_nothing_that_is_kept(monkeypatch):
    engine = engine_of(closing_model())
    chains = engine.generate(PROMPTS * 4, [Budget(31, 6)] * 24, Sampling(), keep_thinking=31)
    closed = [own[0] for own in engine.fork(chains, [31], Budget(solution=0), GREEDY)]
    closed = [chain for chain in closed if chain.thinking_stop_reason == "natural"]
    assert len(closed) > 5
    monkeypatch.setattr(TransformersEngine, "_prefilled", lambda self, lacking: {} if not lacking else pytest.fail())
    for wait in ([10], [10, 11, 12]):
        engine.think_on(closed, wait, GREEDY)


@pytest.mark.parametrize("name", CONFIGS)
def test_thinking_on_for_every_kind_of_attention(name):
    """Several tokens at once after a prefix."""
    model, rng = closing_model(name), random.Random(0)
    budget = Budget(24, 4)
    scripts = [[rng.randrange(7, VOCABULARY) for _ in range(length)] for length in (3, 9, 17, 20, 1, 12)]
    closed = [
        grown(RolloutBuilder(TOKENS.open(prompt), budget, TOKENS, CONTEXT), iter_of([*script, 4, 5, 8, 1]))
        for prompt, script in zip(PROMPTS, scripts, strict=True)
    ]
    for before, after in zip(closed, engine_of(model).think_on(closed, [10, 11, 12], GREEDY), strict=True):
        there = [*before.thinking_ids[:-2], 10, 11, 12]
        assert segments(after) == thought_on(remembered(model), before.prompt_ids, there, 3, budget)


@pytest.mark.parametrize("cuts", [3, [[3], 5], [[3]], [1.5], ["3"]])
def test_cuts_that_are_no_budgets_are_one_sentence(cuts):
    engine = engine_of(tiny())
    chains = engine.generate([[9, 3]] * 2, [Budget(4, 0)] * 2, GREEDY)
    with pytest.raises(ValueError, match=r"cuts is .*: give thinking token budgets, or a list of them for each of the"):
        engine.fork(chains, cuts, Budget(solution=1), GREEDY)
    array = engine.fork(chains, np.array([2, 3]), Budget(solution=1), GREEDY)
    assert [[fork.budget.thinking for fork in own] for own in array] == [[2, 3]] * 2


class PlayedEngine(RequestEngine):
    """A request engine whose policy is a function."""

    def __init__(self, choose, answer, tokens):
        self.tokens, self.context_length = tokens, REQUEST_CONTEXT
        self._choose, self._answer = choose, answer
        self.asked = 0

    def _answer_all(self, rollouts, sampling, on_step):
        for row in range(len(rollouts)):
            while request := rollouts.next_request(row):
                self.asked += 1
                rollouts.take(row, Answer(self._answer(self._choose, request, self.tokens)))


@pytest.mark.parametrize("answer", [stops, goes_on])
@pytest.mark.parametrize("tokens", [TOKENS, ONE_TOKEN_MARKERS, LONG_MARKERS])
def test_forks_by_request(answer, tokens):
    for seed in range(60):
        choose = chooser(seed)
        engine = PlayedEngine(choose, answer, tokens)
        prompts = [[7, 8], [9], [10, 11]]
        chains = engine.generate(prompts, [Budget(20, 5)] * 3, Sampling())
        asked = engine.asked
        forks = engine.fork(chains, [0, 3, 8, 20, 25], Budget(solution=5), Sampling())
        reached = sum(chain.thinking_tokens > cut or (chain.forced and cut == 25)
                      for chain in chains for cut in (0, 3, 8, 20, 25))  # fmt: skip
        assert engine.asked - asked <= 2 * reached
        for prompt, own in zip(prompts, forks, strict=True):
            for fork in own:
                assert segments(fork) == reference_rollout(choose, prompt, fork.budget, tokens, REQUEST_CONTEXT)
