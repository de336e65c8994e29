"""Reminders of what is left of a thinking budget, against the rules written a second time; engines and training."""

import random
from dataclasses import replace

import pytest
from datasets import Dataset
from reference import TOKENS, VOCABULARY, greedy, reference_rollout, segments
from test_engine_models import full_logprobs
from test_fork import PlayedEngine
from test_requested import CONTEXT as REQUEST_CONTEXT
from test_requested import ONE_TOKEN_MARKERS, chooser, closes_thinking, goes_on, requested, stops
from test_rollout import grow
from tiny_models import CONTEXT, tiny
from tokenizers import Tokenizer, models, pre_tokenizers
from trainer_fixtures import config_fields, make_trainer, recorded_training, rollouts_by_ids, save_model
from transformers import PreTrainedTokenizerFast
from trl import ModelConfig

from elastic.arguments import DataArguments
from elastic.budget import UNLIMITED, Budget, ReasoningTokens, Reminders
from elastic.config import ElasticConfig
from elastic.engines.requested import Answer
from elastic.engines.transformers import TransformersEngine
from elastic.rollout import Sampling, ThinkingStopReason
from elastic.rollout_builder import RolloutBuilder
from elastic.setup import check_context

GREEDY = Sampling(temperature=0)
PROMPT = [7, 8, 3]


def left(count):
    """`left` is 20, and the digits are 10 to 19: words that the policy samples too."""
    return (20, *(10 + int(digit) for digit in str(count)))


def reminded(every, tokens=TOKENS):
    return replace(tokens, reminders=Reminders(every, "left {tokens}", left))


def budget_of(rng):
    t = rng.choice([UNLIMITED, 0, 1, rng.randrange(30), rng.randrange(30)])
    s = rng.choice([UNLIMITED, 0, 1, rng.randrange(9)])
    return Budget(t, s, rng.choice([UNLIMITED, UNLIMITED, rng.randrange(40)]))


def test_the_policy_is_reminded_after_each_so_many_sampled_tokens():
    rollout = grow([9, 9, 9, 9, 9, 8, 1], Budget(5, 4), reminded(2))
    assert segments(rollout) == {
        "thinking": [9, 9, 20, 13, 9, 9, 20, 11, 9],
        "bridge": [6, 4, 5],
        "solution": [8, 1],
        "reason": "budget",
        "finish": "stop",
    }
    assert rollout.env_mask == [1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 1]
    assert (rollout.thinking_tokens, rollout.completion_tokens, len(rollout.logprobs)) == (5, 7, 7)
    assert rollout.completion_logprobs[1:5] == [-2 / 8, 0.0, 0.0, -3 / 8]


@pytest.mark.parametrize(
    ("script", "thinking"),
    [
        ([9, 9, 4, 5, 8, 1], [9, 9, 20, 11, 10, 4, 5]),  # closed by the policy where another would come
        ([9, 1], [9, 1]),
        ([9, 4, 5, 8, 8, 4, 5, 1], [9, 4, 20, 11, 10, 5, 8, 20, 18, 8, 4, 20, 16, 5, 1]),  # parts an end marker
    ],
)
def test_a_thinking_that_has_ended_is_reminded_of_nothing(script, thinking):
    assert grow(script, Budget(12, 9), reminded(2)).thinking_ids == thinking


def test_nothing_is_told_without_a_limit():
    assert grow([9] * 6 + [4, 5, 1], Budget(-1, 4), reminded(2), context=60).thinking_ids == [9] * 6 + [4, 5]


def test_random_policies_are_the_references():
    """Any budget, context and distance: the segments, and that the policy's own tokens are those that are masked in."""
    rng, refused, seen, most_reached = random.Random(0), 0, set(), 0
    for _ in range(6000):
        script = rng.choices([1, 2, 3, 4, 5, 6, 9, 13, 20], [1, 1, 1, 4, 4, 1, 9, 2, 2], k=80)
        budget, context = budget_of(rng), len(PROMPT) + rng.randrange(1, 70)
        tokens = reminded(rng.choice([1, 2, 3, 7]), rng.choice([TOKENS, ONE_TOKEN_MARKERS]))
        try:
            most = RolloutBuilder(PROMPT, budget, tokens, context).most_new_tokens
        except ValueError as error:
            assert "does not fit" in str(error)
            refused += 1
            continue
        rollout, policy = grow(script, budget, tokens, context), iter(script)
        expected = reference_rollout(lambda ids, policy=policy: next(policy), PROMPT, budget, tokens, context)
        assert segments(rollout) == expected
        own = [token for token, policys in zip(rollout.completion_ids, rollout.env_mask, strict=True) if policys]
        assert own == script[: rollout.completion_tokens]
        assert len(rollout.completion_ids) <= most
        most_reached += len(rollout.completion_ids) == most
        seen.add((expected["reason"], len(rollout.interjected) > 0))
    assert refused < 3000 and most_reached > 100
    assert seen == {(str(reason), told) for reason in ThinkingStopReason for told in (True, False)}


@pytest.mark.parametrize("missing", [False, True])
def test_a_context_has_room_for_what_is_inserted(missing):
    """t = 5, the bridge of 3, s = 4, and two reminders of 2."""
    context = len(PROMPT) + 5 + 3 + 4 + 4 - missing
    if missing:
        with pytest.raises(ValueError, match="a rollout of 16 tokens does not fit"):
            RolloutBuilder(PROMPT, Budget(5, 4), reminded(2), context)
        return
    assert len(grow([9] * 9, Budget(5, 4), reminded(2), context).completion_ids) == 16


def test_a_record_without_a_reminder_is_inconsistent():
    rollout = grow([9, 9, 9, 9, 9, 8, 1], Budget(5, 4), reminded(2))
    for changes in (
        {"interjected": [2], "logprobs": [-1.0] * 8, "raw_logprobs": [-1.0] * 8},
        {"thinking_ids": [9, 9, 20, 14, 9, 9, 20, 11, 9]},
        {"tokens": reminded(3)},
    ):
        with pytest.raises(ValueError, match="Inconsistent rollout: a reminder is missing, or is another's"):
            replace(rollout, **changes)


@pytest.mark.parametrize("engine", [stops, goes_on, closes_thinking])
@pytest.mark.parametrize("markers", [TOKENS, ONE_TOKEN_MARKERS])
def test_rollouts_by_request_are_the_references(engine, markers):
    """An engine that could close the thinking itself is not asked to."""
    told = 0
    for seed in range(150):
        rng, choose = random.Random(seed), chooser(seed)
        tokens, budget = reminded(rng.choice([1, 2, 5], ), markers), budget_of(rng)  # fmt: skip
        played = PlayedEngine(choose, engine, tokens)
        played.one_pass = engine is closes_thinking
        prompt = [rng.randrange(7, VOCABULARY) for _ in range(3)]
        try:
            (rollout,) = played.generate([prompt], [budget], GREEDY)
        except ValueError:
            continue
        assert segments(rollout) == reference_rollout(choose, prompt, budget, tokens, REQUEST_CONTEXT)
        told += len(rollout.interjected) > 0
    assert told > 30


def test_a_request_goes_up_to_the_next_reminder_and_the_engine_closes_nothing():
    rollouts = requested([[7, 3]], [Budget(8, 4)], reminded(3, ONE_TOKEN_MARKERS), one_pass=True)
    asked = []
    for answer in ([9, 9, 9], [9, 4, 8], [8, 8, 8]):
        request = rollouts.next_request(0)
        asked.append((request.prompt_ids, request.max_tokens, request.thinking_token_budget > 8))
        rollouts.take(0, Answer(answer))
    assert asked == [
        ([7, 3], 3, True),
        ([7, 3, 9, 9, 9, 20, 15], 3, True),
        ([7, 3, 9, 9, 9, 20, 15, 9, 4, 8], 3, True),
    ]
    assert rollouts.next_request(0) is None


def test_the_transformers_engine_is_the_plain_loop():
    model, tokens = tiny(), reminded(3)
    model.get_output_embeddings().weight.data[[1, 2, 4, 5]] *= 3.0
    engine = TransformersEngine(model, tokens, pad_token_id=0, max_batch_tokens=300)
    prompts = [[9, 3], [17, 3], [10, 11, 12], [7, 20, 13, 9, 8, 15, 22, 19, 3], [12, 18, 9, 21, 7, 8, 3]]
    budgets = (Budget(14, 6), Budget(3, 6), Budget(4, 6), Budget(-1, 6), Budget(9, -1, total=20))
    rows = [(prompt, budget) for budget in budgets for prompt in prompts]
    rollouts = engine.generate(*zip(*rows, strict=True), GREEDY)
    for (prompt, budget), rollout in zip(rows, rollouts, strict=True):
        assert segments(rollout) == reference_rollout(greedy(model), prompt, budget, tokens, CONTEXT)
        assert rollout.raw_logprobs == pytest.approx(full_logprobs(model, rollout), abs=1e-4)
    assert sum(len(rollout.interjected) > 0 for rollout in rollouts) > 5


def test_a_fork_has_the_thinking_budget_that_it_was_reminded_of():
    """All of a rollout but its thinking budget may change; another is another prompt."""
    tokens = reminded(2)
    for seed in range(200):
        rng, choose = random.Random(seed), chooser(seed)
        t = rng.randrange(12)
        first, second = (Budget(t, rng.choice([0, 3, 9]), rng.choice([UNLIMITED, rng.randrange(16)])) for _ in range(2))
        engine = PlayedEngine(choose, stops, tokens)
        source = engine.generate([[7, 8]], [first], GREEDY)
        ((fork,),) = engine.fork(source, [t], second, GREEDY)
        assert segments(fork) == reference_rollout(choose, [7, 8], second, tokens, REQUEST_CONTEXT)
        with pytest.raises(ValueError, match="with other reminders than those of a thinking budget of 13 cannot be"):
            engine.fork(source, [13], second, GREEDY)
        with pytest.raises(ValueError, match=r"with other reminders .* sample one from the start"):
            engine.fork(source, [t], second, GREEDY, tokens=TOKENS)


def test_a_reminded_rollout_thinks_on_and_is_reminded_of_what_is_left():
    closed = grow([9, 9, 9, 4, 5, 8, 1], Budget(7, 4), reminded(2), 40)
    assert closed.thinking_ids == [9, 9, 20, 15, 9, 4, 20, 13, 5, 8, 20, 11, 1]  # the marker was parted
    closed = grow([9, 9, 4, 5, 8, 1], Budget(7, 4), reminded(3), 40)
    assert closed.thinking_ids == [9, 9, 4, 20, 14, 5, 8, 1]
    closed = grow([9, 9, 9, 4, 5, 8, 1], Budget(7, 2), reminded(3), 3 + 7 + 3 + 2 + 4 + 2)
    assert closed.thinking_ids == [9, 9, 9, 20, 14, 4, 5]
    builder = RolloutBuilder.think_on(closed, [21, 22], 3 + 7 + 3 + 2 + 4 + 2)
    while not builder.finished:
        builder.insert() if builder.forced_token is not None else builder.sample(9, -1.0, -1.0)
    assert builder.build().thinking_ids == [9, 9, 9, 20, 14, 21, 22, 9, 9, 9, 20, 11, 9]


def words(*own):
    vocabulary = ["<unk>", "<eos>", "<think>", "</think>", *own, *"0123456789"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(True)])
    template = "{% for message in messages %}{{ message.content }}{% endfor %}{{ ' <think>' }}"
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>", chat_template=template
    )


def test_the_ids_are_the_tokenizers():
    tokenizer = words("left", "now")
    tokens = ReasoningTokens.from_tokenizer(tokenizer, reminder_every=8, reminder_str="left {tokens} now")
    assert tokenizer.convert_ids_to_tokens(list(tokens.reminders.after(16, 120))) == ["left", "1", "0", "4", "now"]
    assert tokens.reminders.after(17, 120) == tokens.reminders.after(120, 120) == tokens.reminders.after(8, -1) == ()
    assert (
        tokens.reminders
        == ReasoningTokens.from_tokenizer(
            words("left", "now"), reminder_every=8, reminder_str="left {tokens} now"
        ).reminders
    )
    assert ReasoningTokens.from_tokenizer(tokenizer).reminders is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("right {tokens}", "of which the tokenizer does not know all words"),
        ("</think> {tokens}", "has tokens of the end marker or EOS: choose words that do not end the thinking"),
        ("{tokens} <eos>", "has tokens of the end marker or EOS: choose words that do not end the thinking"),
    ],
)
def test_words_that_cannot_be_inserted_are_refused(text, sentence):
    with pytest.raises(ValueError, match=f"reminder_str .*{sentence}"):
        ReasoningTokens.from_tokenizer(words("left"), reminder_every=8, reminder_str=text)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (dict(reminder_every=-1), "reminder_every is -1: give a number of tokens, or 0 for no reminders"),
        (dict(reminder_every=4), "reminder_str is '', and reminder_every is 4: write {tokens}"),
        (
            dict(reminder_every=4, reminder_str="left"),
            "reminder_str is 'left', and reminder_every is 4: write {tokens}",
        ),
        (dict(reminder_str="left {tokens}"), "reminder_str is 'left {tokens}', and reminder_every is 0: give the"),
    ],
)
def test_fields_that_contradict_each_other_are_one_sentence(tmp_path, fields, sentence):
    with pytest.raises(ValueError) as refused:
        ElasticConfig(**config_fields(tmp_path, **fields))
    assert str(refused.value).startswith(sentence)


def test_training_is_reminded_and_learns_from_the_policys_tokens_alone(tmp_path):
    tokenizer = words("left", *"abcd")
    fields = dict(reminder_every=2, reminder_str="left {tokens}", tokenizer=tokenizer, max_steps=1)
    trainer = make_trainer(tmp_path, **fields)
    assert trainer.max_completion_length == 6 + 1 + 3 + 2 * 2
    (update,) = recorded_training(trainer)
    known, reminded_rows = rollouts_by_ids(update.round.rollouts), 0
    inputs = update.inputs
    for row in range(len(inputs["prompt_ids"])):
        ids = [
            *inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()].tolist(),
            *inputs["completion_ids"][row][inputs["completion_mask"][row].bool()].tolist(),
        ]
        rollout = known[tuple(ids)]
        trained = inputs["tool_mask"][row][inputs["completion_mask"][row].bool()].tolist()
        assert trained == rollout.env_mask
        for place in rollout.interjected:
            assert trained[place] == 0
        reminded_rows += len(rollout.interjected) > 0
    assert reminded_rows > 2


@pytest.mark.parametrize("too_long", [0, 1])
def test_the_context_of_a_model_has_to_hold_the_reminders(tmp_path, too_long):
    """A prompt of 4 tokens, t = 16, the end marker, s, and two reminders: of 4 tokens with 10 left, of 3 with 4."""
    folder, tokenizer = save_model(tmp_path / "model", words("left", "of", *"abc")), words("left", "of", *"abc")
    config = ElasticConfig(
        **config_fields(
            tmp_path,
            thinking_token_budget=16,
            solution_token_budget=256 - 4 - 16 - 1 - 7 + too_long,
            reminder_every=6,
            reminder_str="left {tokens} of",
        )
    )
    dataset = Dataset.from_list([{"prompt": [{"role": "user", "content": "a b c"}]}])
    given = ModelConfig(model_name_or_path=folder), tokenizer, DataArguments(dataset_name="d"), config, dataset
    if too_long:
        with pytest.raises(ValueError, match=r"The longest prompt \(4 tokens\) and the longest rollout \(253 tokens\)"):
            check_context(*given)
    else:
        check_context(*given)
