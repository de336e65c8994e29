"""Recipes and command lines -> the dataclasses of their fields, and the one sentence of what is wrong in them."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml
from transformers.hf_argparser import HfArgumentParser


class Parser(HfArgumentParser):
    """HfArgumentParser with a usage line that fits on a screen: these programs have hundreds of options."""

    def __init__(self, dataclass_types: Sequence[type], prog: str, description: str = ""):
        usage = f"{prog} --config RECIPE.yaml [--field value ...]"
        super().__init__(dataclass_types, prog=prog, usage=usage, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """argparse's sentence without the usage lines before it."""
        raise ValueError(f"{message.rstrip('.')}: see --help for what it takes.")


def parse(dataclass_types: Sequence[type], argv: Sequence[str], *, prog: str, description: str = "") -> tuple:
    """Read `--config recipe.yaml` (flat, one field a line) and the command line, which wins, into the dataclasses.

    Bad input prints one sentence that names the field, the value and the mend, and exits with code 2.
    """
    parser = Parser(dataclass_types, prog, description)
    with sentence_on_error(prog):
        recipe, command_line = _split_config(argv)
        arguments = _as_words(parser, dataclass_types, read_recipe(recipe), str(recipe)) if recipe else []
        *parsed, unknown = parser.parse_args_into_dataclasses(
            args=[*arguments, *command_line], return_remaining_strings=True, look_for_args_file=False
        )
        if unknown:
            raise ValueError(_unknown_sentence(unknown[0].removeprefix("--"), "the command line", dataclass_types))
    return tuple(parsed)


@contextmanager
def sentence_on_error(prog: str) -> Iterator[None]:
    """Print what our checks raise (ValueError, FileNotFoundError) as the one sentence it is, and exit with code 2."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def naming(what: str | None) -> Iterator[None]:
    """Put what is at fault before the sentence of an error; None: nothing."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        if what is None:
            raise
        raise ValueError(f"{what}: {error}") from error


def _split_config(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    argv = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    if "--config" not in argv:
        return None, argv
    at = argv.index("--config")
    if at + 1 == len(argv):
        raise ValueError("--config is given without a recipe: write --config recipes/NAME.yaml.")
    return Path(argv[at + 1]), argv[:at] + argv[at + 2 :]


def read_recipe(path: Path) -> dict[str, Any]:
    """The fields of a YAML recipe. Raises ValueError or FileNotFoundError with one sentence."""
    if not path.is_file():
        raise FileNotFoundError(f"--config is {str(path)!r}, and there is no such file: give the path of a recipe.")
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are not UTF-8, a date that does not exist
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold `field: value` lines, and holds {type(fields).__name__}.")
    return fields


def from_yaml(value: object, name: str) -> object:
    """A command line's text as what it stands for; what a recipe gave is that already.

    Raises ValueError with one sentence.
    """
    if not isinstance(value, str):
        return value
    try:
        return yaml.load(value, Loader=_RecipeLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{name} is {value!r}, which is not YAML: {' '.join(str(error).split())}.") from None


class _RecipeLoader(yaml.SafeLoader):
    """SafeLoader that refuses a field given twice, of which YAML would keep the last in silence."""

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def typed(fields: Mapping[str, Any], dataclass_type: type, where: str) -> dict[str, Any]:
    """`fields` of a dataclass as YAML gives them -> with the types that the dataclass has, checked as a recipe's are.

    Raises ValueError with one sentence; `where` says in it where the fields stand.
    """
    parser = Parser((dataclass_type,), prog="")
    values = vars(parser.parse_args(_as_words(parser, (dataclass_type,), fields, where)))
    return {name: values[name] for name in fields}


def _as_words(parser: Parser, dataclass_types: Sequence[type], fields: Mapping[str, Any], where: str) -> list[str]:
    """A recipe's fields as command-line words, so that argparse checks their types like those of the command line."""
    hints = {name: hint for kind in dataclass_types for name, hint in get_type_hints(kind).items()}
    lists = {action.dest for action in parser._actions if action.nargs == "+"}
    words = []
    for name, value in fields.items():
        if name not in _field_names(dataclass_types):
            raise ValueError(_unknown_sentence(str(name), where, dataclass_types))
        if mend := _type_mend(value, hints[name], name in lists):
            raise ValueError(f"{name} is {'null' if value is None else repr(value)} in {where}: {mend}.")
        if value is None:
            parser.set_defaults(**{name: None})
        elif isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        else:
            words.append(f"--{name}={json.dumps(value, default=str) if isinstance(value, dict) else value}")
    return words


def _type_mend(value: object, hint: object, takes_list: bool) -> str | None:
    """What to do about a value whose YAML type the field cannot have; None where argparse can judge it as text."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = {get_origin(kind) or kind for kind in members}
    if value is None and type(None) not in kinds:
        return "give a value, or leave the line out for the default"
    if isinstance(value, list) and not takes_list:
        return "give one value, not a list"
    if isinstance(value, list) and any(item is None or isinstance(item, list | dict) for item in value):
        return "give a list of single values"
    if isinstance(value, dict) and dict not in kinds:
        return "give one value, not a mapping"
    if isinstance(value, bool) and bool not in kinds:
        return "put it in quotes if it is meant as text, for YAML reads bare yes, no, on and off as true and false"
    return None


def _field_names(dataclass_types: Sequence[type]) -> list[str]:
    return [f.name for kind in dataclass_types for f in dataclasses.fields(kind) if f.init]


def _unknown_sentence(name: str, where: str, dataclass_types: Sequence[type]) -> str:
    near = difflib.get_close_matches(name.split("=")[0].replace("-", "_"), _field_names(dataclass_types), n=1)
    mend = f"did you mean {near[0]}?" if near else "see --help for the fields there are."
    return f"{name} in {where} is not a field: {mend}"
