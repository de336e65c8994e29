"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then rename it: a reader of `path` sees the old file or the new one.

    So does one that looks after the machine has died.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    write(beside)
    sync(beside)
    beside.replace(path)


def sync(path: Path) -> None:
    """Have the disk hold the file or folder before this returns: a rename alone may be there earlier than the data."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
