import copy
import random

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from reference import TOKENS, VOCABULARY, greedy, next_logits, reference_rollout, segments
from scipy.stats import chisquare
from tiny_models import CONTEXT, tiny
from transformers import GenerationConfig

from elastic.budget import Budget, ReasoningTokens
from elastic.engines.sampler import _invert_cdf
from elastic.engines.transformers import TransformersEngine
from elastic.rollout import FinishReason, Sampling, ThinkingStopReason

GREEDY = Sampling(temperature=0)
LONG_MARKERS = ReasoningTokens(
    start=(3, 8), end=(4, 5, 4), bridge=(6, 6, 4, 5, 4), eos=frozenset({1}), opened=((3, 8), (3, 8, 7))
)
ONE_TOKEN_MARKERS = ReasoningTokens(start=(3,), end=(4,), bridge=(4,), eos=frozenset({1, 2}), opened=((3,),))


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


def engine_of(model, tokens=TOKENS, max_batch_tokens=10**6, pad_token_id=0):
    return TransformersEngine(model, tokens, pad_token_id=pad_token_id, max_batch_tokens=max_batch_tokens)


def make_prompts(count, longest=14, seed=0, opened=True):
    rng = random.Random(seed)
    lengths = [rng.randrange(1, longest + 1) for _ in range(count)]
    return [[rng.randrange(7, VOCABULARY) for _ in range(length)] + [3] * opened for length in lengths]


def make_budgets(count, seed=0):
    rng = random.Random(seed)
    kinds = [
        lambda: Budget(0, rng.randrange(9)),
        lambda: Budget(rng.randrange(1, 9), rng.randrange(1, 9)),
        lambda: Budget(rng.randrange(9, 24), 3),
        lambda: Budget(2, rng.randrange(9, 24)),
        lambda: Budget(-1, 5, total=rng.randrange(40)),
        lambda: Budget(4, -1, total=30),
        lambda: Budget(total=20),
    ]
    return [kinds[i % len(kinds)]() for i in range(count)]


def sampled_ids(rollouts):
    return [(tuple(rollout.thinking_ids), tuple(rollout.solution_ids)) for rollout in rollouts]


def groups(prompts, size):
    return [prompt for prompt in prompts for _ in range(size)]


def test_greedy_equals_the_plain_loop_token_for_token():
    """Rules 1 to 6 and 9: mixed prompt lengths and budgets, opened and not; every way of ending turns up."""
    seen = set()
    for seed in range(3):
        model = tiny("llama", seed)
        model.lm_head.weight.data[[1, 2, 4, 5]] *= 3.0
        prompts = make_prompts(14, seed=seed) + make_prompts(7, seed=seed, opened=False)
        budgets = make_budgets(len(prompts), seed)
        rollouts = engine_of(model).generate(prompts, budgets, GREEDY)
        for rollout, prompt, budget in zip(rollouts, prompts, budgets, strict=True):
            assert segments(rollout) == reference_rollout(greedy(model), prompt, budget, TOKENS, CONTEXT)
            assert rollout.budget == budget
            seen.add((rollout.thinking_stop_reason, rollout.finish_reason, bool(rollout.solution_ids)))
    assert {(reason, finish) for reason, finish, _ in seen} >= {
        (ThinkingStopReason.NATURAL, FinishReason.STOP),
        (ThinkingStopReason.NATURAL, FinishReason.LENGTH),
        (ThinkingStopReason.BUDGET, FinishReason.STOP),
        (ThinkingStopReason.BUDGET, FinishReason.LENGTH),
        (ThinkingStopReason.EOS, FinishReason.STOP),
        (ThinkingStopReason.LENGTH, FinishReason.LENGTH),
    }


@pytest.mark.parametrize("tokens", [ONE_TOKEN_MARKERS, LONG_MARKERS], ids=["one token", "long"])
def test_greedy_with_markers_of_any_length(tokens):
    model = tiny("llama", seed=4)
    model.lm_head.weight.data[[4, 5]] *= 2.0
    prompts = [*make_prompts(8, seed=1), [9, 9, 3, 8], [9, 3, 8, 7]]
    budgets = make_budgets(len(prompts), seed=1)
    rollouts = engine_of(model, tokens).generate(prompts, budgets, GREEDY)
    for rollout, prompt, budget in zip(rollouts, prompts, budgets, strict=True):
        assert segments(rollout) == reference_rollout(greedy(model), prompt, budget, tokens, CONTEXT)
    assert {ThinkingStopReason.BUDGET} < {rollout.thinking_stop_reason for rollout in rollouts}


def test_rule_1_the_engine_opens_thinking_where_the_prompt_does_not(llama):
    closed, opened = engine_of(llama).generate([[9, 10], [9, 10, 3]], [Budget(6, 6)] * 2, GREEDY)
    assert closed.prompt_ids == opened.prompt_ids == [9, 10, 3]
    assert segments(closed) == segments(opened)


def test_groups_of_equal_prompts_equal_each_row_alone(llama):
    prompts = groups(make_prompts(3), 4)
    budgets = make_budgets(len(prompts))
    together = engine_of(llama).generate(prompts, budgets, GREEDY)
    alone = [engine_of(llama).generate([p], [b], GREEDY)[0] for p, b in zip(prompts, budgets, strict=True)]
    assert [segments(rollout) for rollout in together] == [segments(rollout) for rollout in alone]


@pytest.mark.parametrize("pad", [0, 1, 2, 3, VOCABULARY - 1])
def test_any_id_pads_eos_included(llama, pad):
    """Defect 5: with pad = EOS, nothing in the rollouts changes."""
    prompts, budgets = make_prompts(6), make_budgets(6)
    assert sampled_ids(engine_of(llama, pad_token_id=pad).generate(prompts, budgets, Sampling(), seed=3)) == (
        sampled_ids(engine_of(llama).generate(prompts, budgets, Sampling(), seed=3))
    )


def sampling_scores(model, ids, sampling):
    """The scores from which transformers' own `generate` would sample the token after `ids`."""
    config = GenerationConfig(
        max_new_tokens=1,
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p or None,
        output_scores=True,
        return_dict_in_generate=True,
        pad_token_id=0,
        eos_token_id=1,
    )
    inputs = torch.tensor([ids])
    outputs = model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
    return outputs.scores[0][0].float()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.6, top_p=0.95),
        Sampling(temperature=2.0),
        Sampling(top_k=5),
        Sampling(top_p=0.5),
        Sampling(temperature=1.5, min_p=0.1),
        Sampling(temperature=1.5, top_k=12, top_p=0.8, min_p=0.05),
    ],
    ids=str,
)
def test_logprobs_are_those_of_a_full_forward(sampling):
    """Under the distribution that `generate` would sample from, and under the model's own; in float32, to 1e-5."""
    llama, prompts = tiny("llama", std=0.2), make_prompts(4, seed=2)
    for rollout in engine_of(llama).generate(prompts, [Budget(9, 3), Budget(3, 6)] * 2, sampling, seed=1):
        ids = list(rollout.prompt_ids)
        logprobs, raw_logprobs = [], []
        for token, sampled in zip(rollout.completion_ids, rollout.env_mask, strict=True):
            if sampled:
                logprobs.append(torch.log_softmax(sampling_scores(llama, ids, sampling), -1)[token].item())
                raw_logprobs.append(torch.log_softmax(next_logits(llama, ids), -1)[token].item())
            ids.append(token)
        assert rollout.logprobs == pytest.approx(logprobs, abs=1e-5)
        assert rollout.raw_logprobs == pytest.approx(raw_logprobs, abs=1e-5)


def test_greedy_logprobs_are_the_models_own(llama):
    (rollout,) = engine_of(llama).generate([[9, 3]], [Budget(8, 0)], GREEDY)
    ids, expected = list(rollout.prompt_ids), []
    for token in rollout.thinking_ids:
        expected.append(torch.log_softmax(next_logits(llama, ids), -1)[token].item())
        ids.append(token)
    assert rollout.logprobs == rollout.raw_logprobs == pytest.approx(expected, abs=1e-5)


def test_rule_9_a_seeded_run_repeats_exactly(llama):
    prompts, budgets = groups(make_prompts(4), 3), make_budgets(12)
    first = engine_of(llama).generate(prompts, budgets, Sampling(), seed=7)
    assert engine_of(llama).generate(prompts, budgets, Sampling(), seed=7) == first
    others = [sampled_ids(engine_of(llama).generate(prompts, budgets, Sampling(), seed=seed)) for seed in (0, 8, -1)]
    assert all(other != sampled_ids(first) for other in others)
    assert others[0] != others[1]


def test_the_rows_of_a_group_are_different_samples(llama):
    rollouts = engine_of(llama).generate([[9, 3]] * 16, [Budget(8, 2)] * 16, Sampling())
    assert len(set(sampled_ids(rollouts))) > 12


@pytest.mark.parametrize("max_batch_tokens", [1, 60, 150, 400])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.2, top_p=0.9)], ids=["greedy", "sampled"])
def test_rule_9_slices_change_nothing(llama, max_batch_tokens, sampling):
    prompts, budgets = groups(make_prompts(6), 2), make_budgets(12)
    whole = engine_of(llama).generate(prompts, budgets, sampling, seed=5)
    sliced = engine_of(llama, max_batch_tokens=max_batch_tokens).generate(prompts, budgets, sampling, seed=5)
    assert sampled_ids(sliced) == sampled_ids(whole)
    for one, other in zip(sliced, whole, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_rule_9_parts_of_a_batch_are_sampled_as_the_whole(llama):
    prompts, budgets = groups(make_prompts(4), 3), make_budgets(12)
    whole = engine_of(llama).generate(prompts, budgets, Sampling(), seed=5)
    for part in (slice(0, 5), slice(5, 12)):
        sampled = engine_of(llama).generate(
            prompts[part], budgets[part], Sampling(), seed=5, streams=range(part.start, part.stop)
        )
        assert sampled_ids(sampled) == sampled_ids(whole[part])


def test_rule_9_a_row_does_not_depend_on_the_others(llama):
    prompts, budgets = make_prompts(8), make_budgets(8)
    base = engine_of(llama).generate(prompts, budgets, Sampling(), seed=5)
    for changed in (0, 3, 7):
        other_prompts, other_budgets = list(prompts), list(budgets)
        other_prompts[changed], other_budgets[changed] = [20] * 30 + [3], Budget(40, 1)
        other = engine_of(llama).generate(other_prompts, other_budgets, Sampling(), seed=5)
        unchanged = [i for i in range(8) if i != changed]
        assert [sampled_ids(other)[i] for i in unchanged] == [sampled_ids(base)[i] for i in unchanged]


def test_rule_9_a_long_row_outlives_the_others_unchanged():
    """Past every block of random numbers and every growth of the cache, with rows leaving all the way."""
    model = tiny("llama", max_position_embeddings=512)
    model.lm_head.weight.data[[1, 2, 4, 5]] = 0.0
    prompts = make_prompts(6)
    budgets = [Budget(300, 60), *[Budget(45 * i, 9) for i in range(1, 6)]]
    together = engine_of(model).generate(prompts, budgets, Sampling(top_k=4), seed=1)
    alone = engine_of(model, max_batch_tokens=1).generate(prompts, budgets, Sampling(top_k=4), seed=1)
    assert sampled_ids(together) == sampled_ids(alone)
    longest = max(together, key=lambda rollout: rollout.completion_tokens)
    assert longest.completion_tokens > 300
    ids = list(longest.thinking_ids)
    assert len({tuple(ids[i : i + 4]) for i in range(len(ids) - 4)}) > 0.5 * len(ids)


def test_top_k_1_and_a_tiny_temperature_are_greedy(llama):
    prompts, budgets = make_prompts(8), make_budgets(8)
    expected = sampled_ids(engine_of(llama).generate(prompts, budgets, GREEDY))
    for sampling in (Sampling(top_k=1), Sampling(temperature=1e-4), Sampling(top_p=1e-6), Sampling(min_p=1.0)):
        rollouts = engine_of(llama).generate(prompts, budgets, sampling)
        assert sampled_ids(rollouts) == expected
        assert all(logprob == pytest.approx(0.0, abs=1e-5) for rollout in rollouts for logprob in rollout.logprobs)


def chi_square_p(tokens, probabilities):
    """The p-value of these draws under `probabilities`; tokens expected fewer than 5 times are pooled."""
    expected = np.asarray(probabilities, dtype=float) * len(tokens)
    counts = np.bincount(tokens, minlength=len(expected)).astype(float)
    assert counts[expected == 0].sum() == 0
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    return chisquare(counts[keep], expected[keep] * counts.sum() / expected.sum()).pvalue


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=3.0), Sampling(temperature=4.0, top_k=9, top_p=0.9)], ids=str
)
def test_samples_follow_the_models_distribution(llama, sampling):
    """4000 draws of a first token, and of the token after the most frequent one, against exact probabilities."""
    rollouts = engine_of(llama).generate([[9, 12, 3]] * 4000, [Budget(2, 0)] * 4000, sampling, seed=11)
    first = [rollout.thinking_ids[0] for rollout in rollouts]
    probabilities = torch.softmax(sampling_scores(llama, [9, 12, 3], sampling), -1)
    assert chi_square_p(first, probabilities) > 0.001
    frequent = max((token for token in set(first) - TOKENS.eos), key=first.count)
    second = [rollout.thinking_ids[1] for rollout in rollouts if rollout.thinking_ids[0] == frequent]
    assert len(second) > 300
    probabilities = torch.softmax(sampling_scores(llama, [9, 12, 3, frequent], sampling), -1)
    assert chi_square_p(second, probabilities) > 0.001
    assert chi_square_p(first, torch.ones(VOCABULARY) / VOCABULARY + (probabilities == 0)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(dtype):
    model = tiny("llama").to(dtype)
    prompts, budgets = groups(make_prompts(4), 2), make_budgets(8)
    for sampling in (GREEDY, Sampling(temperature=0.8, top_p=0.9)):
        for rollout in engine_of(model).generate(prompts, budgets, sampling):
            ids = list(rollout.prompt_ids)
            full = model(input_ids=torch.tensor([[*ids, *rollout.completion_ids]]), use_cache=False).logits[0].float()
            at = torch.arange(len(ids) - 1, len(ids) - 1 + len(rollout.completion_ids))
            raw = torch.log_softmax(full[at], -1).gather(1, torch.tensor(rollout.completion_ids)[:, None].long())
            sampled = [lp for lp, mask in zip(raw[:, 0].tolist(), rollout.env_mask, strict=True) if mask]
            assert rollout.raw_logprobs == pytest.approx(sampled, abs=0.25)
    assert {weight.dtype for weight in model.parameters()} == {dtype}


def lora(model):
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False, lora_dropout=0.5
    )
    return get_peft_model(copy.deepcopy(model), config)


def test_a_peft_model_equals_its_merged_weights(llama):
    adapted = lora(llama)
    merged = copy.deepcopy(adapted).merge_and_unload().eval()
    adapted.train()
    prompts, budgets = groups(make_prompts(4), 2), make_budgets(8)
    rollouts = engine_of(adapted).generate(prompts, budgets, GREEDY)
    expected = [
        reference_rollout(greedy(merged), prompt, budget, TOKENS, CONTEXT)
        for prompt, budget in zip(prompts, budgets, strict=True)
    ]
    assert [segments(rollout) for rollout in rollouts] == expected
    assert sampled_ids(engine_of(llama).generate(prompts, budgets, GREEDY)) != sampled_ids(rollouts)
    assert (
        adapted.training and adapted.base_model.model.model.layers[0].self_attn.q_proj.lora_dropout["default"].training
    )


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
def test_the_model_is_left_as_it_was(llama, adapted):
    model = lora(llama) if adapted else copy.deepcopy(llama)
    model.train()
    inner = next(module for name, module in model.named_modules() if name.endswith("layers.1"))
    inner.eval()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    gradients = {name: weight.requires_grad for name, weight in model.named_parameters()}
    config, random_state = copy.deepcopy(model.config.to_dict()), torch.get_rng_state()
    engine_of(model).generate(make_prompts(4), make_budgets(4), Sampling(temperature=0.7), seed=2)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not inner.training and model.training
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == weights[name].dtype and torch.equal(tensor, weights[name])
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == gradients
    assert all(weight.grad is None for weight in model.parameters())
    assert model.config.to_dict() == config
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_failed_generation_leaves_the_mode_too(llama):
    model = copy.deepcopy(llama).train()
    handle = model.register_forward_pre_hook(lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine_of(model).generate([[9, 3]], [Budget(2, 2)], GREEDY)
    handle.remove()
    assert model.training


def test_dropout_is_off_while_sampling_in_train_mode():
    model = tiny("llama", attention_dropout=0.5)
    expected = sampled_ids(engine_of(model).generate(make_prompts(4), make_budgets(4), GREEDY))
    assert sampled_ids(engine_of(model.train()).generate(make_prompts(4), make_budgets(4), GREEDY)) == expected


def test_a_prompt_that_fills_the_context_is_refused(llama):
    with pytest.raises(ValueError) as error:
        engine_of(llama).generate([[9, 3], [9] * CONTEXT], [Budget(total=5)] * 2, GREEDY)
    message = str(error.value)
    assert message.startswith(f"A prompt of {CONTEXT + 1} tokens with a rollout of 1 tokens does not fit the model's")
    assert f"context of {CONTEXT}" in message and "\n" not in message


@pytest.mark.parametrize("name", ["llama", "gpt2, learned positions", "opt, learned positions from 2"])
def test_a_context_that_fills_ends_the_row_and_not_the_others(name):
    """A full row waits for compaction in the batch, where no position is left for it."""
    model = tiny(name)
    prompts = [[9] * (CONTEXT - 6) + [3], [10, 3], [11, 12, 3]]
    budgets = [Budget(), Budget(60, 20), Budget(20, 50)]
    rollouts = engine_of(model).generate(prompts, budgets, GREEDY)
    for rollout, prompt, budget in zip(rollouts, prompts, budgets, strict=True):
        assert segments(rollout) == reference_rollout(greedy(model), prompt, budget, TOKENS, CONTEXT)
    assert rollouts[0].thinking_stop_reason is ThinkingStopReason.LENGTH
    assert len(rollouts[0].completion_ids) == 5


def test_a_model_that_diverged_is_an_error_and_no_rollout(llama):
    model = copy.deepcopy(llama)
    model.lm_head.weight.data[:] = float("nan")
    for sampling in (GREEDY, Sampling(), Sampling(top_k=3)):
        with pytest.raises(ValueError, match="a log-probability is positive or not a finite number"):
            engine_of(model).generate([[9, 3]], [Budget(3, 3)], sampling)


def test_nothing_to_do(llama):
    assert engine_of(llama).generate([], [], GREEDY) == []
    with pytest.raises(ValueError):
        engine_of(llama).generate([[9, 3]], [], GREEDY)


@pytest.mark.parametrize("uniform", [0.0, 1e-12, 0.3, 0.5, 1 - 2**-53])
def test_a_token_of_probability_0_is_never_drawn(uniform):
    probabilities = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    assert _invert_cdf(probabilities, torch.tensor([uniform], dtype=torch.float64)).item() in (1, 3)


def test_the_cumulative_distribution_is_inverted():
    uniforms = torch.tensor([0.0, 0.24, 0.26, 0.74, 0.76, 0.999], dtype=torch.float64)
    probabilities = torch.tensor([[0.25, 0.5, 0.25]]).expand(6, 3)
    assert _invert_cdf(probabilities, uniforms).tolist() == [0, 0, 1, 1, 2, 2]
