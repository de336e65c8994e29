"""A row of a data set -> the chat messages of its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateRuntimeError
from jinja2.nodes import TemplateData
from jinja2.sandbox import ImmutableSandboxedEnvironment

from elastic.choices import listed
from elastic.records import short

Message = dict[str, Any]


def _not_null(value: object) -> object:
    """The model would be asked `None`."""
    if value is None:
        raise TemplateRuntimeError("a column that it puts in is null")
    return value


# As transformers reads chat templates: a line that holds a block alone leaves nothing behind.
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, finalize=_not_null, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
)


def read_template(template: str) -> Template:
    """A template of a problem's text over the columns of its row. Raises ValueError where it is none."""
    try:
        return _ENVIRONMENT.from_string(template)
    except TemplateError as error:
        raise ValueError(f"problem_template is no Jinja template ({error}): mend it.") from None


def literal_texts(template: str) -> list[str]:
    """What a template of read_template says itself, piece by piece, besides what it puts in."""
    return [node.data for node in _ENVIRONMENT.parse(template).find_all(TemplateData)]


@dataclass(frozen=True)
class ProblemText:
    """How the prompt of a row is made.

    Attributes:
        column: holds text or chat messages; None with a template.
        template: of read_template.
        suffix: appended to the problem, or to the last user message, after a space if neither side has one.
        system_prompt: a system message put before.
    """

    column: str | None
    template: Template | None = None
    suffix: str = ""
    system_prompt: str | None = None

    def messages(self, record: Mapping[str, Any], options: Sequence[str] = ()) -> list[Message]:
        """The prompt of a row. Raises ValueError with a sentence for what its columns lack."""
        name = self.column or "problem_template"
        problem = record.get(self.column) if self.template is None else self._rendered(record)
        messages = [{"role": "user", "content": problem}] if isinstance(problem, str) else _chat(problem, name)
        if not all(message["content"].strip() for message in messages):
            raise ValueError(f"{name} is empty: give the text of the problem.")
        if options:
            _append_to_last_user_message(messages, name, f"\n\n{listed(options)}")
        if self.suffix:
            _append_to_last_user_message(messages, name, self.suffix)
        if self.system_prompt is None:
            return messages
        if messages[0]["role"] == "system":
            raise ValueError(
                f"{name} has a system message of its own: leave system_prompt unset, or remove the message."
            )
        return [{"role": "system", "content": self.system_prompt}, *messages]

    def _rendered(self, record: Mapping[str, Any]) -> str:
        try:
            return self.template.render(record)
        except Exception as error:  # whatever the template's expressions and the row's values raise together
            raise ValueError(f"problem_template cannot be filled in ({error}): correct it, or drop the row.") from None


def _chat(problem: object, name: str) -> list[Message]:
    usable = isinstance(problem, list) and bool(problem)
    usable = usable and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in problem
    )
    if not usable:
        raise ValueError(f"{name} is {short(problem)}: give text, or a list of messages with a role and a content.")
    return [dict(message) for message in problem]


def asking(messages: Sequence[Message], instruction: str) -> list[Message]:
    """Chat messages with an instruction, if there is one, after the last of the user's."""
    messages = [dict(message) for message in messages]
    if instruction:
        _append_to_last_user_message(messages, "prompt", instruction)
    return messages


def _append_to_last_user_message(messages: list[Message], name: str, suffix: str) -> None:
    """After a space, if neither side has one."""
    for message in reversed(messages):
        if message["role"] == "user":
            text = message["content"]
            gap = "" if text[-1].isspace() or suffix[0].isspace() else " "
            message["content"] = text + gap + suffix
            return
    raise ValueError(f"{name} has no user message to append to: add one, or leave prompt_suffix and the options empty.")
