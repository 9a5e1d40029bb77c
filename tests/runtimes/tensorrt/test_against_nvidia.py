"""NVIDIA's own bindings, old and new, over a stub of what they link: our callbacks, our refusals, and Polygraphy.

The tests themselves are `tests/bindings/over_stub`; each version of TensorRT and of Polygraphy has a child for them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bindings.fetched import DOUBLES, OLDEST, POLYGRAPHY, TENSORRT, package, run_python, tensorrt

OVER_STUB = Path("tests/bindings/over_stub")
IMPORT = "from runtimes.tensorrt.library import import_tensorrt; import_tensorrt()"


def run_over_stub(
    version: str, polygraphy: str, *arguments: str, first: Sequence[Path] = ()
) -> subprocess.CompletedProcess[str]:
    return run_python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=60", *arguments),
        paths=[*first, tensorrt(version), package("polygraphy", polygraphy), DOUBLES],
        environment={"TENSORRT_OVER_STUB": version, "POLYGRAPHY_OVER_STUB": polygraphy},
    )


@pytest.mark.parametrize("polygraphy", POLYGRAPHY)
@pytest.mark.parametrize("version", TENSORRT)
def test_what_we_give_to_tensorrt_works_in_its_own_bindings(version: str, polygraphy: str) -> None:
    told = run_over_stub(version, polygraphy, str(OVER_STUB))
    assert told.returncode == 0, told.stdout[-8000:] + told.stderr[-4000:]
    assert "skipped" not in told.stdout


def test_the_double_in_their_place_would_be_noticed() -> None:
    told = run_over_stub(OLDEST, POLYGRAPHY[-1], str(OVER_STUB / "test_error_recorder.py"), first=[DOUBLES])
    assert told.returncode == 1
    assert "AssertionError: this is the double" in told.stdout


def test_bindings_without_the_library_are_refused_with_the_loaders_words() -> None:
    told = run_python("-c", IMPORT, paths=[tensorrt(OLDEST)], library_path=None)
    assert "RuntimeNotAvailableError: tensorrt: expected NVIDIA's Python bindings" in told.stderr
    assert "libnvinfer.so.10: cannot open shared object file" in told.stderr


@pytest.mark.parametrize("version", ["11.0.0", "11.4.0.106"])
def test_tensorrt_11_is_refused_by_name(version: str, tmp_path: Path) -> None:
    front_end = tmp_path / "tensorrt" / "__init__.py"
    front_end.parent.mkdir()
    front_end.write_text(f"from tensorrt_bindings import *\n__version__ = {version!r}\n")
    told = run_python("-c", IMPORT, paths=[tmp_path, tensorrt(OLDEST)])
    assert f"RuntimeNotAvailableError: tensorrt: expected TensorRT 10.3 or newer, before 11, found {version}," in (
        told.stderr
    )
