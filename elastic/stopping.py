"""Runs that are told to stop: SIGTERM, as a cluster sends before it takes the machine."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import TrainerCallback

_PR_SET_PDEATHSIG = 1
# Launchers pass on the SIGTERM that a cluster sends to all processes, so that one may come twice.
_SAME_SIGNAL_S = 5.0
# How the command is called that starts deepspeed.launcher.launch.
_RUNNERS = {"deepspeed", "ds", "deepspeed.launcher.runner"}
_LOOK_EVERY_S = 1.0


class StepAbandoned(Exception):
    """The run was told to stop in the midst of a step, of which nothing is kept."""


def stop_with_launcher() -> None:
    """Get SIGTERM when a launcher dies that leaves the processes running which it started (on Linux).

    Those are `accelerate launch` and `deepspeed`, of which the second has a process between it and this one.
    """
    if sys.platform != "linux":
        return
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    launch, runner = _ancestors()
    if "deepspeed.launcher.launch" in _words(launch) and _RUNNERS & {Path(word).name for word in _words(runner)[:3]}:
        threading.Thread(target=_stop_without, args=((launch, runner),), daemon=True).start()


def _stop_without(ancestors: tuple[int, int]) -> None:
    while _ancestors() == ancestors:
        time.sleep(_LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _ancestors() -> tuple[int, int]:
    """The process that started this one, and the one that started that; 0 where it has ended."""
    parent = os.getppid()
    try:
        stat = Path(f"/proc/{parent}/stat").read_text()
    except OSError:
        return parent, 0
    return parent, int(stat.rpartition(")")[2].split()[1])  # proc(5): name in parentheses, state, parent


def _words(process: int) -> list[str]:
    """The command line of a process; nothing where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except OSError:
        return []


def stopped_mark(output_dir: str) -> Path:
    """The file that says that the last run here was stopped by SIGTERM, of which launchers may hide the exit code."""
    return Path(output_dir, "stopped")


class StopOnSigterm(TrainerCallback):
    """On SIGTERM, to whichever process: abandon the step that is under way, or save the one that has ended, and stop.

    Another SIGTERM, later than what launchers repeat, kills the process as if this were not here.

    Attributes:
        stopped: whether the run has stopped for it.
    """

    def __init__(self, accelerator: Accelerator):
        self._accelerator = accelerator
        self._received_s: float | None = None
        self._previous = None
        self.stopped = False

    def on_train_begin(self, args, state, control, **kwargs):
        self._previous = signal.signal(signal.SIGTERM, self._on_signal)

    def on_train_end(self, args, state, control, **kwargs):
        signal.signal(signal.SIGTERM, self._previous)

    def _on_signal(self, signum, frame):
        now = time.monotonic()
        if self._received_s is None:
            self._received_s = now
        elif now - self._received_s > _SAME_SIGNAL_S:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    def on_substep_end(self, args, state, control, **kwargs):
        self.meet()

    def on_step_end(self, args, state, control, **kwargs):
        if self._was_received_anywhere():
            self.stopped = control.should_save = control.should_training_stop = True

    def rollouts(self) -> AbstractContextManager[None]:
        """Around rollouts, which need no other process: each process ends its own by `check`, and all `meet` next."""
        return suppress(StepAbandoned)

    def check(self) -> None:
        """Raises StepAbandoned where this process was told to stop; only inside of `rollouts`."""
        if self._received_s is not None:
            raise StepAbandoned

    def meet(self) -> None:
        """Raises StepAbandoned on all processes where one of them was told to stop; all have to call it."""
        if self._was_received_anywhere():
            self.stopped = True
            raise StepAbandoned

    def _was_received_anywhere(self) -> bool:
        received = torch.tensor(int(self._received_s is not None), device=self._accelerator.device)
        return bool(self._accelerator.reduce(received, reduction="sum") > 0)
