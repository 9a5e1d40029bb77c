"""What a process has to give back: memory, file descriptors, threads."""

from __future__ import annotations

import gc
import threading
from pathlib import Path


class ProcessResources:
    """Those that are there when this is made."""

    def __init__(self) -> None:
        gc.collect()
        self._threads = set(threading.enumerate())
        self._files = open_files()

    def await_all_given_back(self, timeout_s: float) -> None:
        """Whatever began since then ends, and leaves no file open."""
        for thread in set(threading.enumerate()) - self._threads:
            thread.join(timeout_s)
        left = [thread.name for thread in set(threading.enumerate()) - self._threads]
        assert left == [], f"threads that do not end: {left}"
        gc.collect()
        assert open_files() <= self._files, "files are left open"


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident_bytes() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024
