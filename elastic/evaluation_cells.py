"""The cells of an evaluation: which budgets, under which key, and what is measured in each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elastic.controls import Cell
from elastic.estimates import majority, pass_at_k
from elastic.intervals import accuracy_interval
from elastic.rollout import FinishReason, Sampling, ThinkingStopReason
from rewards import ANSWER_CLASSES

# Rollouts that are sampled, graded and written together. Part of every key, because a rollout's random stream comes
# from its place in its chunk.
ROLLOUTS_IN_CHUNK = 512


@dataclass(frozen=True)
class Provenance:
    """All that decides what the samples of a cell are, but its budget.

    The data count twice: `data_fingerprint` is of prompts and answers, and tells whether two runs can be compared;
    `columns_fingerprint` is of every column, which a reward may read.
    """

    model_fingerprint: str
    data_fingerprint: str
    columns_fingerprint: str
    chat_template_kwargs: dict[str, Any] | None
    sampling: Sampling
    num_generations: int
    seed: int
    reward: str
    reward_settings: dict[str, Any]
    reasoning_start_str: str
    reasoning_end_str: str
    dtype: str
    attn_implementation: str | None
    sweep: str
    engine: str = "transformers"
    served_model_name: str | None = None
    solution_model_fingerprint: str | None = None
    rollouts_in_chunk: int = ROLLOUTS_IN_CHUNK

    def key(self, cell: Cell) -> str:
        """What the samples of this cell are stored under: other settings give another key."""
        return digest([self._settings(), cell.identity])

    def chain_key(self, cells: Sequence[Cell]) -> str:
        """What the chains of cells that are sampled together are stored under."""
        shared = self.sweep == "fork" and not cells[0].reminded
        of_cells = cells[0].asks if shared else cells[0].identity
        grading = ("reward", "reward_settings", "columns_fingerprint")
        return digest([{name: value for name, value in self._settings().items() if name not in grading}, of_cells])

    def _settings(self) -> dict[str, Any]:
        """All of them; that there is no second model is left out, as before there could be one."""
        left_out = "solution_model_fingerprint" if self.solution_model_fingerprint is None else None
        return {name: value for name, value in asdict(self).items() if name != left_out}

    def engine_seed(self, cells: Sequence[Cell], chunk: int) -> int:
        """The seed of one chunk of cells that are sampled together, for whichever model.

        It does not depend on what was sampled before, and where chains are forked not on the budgets either, so that
        the same chains are sampled for another grid.
        """
        forked = self.sweep == "fork"
        of_cells = ["chains", cells[0].asks] if forked else asdict(cells[0].enforced)
        return int(digest([self.seed, of_cells, chunk]), 16) >> 1

    @property
    def problems_in_chunk(self) -> int:
        return max(1, self.rollouts_in_chunk // self.num_generations)


def summarise(cell: Cell, rows: Sequence[dict[str, Any]], problem_ids: Iterable[str], reward: str) -> dict[str, Any]:
    """What the samples `rows` of one cell show; tokens are means per rollout, rates are shares of all rollouts.

    `accuracy`, `ci_low`, `ci_high` and `majority_at_n` are None, and `pass_at_k` is empty, where no sample could be
    graded; `majority_at_n` is None too where the answers that `reward` grades cannot be compared with one another.
    """
    graded: dict[str, list[dict[str, Any]]] = {problem_id: [] for problem_id in problem_ids}
    for row in rows:
        if row["reward"] is not None:
            graded[row["problem_id"]].append(row)
    rewards = [[row["reward"] for row in samples] for samples in graded.values()]
    n_samples = sum(map(len, rewards))
    accuracy, low, high = accuracy_interval(rewards) if n_samples else (None, None, None)
    return {
        "control": str(cell.control),
        "control_settings": dict(cell.settings),
        "thinking_token_budget": cell.budget.thinking,
        "solution_token_budget": cell.budget.solution,
        "total_token_budget": cell.budget.total,
        "accuracy": accuracy,
        "ci_low": low,
        "ci_high": high,
        "pass_at_k": {str(k): list(interval) for k, interval in pass_at_k(rewards).items()},
        "majority_at_n": _majority(list(graded.values()), reward),
        "n_problems": sum(map(bool, rewards)),
        "n_samples": n_samples,
        "ungraded": len(rows) - n_samples,
        "reasons": _reasons(rows),
        **_token_counts(rows),
        **_rates(rows),
    }


def _majority(samples_by_problem: Sequence[Sequence[dict[str, Any]]], reward: str) -> list[float] | None:
    """None where nothing was graded, the answers cannot be compared, or the samples are older than predictions are."""
    rows = [row for samples in samples_by_problem for row in samples]
    if not rows or reward not in ANSWER_CLASSES or not all("prediction" in row for row in rows):
        return None
    votes = [[(row["prediction"], row["reward"]) for row in samples] for samples in samples_by_problem]
    return list(majority(votes, ANSWER_CLASSES[reward]))


def _reasons(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The share of the samples that has each reason, the most frequent first; without details, and without none."""
    heads = Counter(row["reason"].partition(":")[0] for row in rows if row.get("reason"))
    return {reason: count / len(rows) for reason, count in heads.most_common()}


def _token_counts(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    counts = {}
    for name in ("thinking_tokens", "solution_tokens"):
        tokens = [row[name] for row in rows]
        counts |= {name: float(np.mean(tokens)), f"{name}_p95": float(np.percentile(tokens, 95))}
    return counts | {"total_tokens": counts["thinking_tokens"] + counts["solution_tokens"]}


def _rates(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    def rate(name: str, *values: object) -> float:
        return sum(row[name] in values for row in rows) / len(rows)

    return {
        "forced_rate": rate("thinking_stop_reason", ThinkingStopReason.BUDGET),
        "eos_in_thinking_rate": rate("thinking_stop_reason", ThinkingStopReason.EOS),
        "thinking_cut_rate": rate("thinking_stop_reason", ThinkingStopReason.LENGTH),
        "solution_truncated_rate": rate("finish_reason", FinishReason.LENGTH),
        "reopened_rate": 1.0 - rate("reopened", 0),
        "extra_end_marker_rate": 1.0 - rate("extra_end_markers", 0),
    }


def digest(content: object) -> str:
    """16 hexadecimal digits of anything that JSON can hold; other values count by their text."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
