"""TransformersEngine against model.generate() under the same budgets: useful tokens per CPU-second.

    OMP_NUM_THREADS=1 python tests/bench/bench_engine.py [--quick]

generate() enforces each row's budgets by a logits processor: the end marker when t is spent, EOS after s. A useful
token is one that the policy sampled before its row ended. The sides run in turn in one process: A B A B; the figures
are medians over the rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch
from transformers import LlamaForCausalLM, LogitsProcessor, LogitsProcessorList
from workload import END, EOS, PAD, TOKENS, Timed, alternate, parameter_count, random_llama, random_prompts

from elastic.budget import Budget, BudgetDistribution, draw_budget
from elastic.engines.transformers import TransformersEngine
from elastic.rollout import Sampling
from elastic.tables import markdown_table

PROMPTS = {"tiny": 8, "25M": 4}


@dataclass(frozen=True)
class Case:
    """Budgets in tokens, a distribution being drawn from for each row, and where the policy's own phases end.

    `mean_phase_tokens` is the mean of a phase that no budget cuts, its length being geometric: of the policy's ends 4
    in 5 are end markers and 1 is EOS. None: it samples neither, so that every row spends its budgets.
    """

    name: str
    thinking: int | dict
    solution: int
    mean_phase_tokens: int | None = None
    prompt_tokens: int = 48
    samples: int = 8

    @property
    def chances(self) -> dict[int, float]:
        ends = 1 / self.mean_phase_tokens if self.mean_phase_tokens else 0.0
        return {END: 0.8 * ends, EOS: 0.2 * ends}

    @property
    def text(self) -> str:
        mean = self.mean_phase_tokens
        ends = f"the policy ends a phase after {mean} tokens on average" if mean else "every row spends its budgets"
        return f"{self.name}: t = {self.thinking}, s = {self.solution}, prompts of {self.prompt_tokens} tokens; {ends}"


CASES = [
    Case("tight", thinking=32, solution=4),
    Case("skewed chains", thinking=256, solution=32, mean_phase_tokens=24),
    Case("skewed budgets", thinking={"log_uniform": [4, 192]}, solution=8),
    Case("long prompts", thinking=8, solution=4, prompt_tokens=128),
]


class BudgetProcessor(LogitsProcessor):
    """Forces the end marker when a row's t is spent and EOS after its s, for all rows at once."""

    def __init__(self, budgets: Sequence[Budget], prompt_length: int):
        self._thinking_B = torch.tensor([budget.thinking for budget in budgets])
        self._solution_B = torch.tensor([budget.solution for budget in budgets])
        self._prompt_length = prompt_length
        self._closed_at_B = torch.full((len(budgets),), 2**40)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        length = input_ids.shape[1] - self._prompt_length
        if length:
            closes_B = (input_ids[:, -1] == END) & (self._closed_at_B > length)
            self._closed_at_B[closes_B] = length
        self._force(scores, (self._closed_at_B > length) & (self._thinking_B == length), END)
        self._force(scores, self._closed_at_B + self._solution_B == length, EOS)
        return scores

    @staticmethod
    def _force(scores_BV: torch.Tensor, rows_B: torch.Tensor, token: int) -> None:
        if rows_B.any():
            scores_BV[rows_B] = -torch.inf
            scores_BV[rows_B, token] = 0.0


def generated_lengths(
    model: LlamaForCausalLM, prompts: list[list[int]], budgets: list[Budget], seed: int, cache: str
) -> list[int]:
    """The useful tokens of each row of one generate() call."""
    torch.manual_seed(seed)
    width = max(map(len, prompts))
    ids_BL = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask_BL = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    output_BT = model.generate(
        ids_BL,
        attention_mask=mask_BL,
        logits_processor=LogitsProcessorList([BudgetProcessor(budgets, width)]),
        max_new_tokens=max(budget.most_sampled_tokens for budget in budgets) + len(TOKENS.bridge),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        cache_implementation=cache,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    return [useful_tokens(ids, budget) for ids, budget in zip(output_BT[:, width:].tolist(), budgets, strict=True)]


def useful_tokens(ids: list[int], budget: Budget) -> int:
    """How many of a row's tokens were sampled rather than forced, up to its end."""
    thinking = ids[: budget.thinking]
    ends = [i for i, token in enumerate(thinking) if token in (END, EOS)]
    sampled = ends[0] + 1 if ends else budget.thinking
    if ends and thinking[ends[0]] == EOS:
        return sampled
    solution = ids[sampled if ends else sampled + 1 :][: budget.solution]
    return sampled + (solution.index(EOS) + 1 if EOS in solution else len(solution))


def engine_lengths(engine: TransformersEngine, prompts: list[list[int]], budgets: list[Budget], seed: int) -> list[int]:
    return [rollout.completion_tokens for rollout in engine.generate(prompts, budgets, Sampling(), seed=seed)]


def make_sides(
    model: LlamaForCausalLM, case: Case, prompts: int, cache: str = "dynamic"
) -> dict[str, Callable[[int], list[int]]]:
    """Both sides on the same rows: functions from a seed to the useful tokens of each row."""
    thinking = BudgetDistribution.parse(case.thinking, "thinking")
    solution = BudgetDistribution.parse(case.solution, "solution")
    unique = random_prompts(prompts, case.prompt_tokens, model.config.vocab_size)
    rows = [prompt for prompt in unique for _ in range(case.samples)]
    budgets = [draw_budget(thinking, solution, seed=0, draw=row, prompt_ids=prompt) for row, prompt in enumerate(rows)]
    engine = TransformersEngine(model, TOKENS, pad_token_id=PAD)
    return {
        "generate": lambda seed: generated_lengths(model, rows, budgets, seed, cache),
        "engine": lambda seed: engine_lengths(engine, rows, budgets, seed),
    }


def measure(model_name: str, case: Case, prompts: int, rounds: int, cache: str) -> tuple[list[list[str]], str]:
    """The table's rows for one model and case, and the sentence with their ratio."""
    model = random_llama(model_name, case.chances)
    size = parameter_count(model)
    timed = alternate(make_sides(model, case, prompts, cache), rounds)
    speeds = {side: median(sum(run.result) / run.cpu_s for run in runs) for side, runs in timed.items()}
    rows = [
        [case.name, size, side, str(prompts * case.samples), *_lengths(runs), f"{speeds[side]:.0f}"]
        for side, runs in timed.items()
    ]
    return rows, f"{case.name}, {size}: engine / generate() = {speeds['engine'] / speeds['generate']:.2f}"


def _lengths(runs: list[Timed]) -> list[str]:
    """Useful tokens: the mean, median, 95th percentile and largest of a row, and the median sum of a round."""
    lengths = np.concatenate([run.result for run in runs])
    shape = (np.median(lengths), np.percentile(lengths, 95), lengths.max())
    total = median(sum(run.result) for run in runs)
    return [f"{lengths.mean():.1f}", *(f"{value:.0f}" for value in shape), f"{total:.0f}"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a nano model, 8 rows, short prompts, one round")
    parser.add_argument("--rounds", type=int, default=2, help="how often each side runs (default: 2)")
    parser.add_argument("--model", choices=list(PROMPTS), help="only this one (default: both)")
    parser.add_argument("--case", choices=[case.name for case in CASES], help="only this one (default: all)")
    parser.add_argument(
        "--cache",
        choices=("dynamic", "static"),
        default="dynamic",
        help="generate()'s cache (default: dynamic, as its)",
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cases = [case for case in CASES if args.case in (None, case.name)]
    shapes = {name: count for name, count in PROMPTS.items() if args.model in (None, name)}
    if args.quick:
        cases = [replace(case, samples=4, prompt_tokens=case.prompt_tokens // 4) for case in cases]
        shapes, args.rounds = {"nano": 2}, 1
    results = [measure(name, case, count, args.rounds, args.cache) for name, count in shapes.items() for case in cases]
    header = ["case", "parameters", "side", "rows", "tokens a row", "p50", "p95", "max", "tokens", "tokens a CPU-s"]
    print(*(f"- {case.text}" for case in cases), sep="\n")
    print("", markdown_table(header, [row for rows, _ in results for row in rows]), "", sep="\n")
    print(*(f"- {ratio}" for _, ratio in results), sep="\n")


if __name__ == "__main__":
    main()
