"""Rollout: one sampled completion by segment, its masks, and the invariants that make it trustworthy.

    prompt | thinking ... end marker | solution ... EOS          closed by the policy (`natural`)
    prompt | thinking ...  [bridge]  | solution ... EOS          closed by the system (`budget`)

Masks come from lengths and authorship, never from searching for a token id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from elastic.budget import UNLIMITED, Budget, ReasoningTokens, count_marker


class ThinkingStopReason(StrEnum):
    """Why the thinking phase ended."""

    NATURAL = "natural"
    """The policy sampled the end marker within its thinking budget."""
    BUDGET = "budget"
    """The thinking budget was spent without the end marker; the system inserted the bridge."""
    EOS = "eos"
    """The policy sampled EOS while thinking: the rollout ends there, with an empty solution."""
    LENGTH = "length"
    """The total budget or the model's context ran out while thinking: nothing is inserted, the solution is empty."""


class FinishReason(StrEnum):
    """Why the rollout ended, in vLLM's words."""

    STOP = "stop"
    """The policy sampled EOS."""
    LENGTH = "length"
    """The solution budget, the total budget or the model's context was spent; no EOS is invented."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are sampled, in transformers' words and with its meaning; temperature 0 is greedy decoding.

    `top_k` 0 or None and `min_p` 0 or None filter nothing.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = 0
    min_p: float | None = 0.0

    def __post_init__(self):
        object.__setattr__(self, "temperature", float(self.temperature))
        object.__setattr__(self, "top_k", 0 if self.top_k is None else self.top_k)
        object.__setattr__(self, "min_p", 0.0 if self.min_p is None else self.min_p)
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature is {self.temperature!r}: give a number of 0 (greedy) or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p!r}: give a number above 0, at most 1.")
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k!r}: give a whole number, 0 to keep every token.")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p!r}: give a number from 0 to 1.")


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion. Building an inconsistent one raises ValueError.

    Attributes:
        prompt_ids: the prompt, with thinking opened.
        thinking_ids: what the policy sampled while thinking, its own end marker or EOS included, and what the system
            inserted there (see `interjected`).
        bridge_ids: what the system inserted to close the thinking; empty unless the reason is `budget`.
        solution_ids: what the policy sampled after the close, EOS included.
        logprobs: log-probability of each policy-sampled token (thinking then solution) under the distribution that it
            was drawn from; nats.
        raw_logprobs: the same under the model's own distribution: temperature 1, nothing filtered; nats.
            Either is None where the engine does not say.
        tokens: the markers and EOS ids that it was sampled with.
        interjected: places in `thinking_ids` of tokens that the system inserted, ascending.
    """

    prompt_ids: Sequence[int]
    thinking_ids: Sequence[int]
    bridge_ids: Sequence[int]
    solution_ids: Sequence[int]
    budget: Budget
    thinking_stop_reason: ThinkingStopReason
    finish_reason: FinishReason
    logprobs: Sequence[float] | None
    raw_logprobs: Sequence[float] | None
    tokens: ReasoningTokens = field(repr=False)
    interjected: Sequence[int] = ()

    def __post_init__(self):
        object.__setattr__(self, "thinking_stop_reason", ThinkingStopReason(self.thinking_stop_reason))
        object.__setattr__(self, "finish_reason", FinishReason(self.finish_reason))
        for problem, found in self._inconsistencies():
            if found:
                raise ValueError(f"Inconsistent rollout: {problem}. {self}")

    def _inconsistencies(self):
        budget = self.budget
        yield "the prompt is empty", not self.prompt_ids
        bounds = [-1, *self.interjected, len(self.thinking_ids)]
        yield "interjected names no ascending places of thinking", any(a >= b for a, b in pairwise(bounds))
        yield "a reminder is missing, or is another's", not self._is_reminded()
        yield "more thinking tokens than the budget", _over(self.thinking_tokens, budget.thinking)
        solution_budget = budget.solution_after(self.thinking_tokens)
        yield "more solution tokens than the budget", _over(self.solution_tokens, solution_budget)
        yield "more tokens than the total budget", _over(self.completion_tokens, budget.total)
        for logprobs in (self.logprobs, self.raw_logprobs):
            if logprobs is not None:
                yield "one log-probability is needed for each sampled token", len(logprobs) != self.completion_tokens
                yield (
                    "a log-probability is positive or not a finite number",
                    not all(-math.inf < logprob <= 1e-6 for logprob in logprobs),
                )
        yield from self._thinking_inconsistencies()
        yield from self._solution_inconsistencies()

    def _is_reminded(self) -> bool:
        """Whether each reminder was inserted, after the sampled thinking tokens that it follows."""
        reminders, t = self.tokens.reminders, self.budget.thinking
        if reminders is None:
            return True
        inserted = set(self.interjected)
        sampled = [place for place in range(len(self.thinking_ids)) if place not in inserted]
        for count in range(reminders.every, len(sampled), reminders.every):
            ids = reminders.after(count, t)
            places = range(sampled[count - 1] + 1, sampled[count - 1] + 1 + len(ids))
            if not inserted.issuperset(places) or tuple(self.thinking_ids[places.start : places.stop]) != ids:
                return False
        return True

    def _thinking_inconsistencies(self):
        reason, end, eos = self.thinking_stop_reason, self.tokens.end, self.tokens.eos
        markers = count_marker(self.thinking_ids, end)
        closes = tuple(self.thinking_ids[-len(end) :]) == end
        eos_seen = sum(token in eos for token in self.thinking_ids)
        if reason is ThinkingStopReason.NATURAL:
            yield "a natural close has one end marker, at its end, and no EOS", not closes or markers > 1 or eos_seen
        else:
            yield "an end marker was sampled, but the close is not natural", markers
        if reason is ThinkingStopReason.BUDGET:
            yield "a forced close spends the thinking budget", self.thinking_tokens != self.budget.thinking
            yield "a forced close inserts the bridge", tuple(self.bridge_ids) != self.tokens.bridge
            yield "EOS was sampled in thinking, but the reason is not eos", eos_seen
        else:
            yield "a bridge was inserted, but the close is not forced", self.bridge_ids
        if reason is ThinkingStopReason.EOS:
            yield "the reason is eos without one EOS at the end", eos_seen != 1 or self.thinking_ids[-1] not in eos
        if reason is ThinkingStopReason.LENGTH:
            yield "EOS was sampled in thinking, but the reason is not eos", eos_seen
            yield (
                "the thinking budget is spent, but the close is not forced",
                self.thinking_tokens == self.budget.thinking,
            )

    def _solution_inconsistencies(self):
        eos = self.tokens.eos
        eos_seen = sum(token in eos for token in self.solution_ids)
        stopped = self.finish_reason is FinishReason.STOP
        if self.thinking_stop_reason is ThinkingStopReason.EOS:
            yield "a rollout that ended in thinking has a solution", self.solution_ids
            yield "a rollout that ended by EOS must finish with stop", not stopped
            return
        if self.thinking_stop_reason is ThinkingStopReason.LENGTH:
            yield "a rollout that ended in thinking has a solution", self.solution_ids
            yield "a rollout cut in thinking must finish with length", stopped
            return
        ends = bool(self.solution_ids) and self.solution_ids[-1] in eos
        yield "finish_reason stop needs one EOS, at the end", stopped and (not ends or eos_seen != 1)
        yield "EOS was sampled, but finish_reason is length", not stopped and eos_seen

    @property
    def completion_ids(self) -> list[int]:
        """Thinking, bridge and solution: all that follows the prompt."""
        return [*self.thinking_ids, *self.bridge_ids, *self.solution_ids]

    @property
    def env_mask(self) -> list[int]:
        """1 for each completion token that the policy sampled, 0 for what the system inserted (TRL's name)."""
        mask = [1] * len(self.thinking_ids) + [0] * len(self.bridge_ids) + [1] * len(self.solution_ids)
        for place in self.interjected:
            mask[place] = 0
        return mask

    @property
    def completion_logprobs(self) -> list[float] | None:
        """`logprobs` aligned with `completion_ids`; 0.0 where the system inserted, which `env_mask` masks."""
        if self.logprobs is None:
            return None
        sampled = iter(self.logprobs)
        return [next(sampled) if policys else 0.0 for policys in self.env_mask]

    @property
    def thinking_tokens(self) -> int:
        """Tokens that the policy sampled while thinking; a natural end marker and an EOS count."""
        return len(self.thinking_ids) - len(self.interjected)

    @property
    def solution_tokens(self) -> int:
        """Tokens that the policy sampled for the solution; its EOS counts."""
        return len(self.solution_ids)

    @property
    def completion_tokens(self) -> int:
        """All tokens that the policy sampled; what the system inserted does not count."""
        return self.thinking_tokens + self.solution_tokens

    @property
    def forced(self) -> bool:
        return self.thinking_stop_reason is ThinkingStopReason.BUDGET

    @property
    def solution_truncated(self) -> bool:
        """Whether the rollout was cut before the policy ended it, in its solution or before one began."""
        return self.finish_reason is FinishReason.LENGTH

    @property
    def reopened(self) -> int:
        """Start markers sampled after the close; they bring no new budget."""
        return count_marker(self.solution_ids, self.tokens.start)

    @property
    def extra_end_markers(self) -> int:
        """End markers sampled after the close; they change nothing."""
        return count_marker(self.solution_ids, self.tokens.end)


ROLLOUT_COLUMNS = (
    *("thinking_text", "solution_text", "thinking_stop_reason", "finish_reason"),
    *("thinking_tokens", "solution_tokens", "reopened", "extra_end_markers"),
    *("thinking_token_budget", "solution_token_budget"),
)


def rollout_columns(rollouts: Sequence[Rollout], tokenizer) -> dict[str, list]:
    """What rewards may ask for of each rollout, by name: its segments, how they ended, its counts and its budgets."""
    columns = (
        *segment_texts(rollouts, tokenizer),
        [str(rollout.thinking_stop_reason) for rollout in rollouts],
        [str(rollout.finish_reason) for rollout in rollouts],
        [rollout.thinking_tokens for rollout in rollouts],
        [rollout.solution_tokens for rollout in rollouts],
        [rollout.reopened for rollout in rollouts],
        [rollout.extra_end_markers for rollout in rollouts],
        [rollout.budget.thinking for rollout in rollouts],
        [rollout.budget.solution for rollout in rollouts],
    )
    return dict(zip(ROLLOUT_COLUMNS, columns, strict=True))


def segment_texts(rollouts: Sequence[Rollout], tokenizer) -> tuple[list[str], list[str]]:
    """(thinking_text, solution_text) of each rollout, as rewards receive them.

    Both are decoded from their own ids, so no marker has to be found in a text. The end marker that closes the
    thinking and the final EOS are left out; any other special token stays visible.
    """
    thinking, solution = [], []
    for rollout in rollouts:
        eos = rollout.tokens.eos
        thinking_ids = list(rollout.thinking_ids)
        if rollout.thinking_stop_reason is ThinkingStopReason.NATURAL:
            thinking_ids = thinking_ids[: -len(rollout.tokens.end)]
        thinking.append([token for token in thinking_ids if token not in eos])
        solution.append([token for token in rollout.solution_ids if token not in eos])
    return _decode(tokenizer, thinking), _decode(tokenizer, solution)


def _decode(tokenizer, ids: list[list[int]]) -> list[str]:
    return [tokenizer.decode(row, skip_special_tokens=False, clean_up_tokenization_spaces=False) for row in ids]


def _over(count: int, bound: int) -> bool:
    return bound != UNLIMITED and count > bound
