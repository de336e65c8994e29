"""Runs that are killed: a server that starts them quickly, and waiting for the moment."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# How long until something has to happen that is waited for.
PATIENCE_S = 120
# What elastic.train and elastic.evaluate import when they start.
OF_RUNS = ("elastic.protocol", "elastic.resumable", "elastic.setup", "elastic.tracking", "elastic.trainer")


class Server:
    """tests/fork_server.py, which starts one run at a time."""

    def __init__(self, modules: tuple[str, ...] = OF_RUNS):
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "fork_server.py"), *modules],
            env=os.environ | {"PYTHONPATH": f"{HERE.parent}:{HERE}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, module: str, arguments: list[str], log: Path) -> int:
        self._process.stdin.write(json.dumps({"module": module, "arguments": arguments, "log": str(log)}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def ended(self) -> int:
        """Wait for the run; its exit code, or minus the signal that killed it."""
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def wait_until(happened) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.001)
