"""How an example is run: as a user runs it, from the checkout, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: object, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return run_python(f"examples/{name}", *arguments, timeout_s=timeout_s)


def run_python(*arguments: object, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
