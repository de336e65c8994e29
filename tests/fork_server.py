"""Starts runs of our entry points without the seconds that imports take: they are forked off this process.

`python fork_server.py MODULE ...` imports these modules first. For each line of stdin, {"module": "elastic.train",
"arguments": [...], "log": path}, it answers with the child's process id, and how it ended.
"""

import importlib
import json
import os
import runpy
import sys
import threading
import traceback

ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what libraries print when they are imported is no answer

for name in sys.argv[1:]:
    importlib.import_module(name)


def become(module: str, arguments: list[str], log: str) -> None:
    """Be the process of that command line, with its output in `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout.reconfigure(line_buffering=True)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__")
        os._exit(0)
    except SystemExit as end:
        os._exit(end.code or 0)
    except BaseException:
        traceback.print_exc()
        os._exit(70)


def main() -> None:
    assert threading.active_count() == 1, "a fork would lose the other threads"
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(**json.loads(line))
        print(child, file=ANSWERS)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=ANSWERS)


if __name__ == "__main__":
    main()
