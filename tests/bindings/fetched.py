"""What `make trt-bindings` fetched and built for this interpreter, and children that run against it.

A process can hold one TensorRT, and its loader looks for libraries where it did when the process began: hence children.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FETCHED = Path(sys.prefix) / "trt-bindings"
DOUBLES = ROOT / "tests/doubles"
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def pinned(package: str) -> list[str]:
    """The versions of `requirements.txt`, in its order."""
    lines = (line.split() for line in _REQUIREMENTS.read_text().splitlines() if not line.startswith("#"))
    return [line[0].partition("==")[2] for line in lines if line and line[0].partition("==")[0] == package]


TENSORRT = pinned("tensorrt_cu12_bindings")
OLDEST = TENSORRT[0]
POLYGRAPHY = pinned("polygraphy")


def package(name: str, version: str) -> Path:
    """The folder of a package. Skips the test where `make trt-bindings` has not run or could not."""
    if not (FETCHED / "installed").exists():
        why = FETCHED / "skipped"
        pytest.skip(why.read_text().strip() if why.exists() else "`make trt-bindings` fetches NVIDIA's bindings")
    return FETCHED / f"{name}-{version}"


def tensorrt(version: str) -> Path:
    return package("tensorrt_cu12_bindings", version)


def run_python(
    *arguments: str,
    paths: list[Path],
    library_path: Path | None = FETCHED / "libraries",
    environment: dict[str, str] | None = None,
    stdin: str = "",
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Our own interpreter in a child, in the checkout, with `paths` before all others to import from."""
    inherited = {name: value for name, value in os.environ.items() if name not in {"LD_LIBRARY_PATH", "PYTHONPATH"}}
    libraries = {} if library_path is None else {"LD_LIBRARY_PATH": str(library_path)}
    return subprocess.run(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, "-X", "faulthandler", *arguments],
        capture_output=True,
        input=stdin,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=ROOT,
        env={
            **inherited,
            "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT])),
            "PYTHONDONTWRITEBYTECODE": "1",
            **libraries,
            **(environment or {}),
        },
    )
