"""`make trt-bindings` says what is missing: a compiler is a reason to skip tests, a network is an error."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SET_UP = ROOT / "tests/bindings/set_up.sh"
REQUIREMENTS = (ROOT / "tests/bindings/requirements.txt").read_text()

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64") or sys.version_info >= (3, 13),
    reason="the bindings of TensorRT 10.3.0 have no wheel here, which set_up.sh says first",
)


def set_up(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own script
        [str(SET_UP), sys.executable, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def test_without_a_compiler_it_says_so_and_succeeds(tmp_path: Path) -> None:
    told = set_up(tmp_path, CXX="no-such-compiler")
    assert told.returncode == 0
    assert told.stdout.count("\n") == 1
    assert "no C++ compiler (no-such-compiler)" in told.stdout
    assert (tmp_path / "skipped").read_text().startswith("no C++ compiler")
    assert not (tmp_path / "installed").exists()


def test_without_an_index_it_fails_and_names_what_it_expected(tmp_path: Path) -> None:
    told = set_up(tmp_path, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path), CXX=sys.executable)
    assert told.returncode == 1
    assert "Expected tensorrt_cu12_bindings==10.3.0 from pip's index, got none" in told.stderr
    assert "run make trt-bindings once" in told.stderr
    assert not (tmp_path / "installed").exists()


def test_a_folder_that_is_no_longer_pinned_goes(tmp_path: Path) -> None:
    pinned = [line.split()[0].replace("==", "-") for line in REQUIREMENTS.splitlines() if not line.startswith("#")]
    for name in (*pinned, "polygraphy-0.1"):
        (tmp_path / name).mkdir()
    told = set_up(tmp_path, CXX="true")  # a compiler that makes nothing: what is fetched is all there
    assert told.returncode == 0, told.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*pinned, "installed", "libraries"])
