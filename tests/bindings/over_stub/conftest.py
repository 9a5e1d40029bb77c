"""Tests for a process that imports NVIDIA's bindings over the stub, each once per way that TensorRT may call.

`tests/runtimes/tensorrt/test_against_nvidia.py` runs them, a child for each version: elsewhere they are not collected.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, cast

import pytest

from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.cuda.port import Cuda
from tests.bindings.callbacks import Core

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

EXPECTED_VERSION = os.environ.get("TENSORRT_OVER_STUB", "")
collect_ignore_glob = [] if EXPECTED_VERSION else ["test_*.py"]


@pytest.fixture(scope="session")
def trt() -> ModuleType:
    module = importlib.import_module("tensorrt")
    assert module.Builder.__module__ == "tensorrt_bindings.tensorrt", "this is the double"
    assert module.__version__ == EXPECTED_VERSION
    return module


@pytest.fixture(params=[False, True], ids=["on the caller's thread", "on a thread of TensorRT's"])
def core(trt: ModuleType, request: pytest.FixtureRequest) -> Core:
    return Core(trt, on_thread=request.param)


@pytest.fixture
def device() -> Iterator[Device]:
    """The double of CUDA. At the end nothing may have been misused."""
    found = cast("Device", importlib.import_module("cuda.double").DEVICE)
    found.reset()
    yield found
    assert found.misuses() == []


@pytest.fixture
def cuda(device: Device) -> Iterator[Cuda]:
    """At the end nothing may be left on it."""
    opened = open_cuda(0)
    yield opened
    opened.close()
    assert device.live() == []
