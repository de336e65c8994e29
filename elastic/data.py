"""A data set's name or file -> rows to train and evaluate on, and prompts -> token ids.

Nothing here imports torch or trl, and `datasets` only when a data set is not one local file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elastic.budget import validated_budget
from elastic.choices import Choices
from elastic.problem_text import ProblemText, read_template
from elastic.records import Record, kept_records, read_records, short

if TYPE_CHECKING:
    from elastic.arguments import ProblemArguments

Message = dict[str, Any]
Row = dict[str, Any]

PROBLEM_COLUMNS = ("problem", "question", "prompt")
ANSWER_COLUMNS = ("answer", "solution")
TESTS_COLUMNS = ("tests",)
ID_COLUMNS = ("problem_id", "unique_id", "id")
# Of each phase, its budget.
BUDGET_COLUMNS = {"thinking": "thinking_token_budget", "solution": "solution_token_budget"}

# Names that the row itself, a rollout, or TRL's call of a reward function gives a meaning to. A source column of such a
# name would be overwritten, or would be a second argument of that name.
_RESERVED = {
    *("prompt", "answer", "tests", "problem_id", "thinking_text", "solution_text", "thinking_stop_reason"),
    *("code_settings", "length_settings", "math_settings", "correctness_reward"),
    *("prompts", "completion", "completions", "completion_ids", "image", "images"),
    *("environments", "trainer_state", "log_extra", "log_metric"),
}

logger = logging.getLogger(__name__)


def load_problems(
    dataset_name: str,
    *,
    split: str = "train",
    dataset_config: str | None = None,
    keep_rows: Mapping[str, Any] | None = None,
    problem_column: str | None = None,
    problem_template: str | None = None,
    answer_column: str | None = None,
    choices_columns: Sequence[str] | None = None,
    options_column: str | None = None,
    tests_column: str | None = None,
    needed: Collection[str] = ("answer",),
    check: Callable[[Mapping[str, list]], Sequence[str | None]] | None = None,
    prompt_suffix: str = "",
    system_prompt: str | None = None,
    limit: int | None = None,
    drop_malformed_rows: bool = False,
) -> list[Row]:
    """The problems of a local .json (a list of objects), .jsonl or .parquet file, of a local folder or of a hub id.

    Each row has `prompt` (chat messages), `answer` (text) and `tests` (JSON as text, or the text that stands there) as
    far as the source has them, `problem_id` (the column of ID_COLUMNS whose values are all there and different, else
    the row's position, as text) and every other column of the source, None where a row leaves it out. A source column
    whose name has another meaning here is kept as `source_<name>`; tests, which may be large, are kept once.

    Args:
        split: of a folder or hub id; `train[:100]` and the like work. A file has none.
        dataset_config: of a hub id; several joined by + are read one after the other.
        keep_rows: which rows are read at all; see records.kept_records.
        problem_column: text or chat messages; unset, the only one of PROBLEM_COLUMNS that is there.
        problem_template: a Jinja template of the problem's text over the columns, instead of one column.
        answer_column: text, a number, or a list of these; unset, the only one of ANSWER_COLUMNS that is there.
        choices_columns, options_column: of a multiple-choice data set; see choices.Choices. `answer` is the letter.
        tests_column: text, or whatever JSON holds; unset, the one of TESTS_COLUMNS, if it is there.
        needed: which of `answer` and `tests` a row is malformed without.
        check: called with all rows by column, says of each row what is wrong with it, None where nothing is.
        prompt_suffix: appended to the problem, or to the last user message, after a space if neither side has one.
        system_prompt: a system message put before each problem.
        limit: the number of rows to return at most, from the first on.
        drop_malformed_rows: log malformed rows, each by its place, and leave them out, instead of raising.

    Raises:
        ValueError: the malformed rows and those that `check` refuses, each with file and line; a column that is missing
            or could be either of two; a data set that cannot be loaded.
        FileNotFoundError: there is no such file.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: give 1 row or more, or leave it out for all of them.")
    _check_alternatives(problem_column, problem_template, answer_column, choices_columns, options_column)
    malformed: list[str] = []
    records = list(read_records(dataset_name, split, dataset_config, malformed.append))
    columns = list(dict.fromkeys(name for _, _, record in records for name in record))
    if malformed and not columns:
        raise ValueError(_listing(malformed, dataset_name))
    if not columns:
        raise ValueError(f"{dataset_name} has no usable rows: give a data set with at least one problem.")
    if keep_rows:
        records = kept_records(records, keep_rows, columns, dataset_name)

    def column(field: str, given: str | None, usual: Sequence[str] = (), is_needed: bool = True) -> str | None:
        return _column(field, given, usual, is_needed, columns, dataset_name)

    sources = _Sources(
        problem_column=None if problem_template else column("problem_column", problem_column, PROBLEM_COLUMNS),
        answer_column=None
        if choices_columns
        else column("answer_column", answer_column, ANSWER_COLUMNS, "answer" in needed),
        choices_columns=[column("choices_columns", name) for name in choices_columns or ()],
        options_column=column("options_column", options_column, is_needed=False),
        tests_column=column("tests_column", tests_column, TESTS_COLUMNS, "tests" in needed),
        id_column=_id_column(columns, records),
    )
    template = read_template(problem_template) if problem_template else None
    text = ProblemText(sources.problem_column, template, prompt_suffix, system_prompt)
    rows, places = _rows(records, sources, text, columns, needed, dataset_name, malformed)
    if check is not None and rows:
        rows, refused = _checked(rows, places, check)
        malformed += refused
    if malformed and not drop_malformed_rows:
        raise ValueError(_listing(malformed, dataset_name))
    _log_malformed(malformed)
    if not rows:
        raise ValueError(f"Every row of {dataset_name} is malformed; the first: {malformed[0]}")
    return rows[:limit]


def _check_alternatives(problem_column, problem_template, answer_column, choices_columns, options_column) -> None:
    """Raises ValueError where two options say the same thing in two ways."""
    for one, other in (
        ({"problem_column": problem_column}, {"problem_template": problem_template}),
        ({"choices_columns": choices_columns}, {"options_column": options_column}),
        ({"choices_columns": choices_columns}, {"answer_column": answer_column}),
    ):
        (name, value), (other_name, other_value) = *one.items(), *other.items()
        if value and other_value:
            raise ValueError(
                f"{name} is {short(value)}, and {other_name} is {short(other_value)}: give one of the two."
            )
    if choices_columns and len(choices_columns) < 2:
        raise ValueError(f"choices_columns is {choices_columns}: give the column of the right option, then the others.")


def _rows(
    records: Sequence[Record],
    sources: _Sources,
    text: ProblemText,
    columns: Sequence[str],
    needed: Collection[str],
    dataset_name: str,
    malformed: list[str],
) -> tuple[list[Row], list[str]]:
    """(the rows that can be used, where each stands); a sentence for each other one is put into `malformed`."""
    names = _row_names([name for name in columns if name != sources.tests_column], sources, dataset_name)
    rows, places = [], []
    for where, position, record in records:
        try:
            row = {ours: record.get(name) for name, ours in names.items()} | _budgets(record, columns)
            read, options = sources.read(record, needed)
            row |= read
            row["prompt"] = text.messages(record, options)
            row["problem_id"] = str(position if sources.id_column is None else record[sources.id_column])
        except ValueError as error:
            malformed.append(f"{where}: {error}")
        else:
            rows.append(row)
            places.append(where)
    return rows, places


def selected_problems(
    arguments: ProblemArguments, tokenizer, *, chat_template_kwargs: Mapping[str, Any] | None = None, **options: Any
) -> tuple[list[Row], int]:
    """(the problems that a recipe names, without those whose prompt is too long; how many these are).

    `options` are those of load_problems that the recipe does not decide: split, needed, check, limit.

    Raises:
        ValueError, FileNotFoundError: one sentence for what is wrong.
    """
    rows = load_problems(
        arguments.dataset_name,
        dataset_config=arguments.dataset_config,
        keep_rows=arguments.keep_rows,
        problem_column=arguments.problem_column,
        problem_template=arguments.problem_template,
        answer_column=arguments.answer_column,
        choices_columns=arguments.choices_columns,
        options_column=arguments.options_column,
        tests_column=arguments.tests_column,
        prompt_suffix=arguments.prompt_suffix,
        system_prompt=arguments.system_prompt,
        drop_malformed_rows=arguments.drop_malformed_rows,
        **options,
    )
    return drop_long_prompts(rows, tokenizer, arguments.max_prompt_length, chat_template_kwargs)


def _checked(rows: list[Row], places: list[str], check) -> tuple[list[Row], list[str]]:
    """(rows that pass, a sentence for each that does not)."""
    sentences = check({name: [row[name] for row in rows] for name in rows[0]})
    refused = [f"{place}: {sentence}" for place, sentence in zip(places, sentences, strict=True) if sentence]
    return [row for row, sentence in zip(rows, sentences, strict=True) if not sentence], refused


def _listing(malformed: Sequence[str], dataset_name: str) -> str:
    """The sentence of the one row that is malformed, or those of all, a line each."""
    if len(malformed) == 1:
        return malformed[0]
    return (
        f"{len(malformed)} rows of {dataset_name} cannot be used; mend them, or leave them out by drop_malformed_rows: "
        f"true:\n  " + "\n  ".join(malformed)
    )


def prompt_token_ids(
    messages: Sequence[Message] | str, tokenizer, chat_template_kwargs: Mapping[str, Any] | None = None
) -> list[int]:
    """The ids of a prompt, as training and evaluation both give it to an engine; plain text is encoded as it is.

    The chat template is applied up to where the assistant speaks; a last message by the assistant is continued. For a
    tokenizer without one, the contents are encoded, a blank line between them, with the tokenizer's special tokens.
    """
    if isinstance(messages, str):
        return list(tokenizer.encode(messages))
    if tokenizer.chat_template is None:
        return list(tokenizer.encode("\n\n".join(message["content"] for message in messages)))
    continues = messages[-1]["role"] == "assistant"
    return list(
        tokenizer.apply_chat_template(
            list(messages),
            add_generation_prompt=not continues,
            continue_final_message=continues,
            tokenize=True,
            return_dict=False,
            **(chat_template_kwargs or {}),
        )
    )


def drop_long_prompts(
    rows: Sequence[Row],
    tokenizer,
    max_prompt_length: int | None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[list[Row], int]:
    """(rows whose prompt has at most `max_prompt_length` tokens, the number of rows dropped). None drops nothing.

    A prompt is never cut: half a problem is another problem.

    Raises:
        ValueError: no row is left.
    """
    if max_prompt_length is None:
        return list(rows), 0
    if max_prompt_length < 1:
        raise ValueError(f"max_prompt_length is {max_prompt_length}: give 1 token or more, or null to drop none.")
    lengths = [len(prompt_token_ids(row["prompt"], tokenizer, chat_template_kwargs)) for row in rows]
    kept = [row for row, length in zip(rows, lengths, strict=True) if length <= max_prompt_length]
    if rows and not kept:
        raise ValueError(
            f"max_prompt_length is {max_prompt_length}, and the shortest of the {len(rows)} prompts has {min(lengths)} "
            "tokens, so none is left: raise it."
        )
    return kept, len(rows) - len(kept)


def fingerprint(rows: Sequence[Row]) -> str:
    """16 hexadecimal digits that change with any prompt, answer or test or their order: a key for results on these."""
    return rows_digest([row["prompt"], *(row[name] for name in ("answer", "tests") if name in row)] for row in rows)


def rows_digest(rows: Iterable[object]) -> str:
    """16 hexadecimal digits of rows that JSON can hold, other values by their text.

    They are those of the rows as one JSON list, of which one row at a time is in memory.
    """
    found = hashlib.sha256(b"[")
    for number, row in enumerate(rows):
        found.update((", " if number else "").encode() + json.dumps(row, sort_keys=True, default=str).encode())
    found.update(b"]")
    return found.hexdigest()[:16]


def _log_malformed(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        logger.warning("Left out, as malformed (%d in all): %s", len(sentences), sentence)


@dataclass(frozen=True)
class _Sources:
    """Which columns of the source hold what; None for what it has not."""

    problem_column: str | None
    answer_column: str | None
    choices_columns: Sequence[str]
    options_column: str | None
    tests_column: str | None
    id_column: str | None

    def read(self, record: Mapping[str, Any], needed: Collection[str]) -> tuple[Row, list[str]]:
        """(what a reward compares with, as far as the source has it; the options of multiple choice)."""
        read, options = {}, []
        if self.choices_columns or self.options_column:
            choices = Choices(self.choices_columns, self.options_column, self.answer_column)
            options, read["answer"] = choices.read(record)
        elif self.answer_column is not None:
            read["answer"] = _answer(record.get(self.answer_column), self.answer_column, "answer" in needed)
        if self.tests_column is not None:
            read["tests"] = _tests(record.get(self.tests_column), self.tests_column, "tests" in needed)
        return read, options


def _column(
    field: str,
    given: str | None,
    usual: Sequence[str],
    needed: bool,
    columns: Sequence[str],
    dataset_name: str,
) -> str | None:
    """The column that the recipe names, or the only one that is there of the usual names; else None, if not needed."""
    found = [name for name in usual if name in columns]
    there = f"{dataset_name} has the columns {', '.join(columns)}"
    if given is not None and given not in columns:
        raise ValueError(f"{field} is {given!r}, but {there}: choose one of these.")
    if given is None and len(found) != 1:
        if not needed:
            return None
        why = f"{' and '.join(found)} could each be it" if found else f"none is called {' or '.join(usual)}"
        raise ValueError(f"{field} is not set, {there}, and {why}: set {field} to one of these.")
    return found[0] if given is None else given


def _id_column(columns: Sequence[str], records: Sequence[Record]) -> str | None:
    for name in ID_COLUMNS:
        values = [record.get(name) for _, _, record in records]
        usable = name in columns and all(isinstance(value, str | int) for value in values)
        if usable and len({str(value) for value in values}) == len(values):
            return name
    return None


def _row_names(columns: Sequence[str], sources: _Sources, dataset_name: str) -> dict[str, str]:
    """What each source column is called in a row: its own name, or source_<name> where that has another meaning."""
    ours = {sources.problem_column: "prompt", sources.answer_column: "answer", sources.id_column: "problem_id"}
    names = {name: name if name not in _RESERVED or ours.get(name) == name else f"source_{name}" for name in columns}
    for name, kept_as in names.items():
        if name != kept_as and kept_as in columns:
            raise ValueError(
                f"{dataset_name} has the columns {name} and {kept_as}: rename one, as both would be the last."
            )
    return names


def _budgets(record: Mapping[str, Any], columns: Sequence[str]) -> dict[str, int]:
    budgets = {}
    for name in BUDGET_COLUMNS.values():
        if name in columns:
            if name not in record:
                raise ValueError(
                    f"{name} is missing, but other rows have it: give a number of tokens, -1 for no limit."
                )
            budgets[name] = validated_budget(record[name], name)
    return budgets


def _answer(answer: object, name: str, needed: bool) -> str | None:
    items = answer if isinstance(answer, list | tuple) and answer else [answer]
    if all(map(_is_answer, items)):
        return ", ".join(map(str, items))
    if needed:
        raise ValueError(f"{name} is {short(answer)}: give the reference answer, as text or a number.")
    return None


def _is_answer(item: object) -> bool:
    number = isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item)
    return number or (isinstance(item, str) and bool(item.strip()))


def _tests(tests: object, name: str, needed: bool) -> str | None:
    """Text as it is, and anything else as JSON: a column that held both could not be put in a table."""
    if needed and tests in (None, "", [], {}):
        raise ValueError(f"{name} is {short(tests)}: give the tests of the problem.")
    if tests is None or isinstance(tests, str):
        return tests
    try:
        return json.dumps(tests, sort_keys=True)
    except TypeError as error:
        raise ValueError(f"{name} is no JSON ({error}): give text, numbers, lists and objects.") from None
