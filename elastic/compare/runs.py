"""The commands of a plan as processes, side by side; a comparison that is stopped, or killed, goes on from them.

What a step leaves beside its output: `KIND.yaml`, the recipe that it was given; `KIND.log`, what it said;
`KIND.attempts.json`, the CPU-seconds of each attempt; `KIND.process.json`, the process of the last one; and, written
last, `KIND.done.json`, which says that it has finished, with which settings and at what cost.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import yaml
from tqdm.auto import tqdm

from elastic.checkpoints import complete_checkpoints
from elastic.compare.plan import TRAINING, Step
from elastic.files import replace_file

_LOG_LINES = 12
_LOOK_EVERY_S = 0.1
_COUNT_EVERY_S = 2.0
# How long a training that is told to stop may take to save, before it is killed.
_PATIENCE_S = 60.0
# How far the time that a process was created at may move with the clock.
_SAME_TIME_S = 2.0
# A training saves on SIGTERM; what the others have is kept on SIGINT.
_STOP_SIGNALS = {TRAINING: signal.SIGTERM}
# A command begins when it is known which process it is, so that none goes on unknown where the comparison is killed.
_WHEN_TOLD = ("sh", "-c", 'read -r go && exec "$@"', "sh")
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "WANDB_MODE": "offline"}


class StepError(Exception):
    """A command failed; the message says which, with the last lines of its log."""


class Interrupted(Exception):
    """The comparison was told to stop while a command ran."""


@dataclass
class Stop:
    """Whether the comparison was told to stop, and by which signal."""

    event: Event
    signal: int = 0


@contextmanager
def told_to_stop() -> Iterator[Stop]:
    """SIGINT and SIGTERM set what this gives, instead of ending the process."""
    stop = Stop(Event())

    def on_signal(number: int, frame) -> None:
        stop.signal = number
        stop.event.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def finished(step: Step) -> dict[str, Any] | None:
    """What the step cost, where it has finished with the settings that it has now, and its output is still there."""
    with suppress(OSError, ValueError):
        done = json.loads(step.file("done.json").read_text())
        if done["settings"] == step.digest and step.is_whole:
            return done
    return None


def run_steps(steps: Sequence[Step], jobs: int, stop: Stop, say: Callable[[str], None]) -> list[str]:
    """Run what is not finished, `jobs` at a time, in the given order as far as needs allow; what failed, in sentences.

    A step whose needs have failed is left out, and said too. Returns early, with all processes ended, when told to
    stop.
    """
    done = {step.digest for step in steps if finished(step)}
    waiting = [step for step in steps if step.digest not in done]
    failures: dict[str, str] = {}
    running: dict[Future, Step] = {}
    with (
        ThreadPoolExecutor(jobs) as pool,
        _stopped_on_failure(stop),
        tqdm(total=len(steps), initial=len(done), desc="runs", unit="run", file=sys.stderr) as bar,
    ):
        while running or (waiting and not stop.event.is_set()):
            for step in _without_need(waiting, failures):
                waiting.remove(step)
                failures[step.digest] = f"{step.name}: left out, for it needs what has failed."
                say(failures[step.digest])
            for step in [one for one in waiting if all(need.digest in done for need in one.needs)]:
                if len(running) < jobs and not stop.event.is_set():
                    waiting.remove(step)
                    running[pool.submit(execute, step, stop)] = step
            over, _ = wait(running, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            for future in over:
                step = running.pop(future)
                try:
                    say(sentence(step, future.result()))
                    done.add(step.digest)
                    bar.update()
                except (StepError, OSError) as error:
                    failures[step.digest] = str(error) if isinstance(error, StepError) else f"{step.name}: {error}."
                    say(failures[step.digest])
                except Interrupted:
                    pass
    return list(failures.values())


@contextmanager
def _stopped_on_failure(stop: Stop) -> Iterator[None]:
    """No process outlives an error of our own."""
    try:
        yield
    except BaseException:
        stop.event.set()
        raise


def _without_need(waiting: Sequence[Step], failures: dict[str, str]) -> list[Step]:
    return [step for step in waiting if any(need.digest in failures for need in step.needs)]


def sentence(step: Step, done: dict[str, Any]) -> str:
    """One line on a finished step."""
    said = f"{step.name}: done in {done['cpu_seconds']:.0f} CPU-seconds"
    if step.kind == TRAINING:
        said += f", {done['updates']} updates, {done['rollout_tokens']} rollout tokens"
    return f"{said}."


def execute(step: Step, stop: Stop) -> dict[str, Any]:
    """Run one step to its end, and mark it finished; returns the mark.

    Raises:
        StepError: it failed.
        Interrupted: it was stopped, and can go on.
    """
    step.folder.mkdir(parents=True, exist_ok=True)
    _end_left_over(step)
    command = list(step.command)
    if step.recipe is not None:
        recipe = step.file("yaml")
        replace_file(recipe, lambda path: path.write_text(yaml.safe_dump(dict(step.recipe), sort_keys=False)))
        command += ["--config", str(recipe)]
    with step.file("log").open("ab") as log:
        code = _run(step, command, log, stop)
    if stop.event.is_set() and code != 0:
        raise Interrupted
    if code != 0:
        raise StepError(_failure(step, code))
    done = {"settings": step.digest, "cpu_seconds": sum(_attempts(step))}
    if step.kind == TRAINING:
        done |= training_cost(step.output)
    replace_file(step.file("done.json"), lambda path: path.write_text(json.dumps(done, indent=1) + "\n"))
    return done


def training_cost(output_dir: Path) -> dict[str, Any]:
    """What a finished training took, from the history in its last checkpoint; seconds are of updates that count.

    Time before the first update, and updates that were repeated after an interruption, are in `cpu_seconds` alone.
    """
    complete, _ = complete_checkpoints(output_dir)
    if not complete:
        raise StepError(f"{output_dir} has no complete checkpoint, though its training ended: see its log.")
    state = json.loads((complete[-1] / "trainer_state.json").read_text())
    updates = [log for log in state["log_history"] if "loss" in log]
    return {
        "updates": state["global_step"],
        "rollout_tokens": int(updates[-1]["budget/rollout_tokens"]),
        "update_cpu_seconds": sum(log["time/cpu_s"] for log in updates),
    }


def _run(step: Step, command: list[str], log, stop: Stop) -> int:
    """The exit code of the command, whose CPU-seconds are kept as they grow; it is ended when told to stop."""
    process = subprocess.Popen(
        [*_WHEN_TOLD, *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | _ENVIRONMENT,
        start_new_session=True,
    )
    try:
        with suppress(BrokenPipeError), process.stdin as stdin:
            created = psutil.Process(process.pid).create_time()
            _write(step.file("process.json"), {"pid": process.pid, "created": created})
            stdin.write(b"go\n")
        return _watch(step, process, stop)
    except BaseException:
        _end_group(process.pid, signal.SIGKILL)
        raise


def _watch(step: Step, process: subprocess.Popen, stop: Stop) -> int:
    earlier, counted_s = _attempts(step), -_COUNT_EVERY_S
    while True:
        if time.monotonic() - counted_s > _COUNT_EVERY_S:
            counted_s, so_far = time.monotonic(), _cpu_seconds(process.pid)
            _write(step.file("attempts.json"), [*earlier, so_far])
        if stop.event.is_set():
            _end_group(process.pid, _STOP_SIGNALS.get(step.kind, signal.SIGINT))
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            process.returncode = os.waitstatus_to_exitcode(status)
            # A launcher that was killed has not waited for the processes that it started.
            seconds = max(so_far, usage.ru_utime + usage.ru_stime)
            _write(step.file("attempts.json"), [*earlier, seconds])
            return process.returncode
        stop.event.wait(_LOOK_EVERY_S)


def _cpu_seconds(pid: int) -> float:
    """Of a process and all below it, those that have ended and were waited for included."""
    seconds = 0.0
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                seconds += sum(process.cpu_times()[:4])
    return seconds


def _end_group(group: int, number: int) -> None:
    """Send the signal to the processes of a session, and SIGKILL to what is left of it after a while."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)
        deadline = time.monotonic() + _PATIENCE_S
        while any(_is_of(group, process) for process in psutil.process_iter()):
            if time.monotonic() > deadline:
                os.killpg(group, signal.SIGKILL)
            time.sleep(_LOOK_EVERY_S)


def _is_of(group: int, process: psutil.Process) -> bool:
    with suppress(psutil.Error, ProcessLookupError):
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    return False


def _end_left_over(step: Step) -> None:
    """Kill the process of a comparison that was killed itself, for two must not write the same files; its CPU-seconds
    up to now are kept."""
    with suppress(OSError, ValueError, psutil.Error):
        left = json.loads(step.file("process.json").read_text())
        if abs(psutil.Process(left["pid"]).create_time() - left["created"]) < _SAME_TIME_S:
            seconds = _cpu_seconds(left["pid"])
            _end_group(left["pid"], signal.SIGKILL)
            *earlier, last = _attempts(step) or [0.0]
            _write(step.file("attempts.json"), [*earlier, max(last, seconds)])


def _attempts(step: Step) -> list[float]:
    """CPU-seconds of each attempt so far."""
    with suppress(OSError, ValueError):
        return json.loads(step.file("attempts.json").read_text())
    return []


def _write(path: Path, content: object) -> None:
    replace_file(path, lambda beside: beside.write_text(json.dumps(content)))


def _failure(step: Step, code: int) -> str:
    log = step.file("log")
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return "\n  ".join([f"{step.name}: failed with exit code {code}; the end of {log}:", *lines])
