"""What anytime estimates, against the exact gradient of its objective, where a table is the policy.

The policy thinks in the letters a and b, up to three, and may close at each; its solution is yes or no. Cuts are at 1,
2 and 3 tokens, so that a token at depth d, from 0, is of segment d. All of its rollouts can be listed.
"""

from itertools import product

import numpy as np
import pytest
import torch

from elastic.anytime import (
    forked_rollouts,
    masks_of_forks,
    solution_advantages,
    thinking_advantages,
    token_advantages,
)
from elastic.budget import Budget, ReasoningTokens
from elastic.engines.engine import Engine
from elastic.rollout import Sampling

END, A, B, YES, NO = 2, 3, 4, 5, 6
TOKENS = ReasoningTokens(start=(1,), end=(END,), bridge=(END,), eos=frozenset({0}), opened=((1,),))
CUTS, WEIGHTS = (1, 2, 3), (0.2, 0.3, 0.5)
OPEN = [letters for depth in range(4) for letters in product((A, B), repeat=depth)]
THINKING = {prefix: row for row, prefix in enumerate(prefix for prefix in OPEN if len(prefix) < 3)}
THOUGHTS = [prefix for prefix in OPEN if prefix] + [(*prefix, END) for prefix in THINKING]
SOLVING = {thought: row for row, thought in enumerate(THOUGHTS)}
BASELINES = ["brpo", "group", "earlier", "none"]
GROUPS, CHAINS = 3000, 3

_rng = np.random.default_rng(0)
LOGITS = {"thinking": _rng.normal(0, 0.7, (len(THINKING), 3)), "solving": _rng.normal(0, 0.7, (len(SOLVING), 2))}
CHOICES = {"thinking": [A, B, END], "solving": [YES, NO]}


def probabilities(kind):
    return torch.softmax(torch.tensor(LOGITS[kind]), dim=1).numpy()


def reward(thought, solution):
    """More for each a, most of all for a first one, and for a yes where an a stands last."""
    return 1.0 * (thought[0] == A) + 0.3 * thought.count(A) + 0.4 * ((solution == YES) == (A in thought[-2:]))


class TableEngine(Engine):
    tokens, context_length = TOKENS, None

    def __init__(self):
        self.rng = np.random.default_rng(1)
        self.cumulative = {kind: probabilities(kind).cumsum(axis=1) for kind in LOGITS}

    def grow(self, builders, how):
        for row, builder in enumerate(builders):
            while not builder.finished:
                if builder.forced_token is not None:
                    builder.insert()
                else:
                    builder.sample(self.next_token(builder), 0.0, 0.0)
            if how.on_rollout is not None:
                how.on_rollout(row, builder.build())
        return [builder.build() for builder in builders]

    def next_token(self, builder):
        thought = tuple(builder.thinking_ids)
        kind, rows = ("thinking", THINKING) if builder.thinking_stop_reason is None else ("solving", SOLVING)
        place = np.searchsorted(self.cumulative[kind][rows[thought]], self.rng.random())
        return CHOICES[kind][min(place, len(CHOICES[kind]) - 1)]


def exact_gradients():
    """Of the mean reward over the prior, by the table of thinking; of the sum over solutions, by that of solving."""
    tables = {kind: torch.tensor(logits, requires_grad=True) for kind, logits in LOGITS.items()}
    chances = {kind: torch.softmax(table, dim=1) for kind, table in tables.items()}
    objective = {"thinking": 0.0, "solving": 0.0}
    for thought, row in SOLVING.items():
        chance = torch.tensor(1.0)
        for depth, token in enumerate(thought):
            chance = chance * chances["thinking"][THINKING[thought[:depth]], CHOICES["thinking"].index(token)]
        mean_reward = sum(chances["solving"][row, i] * reward(thought, y) for i, y in enumerate(CHOICES["solving"]))
        cuts = [cut for cut in CUTS if cut == len(thought) or (thought[-1] == END and cut > len(thought))]
        share = sum(WEIGHTS[CUTS.index(cut)] for cut in cuts)
        objective["thinking"] = objective["thinking"] + share * chance * mean_reward.detach()
        objective["solving"] = objective["solving"] + chance.detach() * mean_reward
    return {kind: torch.autograd.grad(objective[kind], tables[kind])[0].numpy() for kind in LOGITS}


class Simulation:
    """Many groups of one prompt, sampled by the engine, with their rewards and masks."""

    def __init__(self, groups, chains, solutions):
        self.shape = (groups, chains, solutions, len(CUTS))
        rows = groups * chains * solutions
        budgets = [Budget(cut, 1) for cut in CUTS] * rows
        self.rollouts = forked_rollouts(
            *(TableEngine(), [[7, 1]] * len(budgets), budgets, len(CUTS), solutions, Sampling()),
            seed=0,
            streams=range(len(budgets)),
            on_rollout=None,
            on_step=None,
        )
        assert [rollout.budget for rollout in self.rollouts] == budgets
        self.masks = masks_of_forks(self.rollouts, len(CUTS), solutions)
        rewards = [reward(tuple(rollout.thinking_ids), rollout.solution_ids[0]) for rollout in self.rollouts]
        self.rewards_NCKM = np.array(rewards).reshape(self.shape)

    def estimates(self, thinking_NCM):
        """Each group's gradient, a chain: {table: [groups, rows of the table, choices]}."""
        groups, chains, solutions, cuts = self.shape
        solution_B = solution_advantages(self.rewards_NCKM).reshape(-1)
        advantages_BT = token_advantages(self.rollouts, thinking_NCM.reshape(-1, cuts), solution_B, width=5)
        gradients = {kind: np.zeros((groups, *table.shape)) for kind, table in LOGITS.items()}
        chances = {kind: probabilities(kind) for kind in LOGITS}
        for row, (rollout, mask) in enumerate(zip(self.rollouts, self.masks, strict=True)):
            group, thinking = row // (chains * solutions * cuts), len(rollout.thinking_ids)
            for place, token in enumerate(rollout.completion_ids):
                if not mask[place]:
                    continue
                thought = tuple(rollout.thinking_ids[:place])
                kind, table_row = ("thinking", THINKING) if place < thinking else ("solving", SOLVING)
                score = -chances[kind][table_row[thought]]
                score[CHOICES[kind].index(token)] += 1
                gradients[kind][group, table_row[thought]] += advantages_BT[row, place] * score / chains
        return gradients

    def of_baseline(self, baseline):
        return self.estimates(thinking_advantages(self.rewards_NCKM.mean(axis=2), WEIGHTS, baseline, 0.5))


@pytest.fixture(scope="module")
def simulation():
    return Simulation(GROUPS, CHAINS, 1)


@pytest.fixture(scope="module")
def exact():
    return exact_gradients()


def largest_z(estimates, expected):
    """The most standard errors that the mean of any number of the gradient lies from what is expected."""
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    return np.abs((estimates.mean(axis=0) - expected) / error).max()


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_gradient_is_unbiased_with_every_baseline(simulation, exact, baseline):
    estimates = simulation.of_baseline(baseline)
    assert largest_z(estimates["thinking"], exact["thinking"]) < 4
    assert largest_z(estimates["solving"], exact["solving"]) < 4


def test_it_is_with_several_solutions_at_each_cut(exact):
    several = Simulation(groups=1000, chains=2, solutions=2)
    estimates = several.of_baseline("brpo")
    assert largest_z(estimates["thinking"], exact["thinking"]) < 4
    assert largest_z(estimates["solving"], 2 * exact["solving"]) < 4
    closed = [row for row, rollout in enumerate(several.rollouts) if not rollout.forced and row % 6 == 0]
    differ = [several.rollouts[row].solution_ids != several.rollouts[row + 3].solution_ids for row in closed]
    assert 0.2 < np.mean(differ) < 0.6


def test_a_baseline_that_sees_the_future_is_caught(simulation, exact):
    """The mean of the chain's own rewards at all cuts, in the place of those at the cuts before the token."""
    rewards_NCM = simulation.rewards_NCKM[:, :, 0]
    left_M = np.cumsum(WEIGHTS[::-1])[::-1]
    advantages = thinking_advantages(rewards_NCM, WEIGHTS, "none", 0.5) - left_M * rewards_NCM.mean(
        axis=-1, keepdims=True
    )
    assert largest_z(simulation.estimates(advantages)["thinking"], exact["thinking"]) > 20


def test_a_mean_that_includes_the_chain_itself_shrinks_early_segments_most(simulation, exact):
    """The published code's: A = R - s/m V1 - (m - s)/m * the mean of R over all chains, its own too."""
    rewards_NCM = simulation.rewards_NCKM[:, :, 0]
    cuts = len(CUTS)
    own = thinking_advantages(rewards_NCM, WEIGHTS, "none", 0.5)
    others = own - thinking_advantages(rewards_NCM, WEIGHTS, "group", 0.5)
    share_M = (cuts - np.arange(cuts)) / cuts
    published = thinking_advantages(rewards_NCM, WEIGHTS, "brpo", 0.5) + share_M * (others - own) / CHAINS
    estimates = simulation.estimates(published)["thinking"]
    kept = np.array([1 - share_M[len(prefix)] / CHAINS for prefix in THINKING])
    assert largest_z(estimates, kept[:, None] * exact["thinking"]) < 4
    assert largest_z(estimates, exact["thinking"]) > 8


def test_division_by_the_standard_deviation_changes_the_direction(simulation, exact):
    """No factor makes the mean of what is divided by the group's standard deviation the exact gradient."""
    rewards_NCM = simulation.rewards_NCKM[:, :, 0]
    scale_N11 = rewards_NCM.std(axis=(1, 2), keepdims=True) + 1e-4
    advantages = thinking_advantages(rewards_NCM, WEIGHTS, "brpo", 0.5) / scale_N11
    estimates = simulation.estimates(advantages)["thinking"]
    mean = estimates.mean(axis=0)
    factor = (mean * exact["thinking"]).sum() / (exact["thinking"] ** 2).sum()
    assert largest_z(estimates, factor * exact["thinking"]) > 4


def test_brpo_has_the_least_variance(simulation):
    variance = {baseline: simulation.of_baseline(baseline)["thinking"].var(axis=0).sum() for baseline in BASELINES}
    print("Variance of the thinking's gradient:", {name: round(float(value), 3) for name, value in variance.items()})
    assert min(variance, key=variance.get) == "brpo"
    assert variance["brpo"] < 0.85 * variance["group"] < 0.6 * variance["none"]
