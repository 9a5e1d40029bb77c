"""A CUDA device over host memory in place of NVIDIA's package, for one test."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.cuda.port import Cuda

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

DOUBLES = Path(__file__).parents[2] / "doubles"


def forget_cuda() -> dict[str, object]:
    names = [name for name in sys.modules if name == "cuda" or name.startswith("cuda.")]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """The double's device. At the end nothing may have been misused; a test that misuses empties `misuses`."""
    before = forget_cuda()
    monkeypatch.syspath_prepend(str(DOUBLES))
    found: Device = importlib.import_module("cuda.double").DEVICE
    yield found
    forget_cuda()
    sys.modules.update(before)  # type: ignore[arg-type]
    assert found.misuses() == []


@pytest.fixture
def cuda(device: Device) -> Iterator[Cuda]:
    """The opened device. At the end nothing may be left on it, unless it is poisoned."""
    opened = open_cuda(0)
    yield opened
    if device.answers:
        opened.close()
        assert device.live() == []


@pytest.fixture
def on_thread() -> Callable[[Callable[[], Any]], Any]:
    """Calls a function on a thread of its own, waits for it, and gives back or raises what it did."""

    def call(function: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function).result(timeout=60)

    return call
