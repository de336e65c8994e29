"""Separate budgets in a served model: the rules, against a slow reading of them, and what a request may ask for."""

import random

import pytest
import torch
from reference import reference_rollout

from elastic.budget import Budget, ReasoningTokens
from elastic.serving.phases import BatchPhases, Markers, RequestBudgets, RequestPhases

EOS, CUT, SPACE = 1, 2, 9
WORDS = [3, 4, 5, 6, 7, 8]


def with_openings(start, **others):
    return Markers(start=start, opened=(start, (*start, SPACE)), **others)


MARKERS = {
    "one token each": with_openings(start=(3,), end=(4,), bridge=(4,)),
    "several tokens": with_openings(start=(3, 5), end=(4, 6, 4), bridge=(4, 6, 4)),
    "repeated tokens": with_openings(start=(3, 3), end=(4, 4), bridge=(4, 4)),
    "markers that overlap": with_openings(start=(3, 5), end=(5, 6), bridge=(5, 6)),
    "wrap-up text": with_openings(start=(3,), end=(4, 5), bridge=(6, 4, 4, 5)),
}
LENGTH = 64


class Request:
    """A random request, and token by token what must come out of it: `script`, of (token, whether it is forced)."""

    def __init__(self, seed: int, markers: Markers):
        rng = random.Random(seed)
        self.budgets = RequestBudgets(*(rng.choice([-1, 0, 1, 2, 5, 12]) for _ in "ts"), rng.choice([EOS, CUT, None]))
        start, end = markers.start, markers.end
        opened = rng.random() < 0.5
        self.prompt = rng.choice([[7], [7, *start, 8, *end], [7, *end], [7, *start, 8, 7], [*start, SPACE, 8]])
        self.prompt += rng.choice([[*start], [*start, SPACE]]) if opened else []
        samples = rng.choices([EOS, *WORDS], weights=[1, 3, 9, 4, 4, 3, 3], k=30)
        if opened or rng.random() < 0.6:
            self.script = [] if opened else [(token, False) for token in start]
            self.script += self._thinking_and_solution(markers, samples)
        else:
            self.script = self._solution_alone([*start[:-1], 8, *samples], len(start))

    def _thinking_and_solution(self, markers: Markers, samples: list[int]):
        opening = (*self.prompt, *markers.start)
        tokens = ReasoningTokens(markers.start, markers.end, markers.bridge, frozenset({EOS}), (opening,))
        sampled = iter(samples)
        budget = Budget(self.budgets.thinking, self.budgets.solution)
        made = reference_rollout(lambda ids: next(sampled, EOS), opening, budget, tokens)
        yield from ((token, False) for token in made["thinking"])
        yield from ((token, True) for token in made["bridge"])
        yield from ((token, False) for token in made["solution"])
        if made["finish"] == "length":
            yield self.budgets.stop_token_id, self.budgets.stop_token_id is not None

    def _solution_alone(self, samples: list[int], known: int):
        """An answer that does not begin with the start marker, which `known` tokens show."""
        most = len(samples) if self.budgets.solution == -1 else max(self.budgets.solution, known)
        end = samples.index(EOS) + 1 if EOS in samples else len(samples)
        script = [(token, False) for token in samples[: min(most, end)]]
        return (
            script if end <= most else [*script, (self.budgets.stop_token_id, self.budgets.stop_token_id is not None)]
        )

    def forced(self, output: list[int]) -> int | None:
        token, forced = self.script[len(output)]
        return token if forced else None


@pytest.fixture(params=MARKERS, scope="module")
def markers(request):
    return MARKERS[request.param]


@pytest.fixture(scope="module")
def requests(markers):
    return [Request(seed, markers) for seed in range(400)]


def test_the_random_requests_meet_every_rule(requests):
    """A forced close, a cut solution, a natural close, and a start marker from the model: none may be missing."""
    forced = [sum(forced for _, forced in request.script) for request in requests]
    assert forced.count(0) > 20 and forced.count(1) > 20 and max(forced) > 1


def test_one_request_is_forced_where_the_rules_say(markers, requests):
    for request in requests:
        output: list[int] = []
        phases = RequestPhases(markers, request.budgets, request.prompt, output)
        for token, _ in request.script:
            assert phases.forced_token() == request.forced(output), (request.budgets, request.prompt, output)
            output.append(token)


def test_a_request_that_comes_back_goes_on_where_it_was(markers, requests):
    for request in requests[:100]:
        for length in range(len(request.script)):
            output = [token for token, _ in request.script[:length]]
            assert RequestPhases(markers, request.budgets, request.prompt, output).forced_token() == request.forced(
                output
            )


class Slots:
    """What a model runner keeps: tokens [S, L] and lengths [S] of the requests in its slots."""

    def __init__(self, count: int):
        self.tokens_SL = torch.zeros(count, LENGTH, dtype=torch.int32)
        self.prompt_S = torch.zeros(count, dtype=torch.int32)
        self.total_S = torch.zeros(count, dtype=torch.int32)
        self.requests: dict[int, tuple[Request, list[int]]] = {}

    @property
    def buffers(self):
        return self.tokens_SL, self.prompt_S, self.total_S

    def put(self, slot: int, request: Request, output: list[int]):
        """Leaves what stood behind the new tokens, as a recycled slot does."""
        ids = [*request.prompt, *output]
        self.tokens_SL[slot, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        self.prompt_S[slot], self.total_S[slot] = len(request.prompt), len(ids)
        self.requests[slot] = request, output

    def append(self, slot: int) -> bool:
        """The next token of the script; whether the request is still going."""
        request, output = self.requests[slot]
        output.append(request.script[len(output)][0])
        self.put(slot, request, output)
        return len(output) < len(request.script)


def test_a_batch_is_forced_where_the_rules_say(markers, requests):
    """Requests come and go in recycled slots, in any order, and some are preempted and come back elsewhere."""
    rng = random.Random(0)
    slots, phases = Slots(16), BatchPhases(markers, 16, torch.device("cpu"))
    waiting = [(request, []) for request in requests if request.script and request.budgets.stop_token_id is not None]
    checked = 0
    while waiting or slots.requests:
        free = [slot for slot in range(16) if slot not in slots.requests]
        admitted = {}
        for slot in rng.sample(free, min(len(free), len(waiting), rng.randint(0, 4))):
            slots.put(slot, *waiting.pop())
            admitted[slot] = slots.requests[slot][0].budgets
        if admitted:
            phases.admit(admitted, *slots.buffers)
        running = rng.sample(list(slots.requests), rng.randint(0, len(slots.requests)))
        if not running:
            continue
        for slot, forced in zip(
            running, phases.forced_tokens(torch.tensor(running), *slots.buffers).tolist(), strict=True
        ):
            request, output = slots.requests[slot]
            assert (None if forced == -1 else forced) == request.forced(output), (
                request.budgets,
                request.prompt,
                output,
            )
            checked += 1
            if not slots.append(slot):
                del slots.requests[slot]
            elif rng.random() < 0.05:
                waiting.insert(0, slots.requests.pop(slot))
    assert checked > 1000


def test_a_slot_without_budgets_is_never_forced():
    markers, slots = MARKERS["one token each"], Slots(2)
    phases = BatchPhases(markers, 2, torch.device("cpu"))
    request = Request(0, markers)
    request.prompt = [3]
    slots.put(0, request, [])
    slots.put(1, request, [])
    phases.admit({0: RequestBudgets(0, 0, EOS), 1: RequestBudgets(0, 0, EOS)}, *slots.buffers)
    phases.admit({1: RequestBudgets(-1, -1, None)}, *slots.buffers)
    assert phases.forced_tokens(torch.tensor([0, 1]), *slots.buffers).tolist() == [4, -1]


@pytest.mark.parametrize("arguments", [None, {}, {"session_id": "7"}])
def test_a_request_without_budgets_is_left_alone(arguments):
    assert RequestBudgets.read(arguments) is None


def test_what_a_request_asks_for():
    assert RequestBudgets.read({"solution_token_budget": 7}) == RequestBudgets(-1, 7, None)
    assert RequestBudgets.read({"thinking_token_budget": 0}) == RequestBudgets(0, -1, None)
    asked = {"thinking_token_budget": 5, "solution_token_budget": -1, "solution_stop_token_id": 9}
    assert RequestBudgets.read(asked) == RequestBudgets(5, -1, 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solution_token_budget": "7"}, "solution_token_budget is '7': give a whole number of tokens"),
        ({"solution_token_budget": 1.5}, "solution_token_budget is 1.5"),
        ({"thinking_token_budget": -2}, "thinking_token_budget is -2"),
        ({"solution_token_budget": 1, "solution_stop_token_id": -3}, "solution_stop_token_id is -3: give the id"),
        ({"solution_stop_token_id": 3}, "beside a solution_token_budget"),
        ({"thinking_budget": 5}, "thinking_budget is no budget of vllm_xargs: give thinking_token_budget or solution_"),
        ({"solution_token_budget": 7, "Thinking_Token_Budget": 5}, "Thinking_Token_Budget is no budget of vllm_xargs"),
    ],
)
def test_a_budget_that_is_none_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        RequestBudgets.read(arguments)
    assert str(error.value).count(". ") == 0
