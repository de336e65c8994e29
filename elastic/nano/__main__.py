"""`python -m elastic.nano`: make an embedded task's problems and its base model, ready for `elastic.train`."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from elastic.nano.arguments import NanoArguments
from elastic.nano.task import Problem, Writer, draw_problems, rows
from elastic.parsing import parse, sentence_on_error

PROG = "python -m elastic.nano"
_MADE = ("base/config.json", "base/model.safetensors", "base/tokenizer.json", "train.jsonl", "test.jsonl")


def main(argv: Sequence[str] | None = None) -> None:
    description = "Make an embedded task and cold-start its tiny base model on one CPU core."
    (arguments,) = parse([NanoArguments], sys.argv[1:] if argv is None else argv, prog=PROG, description=description)
    with sentence_on_error(PROG):
        output_dir = Path(arguments.output_dir).resolve()
        if is_made(output_dir, arguments):
            print(f"{arguments.output_dir} was made with the same settings before: it is used again.")
            return
        make_parent(output_dir)
        tested = make(output_dir, arguments)
        print(f"Wrote {arguments.output_dir}: base (the model), train.jsonl and test.jsonl.")
        print(lengths(arguments, tested))


def is_made(output_dir: Path, arguments: NanoArguments) -> bool:
    """Whether `output_dir` holds what `arguments` would make.

    Raises:
        ValueError: it holds what other settings made, or something else.
    """
    if not output_dir.exists() or (output_dir.is_dir() and not any(output_dir.iterdir())):
        return False
    settings_file = output_dir / "settings.json"
    if not settings_file.is_file():
        raise ValueError(f"output_dir is {arguments.output_dir!r}, which holds something else: give a new folder.")
    made = json.loads(settings_file.read_text())
    differing = [name for name, value in arguments.settings.items() if made.get(name) != value]
    if differing:
        name = differing[0]
        raise ValueError(
            f"{arguments.output_dir} was made with {name} {made.get(name)}, not {arguments.settings[name]}: "
            f"give another --output_dir, or delete it."
        )
    missing = [name for name in _MADE if not (output_dir / name).is_file()]
    if missing:
        raise ValueError(f"{arguments.output_dir} has lost {missing[0]}: delete it, or give another --output_dir.")
    return True


def make_parent(output_dir: Path) -> None:
    """Make the folder that `output_dir` will be in. Raises ValueError when nothing can be written there."""
    try:
        output_dir.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output_dir is {str(output_dir)!r}, which cannot be made: {error.strerror}.") from None
    if not os.access(output_dir.parent, os.W_OK):
        raise ValueError(f"output_dir is {str(output_dir)!r}, whose parent is read-only: give another folder.")


def make(output_dir: Path, arguments: NanoArguments) -> list[Problem]:
    """Write all beside `output_dir`, then rename, so that an interrupted run leaves nothing half-made.

    Returns the test problems.
    """
    import torch

    from elastic.nano.cold_start import cold_start
    from elastic.nano.tokenizer import make_tokenizer

    # The model is too small to gain from threads, and on a busy machine they wait for each other.
    torch.set_num_threads(1)
    problems = {
        split: draw_problems(arguments.made_task, split, count, arguments.seed, arguments.difficulty)
        for split, count in (("train", arguments.train_problems), ("test", arguments.test_problems))
    }
    tokenizer = make_tokenizer(arguments.made_task)
    model, _ = cold_start(arguments, tokenizer)
    with tempfile.TemporaryDirectory(prefix=f".{output_dir.name}-", dir=output_dir.parent) as staging:
        made = Path(staging) / "made"
        model.save_pretrained(made / "base")
        tokenizer.save_pretrained(made / "base")
        for split, drawn in problems.items():
            _write_problems(made / f"{split}.jsonl", drawn)
        (made / "settings.json").write_text(json.dumps(arguments.settings, indent=2) + "\n")
        made.rename(output_dir)
    return problems["test"]


def lengths(arguments: NanoArguments, problems: Sequence[Problem]) -> str:
    """How long the problems are, and the chains that a base learns from; a task's words are tokens."""
    task = arguments.made_task

    def ends(counts: Sequence[int]) -> str:
        return f"{sum(counts) / len(counts):.1f} tokens (at most {max(counts)})"

    def thinking(writer: Writer) -> str:
        rng = random.Random(f"lengths/{arguments.seed}")
        return ends([len(writer.write(problem, rng).split()) for problem in problems])

    return (
        f"A test problem has {ends([len(problem.text.split()) for problem in problems])}; thinking about it has "
        f"{thinking(task.concise)} as the base was shown it first, {thinking(task.verbose)} as it was shown last."
    )


def _write_problems(path: Path, problems: Sequence[Problem]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(problems)))


if __name__ == "__main__":
    main()
