"""What TRL's trainer lacks to survive the faults of a long run: exact resuming, whole checkpoints, skipped steps."""

from __future__ import annotations

import logging
import math
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from accelerate.utils import gather_object, send_to_device
from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from elastic.checkpoints import (
    clear_unfinished,
    is_of_the_disk,
    position_file,
    put_in_place,
    remove_old_checkpoints,
    unfinished_folder,
    wrote_everywhere,
)
from elastic.faults import MOST_SKIPPED_IN_A_ROW, MicroBatch, NonFiniteError, save_batch
from elastic.grading import one_line
from elastic.stopping import StepAbandoned, StopOnSigterm

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LastStep:
    """Where the run stood when its last step had been logged."""

    position: dict[str, Any]
    random_states: dict[str, Any]


class ResumableGRPOTrainer(GRPOTrainer):
    """GRPOTrainer whose runs go on as if nothing had happened.

    What changes with respect to GRPOTrainer:

    - `_get_train_sampler` and `_run_epoch` make a resumed run see the data it would have seen, and no more of them
    - `_save_checkpoint` writes a checkpoint beside its place, with the rollouts that are still to be trained on, and
      renames it; a disk that is full costs that checkpoint (`faults/failed_saves` counts them), not the run
    - `_run_epoch` saves the last step when SIGTERM comes during a later one, which is abandoned
    - `compute_loss` and `_get_grad_norm` skip an optimizer step whose loss or gradient is not finite on one of the
      processes, while the schedule goes on (`faults/skipped_steps`), and stop the run at the third in a row
    - `log` adds the counts `faults/*`, since the start of the run
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.stop = StopOnSigterm(self.accelerator)
        self.add_callback(self.stop)
        self.add_callback(_BeginAndEnd(self))
        self.saved_step = 0
        self._checkpoint: Path | None = None
        self._last_step: LastStep | None = None
        self._is_saving = False
        self._failed_writes: list[Exception] = []
        self._micro_batches: list[MicroBatch] = []
        self._skipped_in_a_row = 0
        self.faults = {"failed_saves": 0, "skipped_steps": 0, "reward_errors": 0}

    def train(self, resume_from_checkpoint: str | None = None, **kwargs):
        self._checkpoint = None if resume_from_checkpoint is None else Path(resume_from_checkpoint)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    @property
    def way_on(self) -> str:
        """What a person may do who finds the run stopped."""
        if self.saved_step == 0:
            return "nothing was saved, and the same command starts anew."
        return f"the same command goes on from step {self.saved_step}."

    def position(self) -> dict[str, Any]:
        """What transformers' checkpoints lack of where this process stands; torch loads it with weights_only."""
        in_mid_batch = self._step % self._micro_steps_of_a_batch
        return {
            "micro_steps": self._step,
            "rollouts": self._buffered_inputs if in_mid_batch else None,
            "metrics": {name: list(map(float, values)) for name, values in self._metrics["train"].items()},
            "loss_since_log": self._tr_loss.clone(),
            "logged_step": self._globalstep_last_logged,
            "tokens": self.state.num_input_tokens_seen,
            "faults": dict(self.faults),
            "skipped_in_a_row": self._skipped_in_a_row,
        }

    def go_to(self, position: dict[str, Any]) -> None:
        """Stand where `position` was taken."""
        self._step = position["micro_steps"]
        self._buffered_inputs = position["rollouts"]
        self._metrics["train"].clear()
        self._metrics["train"].update({name: list(values) for name, values in position["metrics"].items()})
        self._tr_loss = position["loss_since_log"].clone()
        self._globalstep_last_logged = position["logged_step"]
        self.state.num_input_tokens_seen = position["tokens"]
        self.faults = dict(position["faults"])
        self._skipped_in_a_row = position["skipped_in_a_row"]

    def begin(self) -> None:
        """Go to where the checkpoint was saved, once transformers has put everything at its start."""
        self.saved_step = self.state.global_step
        if self._checkpoint is not None:
            path = self._checkpoint / position_file(self.args.process_index)
            position = torch.load(path, map_location="cpu", weights_only=True)
            self.go_to(send_to_device(position, self.accelerator.device))

    @property
    def is_over(self) -> bool:
        """Whether the run has had all of its steps."""
        return self.state.global_step >= self.state.max_steps

    @property
    def _micro_steps_of_a_batch(self) -> int:
        """How many training steps the rollouts of one generation batch are trained in."""
        return self.args.steps_per_generation * self.num_iterations

    def _get_train_sampler(self, dataset=None):
        return EpochRepeatSampler(
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )

    def _run_epoch(self, **kwargs):
        if self.is_over:  # it would do one more step
            return
        try:
            super()._run_epoch(**kwargs)
        except StepAbandoned:
            self.control.should_training_stop = True
            self._logs["prompt"].clear()  # of the abandoned step: no table is written of it
            if self.saved_step < self.state.global_step:
                self.go_to(self._last_step.position)
                _set_random_states(self._last_step.random_states)
                self._save_checkpoint(kwargs["model"], kwargs["trial"])

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self._last_step = LastStep(self.position(), _random_states())

    def _save_checkpoint(self, model, trial):
        args, step = self.args, self.state.global_step
        failure = (
            self._tried_to_save(lambda: args.should_save and clear_unfinished(args.output_dir))
            or self._tried_to_save(lambda: self._write_checkpoint(model, trial))
            or self._tried_to_save(lambda: args.should_save and put_in_place(args.output_dir, step, args.world_size))
        )
        if failure is not None:
            self.faults["failed_saves"] += 1
            free_mb = shutil.disk_usage(args.output_dir).free / 1e6
            self.say(
                f"The checkpoint of step {step} could not be saved, and the run goes on without it: {failure} "
                f"({free_mb:.0f} MB were free in output_dir)"
            )
            if args.should_save:
                shutil.rmtree(unfinished_folder(args.output_dir), ignore_errors=True)
            return
        self.saved_step = step
        if args.should_save:
            remove_old_checkpoints(args.output_dir, args.save_total_limit, self.state.best_model_checkpoint)
        if args.push_to_hub:
            super()._push_from_checkpoint(str(Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{step}")))

    def _tried_to_save(self, write: Callable[[], object]) -> str | None:
        return wrote_everywhere(self.accelerator, write)

    def _write_checkpoint(self, model, trial) -> None:
        """All files of the checkpoint, those of the other processes too, in the folder for unfinished ones."""
        folder = unfinished_folder(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self._is_saving, self._failed_writes = True, []
        try:
            with self._deepspeed_writes_noted():
                super()._save_checkpoint(model, trial)
            torch.save(self.position(), folder / position_file(self.args.process_index))
        finally:
            self._is_saving = False
        if self._failed_writes:
            raise self._failed_writes[0]

    # Under DeepSpeed processes wait for one another while they save, so that none may leave because it cannot write.

    @contextmanager
    def _deepspeed_writes_noted(self) -> Iterator[None]:
        if not self.is_deepspeed_enabled:
            yield
            return
        engine = self.model_wrapped.checkpoint_engine
        write = engine.save

        def noted(state_dict, path):
            with self._write_noted():
                try:
                    write(state_dict, path)
                except Exception:
                    Path(path).unlink(missing_ok=True)  # which leaves room for the small files that follow
                    raise

        engine.save = noted
        try:
            yield
        finally:
            engine.save = write

    @contextmanager
    def _write_noted(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_of_the_disk(error):
                raise
            self._failed_writes.append(error)

    def _save(self, output_dir=None, state_dict=None):
        with self._write_noted() if self._is_saving else nullcontext():
            super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir):
        if not self.is_deepspeed_enabled or not any(gather_object([bool(self._failed_writes)])):
            super()._save_optimizer_and_scheduler(output_dir)

    def _get_output_dir(self, trial):
        folder = super()._get_output_dir(trial)
        return str(unfinished_folder(folder)) if self._is_saving else folder

    def _push_from_checkpoint(self, checkpoint_folder):
        """Called in the midst of a save: it is pushed from its place, once it is there."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not self.model.training:
            return loss
        self._micro_batches.append(MicroBatch(inputs, loss.detach()))
        # An infinite loss may have a finite gradient. This makes it NaN, on the other processes too once it is reduced.
        return loss * torch.where(loss.isfinite(), 1.0, torch.nan)

    def _get_grad_norm(self, model, grad_norm=None):
        grad_norm = super()._get_grad_norm(model, grad_norm)
        micro_batches, self._micro_batches = self._micro_batches, []
        # Under fp16 the loss scaler looks for gradients that are too large, and skips these steps itself.
        if self._losses_are_finite(micro_batches) if self.args.fp16 else math.isfinite(grad_norm):
            self._skipped_in_a_row = 0
            return grad_norm
        if not self.args.fp16:
            model.zero_grad()  # an optimizer leaves what has no gradient as it is, weight decay and moments included
            if self.accelerator.optimizer_step_was_skipped:  # by DeepSpeed, and then transformers holds the schedule
                self.lr_scheduler.step()
        self._skipped_in_a_row += 1
        self.faults["skipped_steps"] += 1
        step = self.state.global_step + 1
        self.say(
            f"Step {step} is skipped: its loss or its gradient is not finite (gradient norm {float(grad_norm):g})."
        )
        if self._skipped_in_a_row == MOST_SKIPPED_IN_A_ROW:
            try:
                where = f"is in {save_batch(self.args, step, micro_batches, self._tokenizer)}; mend what it shows, or"
            except Exception as error:
                if not is_of_the_disk(error):
                    raise
                where = f"could not be written ({one_line(error)}): make room and start again to see it, or"
            raise NonFiniteError(
                f"The loss or the gradient was not finite in {MOST_SKIPPED_IN_A_ROW} steps in a row up to step {step}, "
                f"whose batch {where} start anew with a lower learning_rate."
            )
        return grad_norm

    def _losses_are_finite(self, micro_batches: list[MicroBatch]) -> bool:
        """Of all processes, which have to call it together."""
        finite = torch.stack([micro_batch.loss.isfinite() for micro_batch in micro_batches]).all()
        return bool(self.accelerator.gather(finite.int()).all())

    def log(self, logs, start_time=None):
        if self.model.training:
            logs.update({f"faults/{name}": count for name, count in self.faults.items()})
        try:
            super().log(logs, start_time)
        except OSError as error:  # TRL writes its table of rollouts last
            logger.warning("What step %d logs could not be written: %s", self.state.global_step, error)

    def say(self, text: str, file: TextIO | None = None) -> None:
        """Tell the person at the terminal, once for all processes and without breaking the progress bar."""
        if self.accelerator.is_main_process:
            tqdm.write(text, file=file)


class _BeginAndEnd(TrainerCallback):
    def __init__(self, trainer: ResumableGRPOTrainer):
        self._trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self._trainer.begin()

    def on_step_end(self, args, state, control, **kwargs):
        if self._trainer.is_over and not control.should_training_stop:
            control.should_training_stop = True
            control.should_save = args.save_strategy != SaveStrategy.NO


class EpochRepeatSampler(RepeatSampler):
    """RepeatSampler whose order depends on (seed, epoch), so that a resumed run goes on in the order it had."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        if self.shuffle:
            self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()


def _random_states() -> dict[str, Any]:
    """Of this process, as transformers saves them."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.random.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_available() else {})


def _set_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.random.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])
