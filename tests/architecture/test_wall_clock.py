"""Nothing is decided by the wall clock: a Jetson without battery wakes in 1970 and jumps when GNSS time arrives."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("messages", "runtimes", "telemetry", "actors")

WALL_FUNCTIONS = {"time", "time_ns", "localtime", "gmtime", "ctime", "asctime", "strftime", "mktime"}
"""Of the module time; `clock_gettime` of another clock than CLOCK_MONOTONIC is found by its own name."""
WALL_ATTRIBUTES = {
    *(f"st_{kind}{unit}" for kind in ("mtime", "ctime", "atime", "birthtime") for unit in ("", "_ns")),
    *("getmtime", "getctime", "getatime", "utcnow", "utime", "CLOCK_REALTIME", "CLOCK_TAI"),
}
FOR_PEOPLE = {"telemetry/flight_recorder.py": ["datetime", "datetime.now(timezone.utc).isoformat()"]}
"""A recording says in its header when it was opened, for the analyst who looks for it; no code reads that again."""


def uses_of_wall_time(tree: ast.Module) -> Iterator[str]:
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in ("datetime", "calendar"))
        elif isinstance(node, ast.ImportFrom) and node.module in ("datetime", "calendar"):
            yield node.module
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"from time import {alias.name}" for alias in node.names if alias.name in WALL_FUNCTIONS)
        elif isinstance(node, ast.Attribute) and node.attr in WALL_ATTRIBUTES:
            yield node.attr
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
            if node.attr in WALL_FUNCTIONS:
                yield f"time.{node.attr}"
        elif id(node) in calls and ast.unparse(node) in ("datetime.now", "datetime.today", "date.today"):
            yield _whole_call(tree, calls[id(node)])


def _whole_call(tree: ast.Module, call: ast.Call) -> str:
    """The call with what is called on its result, as it stands in the file."""
    around = call
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.value is around:
            around = node
    return ast.unparse(around)


def test_no_module_reads_the_wall_clock_or_a_files_times() -> None:
    found = {
        str(path.relative_to(ROOT)): uses
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if (uses := list(uses_of_wall_time(ast.parse(path.read_text()))))
    }
    assert found == FOR_PEOPLE


@pytest.mark.parametrize(
    "text",
    [
        "import time\nnow = time.time()",
        "import time\nclock = time.time_ns",
        "from time import time",
        "from time import monotonic_ns, time_ns",
        "import time\ntime.strftime('%Y')",
        "import time\ntime.clock_gettime_ns(time.CLOCK_REALTIME)",
        "import datetime",
        "from datetime import timedelta",
        "newest = max(paths, key=lambda path: path.stat().st_mtime)",
        "age_ns = entry.stat().st_ctime_ns",
        "import os\nos.path.getmtime(path)",
        "import os\nos.utime(path)",
    ],
)
def test_every_way_to_wall_time_is_found(text: str) -> None:
    assert list(uses_of_wall_time(ast.parse(text)))


def test_monotonic_time_is_no_wall_time() -> None:
    text = "import time\ntime.monotonic_ns()\ntime.monotonic()\ntime.perf_counter_ns()\nself.clock.now()\nlog_time=1"
    assert list(uses_of_wall_time(ast.parse(text))) == []
