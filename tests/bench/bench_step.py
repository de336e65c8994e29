"""A training step of ElasticGRPOTrainer against one of TRL's GRPOTrainer: CPU-seconds, of generation and of the rest.

    OMP_NUM_THREADS=1 python tests/bench/bench_step.py [--quick]

Same model, prompts, batch, loss and reward; stock TRL samples with its own generate() to t + bridge + s tokens. The
policy samples no end marker, and EOS with the chance that each case names, so that the rollouts of both sides are of
the same length. The reward is 0 or 1 by the parity of the sampled ids, except in an idle group, where it is always 1:
such a group has no advantage. The sides run in turn in one process: A B A B; the figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
import transformers
from datasets import Dataset
from transformers import LlamaForCausalLM, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from workload import END, EOS, TOKENS, alternate, make_tokenizer, parameter_count, random_llama, random_prompts

from elastic.config import ElasticConfig
from elastic.tables import markdown_table
from elastic.trainer import ElasticGRPOTrainer

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


@dataclass(frozen=True)
class Case:
    """A batch of `prompts` groups of `samples` rows, trained in micro-batches; `steps` updates in each of `rounds`."""

    name: str
    model: str
    thinking: int
    solution: int
    prompts: int
    micro_batch: int
    eos_chance: float = 0.0
    idle_share: float = 0.0
    samples: int = 8
    prompt_tokens: int = 24
    steps: int = 1
    rounds: int = 1

    @property
    def chances(self) -> dict[int, float]:
        return {END: 0.0, EOS: self.eos_chance}

    @property
    def text(self) -> str:
        ends = f"EOS with a chance of 1/{1 / self.eos_chance:.0f} a token" if self.eos_chance else "no EOS"
        idle = f"; {self.idle_share:.0%} of the groups idle" if self.idle_share else ""
        rows = f"{self.prompts} x {self.samples} rows in micro-batches of {self.micro_batch}"
        return f"{self.name}: t = {self.thinking}, s = {self.solution}, {rows}; {ends}{idle}"


_NANO = Case("nano", "nano", thinking=32, solution=4, prompts=24, micro_batch=192, steps=4, rounds=3)
_SMALL = Case("25M", "25M", thinking=128, solution=32, prompts=8, micro_batch=16, eos_chance=1 / 64)
CASES = [
    _NANO,
    replace(_NANO, name="nano, half idle", idle_share=0.5),
    _SMALL,
    replace(_SMALL, name="25M, half idle", idle_share=0.5),
]


class Clock(TrainerCallback):
    """Sums CPU-seconds from the start of each update to its end, the optimizer's step included."""

    def __init__(self):
        self.cpu_s = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        self.cpu_s -= time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        self.cpu_s += time.process_time()


class CountedGeneration:
    """A trainer that notes the CPU-seconds of its rollouts and the tokens that the policy sampled in them."""

    generation_cpu_s = 0.0
    sampled_tokens = 0

    def _generate(self, prompts):
        start = time.process_time()
        output = super()._generate(prompts)
        self.generation_cpu_s += time.process_time() - start
        _, completion_ids, env_mask = output[:3]
        self.sampled_tokens += sum(map(sum, env_mask)) if env_mask else sum(map(len, completion_ids))
        return output


class StockTrainer(CountedGeneration, GRPOTrainer):
    pass


class BudgetedTrainer(CountedGeneration, ElasticGRPOTrainer):
    pass


def parity_reward(completion_ids: list[list[int]], idle: list[bool], **columns) -> list[float]:
    return [1.0 if rests else float(sum(ids) % 2) for ids, rests in zip(completion_ids, idle, strict=True)]


def data_set(case: Case, vocabulary: int) -> Dataset:
    words = make_tokenizer(vocabulary).convert_ids_to_tokens
    prompts = random_prompts(case.prompts, case.prompt_tokens, vocabulary)
    idle = int(case.idle_share * case.prompts)
    rows = [
        {"prompt": [{"role": "user", "content": " ".join(words(prompt[:-1]))}], "idle": i < idle}
        for i, prompt in enumerate(prompts)
    ]
    return Dataset.from_list(rows)


def common_fields(case: Case, folder: str) -> dict:
    return dict(
        output_dir=folder,
        num_generations=case.samples,
        per_device_train_batch_size=case.micro_batch,
        gradient_accumulation_steps=case.prompts * case.samples // case.micro_batch,
        max_steps=case.steps,
        learning_rate=1e-6,
        loss_type="dapo",
        beta=0.0,
        temperature=1.0,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def trained(trainer_type: type, config: GRPOConfig, model: LlamaForCausalLM, case: Case) -> tuple[float, float, float]:
    """CPU-seconds a step of generation, those of the rest, and sampled tokens a step, of one short training."""
    vocabulary = model.config.vocab_size
    trainer = trainer_type(
        model=copy.deepcopy(model),
        reward_funcs=parity_reward,
        args=config,
        train_dataset=data_set(case, vocabulary),
        processing_class=make_tokenizer(vocabulary),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock := Clock())
    trainer.train()
    generation = trainer.generation_cpu_s
    return tuple(total / case.steps for total in (generation, clock.cpu_s - generation, trainer.sampled_tokens))


def make_sides(model: LlamaForCausalLM, case: Case, folder: str) -> dict[str, Callable[[int], tuple]]:
    """Both sides on the same batch: functions from a seed to what `trained` returns."""
    length = case.thinking + len(TOKENS.bridge) + case.solution
    budgets = {"thinking_token_budget": case.thinking, "solution_token_budget": case.solution}

    def stock(seed: int):
        config = GRPOConfig(**common_fields(case, folder), seed=seed, max_completion_length=length)
        return trained(StockTrainer, config, model, case)

    def elastic(seed: int):
        return trained(BudgetedTrainer, ElasticConfig(**common_fields(case, folder), seed=seed, **budgets), model, case)

    return {"stock": stock, "elastic": elastic}


def measure(case: Case, rounds: int) -> tuple[list[list[str]], str]:
    """The table's rows for one case, and the sentence with the ratios."""
    model = random_llama(case.model, case.chances)
    with tempfile.TemporaryDirectory() as folder:
        timed = alternate(make_sides(model, case, folder), rounds)
    parts = {
        side: [median(values) for values in zip(*(run.result for run in runs), strict=True)]
        for side, runs in timed.items()
    }
    rows = [
        [
            case.name,
            parameter_count(model),
            side,
            f"{tokens:.0f}",
            *(f"{s:.2f}" for s in (rollouts, rest, rollouts + rest)),
        ]
        for side, (rollouts, rest, tokens) in parts.items()
    ]
    (stock_rollouts, stock_rest, _), (rollouts, rest, _) = parts["stock"], parts["elastic"]
    return rows, (
        f"{case.name}: stock / elastic = {(stock_rollouts + stock_rest) / (rollouts + rest):.2f} "
        f"(generation {stock_rollouts / rollouts:.2f}, training {stock_rest / rest:.2f})"
    )


def warm_up() -> None:
    """Take what a first call pays for, on a case that costs little."""
    measure(replace(_NANO, prompts=1, micro_batch=8, thinking=2, steps=1), rounds=1)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the nano cases only, 4 prompts, one step")
    parser.add_argument("--rounds", type=int, help="how often each side runs (default: nano 3, 25M once)")
    parser.add_argument(
        "--case", choices=[case.name for case in CASES], help="only this one (default: all but the last)"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    cases = [case for case in CASES if case.name == args.case] if args.case else CASES[:-1]
    if args.quick:
        cases = [replace(case, prompts=4, micro_batch=32, steps=1, rounds=1) for case in cases if case.model == "nano"]
    warm_up()
    results = [measure(case, args.rounds or case.rounds) for case in cases]
    header = ["case", "parameters", "side", "sampled tokens", "generation CPU-s", "training CPU-s", "step CPU-s"]
    print(*(f"- {case.text}" for case in cases), sep="\n")
    print("", markdown_table(header, [row for rows, _ in results for row in rows]), "", sep="\n")
    print(*(f"- {ratio}" for _, ratio in results), sep="\n")


if __name__ == "__main__":
    main()
