"""One model on one data set: its problems, its cells, and the samples that each cell has or lacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import AutoConfig, AutoTokenizer

from elastic.budget import ReasoningTokens
from elastic.data import drop_long_prompts, fingerprint, load_problems, prompt_token_ids
from elastic.evaluation_arguments import EvaluationArguments
from elastic.evaluation_cells import Cell, Provenance, digest, grid, summarise
from elastic.generations import Generations
from elastic.model_source import ModelSource, find_model
from elastic.report import checked_output_dir
from elastic.results import GENERATIONS_NAME
from elastic.rollout import Rollout, RolloutBuilder, segment_texts
from rewards import REWARDS, load_reward

Row = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """Everything that is needed to complete and measure cells, except the model's weights."""

    arguments: EvaluationArguments
    source: ModelSource
    tokenizer: Any
    problems: list[Row]
    prompts: list[list[int]]
    dropped_prompts: int
    reward: Callable
    cells: list[Cell]
    provenance: Provenance
    generations: Generations
    output_dir: Path

    @classmethod
    def prepare(cls, arguments: EvaluationArguments) -> Evaluation:
        """Check all that can be checked before a model is loaded, and read the samples that are there.

        Raises:
            ValueError, FileNotFoundError: one sentence for what is wrong.
        """
        output_dir = checked_output_dir(Path(arguments.output_dir).expanduser())
        reward = load_reward(arguments.reward)
        if arguments.reward in REWARDS and arguments.solution_token_budget == 0 and arguments.thinking_token_budgets:
            raise ValueError(
                f"solution_token_budget is 0, and the reward {arguments.reward} grades the solution: give 1 token or "
                f"more, or -1."
            )
        source = find_model(arguments.model_name_or_path, arguments.model_revision)
        tokenizer = load_tokenizer(arguments, source)
        problems, prompts, dropped = load_prompts(arguments, tokenizer)
        cells = grid(arguments)
        check_budgets_fit(arguments, source, tokenizer, prompts, cells)
        provenance = provenance_of(arguments, source, problems)
        output_dir.mkdir(parents=True, exist_ok=True)
        generations = Generations(output_dir / GENERATIONS_NAME, keys={provenance.key(cell.budget) for cell in cells})
        return cls(
            arguments, source, tokenizer, problems, prompts, dropped, reward, cells, provenance, generations, output_dir
        )

    def what_is_there(self) -> str:
        """What a person should know before the sampling starts."""
        n = self.arguments.num_generations
        counts = [len(self.generations.of(self.provenance.key(cell.budget))) for cell in self.cells]
        lines = [f"{len(self.problems)} problems x {n} samples at {len(self.cells)} budgets."]
        if self.dropped_prompts:
            limit = self.arguments.max_prompt_length
            lines.append(f"Dropped {self.dropped_prompts} prompts of more than {limit} tokens.")
        if self.generations.dropped_bytes:
            lines.append("The last line of generations.jsonl was cut by an interruption: dropped, to be sampled anew.")
        if any(counts):
            needed = len(self.problems) * n * len(self.cells)
            lines.append(f"Resuming: {sum(counts)} of {needed} samples are in {self.generations.path}.")
        return "\n".join(lines)

    def load_engine(self):
        """The model behind a TransformersEngine, on the GPU if there is one."""
        import torch
        from transformers import AutoModelForCausalLM

        from elastic.engines.transformers import TransformersEngine

        model = AutoModelForCausalLM.from_pretrained(
            self.source.path,
            revision=self.source.revision or "main",
            dtype=self.arguments.dtype,
            attn_implementation=self.arguments.attn_implementation,
            trust_remote_code=self.arguments.trust_remote_code,
        ).to("cuda" if torch.cuda.is_available() else "cpu")
        eos = self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id
        return TransformersEngine(
            model,
            reasoning_tokens(self.arguments, self.tokenizer, model.generation_config.eos_token_id),
            pad_token_id=eos if pad is None else pad,
            max_batch_tokens=self.arguments.max_batch_tokens,
        )

    def missing_chunks(self, cell: Cell) -> list[tuple[int, range]]:
        """(number, positions of its problems) of each chunk of the cell that lacks a sample."""
        there = self.generations.of(self.provenance.key(cell.budget))
        size = self.provenance.problems_in_chunk
        starts = range(0, len(self.problems), size)
        chunks = [range(start, min(start + size, len(self.problems))) for start in starts]
        return [
            (number, chunk)
            for number, chunk in enumerate(chunks)
            if any(index not in there for index in self._sample_indices(chunk))
        ]

    def complete(self, cell: Cell, engine) -> None:
        """Sample, grade and store the chunks that lack samples, with a progress bar over the cell's rollouts.

        A chunk is always sampled whole, since a rollout's random stream comes from its place in it; of a chunk that was
        stored in part, the samples that are there are kept.
        """
        missing = self.missing_chunks(cell)
        n = self.arguments.num_generations
        total, needed = len(self.problems) * n, sum(len(chunk) * n for _, chunk in missing)
        with tqdm(total=total, initial=total - needed, desc=cell.label, unit="rollout", mininterval=0.5) as bar:
            for number, chunk in missing:
                done = bar.n + len(chunk) * n
                self.generations.append(self._sampled(cell, number, chunk, engine, bar))
                bar.update(done - bar.n)

    def measure(self, cell: Cell) -> dict[str, Any]:
        """The cell as results.json lists it: what was measured, then what produced it."""
        key = self.provenance.key(cell.budget)
        there = self.generations.of(key)
        rows = [there[index] for index in self._sample_indices(range(len(self.problems)))]
        return {
            **summarise(cell, rows, [problem["problem_id"] for problem in self.problems]),
            "trained_budget": self.arguments.trained_budget,
            "model_label": self.arguments.label,
            "model_name_or_path": self.arguments.model_name_or_path,
            "model_revision": self.source.revision,
            "dataset_name": self.arguments.dataset_name,
            **asdict(self.provenance),
            "key": key,
        }

    def _sample_indices(self, positions: Sequence[int]) -> list[tuple[str, int]]:
        samples = range(self.arguments.num_generations)
        return [(self.problems[position]["problem_id"], sample) for position in positions for sample in samples]

    def _sampled(self, cell: Cell, number: int, chunk: range, engine, bar: tqdm) -> list[Row]:
        """The graded samples of one chunk that the cell lacks."""
        n = self.arguments.num_generations
        rollouts = engine.generate(
            [self.prompts[position] for position in chunk for _ in range(n)],
            [cell.budget] * (len(chunk) * n),
            self.arguments.sampling,
            seed=self.provenance.engine_seed(cell.budget, number),
            on_rollout=bar.update,
        )
        key = self.provenance.key(cell.budget)
        there = self.generations.of(key)
        graded = self._graded(rollouts, [self.problems[position] for position in chunk for _ in range(n)])
        indices = self._sample_indices(chunk)
        return [
            {"key": key, "problem_id": index[0], "sample": index[1], **row}
            for index, row in zip(indices, graded, strict=True)
            if index not in there
        ]

    def _graded(self, rollouts: Sequence[Rollout], problems: Sequence[Row]) -> list[Row]:
        thinking_texts, solution_texts = segment_texts(rollouts, self.tokenizer)
        rows = [
            {
                "thinking_text": thinking,
                "solution_text": solution,
                "thinking_stop_reason": str(rollout.thinking_stop_reason),
                "finish_reason": str(rollout.finish_reason),
                "thinking_tokens": rollout.thinking_tokens,
                "solution_tokens": rollout.solution_tokens,
                "reopened": rollout.reopened,
                "extra_end_markers": rollout.extra_end_markers,
            }
            for rollout, thinking, solution in zip(rollouts, thinking_texts, solution_texts, strict=True)
        ]
        rewards = self._rewards(rollouts, problems, rows)
        return [row | {"reward": reward} for row, reward in zip(rows, rewards, strict=True)]

    def _rewards(self, rollouts: Sequence[Rollout], problems: Sequence[Row], rows: Sequence[Row]) -> list[float | None]:
        """Call the reward as TRL and the trainer do: columns of the problems, and of the rollouts, which go first."""
        ids = [rollout.completion_ids for rollout in rollouts]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        columns = {name: [problem[name] for problem in problems] for name in problems[0] if name != "prompt"}
        columns |= {name: [row[name] for row in rows] for name in rows[0]}
        columns["thinking_token_budget"] = [rollout.budget.thinking for rollout in rollouts]
        columns["solution_token_budget"] = [rollout.budget.solution for rollout in rollouts]
        rewards = self.reward(
            prompts=[problem["prompt"] for problem in problems],
            completions=[[{"role": "assistant", "content": text}] for text in texts],
            completion_ids=ids,
            **columns,
        )
        return checked_rewards(rewards, self.arguments.reward, len(rows))


def load_tokenizer(arguments: EvaluationArguments, source: ModelSource):
    """The model's tokenizer. Raises ValueError when the model has none."""
    try:
        return AutoTokenizer.from_pretrained(
            source.path, revision=source.revision or "main", trust_remote_code=arguments.trust_remote_code
        )
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"model_name_or_path is {source.path!r}, whose tokenizer cannot be loaded: {why}") from None


def load_prompts(arguments: EvaluationArguments, tokenizer) -> tuple[list[Row], list[list[int]], int]:
    """(problems, their prompts as token ids, the number of problems dropped for the length of their prompt)."""
    problems = load_problems(
        arguments.dataset_name,
        split=arguments.dataset_split,
        dataset_config=arguments.dataset_config,
        problem_column=arguments.problem_column,
        answer_column=arguments.answer_column,
        prompt_suffix=arguments.prompt_suffix,
        system_prompt=arguments.system_prompt,
        limit=arguments.max_problems,
        drop_malformed_rows=arguments.drop_malformed_rows,
    )
    template = arguments.chat_template_kwargs
    problems, dropped = drop_long_prompts(problems, tokenizer, arguments.max_prompt_length, template)
    return problems, [prompt_token_ids(problem["prompt"], tokenizer, template) for problem in problems], dropped


def reasoning_tokens(arguments: EvaluationArguments, tokenizer, eos_token_ids=None) -> ReasoningTokens:
    return ReasoningTokens.from_tokenizer(
        tokenizer,
        reasoning_start_str=arguments.reasoning_start_str,
        reasoning_end_str=arguments.reasoning_end_str,
        wrap_up_str=arguments.wrap_up_str,
        eos_token_ids=eos_token_ids,
    )


def check_budgets_fit(
    arguments: EvaluationArguments,
    source: ModelSource,
    tokenizer,
    prompts: Sequence[list[int]],
    cells: Sequence[Cell],
) -> None:
    """Raises ValueError when the longest prompt leaves a cell's budgets no room in the model's context."""
    from elastic.engines.transformers import context_length

    tokens = reasoning_tokens(arguments, tokenizer)
    config = AutoConfig.from_pretrained(
        source.config_path,
        revision=source.config_revision or "main",
        trust_remote_code=arguments.trust_remote_code,
    ).get_text_config(decoder=True)
    longest = tokens.open(max(prompts, key=len))
    for cell in cells:
        RolloutBuilder(longest, cell.budget, tokens, context_length(config))


def provenance_of(arguments: EvaluationArguments, source: ModelSource, problems: Sequence[Row]) -> Provenance:
    return Provenance(
        model_fingerprint=source.fingerprint,
        data_fingerprint=fingerprint(problems),
        columns_fingerprint=digest(problems),
        chat_template_kwargs=arguments.chat_template_kwargs,
        sampling=arguments.sampling,
        num_generations=arguments.num_generations,
        seed=arguments.seed,
        reward=arguments.reward,
        reasoning_start_str=arguments.reasoning_start_str,
        reasoning_end_str=arguments.reasoning_end_str,
        wrap_up_str=arguments.wrap_up_str,
        dtype=arguments.dtype,
        attn_implementation=arguments.attn_implementation,
    )


def checked_rewards(rewards: Sequence[float | None], name: str, count: int) -> list[float | None]:
    """Raises ValueError when a reward's scores cannot be averaged to an accuracy."""
    scores = [None if reward is None else float(reward) for reward in rewards]
    if len(scores) != count:
        raise ValueError(f"The reward {name} gave {len(scores)} scores for {count} samples: give one for each.")
    for score in scores:
        if score is not None and not (math.isfinite(score) and 0 <= score <= 1):
            raise ValueError(f"The reward {name} gave {score}: an accuracy needs scores from 0 to 1, or None.")
    return scores
