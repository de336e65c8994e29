"""Token budgets, the distributions they are drawn from, and the markers that end a phase, as token ids.

Nothing here imports torch or trl: rewards, plots and servers can use these words without them.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

UNLIMITED = -1
# Where a text that tells a number of tokens has it.
_NUMBER = "{tokens}"


def validated_budget(value: object, name: str) -> int:
    """A budget in tokens: an integer >= 0, or -1 / None for unlimited.

    Raises:
        ValueError: names the field, the value and the mend.
    """
    if value is None:
        return UNLIMITED
    if isinstance(value, bool) or not isinstance(value, int) or value < UNLIMITED:
        raise ValueError(f"{name} is {value!r}: give a whole number of tokens, 0 or more, or -1 for no limit.")
    return value


def has_number(text: object) -> bool:
    """Whether `text` says with {tokens} where a number of tokens goes."""
    return isinstance(text, str) and _NUMBER in text


def with_number(text: str, tokens: int) -> str:
    """`text` with the number in the place of {tokens}."""
    return text.replace(_NUMBER, str(tokens))


@dataclass(frozen=True, slots=True)
class Budget:
    """What one rollout may sample, in tokens; -1 means unlimited.

    `thinking` (t) and `solution` (s) are E1's separate budgets (arXiv 2505.05315, section 3): when t is spent the end
    marker is inserted, when s is spent the rollout ends. `total` caps both phases together and inserts nothing when it
    runs out: alone it is the truncation baseline, and "no budget" with a longest length. With `carry_over`, thinking
    tokens that a natural close left unused may be spent on the solution.
    """

    thinking: int = UNLIMITED
    solution: int = UNLIMITED
    total: int = UNLIMITED
    carry_over: bool = False

    def __post_init__(self):
        for phase, name in (
            ("thinking", "thinking_token_budget"),
            ("solution", "solution_token_budget"),
            ("total", "total_token_budget"),
        ):
            object.__setattr__(self, phase, validated_budget(getattr(self, phase), name))

    def solution_after(self, thinking_tokens: int) -> int:
        """The most solution tokens after so many thinking tokens; -1 is no limit."""
        if not self.carry_over or UNLIMITED in (self.thinking, self.solution):
            return self.solution
        return self.solution + self.thinking - thinking_tokens

    @property
    def most_sampled_tokens(self) -> int:
        """The most tokens the policy can sample under this budget; -1 when nothing bounds it."""
        phases = UNLIMITED if UNLIMITED in (self.thinking, self.solution) else self.thinking + self.solution
        bounds = [bound for bound in (phases, self.total) if bound != UNLIMITED]
        return min(bounds, default=UNLIMITED)


@dataclass(frozen=True, slots=True)
class BudgetDistribution:
    """One phase's budget: a fixed number, weighted choices, or a (log-)uniform range of whole numbers, ends included.

    Build it with `parse`, from what a recipe or a command line holds.
    """

    name: str
    choices: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    low: int = 0
    high: int = 0
    log: bool = False

    @classmethod
    def parse(cls, spec: object, name: str) -> BudgetDistribution:
        """Read a number of tokens (-1 or null: no limit), `{choices: [...], weights: [...]}`, `{uniform: [lo, hi]}` or
        `{log_uniform: [lo, hi]}`. Text, as a command line gives it, is read as YAML, of which JSON is a part.

        Raises:
            ValueError: names the field, the value and the mend.
        """
        if isinstance(spec, str):
            spec = _read_yaml(spec, name)
        if not isinstance(spec, Mapping):
            return cls(name, choices=(validated_budget(spec, name),), weights=(1.0,))
        kinds = [kind for kind in ("choices", "uniform", "log_uniform") if kind in spec]
        unknown = set(spec) - {"choices", "weights", "uniform", "log_uniform"}
        if len(kinds) != 1 or unknown or ("weights" in spec and kinds != ["choices"]):
            raise ValueError(f"{name} is {dict(spec)!r}: {_FORMS}")
        if kinds == ["choices"]:
            return cls._from_choices(spec["choices"], spec.get("weights"), name)
        return cls._from_range(spec[kinds[0]], name, log=kinds == ["log_uniform"])

    @classmethod
    def _from_choices(cls, choices, weights, name):
        if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
            raise ValueError(f"{name}.choices is {choices!r}: give a list of one or more budgets.")
        choices = tuple(validated_budget(choice, f"{name}.choices") for choice in choices)
        weights = [1.0] * len(choices) if weights is None else weights
        usable = isinstance(weights, Sequence) and len(weights) == len(choices)
        usable = usable and all(isinstance(w, int | float) and math.isfinite(w) and w >= 0 for w in weights)
        if not usable or sum(weights) <= 0:
            raise ValueError(f"{name}.weights is {weights!r}: give one weight >= 0 for each choice, not all 0.")
        drawable = [(choice, float(weight)) for choice, weight in zip(choices, weights, strict=True) if weight]
        choices, weights = zip(*drawable, strict=True)
        return cls(name, choices=choices, weights=weights)

    @classmethod
    def _from_range(cls, bounds, name, log):
        smallest = 1 if log else 0
        usable = isinstance(bounds, Sequence) and not isinstance(bounds, str) and len(bounds) == 2
        usable = usable and all(isinstance(b, int) and not isinstance(b, bool) for b in bounds)
        if not usable or not smallest <= bounds[0] <= bounds[1]:
            kind = "log_uniform" if log else "uniform"
            raise ValueError(f"{name}.{kind} is {bounds!r}: give [lo, hi], whole numbers with {smallest} <= lo <= hi.")
        return cls(name, low=bounds[0], high=bounds[1], log=log)

    @property
    def is_fixed(self) -> bool:
        return len(set(self.choices)) == 1 or (not self.choices and self.low == self.high)

    @property
    def largest(self) -> int:
        """The largest budget that can be drawn; -1 when unlimited is among the choices."""
        if not self.choices:
            return self.high
        return UNLIMITED if UNLIMITED in self.choices else max(self.choices)

    @property
    def largest_limit(self) -> int:
        """The largest limited budget that can be drawn; -1 when there is none."""
        return max(self.choices, default=self.high)

    @property
    def smallest(self) -> int:
        """The smallest budget that can be drawn; unlimited counts as the largest of all."""
        if not self.choices:
            return self.low
        return min((choice for choice in self.choices if choice != UNLIMITED), default=UNLIMITED)

    def draw(self, rng: random.Random) -> int:
        """One budget. `log_uniform` draws the logarithm uniformly over [lo, hi + 1) and rounds down."""
        if self.choices:
            return rng.choices(self.choices, self.weights)[0]
        return self._at(rng.random()) if self.log else rng.randint(self.low, self.high)

    @property
    def shares(self) -> dict[int, float]:
        """The share of each choice, ascending; no limit comes last. Empty for a range."""
        weighted = list(zip(self.choices, self.weights, strict=True))
        ascending = sorted(set(self.choices), key=lambda choice: (choice == UNLIMITED, choice))
        total = sum(self.weights)
        return {each: sum(weight for choice, weight in weighted if choice == each) / total for each in ascending}

    def cuts(self, count: int, rng: random.Random) -> list[int]:
        """`count` budgets that stand for the distribution, ascending: the choices, or one drawn from each of so many
        equally likely parts of the range."""
        if self.choices:
            return list(self.shares)
        return [self._at((part + rng.random()) / count) for part in range(count)]

    def _at(self, place: float) -> int:
        """The budget of a range that a share of `place` lies below, from 0 up to 1."""
        if self.log:
            bottom, top = math.log(self.low), math.log(self.high + 1)
            return min(int(math.exp(bottom + (top - bottom) * place)), self.high)
        return self.low + int(place * (self.high - self.low + 1))


def _read_yaml(text: str, name: str) -> object:
    try:
        if text.strip():
            return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
        pass
    raise ValueError(f"{name} is {text!r}: {_FORMS}")


_FORMS = (
    "give a whole number of tokens (-1 for no limit), {choices: [...], weights: [...]}, {uniform: [lo, hi]} "
    "or {log_uniform: [lo, hi]}."
)


def draw_budget(
    thinking: BudgetDistribution, solution: BudgetDistribution, *, seed: int, draw: int, prompt_ids: Sequence[int]
) -> Budget:
    """The budget of one prompt in one generation round.

    It depends on (seed, draw, prompt) alone, so every row of a GRPO group has the same one, on whichever process it
    is, and a resumed run draws what the interrupted one would have.
    """
    rng = random.Random(f"{seed}/{draw}/{','.join(map(str, prompt_ids))}")
    return Budget(thinking=thinking.draw(rng), solution=solution.draw(rng))


# A number with every digit: a tokenizer that knows it knows the numbers that are told.
_ALL_DIGITS = 1234567890


@dataclass(frozen=True, slots=True)
class Reminders:
    """What the system inserts while thinking is open, to tell the policy how many thinking tokens it has left.

    Attributes:
        every: sampled thinking tokens from one to the next.
        text: with `{tokens}`, for what is left.
        ids_of: the ids of the text with so many tokens left.
    """

    every: int
    text: str
    ids_of: Callable[[int], tuple[int, ...]] = field(repr=False, compare=False)

    @classmethod
    def from_tokenizer(cls, tokenizer, every: int, text: str) -> Reminders:
        """Raises ValueError where the tokenizer does not know the words, or not all digits."""

        @functools.cache
        def ids_of(left: int) -> tuple[int, ...]:
            return inserted_ids(tokenizer, with_number(text, left), "reminder_str")

        ids_of(_ALL_DIGITS)
        return cls(every, text, ids_of)

    def after(self, sampled: int, thinking_token_budget: int) -> tuple[int, ...]:
        """What is inserted after so many sampled thinking tokens; () where none is due, or no budget limits them."""
        left = thinking_token_budget - sampled
        return self.ids_of(left) if left > 0 and sampled % self.every == 0 else ()

    def inserted(self, sampled: int, thinking_token_budget: int) -> int:
        """How many tokens are inserted among so many sampled thinking tokens; none follow the last."""
        last = min(sampled, thinking_token_budget)
        return sum(len(self.after(count, thinking_token_budget)) for count in range(self.every, last, self.every))


@dataclass(frozen=True, slots=True)
class ReasoningTokens:
    """The token ids that open and close the phases of a rollout.

    Attributes:
        start: the opening marker, such as `<think>`.
        end: the end marker that the policy samples to close its thinking, such as `</think>`.
        bridge: what the system inserts at a forced close: the end marker, with words before or after it, if any.
        eos: every id that ends a rollout.
        opened: prompt endings that mean that thinking is already open (the marker alone, or with white space after it).
        reminders: of what is left of the thinking budget; None for none.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    bridge: tuple[int, ...]
    eos: frozenset[int]
    opened: tuple[tuple[int, ...], ...]
    reminders: Reminders | None = None

    def __post_init__(self):
        if not self.start or not self.end:
            raise ValueError("reasoning_start_str and reasoning_end_str must each be at least one token.")
        if self.start == self.end:
            raise ValueError(
                "reasoning_start_str and reasoning_end_str are the same tokens: give two different markers."
            )
        if not self.eos:
            raise ValueError("The tokenizer and the model name no EOS token: set `eos_token` on the tokenizer.")
        if self.eos & {*self.start, *self.bridge}:
            raise ValueError("A reasoning marker contains an EOS token: choose markers that do not end the text.")
        if count_marker(self.bridge, self.end) != 1:
            raise ValueError("The bridge must have the end marker once.")
        if self.reminders is not None and {*self.end, *self.eos} & {*self.reminders.ids_of(_ALL_DIGITS)}:
            raise ValueError(
                f"reminder_str is {self.reminders.text!r}, which has tokens of the end marker or EOS: choose words "
                f"that do not end the thinking."
            )

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer,
        *,
        reasoning_start_str: str = "<think>",
        reasoning_end_str: str = "</think>",
        wrap_up_str: str = "",
        reminder_every: int = 0,
        reminder_str: str = "",
        eos_token_ids: int | Sequence[int] | None = None,
    ) -> ReasoningTokens:
        """Ask `tokenizer` for the ids of the markers; `eos_token_ids` adds to the tokenizer's own EOS.

        Raises:
            ValueError: a marker, the wrap-up text or the reminder is absent from the vocabulary, or the tokenizer
                splits a marker differently beside other text, so that its ids in a sampled text could not be known.
        """
        start = _marker_ids(tokenizer, reasoning_start_str, "reasoning_start_str")
        end = _marker_ids(tokenizer, reasoning_end_str, "reasoning_end_str")
        more_eos = [eos_token_ids] if isinstance(eos_token_ids, int) else list(eos_token_ids or [])
        own_eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        return cls(
            start=start,
            end=end,
            bridge=inserted_ids(tokenizer, wrap_up_str, "wrap_up_str") + end,
            eos=frozenset(own_eos + more_eos),
            opened=opened_endings(tokenizer, reasoning_start_str),
            reminders=Reminders.from_tokenizer(tokenizer, reminder_every, reminder_str) if reminder_every else None,
        )

    def most_reminded(self, budget: Budget) -> int:
        """The most tokens of reminders in a rollout under `budget`."""
        if self.reminders is None:
            return 0
        sampled = budget.thinking if budget.total == UNLIMITED else budget.total
        return self.reminders.inserted(sampled, budget.thinking)

    def is_opened_by(self, prompt_ids: Sequence[int]) -> bool:
        """Whether the prompt already opens the thinking, as chat templates that prefill `<think>` do."""
        return any(tuple(prompt_ids[-len(ending) :]) == ending for ending in self.opened)

    def open(self, prompt_ids: Sequence[int]) -> list[int]:
        """The prompt with thinking opened: as it is when its template did so, else with the start marker appended."""
        return list(prompt_ids) if self.is_opened_by(prompt_ids) else [*prompt_ids, *self.start]


def inserted_ids(tokenizer, text: str, field: str) -> tuple[int, ...]:
    """The ids of a text that the system inserts. Raises ValueError where the tokenizer does not know its words."""
    ids = tuple(tokenizer.encode(text, add_special_tokens=False)) if text else ()
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        raise ValueError(f"{field} has {text!r}, of which the tokenizer does not know all words: choose others.")
    return ids


def opened_endings(tokenizer, start: str) -> tuple[tuple[int, ...], ...]:
    """Ids of the start marker, alone and with the white space that chat templates put after it."""
    texts = (start + space for space in ("", " ", "\n", "\n\n"))
    return tuple(sorted({tuple(tokenizer.encode(text, add_special_tokens=False)) for text in texts}))


def count_marker(ids: Sequence[int], marker: Sequence[int]) -> int:
    """How often `marker` occurs in `ids`, without overlap."""
    count, i, width = 0, 0, len(marker)
    first, marker = marker[0], tuple(marker)
    while i <= len(ids) - width:
        if ids[i] == first and tuple(ids[i : i + width]) == marker:
            count, i = count + 1, i + width
        else:
            i += 1
    return count


# Text that may stand before and after a marker in a completion: its ids must be the same there as alone, set directly
# against the text or (for tokenizers of whole words, which drop spaces) with a space between.
_MARKER_CONTEXTS = ((" ", ""), ("\n", ""), ("7", ""), (".", ""), ("", " "), ("", "\n"), ("", "\n\n"))


def _marker_ids(tokenizer, marker: str, field: str) -> tuple[int, ...]:
    if not marker:
        raise ValueError(f"{field} is empty: give the text of the marker, such as '<think>' or '</think>'.")
    ids = tuple(tokenizer.encode(marker, add_special_tokens=False))
    unknown = tokenizer.unk_token_id
    if not ids or (unknown is not None and unknown in ids) or tokenizer.decode(ids).strip() != marker.strip():
        raise ValueError(
            f"{field} is {marker!r}, which is not in the tokenizer's vocabulary: choose a marker that the model was "
            f"trained with, or add it (tokenizer.add_tokens) and resize the model's embeddings."
        )
    drops_spaces = tuple(tokenizer.encode(f" {marker} ", add_special_tokens=False)) == ids
    for before, after in _MARKER_CONTEXTS:
        texts = (before + gap + marker + gap + after for gap in ("", " ")[: 1 + drops_spaces])
        if all(count_marker(tokenizer.encode(text, add_special_tokens=False), ids) != 1 for text in texts):
            raise ValueError(
                f"{field} is {marker!r}, which the tokenizer splits differently between {before!r} and {after!r} than "
                f"alone: add it as a token of its own (tokenizer.add_tokens), or choose another marker."
            )
    return ids
