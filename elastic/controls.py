"""Ways of holding a rollout to a budget at inference, each a few lines over an engine's `generate` and `fork`.

A cell is one control at one budget. Cells whose rollouts can be cut from the same thinking are sampled together, from
one chain for each prompt: `chain_budget` says how far it goes, `sample_cells` forks it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from elastic.budget import UNLIMITED, Budget, ReasoningTokens, Reminders, count_marker, inserted_ids, with_number
from elastic.engines.engine import Engine
from elastic.evaluation_arguments import EvaluationArguments
from elastic.results import Control
from elastic.rollout import Rollout, Sampling, ThinkingStopReason
from elastic.rollout_builder import RolloutBuilder

OnFork = Callable[["Cell", int, Rollout], None]
"""Called with a cell, the place of a chain, and the cell's rollout of it."""


@dataclass(frozen=True)
class Cell:
    """One control at one budget.

    Attributes:
        budget: as results list it; under `prompt`, `thinking` is what the model is asked for.
        settings: the control's own, such as the text that it inserts.
    """

    control: Control
    budget: Budget
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        limits = {"t": self.budget.thinking, "s": self.budget.solution, "total": self.budget.total}
        bounded = [f"{name}={limit}" for name, limit in limits.items() if limit != UNLIMITED]
        return " ".join([self.control, *bounded])

    @property
    def enforced(self) -> Budget:
        """What its rollouts are sampled under."""
        return Budget(total=self.budget.total) if self.control is Control.PROMPT else self.budget

    @property
    def asks(self) -> str:
        """What is appended to the problem; "" for nothing."""
        return self.settings["instruction"] if self.control in (Control.PROMPT, Control.TOLD) else ""

    @property
    def reminded(self) -> bool:
        """Whether what is inserted into its thinking depends on its budget, so that it shares no chain."""
        return self.control is Control.TOLD and self.settings["reminder_every"] > 0

    @property
    def waits(self) -> int:
        """How often the policy's own end marker is taken back."""
        return self.settings["waits"] if self.control is Control.S1 else 0

    @property
    def plain(self) -> bool:
        """Whether its rollouts are an engine's own under `enforced`, without another text."""
        return self.control not in (Control.WRAP_UP, Control.S1)

    @property
    def identity(self) -> list:
        """What its samples depend on, of all that is the cell's own."""
        budget = self.budget
        return [str(self.control), [budget.thinking, budget.solution, budget.total], dict(self.settings)]


def grid(arguments: EvaluationArguments) -> list[Cell]:
    """The cells in the order in which they are measured and listed.

    Raises:
        ValueError: a control has no cell.
    """
    cells = []
    for control in arguments.controls:
        own = _GRIDS[control](arguments)
        if not own:
            raise ValueError(
                f"control is {control}, which needs a limit, and thinking_token_budgets is "
                f"{arguments.thinking_token_budgets}: give one or more that are not -1."
            )
        cells += own
    return cells


def _at_each_t(control: Control, settings: Callable[[EvaluationArguments, int], dict] = lambda *_: {}, **changes):
    def cells(arguments: EvaluationArguments) -> list[Cell]:
        s, longest = arguments.solution_token_budget, arguments.max_completion_tokens
        budgets = [
            Budget(t, s, longest if UNLIMITED in (t, s) else UNLIMITED, **changes)
            for t in arguments.thinking_token_budgets
        ]
        return [Cell(control, budget, settings(arguments, budget.thinking)) for budget in budgets]

    return cells


def _zero(arguments: EvaluationArguments) -> list[Cell]:
    s = arguments.solution_token_budget
    return [Cell(Control.ZERO, Budget(0, s, arguments.max_completion_tokens if s == UNLIMITED else UNLIMITED))]


def _none(arguments: EvaluationArguments) -> list[Cell]:
    return [Cell(Control.NONE, Budget(total=arguments.max_completion_tokens))]


def _truncate(arguments: EvaluationArguments) -> list[Cell]:
    s = arguments.solution_token_budget
    totals = arguments.truncation_budgets or [t + s for t in arguments.thinking_token_budgets if t != UNLIMITED]
    return [Cell(Control.TRUNCATE, Budget(total=total)) for total in totals]


def _prompt(arguments: EvaluationArguments) -> list[Cell]:
    return [
        Cell(
            Control.PROMPT,
            Budget(t, total=arguments.max_completion_tokens),
            {"instruction": _instruction(arguments, t)},
        )
        for t in arguments.thinking_token_budgets
        if t != UNLIMITED
    ]


def _instruction(arguments: EvaluationArguments, t: int) -> str:
    return with_number(arguments.budget_instruction, t)


def _told_settings(arguments: EvaluationArguments, t: int) -> dict[str, Any]:
    """Nothing is told where there is no limit."""
    if t == UNLIMITED:
        return {"instruction": "", "reminder_every": 0, "reminder_str": ""}
    reminders = {"reminder_every": arguments.reminder_every, "reminder_str": arguments.reminder_str}
    return {"instruction": _instruction(arguments, t), **reminders}


def _s1_settings(arguments: EvaluationArguments, t: int) -> dict[str, Any]:
    return {"close": arguments.s1_close_str, "waits": arguments.s1_waits, "wait": arguments.s1_wait_str}


_GRIDS: dict[Control, Callable[[EvaluationArguments], list[Cell]]] = {
    Control.SEPARATE: _at_each_t(Control.SEPARATE),
    Control.ZERO: _zero,
    Control.WRAP_UP: _at_each_t(Control.WRAP_UP, lambda arguments, t: {"wrap_up_str": arguments.wrap_up_str}),
    Control.CARRY_OVER: _at_each_t(Control.CARRY_OVER, carry_over=True),
    Control.S1: _at_each_t(Control.S1, _s1_settings),
    Control.PROMPT: _prompt,
    Control.TOLD: _at_each_t(Control.TOLD, _told_settings),
    Control.NONE: _none,
    Control.TRUNCATE: _truncate,
}


def sweeps(cells: Sequence[Cell], sweep: str) -> list[list[Cell]]:
    """The cells that are sampled together: `fork`, all with one prompt, but for the reminded; `independent`, none."""
    if sweep == "independent":
        return [[cell] for cell in cells]
    by_prompt: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        by_prompt.setdefault((cell.asks, cell.label if cell.reminded else ""), []).append(cell)
    return list(by_prompt.values())


@dataclass(frozen=True)
class Texts:
    """The markers of one model, and the tokenizer that makes others of them for a control.

    Raises:
        ValueError: the tokenizer does not know a text.
    """

    tokens: ReasoningTokens
    tokenizer: Any

    def tokens_of(self, cell: Cell) -> ReasoningTokens:
        """The markers with the bridge or the reminders that the cell's control inserts."""
        if cell.reminded:
            every, text = cell.settings["reminder_every"], cell.settings["reminder_str"]
            return replace(self.tokens, reminders=Reminders.from_tokenizer(self.tokenizer, every, text))
        if cell.control is Control.WRAP_UP:
            field, texts = "wrap_up_str", (cell.settings["wrap_up_str"], "")
        elif cell.control is Control.S1:
            field, texts = "s1_close_str", cell.settings["close"].split("{end}")
        else:
            return self.tokens
        before, after = (inserted_ids(self.tokenizer, text, field) for text in texts)
        return replace(self.tokens, bridge=(*before, *self.tokens.end, *after))

    def wait_ids(self, cell: Cell) -> tuple[int, ...]:
        """What stands for an end marker that is taken back."""
        ids = inserted_ids(self.tokenizer, cell.settings["wait"], "s1_wait_str")
        if not ids or self.tokens.eos & {*ids} or count_marker(ids, self.tokens.end):
            raise ValueError(
                f"s1_wait_str is {cell.settings['wait']!r}: give words that do not end the thinking, such as Wait."
            )
        return ids

    def check(self, cell: Cell, prompt_ids: Sequence[int], context_length: int | None) -> None:
        """Raises ValueError where a text of the cell is not known, or a prompt leaves no room for a rollout."""
        tokens, longest = self.tokens_of(cell), self.tokens.open(prompt_ids)
        inserted = cell.waits * len(self.wait_ids(cell)) if cell.waits else 0
        RolloutBuilder(longest, cell.enforced, tokens, context_length, inserted)


def chain_budget(cells: Sequence[Cell]) -> Budget:
    """What to sample a chain under, so that each of `cells`, which have one prompt, can be cut from it."""
    if len(cells) == 1 and cells[0].plain:
        return cells[0].enforced
    longest = max((cell.enforced.thinking for cell in cells), default=0)
    unlimited = [cell.enforced for cell in cells if cell.enforced.thinking == UNLIMITED]
    if not unlimited:
        whole = [cell.enforced for cell in cells if cell.plain and cell.enforced.thinking == longest]
        return max(whole, key=lambda budget: budget.carry_over, default=Budget(longest, 0))
    totals, solutions = [budget.total for budget in unlimited], [budget.solution for budget in unlimited]
    total = UNLIMITED if UNLIMITED in totals else max(*totals, longest)
    return Budget(solution=UNLIMITED if UNLIMITED in solutions else max(solutions), total=total)


def longest_cut(cells: Sequence[Cell]) -> int:
    """The most thinking tokens after which a rollout of `cells` may be forked."""
    return max(0, *(cell.enforced.thinking for cell in cells))


def sample_cells(
    engine: Engine,
    chains: Sequence[Rollout],
    cells_of: Sequence[Sequence[Cell]],
    sampling: Sampling,
    texts: Texts,
    *,
    seed: int,
    streams: Sequence[int],
    on_fork: OnFork,
) -> None:
    """The rollout of each chain in each of its cells (`cells_of[place]`), told to `on_fork`.

    Raises:
        EngineError: the engine fails; `on_fork` has been told of what had finished.
    """
    for group in _groups({id(cell): cell for cells in cells_of for cell in cells}.values()):
        first = group[0]
        cuts = [[cell.enforced.thinking for cell in cells if cell in group] for cells in cells_of]
        places = [place for place, own in enumerate(cuts) if own]
        sources = [([chains[place]], cuts[place], place) for place in places]
        if first.waits:
            thought = waited(
                *(engine, [chains[place] for place in places], longest_cut(group), first.waits, texts.wait_ids(first)),
                *(sampling, seed, [streams[place] for place in places]),
            )
            sources = [(stages, cuts[place], place) for stages, place in zip(thought, places, strict=True)]
        forked = [(*fork, place) for stages, own, place in sources for fork in _by_stage(stages, own)]
        by_cut = {cell.enforced.thinking: cell for cell in group}

        def tell(row: int, rollout: Rollout, forked=forked, by_cut=by_cut) -> None:
            on_fork(by_cut[rollout.budget.thinking], forked[row][2], rollout)

        engine.fork(
            [source for source, _, _ in forked],
            [own for _, own, _ in forked],
            first.enforced,
            sampling,
            tokens=texts.tokens_of(first),
            seed=seed,
            streams=[streams[place] for _, _, place in forked],
            on_rollout=tell,
        )


def waited(
    engine: Engine,
    chains: Sequence[Rollout],
    thinking_token_budget: int,
    waits: int,
    wait_ids: Sequence[int],
    sampling: Sampling,
    seed: int,
    streams: Sequence[int],
) -> list[list[Rollout]]:
    """The stages of each chain within its thinking budget: as it is, and after each end marker that was taken back.

    Up to `waits` of the policy's end markers give way to `wait_ids`, and the policy thinks on: s1's way to a longer
    chain (arXiv 2501.19393, section 3.1). The rollouts have no solutions. A marker that was taken back is in no count.
    """
    budget = Budget(thinking_token_budget, 0)
    stages = engine.fork(chains, [thinking_token_budget], budget, sampling, seed=seed, streams=streams)
    for _ in range(waits):
        closed = [row for row, own in enumerate(stages) if own[-1].thinking_stop_reason is ThinkingStopReason.NATURAL]
        thought = engine.think_on(
            [stages[row][-1] for row in closed],
            wait_ids,
            sampling,
            seed=seed,
            streams=[streams[row] for row in closed],
        )
        for row, chain in zip(closed, thought, strict=True):
            stages[row].append(chain)
    return stages


def _by_stage(stages: Sequence[Rollout], cuts: Sequence[int]) -> list[tuple[Rollout, list[int]]]:
    """What to fork at which of `cuts`: the stage after as many end markers as were sampled whole within the cut."""
    found: dict[int, list[int]] = {}
    for cut in cuts:
        whole = itertools.takewhile(lambda stage, cut=cut: stage.thinking_tokens <= cut, stages[:-1])
        found.setdefault(len(list(whole)), []).append(cut)
    return [(stages[stage], own) for stage, own in found.items()]


def _groups(cells: Iterable[Cell]) -> list[list[Cell]]:
    """The cells that differ in their thinking budget alone: one call of `fork` each."""
    groups: list[list[Cell]] = []
    for cell in cells:
        alike = next((group for group in groups if _but_thinking(group[0]) == _but_thinking(cell)), None)
        if alike is None:
            groups.append([cell])
        else:
            alike.append(cell)
    return groups


def _but_thinking(cell: Cell) -> tuple:
    return cell.control, cell.settings, replace(cell.enforced, thinking=0)
