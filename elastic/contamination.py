"""Which problems of an evaluation occur in what a model was trained on, by their words.

Two problems match where they share N_WORDS = 13 words in a row, as GPT-3's analysis has it (arXiv 2005.14165, appendix
C), or where the whole of an evaluation problem of 5 to 12 words occurs in a training problem; a shorter one is in
almost any training data. open-r1's decontamination takes 8 words, which in mathematics meets phrases of the trade
("what is the smallest positive integer such that"). Words are runs of letters and digits, without case: punctuation
does not count, and the common spellings of LaTeX are one (\\dfrac12 and \\frac{1}{2} are frac 1 2). The words of
problem_template itself, and words in a row that many problems of the evaluation share, tell nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from elastic.arguments import ProblemArguments
from elastic.data import load_problems
from elastic.parsing import naming, read_recipe
from elastic.problem_text import literal_texts

N_WORDS = 13
# A shorter problem is not looked for.
LEAST_WORDS = 5
# Words in a row of so many problems of one evaluation are of the template that they are asked with; where it has fewer
# problems, those that two of them share.
TEMPLATE_PROBLEMS = 10
_SHOWN_IDS = 10
_WORD = re.compile(r"[^\W_]+")
# What has no words of its own, and what is a word of two spellings.
_SIZES = re.compile(r"\\(?:left|right|bigg?[lrm]?|displaystyle)(?![a-z])")
_STYLES = re.compile(r"\\[dtc](frac|binom)")
# Arguments without braces: \frac12, \frac ab, \sqrt2.
_TWO_ARGUMENTS = re.compile(r"\\(frac|binom)(?:\s+([a-z\d])|(\d))\s*([a-z\d])?")
_ONE_ARGUMENT = re.compile(r"\\sqrt\s*(\d)")

Words = tuple[str, ...]


@dataclass(frozen=True)
class TrainingData:
    """Where the training problems are, and how the recipe or the file has them."""

    option: str
    name: str
    problems: ProblemArguments
    split: str = "train"

    @classmethod
    def of_recipe(cls, path: str) -> TrainingData:
        """What a recipe of elastic.train learns from. Raises ValueError or FileNotFoundError with one sentence."""
        option = f"training_recipe is {path!r}"
        with naming(option):
            recipe = read_recipe(Path(path))
        names = {field.name for field in fields(ProblemArguments)}
        if "dataset_name" not in recipe:
            raise ValueError(
                f"training_recipe is {path!r}, which names no dataset_name: give a recipe of elastic.train."
            )
        problems = ProblemArguments(**{name: value for name, value in recipe.items() if name in names})
        return cls(option, problems.dataset_name, problems, recipe.get("dataset_train_split", "train"))

    @classmethod
    def of_file(cls, path: str) -> TrainingData:
        return cls(f"training_data has {path!r}", path, ProblemArguments(dataset_name=path))

    def texts(self) -> Iterator[tuple[str, str]]:
        """(problem_id, text) of each problem as the data set has it, without prompt suffix and system prompt.

        Raises:
            ValueError, FileNotFoundError: the data set cannot be read.
        """
        rows = load_problems(
            self.problems.dataset_name,
            split=self.split,
            dataset_config=self.problems.dataset_config,
            keep_rows=self.problems.keep_rows,
            problem_column=self.problems.problem_column,
            problem_template=self.problems.problem_template,
            needed=(),
            drop_malformed_rows=True,
        )
        for row in rows:
            yield row["problem_id"], problem_text(row["prompt"])


class Matcher:
    """The problems of evaluations by their words, to be met by training problems one after the other."""

    def __init__(self):
        self._owners: dict[int, dict[Words, set[tuple[str, str]]]] = defaultdict(lambda: defaultdict(set))
        self._sizes: dict[str, int] = {}
        self._found: dict[str, dict[str, str]] = {}

    def add(self, benchmark: str, words_by_problem: Mapping[str, Words]) -> None:
        """The words of a benchmark's problems by problem_id."""
        self._sizes[benchmark], self._found[benchmark] = len(words_by_problem), {}
        frequent = Counter(gram for words in set(words_by_problem.values()) for gram in _grams(words))
        too_many = TEMPLATE_PROBLEMS if len(words_by_problem) >= TEMPLATE_PROBLEMS else 2
        for problem, words in words_by_problem.items():
            for gram in _grams(words):
                if frequent[gram] < too_many:
                    self._owners[len(gram)][gram].add((benchmark, problem))

    def meet(self, training_id: str, words: Words) -> None:
        for size, owners in self._owners.items():
            for start in range(len(words) - size + 1):
                for benchmark, problem in owners.get(words[start : start + size], ()):
                    self._found[benchmark].setdefault(problem, training_id)

    def found(self, benchmark: str) -> dict[str, str]:
        """The benchmark's problems that were met, and the first training problem that each was met in."""
        return self._found[benchmark]

    def share(self, benchmark: str) -> float:
        return len(self._found[benchmark]) / self._sizes[benchmark]


def contamination(
    benchmarks: Mapping[str, tuple[Sequence[Mapping[str, Any]], str, str | None]], training: Sequence[TrainingData]
) -> dict[str, dict[str, Any] | None]:
    """For each benchmark, given its rows, their prompt_suffix and problem_template, what of it is in the training data.

    `share` is of the benchmark's problems, and `problems` has the training problem that each was met in. The training
    data are read one after the other. None where there are none.

    Raises:
        ValueError, FileNotFoundError: training data that cannot be read.
    """
    if not training:
        return dict.fromkeys(benchmarks)
    matcher = Matcher()
    for benchmark, (rows, suffix, template) in benchmarks.items():
        literals = template_words(template)
        texts = {row["problem_id"]: problem_text(row["prompt"]).removesuffix(suffix) for row in rows}
        matcher.add(benchmark, {problem: without(literals, words_of(text)) for problem, text in texts.items()})
    for data in training:
        with naming(data.option):
            literals = template_words(data.problems.problem_template)
            for problem_id, text in data.texts():
                matcher.meet(f"{data.name} {problem_id}", without(literals, words_of(text)))
    return {
        benchmark: {
            "training_data": [data.name for data in training],
            "words": N_WORDS,
            "share": matcher.share(benchmark),
            "problems": matcher.found(benchmark),
        }
        for benchmark in benchmarks
    }


def sentence(benchmark: str, found: Mapping[str, Any]) -> str:
    """What was found, for table.md and the terminal."""
    ids, names = list(found["problems"]), ", ".join(found["training_data"])
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    shown = f": {', '.join(ids[:_SHOWN_IDS])}{more}" if ids else ""
    noun, verb, own = ("problem", "shares", "its") if len(ids) == 1 else ("problems", "share", "their")
    return (
        f"Contamination: {len(ids)} {noun} of {benchmark} ({found['share']:.1%}) {verb} {found['words']} words in a "
        f"row, or all of {own} words, with a problem of {names}{shown}."
    )


def problem_text(prompt: Sequence[Mapping[str, Any]]) -> str:
    """The text of the user's last message, and of the last message where the user has none."""
    said = [message for message in prompt if message["role"] == "user"] or prompt
    return said[-1]["content"]


def words_of(text: str) -> Words:
    text = _SIZES.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    text = _TWO_ARGUMENTS.sub(r" \1 \2\3 \4 ", _STYLES.sub(r"\\\1", text))
    return tuple(_WORD.findall(_ONE_ARGUMENT.sub(r" sqrt \1 ", text)))


def template_words(template: str | None) -> list[Words]:
    """The words of each piece of text that a problem_template has itself."""
    return list(filter(None, map(words_of, literal_texts(template or ""))))


def without(literals: Sequence[Words], words: Words) -> Words:
    """`words` less those of each of `literals`, in their order, as far as they are there."""
    kept, rest = [], words
    for literal in literals:
        starts = range(len(rest) - len(literal) + 1)
        start = next((i for i in starts if rest[i : i + len(literal)] == literal), None)
        if start is not None:
            kept += rest[:start]
            rest = rest[start + len(literal) :]
    return (*kept, *rest)


def _grams(words: Words) -> set[Words]:
    """Every N_WORDS in a row, or all of a shorter problem of LEAST_WORDS at least."""
    if len(words) < LEAST_WORDS:
        return set()
    size = min(N_WORDS, len(words))
    return {words[start : start + size] for start in range(len(words) - size + 1)}


def training_data(recipe: str | None, files: Iterable[str] | None) -> list[TrainingData]:
    return [*([TrainingData.of_recipe(recipe)] if recipe else []), *map(TrainingData.of_file, files or ())]
