"""Rollouts whose thinking is one model's and whose solution is another's (E1's ablation, arXiv 2505.05315)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from elastic.engines.engine import Engine, Growth, base_stream, later_stream
from elastic.rollout import Rollout
from elastic.rollout_builder import RolloutBuilder


class CrossedEngine(Engine):
    """Two engines, one for each phase; their models have the same vocabulary.

    Args:
        thinker: samples the thinking.
        solver: samples the solutions, also where the thinker has closed its thinking by itself.

    Either model's EOS ids end a rollout.
    """

    def __init__(self, thinker: Engine, solver: Engine):
        self.thinker = thinker
        self.solver = solver
        self.tokens = replace(thinker.tokens, eos=thinker.tokens.eos | solver.tokens.eos)
        bounds = (thinker.context_length, solver.context_length)
        self.context_length = min((bound for bound in bounds if bound is not None), default=None)

    def grow(self, builders: Sequence[RolloutBuilder], how: Growth) -> list[Rollout]:
        builders, streams = list(builders), list(how.streams)
        open_rows = [row for row, builder in enumerate(builders) if builder.thinking_stop_reason is None]
        budgets = [builders[row].budget for row in open_rows]
        for row in open_rows:
            builders[row].budget = replace(builders[row].budget, solution=0, carry_over=False)
        chains = self.thinker.grow(
            [builders[row] for row in open_rows],
            Growth(how.sampling, how.seed, [streams[row] for row in open_rows], on_step=how.on_step),
        )
        for row, budget, chain in zip(open_rows, budgets, chains, strict=True):
            builders[row] = RolloutBuilder.fork(chain, budget, self.context_length)
            streams[row] = later_stream(base_stream(streams[row]), builders[row])
        return self.solver.grow(builders, replace(how, streams=streams))

    def forget(self) -> None:
        self.thinker.forget()
        self.solver.forget()
