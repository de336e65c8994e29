"""RolloutBuilder: the rules of a rollout, token by token, free of any engine."""

from __future__ import annotations

import math
from collections.abc import Sequence

from elastic.budget import UNLIMITED, Budget, ReasoningTokens
from elastic.rollout import FinishReason, Rollout, ThinkingStopReason


class RolloutBuilder:
    """Grows one rollout token by token and decides when a phase ends: the rules of a rollout, free of any engine.

    An engine asks `forced_token` before each step: an id means that the system inserts it (call `insert`), None that
    the policy samples (call `sample`). It stops when `finished`, and calls `build`.
    """

    def __init__(
        self,
        prompt_ids: Sequence[int],
        budget: Budget,
        tokens: ReasoningTokens,
        context_length: int | None,
        interjected: int = 0,
    ):
        """
        Args:
            context_length: positions of the model, None if unbounded.
            interjected: how many tokens will be inserted into the thinking, beside reminders.

        Raises:
            ValueError: the budget, with what is inserted, does not fit the context.
        """
        self.prompt_ids = list(prompt_ids)
        self.budget = budget
        self.tokens = tokens
        self.thinking_ids: list[int] = []
        self.interjected: list[int] = []
        self.bridge_ids: list[int] = []
        self.solution_ids: list[int] = []
        self.logprobs: list[float | None] = []
        self.raw_logprobs: list[float | None] = []
        self.source: Rollout | None = None
        self.thinking_stop_reason: ThinkingStopReason | None = None
        self.finish_reason: FinishReason | None = None
        self._reminder: list[int] = []
        self._interjected = interjected + tokens.most_reminded(budget)
        self._room = math.inf if context_length is None else context_length - len(self.prompt_ids)
        self._check_room(context_length)
        if budget.thinking == 0:
            self._close_by_force()
        elif budget.total == 0:
            self._stop_thinking(ThinkingStopReason.LENGTH, FinishReason.LENGTH)

    @classmethod
    def fork(
        cls, rollout: Rollout, budget: Budget, context_length: int | None, tokens: ReasoningTokens | None = None
    ) -> RolloutBuilder:
        """A builder under `budget` that has taken as much of `rollout` as it can.

        Thinking does not depend on when it will be cut: what an engine adds makes a rollout that is distributed as one
        sampled under `budget` from the start. Where the two close the thinking at the same place in the same way, the
        solution is taken too.

        Args:
            rollout: sampled with the same weights and sampling.
            tokens: markers with the same end, and maybe another bridge; unset, the rollout's.

        Raises:
            ValueError: `budget` does not fit the context, or the rollout was reminded of another thinking budget.
        """
        tokens, reminders = tokens or rollout.tokens, rollout.tokens.reminders
        if tokens.reminders != reminders or (reminders and budget.thinking != rollout.budget.thinking):
            raise ValueError(
                f"A rollout with other reminders than those of a thinking budget of {budget.thinking} cannot be forked "
                f"there: sample one from the start."
            )
        builder = cls(rollout.prompt_ids, budget, tokens, context_length, _interjected_beside_reminders(rollout))
        builder.source = rollout
        builder._take_thinking(rollout, len(rollout.thinking_ids))
        forced_alike = builder.forced_token is not None and list(rollout.bridge_ids) == list(builder.tokens.bridge)
        whole = len(builder.thinking_ids) == len(rollout.thinking_ids)
        if whole and (forced_alike or builder.thinking_stop_reason is ThinkingStopReason.NATURAL):
            while builder.forced_token is not None:
                builder.insert()
            builder._take_solution(rollout)
        return builder

    @classmethod
    def think_on(cls, rollout: Rollout, ids: Sequence[int], context_length: int | None) -> RolloutBuilder:
        """A builder that thinks on where `rollout` closed its thinking by itself: `ids` stand for its end marker.

        Raises:
            ValueError: the close was not the policy's, or the budget with what is inserted does not fit the context.
        """
        if rollout.thinking_stop_reason is not ThinkingStopReason.NATURAL:
            raise ValueError(f"The thinking was closed by {rollout.thinking_stop_reason}, not by the policy.")
        interjected = _interjected_beside_reminders(rollout) + len(ids)
        builder = cls(rollout.prompt_ids, rollout.budget, rollout.tokens, context_length, interjected)
        builder.source = rollout
        builder._take_thinking(rollout, len(rollout.thinking_ids) - len(rollout.tokens.end))
        builder.interject(ids)
        return builder

    def _take_thinking(self, rollout: Rollout, count: int) -> None:
        """Take the first `count` ids of its thinking, as far as the budget allows."""
        ids, interjected = rollout.thinking_ids[:count], set(rollout.interjected)
        known = _Logprobs(rollout, 0)
        if not interjected and self.thinking_stop_reason is None:
            # Nothing happens before the last of them, or before a limit: what comes before is taken at once.
            self.thinking_ids += ids[: max(0, min(len(ids), self.phase_tokens_left) - 1)]
            known.move_to(self, len(self.thinking_ids))
        for place in range(len(self.thinking_ids), len(ids)):
            if self.thinking_stop_reason is not None:
                return
            if place in interjected and self.forced_token is not None:
                self.insert()
            elif place in interjected:
                self.interject([ids[place]])
            else:
                self.sample(ids[place], *known.next())

    def _take_solution(self, rollout: Rollout) -> None:
        """Take its solution, as far as the budget allows; both have the same thinking."""
        if self.finished:
            return
        ids, known = rollout.solution_ids, _Logprobs(rollout, rollout.thinking_tokens)
        self.solution_ids += ids[: max(0, min(len(ids), self.phase_tokens_left) - 1)]
        known.move_to(self, len(self.solution_ids))
        for token in ids[len(self.solution_ids) :]:
            if self.finished:
                return
            self.sample(token, *known.next())

    def _check_room(self, context_length: int | None):
        t, s, total = self.budget.thinking, self.budget.solution, self.budget.total
        needed = 1 if t == UNLIMITED else t + len(self.tokens.bridge) + (1 if s == UNLIMITED else s)
        if total != UNLIMITED:
            needed = min(needed, total + len(self.tokens.bridge))
        if math.isinf(self.most_new_tokens):
            raise ValueError(
                f"Nothing ends a rollout with {self.budget} on a model without a longest context: set a budget."
            )
        needed = max(needed, 1) + self._interjected
        if self._room < needed:
            raise ValueError(
                f"A prompt of {len(self.prompt_ids)} tokens with a rollout of {needed} tokens does not fit the model's "
                f"context of {context_length}: shorten the prompt (max_prompt_length), or lower thinking_token_budget "
                f"({t}) or solution_token_budget ({s})."
            )

    @property
    def most_new_tokens(self) -> float:
        """The most positions that this rollout may take after its prompt; infinite if nothing bounds them."""
        sampled = self.budget.most_sampled_tokens
        if sampled == UNLIMITED:
            return self._room
        return min(sampled + len(self.tokens.bridge) + self._interjected, self._room)

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def forced_token(self) -> int | None:
        """The token of a reminder or of the bridge that comes next, or None when the policy samples."""
        if self._reminder:
            return self._reminder[0]
        if self.thinking_stop_reason is ThinkingStopReason.BUDGET and len(self.bridge_ids) < len(self.tokens.bridge):
            return self.tokens.bridge[len(self.bridge_ids)]
        return None

    @property
    def phase_tokens_left(self) -> float:
        """The most tokens that the policy may sample before its phase is spent or it is reminded; may be infinite."""
        in_thinking = self.thinking_stop_reason is None
        phase = self.budget.thinking if in_thinking else self._solution_budget
        left = [self._room - len(self.thinking_ids) - len(self.bridge_ids) - len(self.solution_ids)]
        if phase != UNLIMITED:
            left.append(phase - (self.thinking_tokens if in_thinking else len(self.solution_ids)))
        if self.budget.total != UNLIMITED:
            left.append(self.budget.total - self.sampled_tokens)
        if in_thinking and self.tokens.reminders is not None and phase != UNLIMITED:
            left.append(self.tokens.reminders.every - self.thinking_tokens % self.tokens.reminders.every)
        return min(left)

    @property
    def completion_ids(self) -> list[int]:
        """Thinking, bridge and solution, as far as they have come."""
        return [*self.thinking_ids, *self.bridge_ids, *self.solution_ids]

    @property
    def thinking_tokens(self) -> int:
        """Tokens that the policy has sampled while thinking."""
        return len(self.thinking_ids) - len(self.interjected)

    @property
    def sampled_tokens(self) -> int:
        """Tokens that the policy has sampled."""
        return self.thinking_tokens + len(self.solution_ids)

    def insert(self):
        """Take the forced token: it is in the sequence, and in no count, mask or log-probability."""
        if self._reminder:
            self.interject([self._reminder.pop(0)])
        else:
            self.bridge_ids.append(self.forced_token)

    def interject(self, ids: Sequence[int]):
        """Insert `ids` into the open thinking: they are in the sequence, and in no count, mask or log-probability."""
        self.interjected += range(len(self.thinking_ids), len(self.thinking_ids) + len(ids))
        self.thinking_ids += ids
        if self._spent():
            self._stop_thinking(ThinkingStopReason.LENGTH, FinishReason.LENGTH)

    def sample(self, token: int, logprob: float | None, raw_logprob: float | None):
        """Take a token that the policy sampled; None for a log-probability that is not known."""
        self.logprobs.append(logprob)
        self.raw_logprobs.append(raw_logprob)
        if self.thinking_stop_reason is None:
            self._sample_thinking(token)
        else:
            self._sample_solution(token)

    def _sample_thinking(self, token: int):
        ids, end = self.thinking_ids, self.tokens.end
        ids.append(token)
        if token in self.tokens.eos:
            self._stop_thinking(ThinkingStopReason.EOS, FinishReason.STOP)
        elif token == end[-1] and tuple(ids[-len(end) :]) == end:
            self._stop_thinking(ThinkingStopReason.NATURAL, self._no_solution())
        elif self.thinking_tokens == self.budget.thinking:
            self._close_by_force()
        elif self._spent():
            self._stop_thinking(ThinkingStopReason.LENGTH, FinishReason.LENGTH)
        elif self.tokens.reminders is not None:
            self._reminder = list(self.tokens.reminders.after(self.thinking_tokens, self.budget.thinking))

    def _sample_solution(self, token: int):
        self.solution_ids.append(token)
        if token in self.tokens.eos:
            self.finish_reason = FinishReason.STOP
        elif len(self.solution_ids) == self._solution_budget or self._spent():
            self.finish_reason = FinishReason.LENGTH

    def _close_by_force(self):
        self._stop_thinking(ThinkingStopReason.BUDGET, self._no_solution())
        if self.finished:
            self.bridge_ids = list(self.tokens.bridge)

    def _stop_thinking(self, reason: ThinkingStopReason, finish_reason: FinishReason | None):
        self.thinking_stop_reason, self.finish_reason = reason, finish_reason

    def _no_solution(self) -> FinishReason | None:
        """`length` when nothing is left for a solution."""
        return FinishReason.LENGTH if self._solution_budget == 0 or self._spent() else None

    @property
    def _solution_budget(self) -> int:
        return self.budget.solution_after(self.thinking_tokens)

    def _spent(self) -> bool:
        """Whether the total budget or the context is used up."""
        taken = len(self.thinking_ids) + len(self.solution_ids)
        bridge = len(self.tokens.bridge) if self.thinking_stop_reason is ThinkingStopReason.BUDGET else 0
        return self.sampled_tokens == self.budget.total or taken + bridge >= self._room

    def build(self) -> Rollout:
        return Rollout(
            prompt_ids=self.prompt_ids,
            thinking_ids=self.thinking_ids,
            bridge_ids=self.bridge_ids,
            solution_ids=self.solution_ids,
            budget=self.budget,
            thinking_stop_reason=self.thinking_stop_reason,
            finish_reason=self.finish_reason,
            logprobs=None if None in self.logprobs else self.logprobs,
            raw_logprobs=None if None in self.raw_logprobs else self.raw_logprobs,
            tokens=self.tokens,
            interjected=self.interjected,
        )


def _interjected_beside_reminders(rollout: Rollout) -> int:
    """How many tokens were inserted into its thinking that were no reminders."""
    reminders = rollout.tokens.reminders
    if reminders is None:
        return len(rollout.interjected)
    return len(rollout.interjected) - reminders.inserted(rollout.thinking_tokens, rollout.budget.thinking)


class _Logprobs:
    """The log-probabilities of a rollout's sampled tokens, one after the other; None where they are not known."""

    def __init__(self, rollout: Rollout, first: int):
        unknown = [None] * rollout.completion_tokens
        self._columns = (rollout.logprobs or unknown, rollout.raw_logprobs or unknown)
        self._place = first

    def next(self) -> tuple[float | None, float | None]:
        self._place += 1
        logprobs, raw_logprobs = self._columns
        return logprobs[self._place - 1], raw_logprobs[self._place - 1]

    def move_to(self, builder: RolloutBuilder, count: int) -> None:
        """Give the next `count` of them to `builder`."""
        end = self._place + count
        logprobs, raw_logprobs = self._columns
        builder.logprobs += logprobs[self._place : end]
        builder.raw_logprobs += raw_logprobs[self._place : end]
        self._place = end
