"""`python -m elastic.compare` whose commands are those of fake_runs.py."""

import sys
from pathlib import Path

from elastic.compare import __main__, plan

_FAKE = (sys.executable, str(Path(__file__).with_name("fake_runs.py")))


def fake_commands() -> None:
    plan.MAKE_TASK, plan.EVALUATE = (*_FAKE, "task"), (*_FAKE, "evaluate")
    plan.LAUNCHER, plan.TRAIN = _FAKE, ("train",)
    __main__.check_trainings = lambda steps, launch: None  # it asks the real elastic.train's options


if __name__ == "__main__":
    fake_commands()
    __main__.main()
