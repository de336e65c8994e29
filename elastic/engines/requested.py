"""Rollouts from engines that are asked for tokens by request, in this process or over HTTP.

A rollout is a request for its thinking and one for its solution, the second sent as soon as its own thinking has ended:
no row waits for another. Where the policy closes its thinking and the solution may take all that the request has left,
the first goes on into it. RolloutBuilder decides what every token means, as it does for the other engine.
"""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from elastic.budget import UNLIMITED, ReasoningTokens
from elastic.engines.engine import Engine, Growth, OnRollout, OnStep
from elastic.rollout import Rollout, Sampling
from elastic.rollout_builder import RolloutBuilder

_MOST_TOKENS = 2**31 - 1


class EngineError(Exception):
    """An engine cannot give what it is asked for; the message is one sentence.

    Attributes:
        status: the HTTP status that a server gave; None where there was none.
    """

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """What to sample next for one rollout: at most `max_tokens` after `prompt_ids`, up to one of `stop_token_ids`.

    `thinking_token_budget`, where it is not None, asks the engine to close the thinking itself (see `one_pass`).
    """

    prompt_ids: list[int]
    max_tokens: int
    stop_token_ids: list[int]
    seed: int
    thinking_token_budget: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The ids that followed, a stop token included, and the log-probability of each; None where it is not known.

    `raw_logprobs` are under the model's own distribution, `logprobs` under the one that was sampled from.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float] | None = None
    raw_logprobs: Sequence[float] | None = None


class RequestedRollouts:
    """Rollouts that are made side by side, each grown by the answers to its own requests.

    Args:
        builders: of the rollouts, as far as they have come.
        streams: the number of each row's random stream.
        one_pass: let the engine close the thinking itself where it can, so that one request serves both phases. What
            it sampled beyond the solution budget is dropped.
        on_rollout: called with the place and the rollout of each as soon as it has finished.
    """

    def __init__(
        self,
        builders: Sequence[RolloutBuilder],
        tokens: ReasoningTokens,
        *,
        seed: int,
        streams: Sequence[int],
        one_pass: bool = False,
        on_rollout: OnRollout | None = None,
    ):
        self._tokens = tokens
        self._builders = builders
        self._seeds = [random.Random(f"{seed}/{number}") for number in streams]
        self._one_pass = one_pass
        self._closed_by_engine: set[int] = set()
        self._on_rollout = on_rollout
        self._rollouts: dict[int, Rollout] = {}

    def next_request(self, row: int) -> Request | None:
        """What to ask for next; None when the rollout has finished, which is then told to `on_rollout`."""
        builder = self._builders[row]
        while not builder.finished and builder.forced_token is not None:
            builder.insert()
        if builder.finished:
            self._rollouts[row] = builder.build()
            if self._on_rollout is not None:
                self._on_rollout(row, self._rollouts[row])
            return None
        thinks = builder.thinking_stop_reason is None
        prompt_ids = [*builder.prompt_ids, *builder.completion_ids]
        seed = self._seeds[row].getrandbits(31)
        eos = sorted(self._tokens.eos)
        most_tokens = _whole(builder.phase_tokens_left)
        # Where the solution may take all that is left, a natural close needs no stop: the request goes on into it.
        flows_on = builder.budget.solution == UNLIMITED or builder.budget.solution >= most_tokens
        stops = sorted({*eos, self._tokens.end[-1]}) if thinks and not flows_on else eos
        if self._can_close(builder):
            self._closed_by_engine.add(row)
            budget = builder.budget.thinking + self._prefilled(builder.prompt_ids)
            return Request(prompt_ids, _whole(builder.most_new_tokens), eos, seed, thinking_token_budget=budget)
        # vLLM 0.32 applies the budget of a row that has left to one that comes in its place without a budget.
        unlimited = _MOST_TOKENS if self._one_pass else None
        return Request(prompt_ids, most_tokens, stops, seed, thinking_token_budget=unlimited)

    def _can_close(self, builder: RolloutBuilder) -> bool:
        """Whether the engine can close this thinking itself: it inserts nothing but the end marker."""
        plain = builder.tokens.bridge == builder.tokens.end and builder.tokens.reminders is None
        begins = builder.thinking_stop_reason is None and not builder.thinking_ids
        return self._one_pass and plain and begins and builder.budget.thinking > 0

    def _prefilled(self, prompt_ids: Sequence[int]) -> int:
        """Tokens of the prompt after its last start marker, which vLLM counts as thinking."""
        start = self._tokens.start
        ends = (end for end in range(len(prompt_ids), 0, -1) if tuple(prompt_ids[end - len(start) : end]) == start)
        return len(prompt_ids) - next(ends)

    def take(self, row: int, answer: Answer) -> None:
        """Take what a request has given, as far as the rules of a rollout let it be used; the rest is dropped.

        Raises:
            EngineError: the engine gave no token.
        """
        if not answer.token_ids:
            raise EngineError("The engine gave no token for a request that allowed one or more.")
        builder, unknown = self._builders[row], [None] * len(answer.token_ids)
        closed_by_engine = row in self._closed_by_engine
        self._closed_by_engine.discard(row)
        columns = (answer.token_ids, answer.logprobs or unknown, answer.raw_logprobs or unknown)
        for token, logprob, raw_logprob in zip(*columns, strict=True):
            forced = builder.forced_token
            if builder.finished or (forced is not None and forced != token):
                return
            if forced is not None:
                builder.insert()
                continue
            builder.sample(token, logprob, raw_logprob)
            start = self._tokens.start
            if closed_by_engine and tuple(builder.solution_ids[-len(start) :]) == start:
                return  # it would close what is re-opened here too

    def finished(self) -> list[Rollout]:
        """The rollouts, in the order of their prompts."""
        return [self._rollouts[row] for row in range(len(self._builders))]

    def __len__(self) -> int:
        return len(self._builders)


class RequestEngine(Engine):
    """An engine that answers requests.

    Attributes:
        one_pass: whether the engine closes the thinking itself (see RequestedRollouts).
    """

    one_pass: bool = False

    def grow(self, builders: Sequence[RolloutBuilder], how: Growth) -> list[Rollout]:
        rollouts = RequestedRollouts(
            builders,
            self.tokens,
            seed=how.seed,
            streams=how.streams,
            one_pass=self.one_pass,
            on_rollout=how.on_rollout,
        )
        self._answer_all(rollouts, how.sampling, how.on_step)
        return rollouts.finished()

    @abstractmethod
    def _answer_all(self, rollouts: RequestedRollouts, sampling: Sampling, on_step: OnStep | None) -> None:
        """Answer the requests of all rows until there are none."""


def is_raw(sampling: Sampling) -> bool:
    """Whether what is sampled from is the model's own distribution, or its mode."""
    filtered = sampling.top_p < 1 or sampling.top_k or sampling.min_p
    return sampling.temperature == 0 or (sampling.temperature == 1 and not filtered)


def _whole(tokens: float) -> int:
    return _MOST_TOKENS if math.isinf(tokens) else int(tokens)
