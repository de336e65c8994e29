"""Peak memory of the engine against generate(), and of a training step against one of TRL's GRPOTrainer.

    OMP_NUM_THREADS=1 python tests/bench/bench_memory.py [--quick]

Each side runs in a fresh process of its own. Its peak is the most resident memory (VmHWM of Linux) less what was
resident after the same on a few tokens: caches, activations and gradients count, libraries and weights do not. The
cases are those of bench_engine.py and bench_step.py, with half of the groups in the training steps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import bench_engine
import bench_step
import torch
import transformers
from workload import random_llama

from elastic.tables import markdown_table

_LIBRARIES = ["elastic.trainer", "transformers.models.llama.modeling_llama"]
_ENGINE_CASES = ["tight", "skewed chains", "long prompts"]
_STEP_CASES = ["nano", "25M"]


def engine_peak_mib(case: bench_engine.Case, model_name: str, prompts: int, side: str) -> float:
    """MiB at the peak of one run of `side`; call it in a process that has run nothing yet."""
    torch.set_num_threads(1)
    model = random_llama(model_name, case.chances)
    small = replace(case, thinking=1, solution=1, prompt_tokens=4, samples=1)
    bench_engine.make_sides(model, small, prompts=1)[side](0)
    sides = bench_engine.make_sides(model, case, prompts)
    return _peak_mib(lambda: sides[side](0))


def step_peak_mib(case: bench_step.Case, side: str) -> float:
    """As `engine_peak_mib`, of one training step."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    bench_step.warm_up()
    model = random_llama(case.model, case.chances)
    with tempfile.TemporaryDirectory() as folder:
        sides = bench_step.make_sides(model, case, folder)
        return _peak_mib(lambda: sides[side](0))


def _peak_mib(run) -> float:
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_kib("VmRSS")
    run()
    return (_status_kib("VmHWM") - before) / 1024


def _status_kib(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE).group(1))


def in_fresh_process(function, *args):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def measure(name: str, sides: tuple[str, str], function, *args) -> list[str]:
    """The table's row for one case: the peak of each side, and the ratio of theirs to ours."""
    theirs, ours = (in_fresh_process(function, *args, side) for side in sides)
    return [name, *sides, f"{theirs:.0f}", f"{ours:.0f}", f"{theirs / ours:.2f}"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a nano model, one case of each kind")
    args = parser.parse_args(argv)
    model_name, prompts = ("nano", 2) if args.quick else ("25M", bench_engine.PROMPTS["25M"])
    engine_names, step_names = (["tight"], ["nano"]) if args.quick else (_ENGINE_CASES, _STEP_CASES)
    engine_cases = [case for case in bench_engine.CASES if case.name in engine_names]
    step_cases = [case for case in bench_step.CASES if case.name in step_names]
    rows = [
        measure(
            f"{case.name}, {model_name}",
            ("generate", "engine"),
            engine_peak_mib,
            case,
            model_name,
            prompts,
        )
        for case in engine_cases
    ]
    rows += [
        measure(
            f"step, {case.name}",
            ("stock", "elastic"),
            step_peak_mib,
            replace(case, steps=1, prompts=case.prompts // 2, micro_batch=min(case.micro_batch, 4 * case.prompts)),
        )
        for case in step_cases
    ]
    print(markdown_table(["case", "theirs", "ours", "theirs MiB", "ours MiB", "theirs / ours"], rows))


if __name__ == "__main__":
    main()
