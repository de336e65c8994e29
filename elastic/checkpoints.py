"""Checkpoints that are whole or absent, and whether an output folder is this run's.

A checkpoint is written into a folder beside its place. A list of its files goes in last; then it is renamed.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from elastic.files import replace_file, sync
from elastic.grading import one_line
from elastic.rewarding import FREE_SETTINGS

_UNFINISHED = "unfinished"
_FILES = "elastic_files.json"
_RUN = "elastic_run.json"
# What torch, safetensors and tokenizers, which raise no OSError, say of a file that cannot be written.
_WRITERS_SAY = ("[enforce fail at inline_container.cc", "write(): fd", "(os error ")
# What may differ between the parts of one run: where it is, how it is watched, and when it ends.
_FREE_FIELDS = {
    *("output_dir", "resume", "max_steps", "num_train_epochs", "max_rollout_tokens", "project"),
    *("run_name", "report_to", "wandb_project", "wandb_entity", "disable_tqdm", "log_level", "log_level_replica"),
    *("logging_dir", "logging_steps", "logging_first_step", "logging_strategy", "log_completions"),
    *("num_completions_to_print", "save_steps", "save_strategy", "save_total_limit"),
    *("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port"),
    *("vllm_gpu_memory_utilization", "vllm_enable_sleep_mode"),
    *("dataloader_num_workers", "rollout_max_batch_tokens", "max_ungraded_rate", "on_reward_error"),
    *("use_cpu", "ddp_backend", "deepspeed", "local_rank"),
    *("activation_checkpointing", "activation_checkpointing_kwargs"),
    *("gradient_checkpointing", "gradient_checkpointing_kwargs"),
}


class CheckpointError(ValueError):
    """A checkpoint that was saved whole is whole no longer; the message is one sentence."""


def unfinished_folder(output_dir: str) -> Path:
    """Where checkpoints are written until they are whole."""
    return Path(output_dir, _UNFINISHED)


def clear_unfinished(output_dir: str) -> None:
    """Remove what saves that were cut short have left, and make an empty folder for the next one."""
    folder = unfinished_folder(output_dir)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()


def put_in_place(output_dir: str, step: int, processes: int) -> None:
    """Make the unfinished checkpoint of `step` a whole one, which survives a machine that dies right after."""
    name = f"{PREFIX_CHECKPOINT_DIR}-{step}"
    written, place = unfinished_folder(output_dir) / name, Path(output_dir, name)
    files = {str(path.relative_to(written)): path.stat().st_size for path in written.rglob("*") if path.is_file()}
    content = {"global_step": step, "processes": processes, "files": files}
    (written / _FILES).write_text(json.dumps(content, indent=1))
    for path in (*written.rglob("*"), written):
        sync(path)
    if place.exists():  # a partial one, or that of a run which went on from an earlier checkpoint
        (place / _FILES).unlink(missing_ok=True)
        shutil.rmtree(place)
    written.rename(place)
    sync(place.parent)
    unfinished_folder(output_dir).rmdir()


def wrote_everywhere(accelerator: Accelerator, write: Callable[[], object]) -> str | None:
    """Let every process `write`, and meet: None, or what kept one of them from writing."""
    failure = None
    try:
        write()
    except Exception as error:
        if not is_of_the_disk(error):
            raise
        failure = one_line(error)
    failures = [failure for failure in gather_object([failure]) if failure is not None]
    return failures[0] if failures else None


def is_of_the_disk(error: Exception) -> bool:
    """Whether a file could not be written, as on a full disk, rather than something being wrong with the program."""
    return isinstance(error, OSError) or any(words in str(error) for words in _WRITERS_SAY)


def complete_checkpoints(output_dir: Path) -> tuple[list[Path], list[Path]]:
    """(complete, partial) checkpoints, each by ascending step."""
    found = [path for path in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()]
    found.sort(key=lambda path: int(path.name.rpartition("-")[2]))
    complete = [path for path in found if _saved(path) is not None]
    return complete, [path for path in found if path not in complete]


def _saved(checkpoint: Path) -> dict | None:
    """What is noted last of a checkpoint; None of one that is partial, whose note may be cut short."""
    return _read(checkpoint / _FILES)


def _read(path: Path) -> dict | None:
    """The mapping in a JSON file; None where there is no file, or it is cut short."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def remove_old_checkpoints(output_dir: str, keep: int | None, best: str | None = None) -> None:
    """Leave the newest `keep` complete checkpoints (None or 0: all of them) and `best`, transformers' best model.

    Each loses its list of files before them, so that one which is half removed is not taken for complete.
    """
    if not keep or keep < 0:
        return
    complete, partial = complete_checkpoints(Path(output_dir))
    for checkpoint in (*partial, *complete[:-keep]):
        if best is None or checkpoint != Path(best):
            (checkpoint / _FILES).unlink(missing_ok=True)
            shutil.rmtree(checkpoint)


def set_later_checkpoints_aside(output_dir: str, resumed: Path) -> list[Path]:
    """Rename the checkpoints in `output_dir` after `resumed`, one of them, so that neither auto nor a limit takes them.

    Returns where they are now, by ascending step.
    """
    complete, _ = complete_checkpoints(Path(output_dir))
    steps = [path.resolve() for path in complete]
    if resumed.resolve() not in steps:
        return []
    aside = []
    for path in complete[steps.index(resumed.resolve()) + 1 :]:
        names = (path.with_name(f"aside{number}-{path.name}") for number in itertools.count(1))
        aside.append(path.rename(next(name for name in names if not name.exists())))
    return aside


def checkpoint_to_resume(resume: str, output_dir: str, processes: int = 1) -> Path | None:
    """The checkpoint that `resume` (auto, never, or a path) stands for; None to start at step 0.

    Raises:
        ValueError: `never` with checkpoints there, a path that is no complete checkpoint, or a checkpoint that lacks a
            file which was saved with it, or that another number of processes saved.
    """
    complete, partial = complete_checkpoints(Path(output_dir))
    if resume == "never":
        if complete or partial:
            raise ValueError(f"resume is never, but output_dir {output_dir!r} holds checkpoints: choose another one.")
        return None
    if resume == "auto":
        for path in (*partial, *unfinished_folder(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
            print(f"Skipping {path}: it was not saved completely.", flush=True)
        if not complete:
            return None
        chosen = complete[-1]
    else:
        chosen = Path(resume)
        if _saved(chosen) is None:
            raise ValueError(f"resume is {resume!r}: give auto, never, or the path of a complete checkpoint.")
    _check_whole(chosen, processes)
    return chosen


def _check_whole(checkpoint: Path, processes: int) -> None:
    saved = _saved(checkpoint)
    for name, size in saved["files"].items():
        path = checkpoint / name
        if not path.is_file():
            found = "is missing"
        elif path.stat().st_size != size:
            found = f"has {path.stat().st_size} bytes and was saved with {size}"
        else:
            continue
        raise CheckpointError(
            f"{path} {found}: put back the file as it was saved, or remove {checkpoint} to go on from an earlier one."
        )
    if saved["processes"] != processes:
        raise CheckpointError(
            f"{checkpoint} was saved by {saved['processes']} processes, and this run has {processes}: start as many."
        )


def position_file(process: int) -> str:
    """The file of a checkpoint with what `ResumableGRPOTrainer.position` says of a process."""
    return f"elastic_position_{process}.pt"


def check_counts_tokens(checkpoint: Path | None, max_rollout_tokens: int | None, process: int) -> None:
    """Raises ValueError where a run ends by sampled tokens, and its checkpoint is from before they were counted."""
    if checkpoint is None or max_rollout_tokens is None:
        return
    position = torch.load(checkpoint / position_file(process), map_location="cpu", mmap=True, weights_only=True)
    if "rollout_tokens" not in position:
        raise ValueError(
            f"max_rollout_tokens is {max_rollout_tokens}, and {checkpoint} is of an earlier version, which did not "
            f"count sampled tokens: leave it unset, or train anew in another output_dir."
        )


def check_same_checkpoint(checkpoint: Path | None) -> None:
    """Raises ValueError where the processes, which may be on several machines, found different checkpoints."""
    found = sorted(set(gather_object([checkpoint.name if checkpoint else "none"])))
    if len(found) > 1:
        raise ValueError(
            f"The processes found different checkpoints to go on from ({', '.join(found)}): give an output_dir on a "
            f"disk that all machines share."
        )


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
    """Take a new output folder, or one whose run saved nothing, or check that an old one is this run's.

    Raises:
        ValueError: it is a file, holds something else, or belongs to a run with other settings, which are named.
    """
    folder = Path(output_dir)
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"output_dir is {output_dir!r}, but {str(path)!r} is a file: choose another folder.")
    record = folder / _RUN
    if record.is_file() and _holds_weights(folder):
        if (earlier := _read(record)) is None:
            raise ValueError(
                f"{str(record)!r} is cut short, so that nothing says whose run output_dir {output_dir!r} is: put the "
                f"file back, or choose another output_dir."
            )
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
    if foreign and not record.is_file():
        raise ValueError(
            f"output_dir {output_dir!r} is not empty and not from a run of this program (it holds "
            f"{sorted(foreign)[0]}): choose another output_dir."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output_dir is {output_dir!r}, which cannot be made: {error.strerror}.") from None
    replace_file(record, lambda path: path.write_text(json.dumps(identity, indent=1)))


def recorded_run(output_dir: Path) -> dict | None:
    """The settings of the run that trained into the folder; None where no whole record of them is there."""
    return _read(output_dir / _RUN)


def _holds_weights(output_dir: Path) -> bool:
    """Whether a run has left a checkpoint, were it a partial one, or a trained model."""
    return any(map(any, complete_checkpoints(output_dir))) or any(output_dir.glob("*model*.safetensors"))
