"""chains.jsonl: the chains of thought that a sweep forks, as token ids, appended as they come.

An interrupted sweep goes on from them, and a later one forks them at budgets that the first did not have.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from elastic.budget import Budget, ReasoningTokens
from elastic.generations import SampleIndex, drop_cut_line
from elastic.rollout import Rollout

CHAINS_NAME = "chains.jsonl"
_SEGMENTS = ("prompt_ids", "thinking_ids", "bridge_ids", "solution_ids", "interjected")
_REASONS = ("thinking_stop_reason", "finish_reason")


# As json.dumps separates them.
_BEFORE_IDS = f', "{_SEGMENTS[0]}"'.encode()


class ChainError(Exception):
    """A line of chains.jsonl is not a chain; the message is one sentence."""


class Chains:
    """The chains of a folder. Only where each stands is kept in memory; of two chains of one sample the last counts.

    Raises:
        ValueError: what is at `path` is no such file.
    """

    def __init__(self, path: Path):
        self._path = path
        self._places: dict[tuple[str, SampleIndex], int] = {}
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is no file: move it away, and evaluate again.")
        drop_cut_line(path)
        if path.exists():
            self._find()

    def _find(self) -> None:
        with self._path.open("rb") as lines:
            start = 0
            for number, line in enumerate(lines, start=1):
                try:
                    # What names the chain stands before its ids, which are read when they are needed.
                    row = json.loads(line[: line.index(_BEFORE_IDS)] + b"}")
                    self._places[row["key"], (row["problem_id"], row["sample"])] = start
                except (ValueError, KeyError, TypeError):
                    raise ValueError(self._sentence(f"line {number}")) from None
                start += len(line)

    def _sentence(self, what: str) -> str:
        return f"{self._path} {what} is no chain that an evaluation wrote: delete the file, and evaluate again."

    def get(self, key: str, index: SampleIndex, tokens: ReasoningTokens) -> Rollout | None:
        """The chain of one sample; None where there is none.

        Raises:
            ChainError: what stands there is none.
        """
        if (key, index) not in self._places:
            return None
        with self._path.open("rb") as file:
            file.seek(self._places[key, index])
            line = file.readline()
        try:
            row = {"interjected": [], **json.loads(line)}  # older chains had nothing inserted
            fields = {name: row[name] for name in (*_SEGMENTS, *_REASONS)}
            return Rollout(**fields, budget=Budget(**row["budget"]), logprobs=None, raw_logprobs=None, tokens=tokens)
        except (ValueError, KeyError, TypeError):
            raise ChainError(self._sentence(f"of problem {index[0]}, sample {index[1]}")) from None

    def append(self, key: str, index: SampleIndex, chain: Rollout) -> None:
        """Write a chain at the end of the file, as a line."""
        segments = {name: list(getattr(chain, name)) for name in _SEGMENTS}
        reasons = {name: str(getattr(chain, name)) for name in _REASONS}
        row = {"key": key, "problem_id": index[0], "sample": index[1], **segments, **reasons}
        line = (json.dumps(row | {"budget": asdict(chain.budget)}) + "\n").encode()
        with self._path.open("ab") as file:
            place = file.tell()
            file.write(line)
        self._places[key, index] = place
