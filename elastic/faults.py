"""Steps whose loss or gradient is NaN or infinite, and what is kept of the batch that made them so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase, TrainingArguments

MOST_SKIPPED_IN_A_ROW = 3


class NonFiniteError(Exception):
    """Step after step has a loss or a gradient that is not finite; the message is one sentence."""


class MicroBatch(NamedTuple):
    """What one call of the loss in training was given and gave."""

    inputs: dict[str, Any]
    loss: torch.Tensor


def save_batch(
    args: TrainingArguments, step: int, micro_batches: Sequence[MicroBatch], tokenizer: PreTrainedTokenizerBase
) -> Path:
    """Write this process's part of a step's batch, a list of dicts for torch.load with weights_only; returns where."""
    part = f"-process{args.process_index}" if args.world_size > 1 else ""
    path = Path(args.output_dir, f"nan_batch-step{step}{part}.pt")
    batch = []
    for inputs, loss in micro_batches:
        on_cpu = {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
        texts = {name: _texts(on_cpu, name, tokenizer) for name in ("prompt", "completion")}
        batch.append({"loss": float(loss), "inputs": on_cpu, "texts": texts})
    torch.save(batch, path)
    return path


def _texts(inputs: dict[str, Any], name: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    rows = zip(inputs[f"{name}_ids"], inputs[f"{name}_mask"].bool(), strict=True)
    return [tokenizer.decode(ids[mask]) for ids, mask in rows]
