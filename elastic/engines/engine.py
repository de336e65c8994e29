"""What every engine does: rollouts from prompts, and rollouts that are forked from others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

from elastic.budget import Budget, ReasoningTokens
from elastic.rollout import Rollout, Sampling, ThinkingStopReason
from elastic.rollout_builder import RolloutBuilder

OnRollout = Callable[[int, Rollout], None]
OnStep = Callable[[], None]
# Random streams of rows number below this; those of what goes on from a rollout lie above (see later_stream).
_STREAMS = 2**32


@dataclass(frozen=True, slots=True)
class Growth:
    """How rollouts go on, of which there is one for each of `streams`: as the arguments of `Engine.generate` say."""

    sampling: Sampling
    seed: int
    streams: Sequence[int]
    on_rollout: OnRollout | None = None
    on_step: OnStep | None = None
    keep_thinking: int = 0


class Engine(ABC):
    """Samples rollouts.

    Attributes:
        tokens: the markers and EOS ids.
        context_length: positions that a rollout may fill; None for a model without a longest context.
    """

    tokens: ReasoningTokens
    context_length: int | None

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        budgets: Sequence[Budget],
        sampling: Sampling,
        *,
        seed: int = 0,
        streams: Sequence[int] | None = None,
        on_rollout: OnRollout | None = None,
        on_step: OnStep | None = None,
        keep_thinking: int = 0,
        tokens: ReasoningTokens | None = None,
    ) -> list[Rollout]:
        """One rollout for each prompt, in order; the random numbers of row i depend on (seed, streams[i]) alone.

        Args:
            prompts: token ids; thinking is opened where a prompt does not open it. Equal ones share their prefill.
            budgets: one for each prompt.
            streams: the number of each row's random stream, below 2**32; unset, its place. A row that is sampled
                elsewhere or later with the same number and seed is the same row.
            on_rollout: called with the place and the rollout of each as soon as it has finished, while others go on.
            on_step: called now and then while sampling goes on; what it raises ends it.
            keep_thinking: so many tokens of each row's thinking will be forked from next: an engine with a cache of
                its own keeps them there, as far as there is memory.
            tokens: markers with the same end, and maybe another bridge or reminders; unset, the engine's.

        Raises:
            ValueError: a prompt with its budget does not fit the model's context.
            EngineError: the engine fails; `on_rollout` has been told of the rollouts that had finished.
        """
        tokens = tokens or self.tokens
        builders = [
            RolloutBuilder(tokens.open(prompt), budget, tokens, self.context_length)
            for prompt, budget in zip(prompts, budgets, strict=True)
        ]
        self.forget()
        streams = range(len(builders)) if streams is None else streams
        return self.grow(builders, Growth(sampling, seed, streams, on_rollout, on_step, keep_thinking))

    def fork(
        self,
        rollouts: Sequence[Rollout],
        cuts: Sequence[int] | Sequence[Sequence[int]],
        budget: Budget,
        sampling: Sampling,
        *,
        tokens: ReasoningTokens | None = None,
        seed: int = 0,
        streams: Sequence[int] | None = None,
        on_rollout: OnRollout | None = None,
        on_step: OnStep | None = None,
    ) -> list[list[Rollout]]:
        """What each rollout would have been with its thinking budget at each of `cuts`: [rollout][cut].

        Only what differs is sampled: a solution after each cut that the thinking reaches; cuts that it does not reach
        share the solution that it has. A cut beyond the place where the system has cut a rollout goes on thinking
        from there.

        Args:
            rollouts: sampled with the same weights and sampling, by this engine or another.
            cuts: thinking token budgets, the same for all rollouts or a list for each; -1 is no limit.
            budget: all else of the budget; its thinking budget is not used.
            tokens: markers with another bridge than the rollouts'; unset, the engine's.
            seed, streams: a fork's random numbers depend on them, and on how many sampled tokens it has from its
                rollout. Those of the rollouts may be given.
            on_rollout: called with the place in `rollouts` and a fork, as soon as that has finished.
            on_step: as in `generate`.

        Raises:
            ValueError: `cuts` are neither, a fork does not fit the model's context, or a rollout was reminded of
                another thinking budget.
            EngineError: the engine fails; `on_rollout` has been told of the forks that had finished.
        """
        cuts_of = _cuts_of_each(cuts, len(rollouts))
        streams = range(len(rollouts)) if streams is None else streams
        forks = _Forks(self, budget, tokens or self.tokens, on_rollout)
        for place, (rollout, own_cuts, stream) in enumerate(zip(rollouts, cuts_of, streams, strict=True)):
            forks.add(place, rollout, own_cuts, stream)
        self.grow(forks.builders, Growth(sampling, seed, forks.streams, forks.finish, on_step))
        return forks.of_rollouts

    def think_on(
        self,
        rollouts: Sequence[Rollout],
        ids: Sequence[int],
        sampling: Sampling,
        *,
        seed: int = 0,
        streams: Sequence[int] | None = None,
        on_step: OnStep | None = None,
    ) -> list[Rollout]:
        """Rollouts whose thinking the policy had closed, thought further under their budgets: `ids` take the place of
        the end marker. `seed` and `streams` as in `fork`.

        Raises:
            ValueError: the system had closed one of them, or `ids` do not fit the model's context.
            EngineError: the engine fails.
        """
        builders = [RolloutBuilder.think_on(rollout, ids, self.context_length) for rollout in rollouts]
        numbers = range(len(builders)) if streams is None else streams
        streams = [later_stream(*row) for row in zip(numbers, builders, strict=True)]
        keep_thinking = max((len(builder.interjected) + builder.budget.thinking for builder in builders), default=0)
        return self.grow(builders, Growth(sampling, seed, streams, None, on_step, keep_thinking))

    @abstractmethod
    def grow(self, builders: Sequence[RolloutBuilder], how: Growth) -> list[Rollout]:
        """Let the policy go on with each of `builders` until its rollout has finished."""

    def forget(self) -> None:  # noqa: B027
        """Drop what was kept for forks: the weights change, or other rollouts come."""


class _Forks:
    """The forks of one call: a builder for each that has to be sampled, and which others come of the same solution."""

    def __init__(self, engine: Engine, budget: Budget, tokens: ReasoningTokens, on_rollout: OnRollout | None):
        self.builders: list[RolloutBuilder] = []
        self.streams: list[int] = []
        self.of_rollouts: list[list[Rollout | None]] = []
        self._engine = engine
        self._budget = budget
        self._tokens = tokens
        self._on_rollout = on_rollout
        self._indices: list[tuple[int, int]] = []
        self._followers: dict[int, list[tuple[int, int, Budget]]] = {}

    def add(self, place: int, rollout: Rollout, cuts: Sequence[int], stream: int) -> None:
        self.of_rollouts.append([None] * len(cuts))
        own = [self._fork(rollout, replace(self._budget, thinking=cut)) for cut in cuts]
        # Those that closed as the rollout did, and want more of one solution: one goes on, the others take what it has.
        alike = [
            index
            for index, builder in enumerate(own)
            if builder.thinking_stop_reason is ThinkingStopReason.NATURAL and not builder.finished
        ]
        lead = max(alike, key=lambda index: own[index].phase_tokens_left, default=None)
        for index, builder in enumerate(own):
            if index in alike and index != lead:
                continue
            if index == lead:
                followers = [(place, other, own[other].budget) for other in alike if other != lead]
                self._followers[len(self.builders)] = followers
            self.builders.append(builder)
            self.streams.append(later_stream(stream, builder))
            self._indices.append((place, index))

    def finish(self, row: int, rollout: Rollout) -> None:
        self._tell(*self._indices[row], rollout)
        for place, index, budget in self._followers.pop(row, ()):
            self._tell(place, index, self._fork(rollout, budget).build())

    def _fork(self, rollout: Rollout, budget: Budget) -> RolloutBuilder:
        return RolloutBuilder.fork(rollout, budget, self._engine.context_length, self._tokens)

    def _tell(self, place: int, index: int, rollout: Rollout) -> None:
        self.of_rollouts[place][index] = rollout
        if self._on_rollout is not None:
            self._on_rollout(place, rollout)


def later_stream(number: int, builder: RolloutBuilder) -> int:
    """The stream of what a builder samples from here on, whose rollout had the stream `number`.

    It follows from how much was taken, so that two parts of one rollout never share a stream, and that a solution is
    the same whichever of the cuts asks for it.
    """
    return number + (builder.sampled_tokens + 1) * _STREAMS


def base_stream(number: int) -> int:
    """The stream of the rollout that a `later_stream` is of."""
    return number % _STREAMS


def _cuts_of_each(cuts: Sequence[int] | Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """Raises ValueError for what is no list of budgets and no list of such lists."""
    try:
        if all(isinstance(cut, Integral) for cut in cuts):
            return [[int(cut) for cut in cuts]] * count
        if len(cuts) == count and all(isinstance(cut, Integral) for own in cuts for cut in own):
            return [[int(cut) for cut in own] for own in cuts]
    except TypeError:
        pass
    raise ValueError(
        f"cuts is {cuts!r}: give thinking token budgets, or a list of them for each of the {count} rollouts."
    )
