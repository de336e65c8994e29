"""One model on one data set: its problems, its cells, and the samples that each cell has or lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tqdm.auto import tqdm

from elastic.budget import ReasoningTokens
from elastic.chains import Chains
from elastic.controls import Cell, Texts, grid, sweeps
from elastic.data import fingerprint, prompt_token_ids, rows_digest, selected_problems
from elastic.engines.engine import Engine
from elastic.evaluation_arguments import EvaluationArguments
from elastic.evaluation_cells import Provenance, summarise
from elastic.evaluation_engine import model_context, reasoning_tokens
from elastic.generations import Generations, SampleIndex
from elastic.grading import GradingError, RewardFailures, UngradedWatch, called, predictions, reason_columns, started
from elastic.model_source import ModelSource
from elastic.problem_text import asking
from elastic.problems import problem_rows
from elastic.rating import rated
from elastic.rewarding import Rewards
from elastic.rollout import ROLLOUT_COLUMNS, Rollout, rollout_columns, segment_texts
from elastic.sweep import Sweep
from rewards.grades import Reason

Row = dict[str, Any]

# What a reward is called with besides the columns of the problems and of the rollouts.
CALL_COLUMNS = ("prompts", "completions", "completion_ids", "log_extra", "log_metric")
_KEPT_COLUMNS = [name for name in ROLLOUT_COLUMNS if not name.endswith("_token_budget")]


@dataclass(frozen=True)
class Evaluation:
    """Everything that is needed to complete and measure the cells of one data set, except the model's weights."""

    arguments: EvaluationArguments
    source: ModelSource
    solution_source: ModelSource | None
    tokenizer: Any
    problems: list[Row]
    prompts: list[list[int]]
    dropped_prompts: int
    rewards: Rewards
    cells: list[Cell]
    provenance: Provenance
    generations: Generations
    watch: UngradedWatch
    failures: RewardFailures

    @classmethod
    def prepare(
        cls,
        arguments: EvaluationArguments,
        rewards: Rewards,
        source: ModelSource,
        tokenizer,
        generations: Generations,
        solution_source: ModelSource | None = None,
    ) -> Evaluation:
        """Read and check the problems of one benchmark, and that the budgets fit the models.

        Args:
            solution_source: of the model that samples the solutions; None: the same.

        Raises:
            ValueError, FileNotFoundError: one sentence for what is wrong.
        """
        problems, prompts, dropped = load_prompts(arguments, tokenizer, rewards)
        cells = grid(arguments)
        provenance = provenance_of(arguments, source, problems, rewards, solution_source)
        watch = UngradedWatch(arguments.max_ungraded_rate)
        failures = RewardFailures(arguments.on_reward_error, generations.path.with_name("failed_rewards.jsonl"))
        evaluation = cls(
            *(arguments, source, solution_source, tokenizer, problems, prompts, dropped, rewards, cells, provenance),
            generations,
            *(watch, failures),
        )
        for model in filter(None, (source, solution_source)):
            evaluation.check_budgets_fit(reasoning_tokens(arguments, tokenizer), model_context(arguments, model))
        return evaluation

    @property
    def name(self) -> str:
        return self.arguments.benchmark_name

    @property
    def keys(self) -> list[str]:
        """What the samples of each cell are stored under."""
        return [self.provenance.key(cell) for cell in self.cells]

    def size(self) -> str:
        """How much there is to sample, and what was left out."""
        n = self.arguments.num_generations
        line = f"{self.name}: {len(self.problems)} problems x {n} samples at {len(self.cells)} budgets."
        if self.dropped_prompts:
            limit = self.arguments.max_prompt_length
            line += f" Dropped {self.dropped_prompts} prompts of more than {limit} tokens."
        unknown = self.tokenizer.unk_token_id
        asked = [cell.asks for cell in self.cells if cell.asks]
        if unknown is not None and any(unknown in self.tokenizer.encode(text) for text in asked):
            line += f" Caution: the tokenizer does not know all words of {asked[0]!r}, so that no budget is asked for."
        return line

    def problem_rows(self) -> list[Row]:
        """The problems as problems.jsonl keeps them."""
        return problem_rows(self.name, self.provenance.data_fingerprint, self.problems)

    def sweeps(self) -> list[list[Cell]]:
        """The cells that are sampled together."""
        return sweeps(self.cells, self.arguments.sweep)

    def lacks(self, cells: Sequence[Cell]) -> bool:
        """Whether a sample of `cells` is missing."""
        return any(self._lacking(cells, chunk) for _, chunk in self._chunks())

    def complete(self, cells: Sequence[Cell], engine: Engine, chains: Chains) -> None:
        """Sample, grade and store what is missing of `cells`, one of `sweeps`, with a progress bar over the samples.

        A sample's random numbers come from its place in its chunk, so that it is the same whenever it is made. Where
        the engine fails, or is interrupted, what had finished is stored first.

        Raises:
            EngineError: the server that samples has failed.
            GradingError: the reward failed, or too many of the samples, which are stored, could not be graded.
        """
        sweep = Sweep(
            *(cells, self._prompts(cells[0]), engine, Texts(engine.tokens, self.tokenizer), self.arguments.sampling),
            key=self.provenance.chain_key(cells),
            chains=chains,
        )
        chunks = [(number, chunk, self._lacking(cells, chunk)) for number, chunk in self._chunks()]
        missing = [(number, chunk, lacking) for number, chunk, lacking in chunks if lacking]
        total = len(self.problems) * self.arguments.num_generations * len(cells)
        needed = sum(len(own) for _, _, lacking in missing for own in lacking.values())
        described = f"{self.name} {cells[0].label if len(cells) == 1 else f'{len(cells)} budgets'}"
        with tqdm(total=total, initial=total - needed, desc=described, unit="sample", mininterval=0.5) as bar:
            for number, chunk, lacking in missing:
                self._complete_chunk(sweep, number, chunk, lacking, bar)
                for cell in cells:
                    there = self.generations.of(self.provenance.key(cell))
                    self.watch.add([self._why_ungraded(there[index]) for index in self._sample_indices(chunk)])

    def _chunks(self) -> list[tuple[int, range]]:
        """(number, positions of its problems) of each chunk."""
        size = self.provenance.problems_in_chunk
        starts = range(0, len(self.problems), size)
        return list(enumerate(range(start, min(start + size, len(self.problems))) for start in starts))

    def _lacking(self, cells: Sequence[Cell], chunk: range) -> dict[int, list[Cell]]:
        """The cells that lack a sample, by its place in the chunk; without the places that lack nothing."""
        there = [(cell, self.generations.of(self.provenance.key(cell))) for cell in cells]
        lacking = {
            place: [cell for cell, samples in there if _lacks(samples, index)]
            for place, index in enumerate(self._sample_indices(chunk))
        }
        return {place: own for place, own in lacking.items() if own}

    def _complete_chunk(
        self, sweep: Sweep, number: int, chunk: range, lacking: Mapping[int, list[Cell]], bar: tqdm
    ) -> None:
        n, places = self.arguments.num_generations, list(lacking)
        indices = self._sample_indices(chunk)
        positions = [chunk[place // n] for place in places]
        finished: list[tuple[Cell, dict[int, Rollout]]] = [(cell, {}) for cell in sweep.cells]

        def finish(cell: Cell, row: int, rollout: Rollout) -> None:
            next(rollouts for other, rollouts in finished if other is cell)[places[row]] = rollout
            bar.update()
            self._start_grading(self.problems[positions[row]], rollout)

        try:
            sweep.sample(
                positions,
                [indices[place] for place in places],
                list(lacking.values()),
                self.provenance.engine_seed(sweep.cells, number),
                places,
                finish,
            )
        finally:
            for cell, rollouts in finished:
                if rollouts:
                    self._store(cell, chunk, {place: rollouts[place] for place in sorted(rollouts)})

    def _prompts(self, cell: Cell) -> list[list[int]]:
        """The prompt of each problem, with what the cell asks of the model."""
        if not cell.asks:
            return self.prompts
        template = self.arguments.chat_template_kwargs
        return [prompt_token_ids(asking(row["prompt"], cell.asks), self.tokenizer, template) for row in self.problems]

    def check_budgets_fit(self, tokens: ReasoningTokens, context_length: int | None) -> None:
        """Raises ValueError when a cell has no room in the model's context, or inserts a text that is not known."""
        texts = Texts(tokens, self.tokenizer)
        for cell in self.cells:
            texts.check(cell, max(self._prompts(cell), key=len), context_length)

    def _store(self, cell: Cell, chunk: range, rollouts: Mapping[int, Rollout]) -> None:
        """Grade rollouts, given by their places in the chunk, and write them."""
        n, key = self.arguments.num_generations, self.provenance.key(cell)
        indices = self._sample_indices(chunk)
        graded = self._graded(list(rollouts.values()), [self.problems[chunk[place // n]] for place in rollouts])
        self.generations.append(
            [
                {"key": key, "problem_id": indices[place][0], "sample": indices[place][1], **row}
                for place, row in zip(rollouts, graded, strict=True)
            ]
        )

    def measure(self, cell: Cell) -> dict[str, Any]:
        """The cell as results.json lists it: what was measured, then what produced it."""
        key = self.provenance.key(cell)
        there = self.generations.of(key)
        rows = [there[index] for index in self._sample_indices(range(len(self.problems)))]
        return {
            **summarise(cell, rows, [problem["problem_id"] for problem in self.problems], self.arguments.reward),
            "control_settings": dict(cell.settings),
            "rating": rated(self.problems, rows, self.arguments.rating_column, self.arguments.tests_are),
            "trained_budget": self.arguments.trained_budget,
            "benchmark": self.name,
            "model_label": self.arguments.label,
            "model_name_or_path": self.arguments.model_name_or_path,
            "model_revision": self.source.revision,
            "solution_model_name_or_path": self.arguments.solution_model_name_or_path,
            "solution_model_revision": self.solution_source.revision if self.solution_source else None,
            "dataset_name": self.arguments.dataset_name,
            "dataset_config": self.arguments.dataset_config,
            "dataset_split": self.arguments.dataset_split,
            **asdict(self.provenance),
            "key": key,
        }

    def _sample_indices(self, positions: Sequence[int]) -> list[tuple[str, int]]:
        samples = range(self.arguments.num_generations)
        return [(self.problems[position]["problem_id"], sample) for position in positions for sample in samples]

    def _start_grading(self, problem: Row, rollout: Rollout) -> None:
        """Let a reward that grades ahead begin with a rollout."""
        for start in self.rewards.grade_ahead:
            _, (solution_text,) = segment_texts([rollout], self.tokenizer)
            started(start, **problem | {"solution_text": solution_text})

    def _graded(self, rollouts: Sequence[Rollout], problems: Sequence[Row]) -> list[Row]:
        columns = rollout_columns(rollouts, self.tokenizer)
        graded = self._rewards(rollouts, problems, columns)
        kept = {name: columns[name] for name in _KEPT_COLUMNS} | graded
        return [dict(zip(kept, row, strict=True)) for row in zip(*kept.values(), strict=True)]

    def _rewards(
        self, rollouts: Sequence[Rollout], problems: Sequence[Row], columns: dict[str, list]
    ) -> dict[str, list]:
        """The columns `reward`, `reason` and `prediction` of the rows.

        The reward is called as TRL and the trainer do: columns of the problems, and of the rollouts, which go first.
        """
        ids = [rollout.completion_ids for rollout in rollouts]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        own = {name: [problem[name] for problem in problems] for name in problems[0] if name != "prompt"}
        logged: dict[str, list] = {}
        rewards = called(
            self.rewards.functions[0],
            self.failures,
            prompts=[problem["prompt"] for problem in problems],
            completions=[[{"role": "assistant", "content": text}] for text in texts],
            completion_ids=ids,
            log_extra=logged.__setitem__,
            log_metric=lambda name, value: None,
            **own | columns,
        )
        check_accuracies(rewards, self.arguments.reward)
        reasons = joined_reasons(logged, len(rollouts))
        return {
            "reward": rewards,
            "reason": [self.failures.rows.get(row, reason) for row, reason in enumerate(reasons)],
            "prediction": predictions(logged, len(rollouts)),
        }

    def _why_ungraded(self, row: Row) -> str | None:
        if row["reward"] is not None:
            return None
        name = self.arguments.reward
        return f"{name} {row['reason']}" if row.get("reason") else f"{name} gave None, with no reason"


def load_prompts(arguments: EvaluationArguments, tokenizer, rewards: Rewards) -> tuple[list[Row], list[list[int]], int]:
    """(problems, their prompts as token ids, the number of problems dropped for the length of their prompt)."""
    template = arguments.chat_template_kwargs
    problems, dropped = selected_problems(
        arguments,
        tokenizer,
        chat_template_kwargs=template,
        split=arguments.dataset_split,
        needed=rewards.needed_columns,
        check=rewards.check_rows,
        limit=arguments.max_problems,
    )
    if arguments.rating_column and arguments.rating_column not in problems[0]:
        raise ValueError(
            f"rating_column is {arguments.rating_column!r}, and {arguments.dataset_name} has {', '.join(problems[0])}: "
            f"name the column with the problems' ratings."
        )
    rewards.check_columns(list(problems[0]), (*CALL_COLUMNS, *ROLLOUT_COLUMNS), arguments.dataset_name)
    return problems, [prompt_token_ids(problem["prompt"], tokenizer, template) for problem in problems], dropped


def provenance_of(
    arguments: EvaluationArguments,
    source: ModelSource,
    problems: Sequence[Row],
    rewards: Rewards,
    solution_source: ModelSource | None,
) -> Provenance:
    return Provenance(
        model_fingerprint=source.fingerprint,
        data_fingerprint=fingerprint(problems),
        columns_fingerprint=rows_digest(problems),
        chat_template_kwargs=arguments.chat_template_kwargs,
        sampling=arguments.sampling,
        num_generations=arguments.num_generations,
        seed=arguments.seed,
        reward=arguments.reward,
        reward_settings=rewards.changed_settings,
        reasoning_start_str=arguments.reasoning_start_str,
        reasoning_end_str=arguments.reasoning_end_str,
        sweep=arguments.sweep,
        dtype=arguments.dtype,
        attn_implementation=arguments.attn_implementation,
        engine=arguments.engine,
        served_model_name=arguments.served_model_name,
        solution_model_fingerprint=solution_source.fingerprint if solution_source else None,
    )


def check_accuracies(rewards: Sequence[float | None], name: str) -> None:
    """Raises GradingError where a reward's scores cannot be averaged to an accuracy."""
    for score in rewards:
        if score is not None and not 0 <= score <= 1:
            raise GradingError(f"The reward {name} gave {score}: an accuracy needs scores from 0 to 1, or None.")


def joined_reasons(logged: Mapping[str, Sequence], rows: int) -> list[str | None]:
    """What a reward has logged as the reason of each row; the reasons of several are joined."""
    columns = reason_columns(logged).values()
    return [" and ".join(str(column[row]) for column in columns) or None for row in range(rows)]


def _lacks(there: Mapping[SampleIndex, Row], index: SampleIndex) -> bool:
    """Whether a sample is not there, or is there without a grade because the grader failed: it is made again."""
    if index not in there:
        return True
    row = there[index]
    return row["reward"] is None and str(row.get("reason")).startswith(Reason.GRADER_FAILED)
