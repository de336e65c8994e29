"""What a sweep lacks of the samples of its cells, sampled chunk by chunk: chains first, then their forks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from elastic.budget import Budget
from elastic.chains import Chains
from elastic.controls import Cell, Texts, chain_budget, longest_cut, sample_cells
from elastic.engines.engine import Engine
from elastic.generations import SampleIndex
from elastic.rollout import Rollout, Sampling, ThinkingStopReason
from elastic.rollout_builder import RolloutBuilder

OnSample = Callable[[Cell, int, Rollout], None]


@dataclass(frozen=True)
class Sweep:
    """Cells that are sampled together, from one chain for each sample.

    Attributes:
        cells: whose prompts are the same.
        prompts: token ids of each problem's.
        key: what their chains are kept under.
        chains: where they are kept, each as soon as it has finished; None: nowhere.
    """

    cells: Sequence[Cell]
    prompts: Sequence[Sequence[int]]
    engine: Engine
    texts: Texts
    sampling: Sampling
    key: str
    chains: Chains | None

    def sample(
        self,
        problems: Sequence[int],
        indices: Sequence[SampleIndex],
        lacking: Sequence[Sequence[Cell]],
        seed: int,
        streams: Sequence[int],
        on_sample: OnSample,
    ) -> None:
        """Sample the cells that are `lacking` of each of `problems`; a sample is told as soon as it has finished.

        Args:
            problems: places in `prompts`.
            indices: what each sample is called.
            on_sample: called with a cell, a place in `problems`, and the cell's rollout of it.

        Raises:
            EngineError: the engine has failed; what had finished was told, and the chains that had finished are kept.
        """
        rest = [list(cells) for cells in lacking]
        bridged = [(cell, self.texts.tokens_of(cell)) for cell in self.cells]

        def on_chain(place: int, chain: Rollout) -> None:
            for cell, tokens in bridged:
                if cell in rest[place] and not cell.waits:
                    fork = RolloutBuilder.fork(chain, cell.enforced, self.engine.context_length, tokens)
                    if fork.finished:
                        rest[place].remove(cell)
                        on_sample(cell, place, fork.build())

        prompts = [self.prompts[problem] for problem in problems]
        chains = self._all_chains(prompts, indices, seed, streams, on_chain)
        sample_cells(
            *(self.engine, chains, rest, self.sampling, self.texts), seed=seed, streams=streams, on_fork=on_sample
        )

    def _all_chains(
        self,
        prompts: Sequence[Sequence[int]],
        indices: Sequence[SampleIndex],
        seed: int,
        streams: Sequence[int],
        on_chain: Callable[[int, Rollout], None],
    ) -> list[Rollout]:
        """The chain of each prompt: one that is kept, or the rest of it, or a new one."""
        budget, places = chain_budget(self.cells), range(len(prompts))
        tokens = self.texts.tokens_of(self.cells[0]) if self.cells[0].reminded else self.engine.tokens
        kept = [self.chains and self.chains.get(self.key, index, tokens) for index in indices]
        chains: dict[int, Rollout] = {}
        absent, short = [], []
        for place, chain in enumerate(kept):
            if chain is None:
                absent.append(place)
            elif self._is_short(chain, budget):
                short.append(place)
            else:
                chains[place] = chain
                on_chain(place, chain)

        def finish(place: int, chain: Rollout) -> None:
            chains[place] = chain
            if self.chains is not None:
                self.chains.append(self.key, indices[place], chain)
            on_chain(place, chain)

        self.engine.generate(
            [prompts[place] for place in absent],
            [budget] * len(absent),
            self.sampling,
            seed=seed,
            streams=[streams[place] for place in absent],
            on_rollout=lambda row, chain: finish(absent[row], chain),
            keep_thinking=longest_cut(self.cells) if len(self.cells) > 1 else 0,
            tokens=tokens,
        )
        self.engine.fork(
            [kept[place] for place in short],
            [budget.thinking],
            budget,
            self.sampling,
            tokens=tokens,
            seed=seed,
            streams=[streams[place] for place in short],
            on_rollout=lambda row, chain: finish(short[row], chain),
        )
        return [chains[place] for place in places]

    def _is_short(self, chain: Rollout, budget: Budget) -> bool:
        """Whether a chain that is kept was cut before `budget` would cut it."""
        cut = chain.thinking_stop_reason in (ThinkingStopReason.BUDGET, ThinkingStopReason.LENGTH)
        if not cut:
            return False
        return RolloutBuilder.fork(chain, budget, self.engine.context_length).thinking_stop_reason is None
