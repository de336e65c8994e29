"""Length-aware micro-batches on mixed budgets, with and without: CPU-seconds of a training step without its rollouts.

    OMP_NUM_THREADS=1 python tests/bench/bench_micro_batches.py [--quick]

All sides have the model, prompts, rollouts, reward and loss; budgets are drawn for each prompt. "TRL": micro-batches as
stock TRL cuts them, each padded to the longest row of the generation batch. "trimmed": the same rows, each micro-batch
padded to its own longest (length_aware_micro_batches: false). "by length": ordered first (the default). A padded token
is a place in what goes through the model, scoring and training. The sides run in turn in one process: A B C A B C; the
figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
import transformers
from bench_step import BudgetedTrainer, Case, Clock, common_fields, data_set
from transformers import LlamaForCausalLM, PrinterCallback
from trl import GRPOTrainer
from workload import alternate, make_tokenizer, parameter_count, random_llama

from elastic.config import ElasticConfig
from elastic.tables import markdown_table


@dataclass(frozen=True)
class MixedCase(Case):
    """A generation batch of mixed budgets, trained on in `updates` updates."""

    updates: int = 1

    @property
    def text(self) -> str:
        rows = f"{self.prompts} x {self.samples} rows in micro-batches of {self.micro_batch}, updates: {self.updates}"
        ends = f"EOS with a chance of 1/{1 / self.eos_chance:.0f} a token" if self.eos_chance else "no EOS"
        return f"{self.name}: t = {self.thinking}, s = {self.solution}; {rows}; {ends}"


_TINY = MixedCase(
    "1.5M", "tiny", {"log_uniform": [16, 512]}, solution=16, prompts=8, samples=4, micro_batch=4, rounds=3
)
CASES = [
    _TINY,
    replace(_TINY, name="1.5M, two updates", updates=2),
    replace(_TINY, name="1.5M, one budget", thinking=512, eos_chance=1 / 128),
    replace(_TINY, name="26M", model="25M", thinking={"log_uniform": [16, 256]}, rounds=2),
]


class CountingTrainer(BudgetedTrainer):
    """Counts the places in what goes through the model when rollouts are scored and trained on."""

    padded_tokens = 0

    def __init__(self, model, **kwargs):
        super().__init__(model=model, **kwargs)
        model.model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs):
        if "past_key_values" not in kwargs or kwargs["past_key_values"] is None:
            self.padded_tokens += kwargs["input_ids"].numel()


class StockUpdates(CountingTrainer):
    """Our rollouts, TRL's updates and metrics."""

    _compute_loss = GRPOTrainer._compute_loss

    def _weigh_means(self):
        pass


def alternating_reward(completions: list, **columns) -> list[float]:
    """No group's rewards are all equal: every row is trained on."""
    return [float(row % 2) for row in range(len(completions))]


def trained(trainer_type: type, model: LlamaForCausalLM, case: MixedCase, seed: int, by_length: bool) -> tuple:
    """CPU-seconds of a step on one generation batch without its rollouts, padded tokens, sampled tokens."""
    vocabulary = model.config.vocab_size
    with tempfile.TemporaryDirectory() as folder:
        fields = common_fields(case, folder)
        micro_batches = fields["gradient_accumulation_steps"]
        fields |= dict(gradient_accumulation_steps=micro_batches // case.updates, steps_per_generation=micro_batches)
        fields |= dict(max_steps=case.updates, seed=seed, length_aware_micro_batches=None if by_length else False)
        fields |= dict(thinking_token_budget=case.thinking, solution_token_budget=case.solution)
        trainer = trainer_type(
            model=copy.deepcopy(model),
            reward_funcs=alternating_reward,
            args=ElasticConfig(**fields),
            train_dataset=data_set(case, vocabulary),
            processing_class=make_tokenizer(vocabulary),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock := Clock())
        trainer.train()
    return clock.cpu_s - trainer.generation_cpu_s, trainer.padded_tokens, trainer.sampled_tokens


def make_sides(model: LlamaForCausalLM, case: MixedCase) -> dict[str, Callable[[int], tuple]]:
    """All sides on the same batch: functions from a seed to what `trained` returns."""
    return {
        "TRL": lambda seed: trained(StockUpdates, model, case, seed, by_length=False),
        "trimmed": lambda seed: trained(CountingTrainer, model, case, seed, by_length=False),
        "by length": lambda seed: trained(CountingTrainer, model, case, seed, by_length=True),
    }


def measure(case: MixedCase, rounds: int) -> tuple[list[list[str]], str]:
    """The table's rows for one case, and the sentence with the ratios."""
    model = random_llama(case.model, case.chances)
    timed = alternate(make_sides(model, case), rounds)
    parts = {
        side: [median(values) for values in zip(*(run.result for run in runs), strict=True)]
        for side, runs in timed.items()
    }
    rows = [
        [case.name, parameter_count(model), side, f"{sampled:.0f}", f"{padded:.0f}", f"{cpu_s:.2f}"]
        for side, (cpu_s, padded, sampled) in parts.items()
    ]
    (stock, *_), (trimmed, *_), (ordered, *_) = parts.values()
    return rows, f"{case.name}: TRL / by length = {stock / ordered:.2f}, trimmed / by length = {trimmed / ordered:.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a nano model, 16 rows of short budgets, one round")
    parser.add_argument("--rounds", type=int, help="how often each side runs (default: 1.5M 3 times, 26M 2)")
    parser.add_argument("--case", choices=[case.name for case in CASES], help="only this one (default: all)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    cases = [case for case in CASES if args.case in (None, case.name)]
    quick = replace(_TINY, name="quick", model="nano", thinking={"uniform": [1, 12]}, prompts=2, rounds=1)
    measure(quick, rounds=1)  # what a first call pays for
    cases = [quick] if args.quick else cases
    results = [measure(case, args.rounds or case.rounds) for case in cases]
    header = ["case", "parameters", "micro-batches", "sampled tokens", "padded tokens", "training CPU-s"]
    print(*(f"- {case.text}" for case in cases), sep="\n")
    print("", markdown_table(header, [row for rows, _ in results for row in rows]), "", sep="\n")
    print(*(f"- {ratio}" for _, ratio in results), sep="\n")


if __name__ == "__main__":
    main()
