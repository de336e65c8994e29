"""Checkpoints that a run can go on from, and whether an output folder is this run's."""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from elastic.files import replace_file
from elastic.rewarding import FREE_SETTINGS

_PR_SET_PDEATHSIG = 1
_COMPLETE = "elastic_complete.json"
_RUN = "elastic_run.json"
# What may differ between the parts of one run: where it is, how it is watched, and when it ends.
_FREE_FIELDS = {
    *("output_dir", "resume", "max_steps", "num_train_epochs", "project"),
    *("run_name", "report_to", "wandb_project", "wandb_entity", "disable_tqdm", "log_level", "log_level_replica"),
    *("logging_dir", "logging_steps", "logging_first_step", "logging_strategy", "log_completions"),
    *("num_completions_to_print", "save_steps", "save_strategy", "save_total_limit"),
    *("dataloader_num_workers", "rollout_max_batch_tokens", "max_ungraded_rate"),
    *("use_cpu", "ddp_backend", "deepspeed", "local_rank"),
}


def mark_complete(output_dir: str, step: int) -> None:
    """Say that every file of the checkpoint of `step` is written."""
    mark = json.dumps({"global_step": step})
    replace_file(_mark(output_dir, step), lambda path: path.write_text(mark))


def mark_incomplete(output_dir: str, step: int) -> None:
    """Say that the files of the checkpoint of `step`, if it is there from an earlier run, are about to be replaced."""
    _mark(output_dir, step).unlink(missing_ok=True)


def _mark(output_dir: str, step: int) -> Path:
    return Path(output_dir, f"{PREFIX_CHECKPOINT_DIR}-{step}", _COMPLETE)


def complete_checkpoints(output_dir: Path) -> tuple[list[Path], list[Path]]:
    """(complete, partial) checkpoints, each by ascending step."""
    found = [path for path in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()]
    found.sort(key=lambda path: int(path.name.rpartition("-")[2]))
    complete = [path for path in found if (path / _COMPLETE).is_file()]
    return complete, [path for path in found if path not in complete]


def remove_old_checkpoints(output_dir: str, keep: int | None, best: str | None = None) -> None:
    """Leave the newest `keep` complete checkpoints (None or 0: all of them) and `best`, transformers' best model.

    Each loses its mark before its files, so that one which is half removed is not taken for complete.
    """
    if not keep or keep < 0:
        return
    complete, partial = complete_checkpoints(Path(output_dir))
    for checkpoint in (*partial, *complete[:-keep]):
        if best is None or checkpoint != Path(best):
            (checkpoint / _COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(checkpoint)


def checkpoint_to_resume(resume: str, output_dir: str) -> Path | None:
    """The checkpoint that `resume` (auto, never, or a path) stands for; None to start at step 0.

    Raises:
        ValueError: `never` with checkpoints there, or a path that is no complete checkpoint.
    """
    complete, partial = complete_checkpoints(Path(output_dir))
    if resume == "never":
        if complete or partial:
            raise ValueError(f"resume is never, but output_dir {output_dir!r} holds checkpoints: choose another one.")
        return None
    if resume == "auto":
        for path in partial:
            print(f"Skipping {path}: it was not saved completely.", flush=True)
        return complete[-1] if complete else None
    if not (Path(resume) / _COMPLETE).is_file():
        raise ValueError(f"resume is {resume!r}: give auto, never, or the path of a complete checkpoint.")
    return Path(resume)


def run_identity(*configs) -> dict:
    """What makes a run itself: every field of its configuration but those that only say where and how to watch it."""
    fields = {}
    for config in configs:
        values = config.to_dict() if hasattr(config, "to_dict") else vars(config)
        fields |= {name: _identifying(value) for name, value in values.items() if name not in _FREE_FIELDS}
    return json.loads(json.dumps(fields, default=str, sort_keys=True))


def _identifying(value: object) -> object:
    """A mapping of settings without those that change no grade; nothing where none is left."""
    if isinstance(value, dict) and value.keys() & FREE_SETTINGS:
        return {name: setting for name, setting in value.items() if name not in FREE_SETTINGS} or None
    return value


def claim_output_dir(output_dir: str, identity: dict) -> None:
    """Take a new output folder, or check that an old one is this run's.

    Raises:
        ValueError: it is a file, holds something else, or belongs to a run with other settings, which are named.
    """
    folder = Path(output_dir)
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"output_dir is {output_dir!r}, but {str(path)!r} is a file: choose another folder.")
    record = folder / _RUN
    if record.is_file():
        earlier = json.loads(record.read_text())
        # A field that only one of them has is from another version of this program, which a run may outlive.
        changed = [name for name in sorted(earlier.keys() & identity.keys()) if earlier[name] != identity[name]]
        if changed:
            name = changed[0]
            others = f" (and {', '.join(changed[1:4])})" if changed[1:] else ""
            raise ValueError(
                f"output_dir {output_dir!r} belongs to another run: {name} was {earlier[name]!r} there and is "
                f"{identity[name]!r} now{others}; choose another output_dir, or put the setting back."
            )
        return
    foreign = [path.name for path in folder.glob("*") if path.name != "wandb"] if folder.is_dir() else []
    if foreign:
        raise ValueError(
            f"output_dir {output_dir!r} is not empty and not from a run of this program (it holds "
            f"{sorted(foreign)[0]}): choose another output_dir."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output_dir is {output_dir!r}, which cannot be made: {error.strerror}.") from None
    replace_file(record, lambda path: path.write_text(json.dumps(identity, indent=1)))


class StepFromCheckpoint(TrainerCallback):
    """Gives the trainer back its count of micro-steps, which times the generation batches and is not saved by TRL."""

    def __init__(self, trainer):
        self._trainer = trainer

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        if state.global_step == 0:
            return
        accumulated, epoch_steps = args.gradient_accumulation_steps, len(train_dataloader)
        # The last update of an epoch takes the micro-steps that are left, which may be fewer.
        epochs, updates = divmod(state.global_step, math.ceil(epoch_steps / accumulated))
        self._trainer._step = epochs * epoch_steps + updates * accumulated


def stop_with_launcher() -> None:
    """Get SIGTERM when `accelerate launch` dies, which else leaves the process that it started running (on Linux)."""
    if sys.platform == "linux" and "ACCELERATE_MIXED_PRECISION" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class SaveOnSigterm(TrainerCallback):
    """On SIGTERM, as a cluster sends before it takes the machine: finish the step, save a checkpoint, stop."""

    def __init__(self, accelerator):
        self._accelerator = accelerator
        self._received = False
        self._previous = None
        self.stopped = False

    def on_train_begin(self, args, state, control, **kwargs):
        self._previous = signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, signum, frame):
        self._received = True

    def on_step_end(self, args, state, control, **kwargs):
        received = torch.tensor(int(self._received), device=self._accelerator.device)
        if self._accelerator.reduce(received, reduction="sum") > 0:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        signal.signal(signal.SIGTERM, self._previous)
