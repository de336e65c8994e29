"""Anytime reasoning (BRPO, arXiv 2505.13438): one chain of thought, and solutions forked from it at several cuts.

A group of G = C * k * m rows is C chains, each with k solutions at each of m cuts, its thinking token budgets. The cuts
stand for the prior over budgets that `thinking_token_budget` gives: its choices, with their weights p, or budgets drawn
from a range for each prompt, one from each of m equally likely parts of it, with p = 1 / m. Rows are ordered
[prompt, chain, solution, cut], cuts ascending; shapes name these axes N, C, K, M.

Thinking maximizes the mean reward over the prior; with r[c, j] the mean reward of the k solutions of chain c at cut j,
a token of segment s (after cut s - 1, at or before cut s, numbered from 0) has the advantage

    A[c, s] = R[c, s] - s/m * V1[c, s] - (m - s)/m * V2[c, s]          R[c, s] = sum over j >= s of p[j] * r[c, j]
    V1[c, s] = (p[s] + ... + p[m-1]) * the mean of r[c, 0], ..., r[c, s-1], weighted 1 for the last of them,
               `anytime_discount` for the one before, its square before that, and so on
    V2[c, s] = the mean of R[c', s] over the other chains c' of the prompt

V1 knows only solutions to cuts that lie before the token, V2 only other chains: neither biases the gradient. Each
solution is compared with the mean of the others at its cut: of its own chain where k > 1, else of the other chains.
Nothing is divided by a standard deviation, as in the paper; that would weigh prompts by their difficulty.

What differs from the published code: there V2 and the mean of solutions include the one that they are compared with,
which shrinks the gradient of segment s by 1 - (m - s) / (m * C), the earlier segments the more; and solutions to the
cuts after a chain has closed are sampled anew for each, where here they are one, learned from once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from accelerate.utils import gather_object

from elastic.budget import UNLIMITED, Budget
from elastic.config import ElasticConfig
from elastic.engines.engine import Engine, OnRollout, OnStep
from elastic.metrics import summed_rewards
from elastic.rollout import Rollout, Sampling
from elastic.trainer import ElasticGRPOTrainer

# Share of V1 in the baseline of segment s of m; the rest is V2's.
_EARLIER_SHARES = {
    "brpo": lambda cuts: np.arange(cuts) / cuts,
    "group": np.zeros,
    "earlier": np.ones,
}


class AnytimeTrainer(ElasticGRPOTrainer):
    """ElasticGRPOTrainer that learns from solutions at several cuts of each chain of thought.

    What changes:

    - `assigned` gives each row the cut that it is forked at
    - `sampled` samples each chain once, and forks the solutions
    - `loss_masks` leaves each sampled token in one row only
    - `settle_advantages` gives each token its own, [rows, completion tokens]
    - `_calculate_rewards` leaves out the whole chain of a row that could not be graded
    """

    def __init__(self, model, reward_funcs, args: ElasticConfig, train_dataset, **kwargs):
        super().__init__(model, reward_funcs, args, train_dataset, **kwargs)
        self._cuts = len(args.cut_weights)

    def assigned(self, rows):
        rows = super().assigned(rows)
        cuts_of = {}
        for row in rows:
            if (prompt := str(row["prompt"])) not in cuts_of:
                seed = f"cuts/{self.args.seed}/{self.generation_round}/{prompt}"
                cuts_of[prompt] = self.args.prior.cuts(self._cuts, random.Random(seed))
        most = self.args.capped(Budget(self.args.prior.largest, self.budgets[0].solution))
        self.budgets = [
            replace(most, thinking=cuts_of[str(row["prompt"])][place % self._cuts]) for place, row in enumerate(rows)
        ]
        return rows

    def sampled(self, engine, prompts, budgets, **options):
        return forked_rollouts(
            *(engine, prompts, budgets, self._cuts, self.args.anytime_solutions, self.args.sampling),
            seed=self.rollout_seed(),
            **options,
        )

    def loss_masks(self, rollouts):
        return masks_of_forks(rollouts, self._cuts, self.args.anytime_solutions)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards_BF = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        rows = self._cuts * self.args.anytime_solutions
        ungraded_B = rewards_BF.isnan().any(dim=1).view(-1, rows).any(dim=1).repeat_interleave(rows)
        self._rewards_per_func = rewards_BF.masked_fill(ungraded_B[:, None], torch.nan)
        return self._rewards_per_func

    def settle_advantages(self, output):
        args = self.args
        rewards_B = self._own(summed_rewards(self._rewards_per_func, self.reward_weights)).double().cpu().numpy()
        rewards_NCKM = rewards_B.reshape(-1, args.anytime_chains, args.anytime_solutions, self._cuts)
        thinking_NCM = thinking_advantages(
            rewards_NCKM.mean(axis=2), args.cut_weights, args.anytime_baseline, args.anytime_discount
        )
        solution_B = solution_advantages(rewards_NCKM).reshape(-1)
        width = output["completion_mask"].shape[1]
        advantages_BT = token_advantages(self._rollouts, thinking_NCM.reshape(-1, self._cuts), solution_B, width)
        output["advantages"] = torch.from_numpy(advantages_BT).to(output["completion_mask"].device, torch.float32)
        # The table of rollouts shows that of the solution; it holds one generation batch, whose own TRL had put there.
        self._logs["advantages"].extend(gather_object(solution_B.tolist()))


def forked_rollouts(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    budgets: Sequence[Budget],
    cuts: int,
    solutions: int,
    sampling: Sampling,
    *,
    seed: int,
    streams: Sequence[int],
    on_rollout: OnRollout | None,
    on_step: OnStep | None,
) -> list[Rollout]:
    """The rows of chains that are each sampled once, and forked `solutions` times at each of their `cuts`; the rows of
    cuts that coincide are one fork.

    Args:
        prompts, budgets, streams: of the rows [chain, solution, cut], which are equal but for the thinking budget, the
            cut; the last of a chain is its largest. `streams` are those of the chain's and of its solutions' first row.
    """
    chain_rows, fork_rows = range(0, len(prompts), cuts * solutions), range(0, len(prompts), cuts)
    chains = engine.generate(
        [prompts[row] for row in chain_rows],
        [replace(budgets[row + cuts - 1], solution=0) for row in chain_rows],
        sampling,
        seed=seed,
        streams=[streams[row] for row in chain_rows],
        on_step=on_step,
        keep_thinking=max(budget.most_sampled_tokens for budget in budgets),
    )
    cuts_of = [[budget.thinking for budget in budgets[row : row + cuts]] for row in fork_rows]

    def finish(place: int, fork: Rollout) -> None:
        for index, cut in enumerate(cuts_of[place]):
            if cut == fork.budget.thinking:
                on_rollout(place * cuts + index, fork)

    different = [list(dict.fromkeys(own)) for own in cuts_of]
    forks = engine.fork(
        [chain for chain in chains for _ in range(solutions)],
        different,
        budgets[0],
        sampling,
        seed=seed,
        streams=[streams[row] for row in fork_rows],
        on_rollout=None if on_rollout is None else finish,
        on_step=on_step,
    )
    at_cut = [dict(zip(own, of_one, strict=True)) for own, of_one in zip(different, forks, strict=True)]
    return [at_cut[place][cut] for place, own in enumerate(cuts_of) for cut in own]


def masks_of_forks(rollouts: Sequence[Rollout], cuts: int, solutions: int) -> list[list[int]]:
    """The `env_mask` of each fork, with 0 where another row has the same sampled tokens.

    The thinking is left in the row of the chain's first solution at its largest cut, and a solution that several cuts
    share, since the chain had ended before them, in the row of the last.
    """
    masks = []
    for row, rollout in enumerate(rollouts):
        mask, thinking = rollout.env_mask, len(rollout.thinking_ids)
        last_cut = row % cuts == cuts - 1
        if not last_cut or row % (cuts * solutions) >= cuts:
            mask[:thinking] = [0] * thinking
        if not last_cut and _end_of_thinking(rollout) == _end_of_thinking(rollouts[row + 1]):
            mask[thinking:] = [0] * (len(mask) - thinking)
        masks.append(mask)
    return masks


def _end_of_thinking(rollout: Rollout) -> tuple:
    return len(rollout.thinking_ids), rollout.thinking_stop_reason


def thinking_advantages(
    rewards_NCM: np.ndarray, weights_M: Sequence[float], baseline: str, discount: float
) -> np.ndarray:
    """A[c, s] of each segment of each chain, [N, C, M]; 0 where a reward is NaN or there is no other chain.

    Args:
        rewards_NCM: NaN for all of a chain, or for none of it.
        weights_M: p, which add up to 1.
        baseline: `brpo`, or for an ablation `group` (V2 alone), `earlier` (V1 alone) or `none`.
    """
    returns_NCM = _sums_from(rewards_NCM * weights_M)
    if baseline == "none":
        return _settled(returns_NCM)
    cuts = rewards_NCM.shape[-1]
    earlier_NCM = np.zeros_like(rewards_NCM)
    for segment in range(1, cuts):
        earlier_NCM[..., segment] = np.average(
            rewards_NCM[..., :segment], axis=-1, weights=discount ** np.arange(segment)[::-1]
        )
    earlier_NCM *= _sums_from(np.asarray(weights_M))
    share_M = _EARLIER_SHARES[baseline](cuts)
    group_NCM = np.where(share_M < 1, _mean_of_others(returns_NCM, axis=1), 0.0)
    return _settled(returns_NCM - share_M * earlier_NCM - (1 - share_M) * group_NCM)


def solution_advantages(rewards_NCKM: np.ndarray) -> np.ndarray:
    """Each solution's reward less the mean of the others at its cut: of its chain, or where k is 1 of other chains."""
    axis = 2 if rewards_NCKM.shape[2] > 1 else 1
    return _settled(rewards_NCKM - _mean_of_others(rewards_NCKM, axis))


def token_advantages(
    rollouts: Sequence[Rollout], thinking_XM: np.ndarray, solution_B: np.ndarray, width: int
) -> np.ndarray:
    """The advantage of each completion token, [rows, `width`].

    Args:
        thinking_XM: of each segment of each chain, in the order of the rows.
        solution_B: of the solution of each row.
    """
    advantages_BT = np.zeros((len(rollouts), width))
    cuts, rows = thinking_XM.shape[1], len(rollouts) // len(thinking_XM)
    for row, rollout in enumerate(rollouts):
        first = row - row % cuts
        ends = [_as_number(fork.budget.thinking) for fork in rollouts[first : first + cuts]]
        thinking = len(rollout.thinking_ids)
        segments = np.searchsorted(ends, np.arange(1, thinking + 1))
        advantages_BT[row, :thinking] = thinking_XM[row // rows, segments]
        advantages_BT[row, thinking : len(rollout.completion_ids)] = solution_B[row]
    return advantages_BT


def _as_number(budget: int) -> float:
    return np.inf if budget == UNLIMITED else budget


def _sums_from(values_M: np.ndarray) -> np.ndarray:
    """Each place's sum of itself and all after it, over the last axis."""
    return values_M[..., ::-1].cumsum(axis=-1)[..., ::-1]


def _mean_of_others(values: np.ndarray, axis: int) -> np.ndarray:
    """For each value the mean of the others along `axis` that are not NaN; NaN where there is none."""
    known = ~np.isnan(values)
    others = known.sum(axis=axis, keepdims=True) - known
    total = np.nansum(values, axis=axis, keepdims=True) - np.nan_to_num(values)
    return np.divide(total, others, out=np.full_like(values, np.nan), where=others > 0)


def _settled(advantages: np.ndarray) -> np.ndarray:
    """0 where nothing is known, and where only rounding makes a difference: such a row is not trained at all."""
    return np.nan_to_num(advantages).round(12)
