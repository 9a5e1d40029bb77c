"""NVIDIA's TensorRT and a CUDA device, or a skip with the reason: the doubles stand for both nowhere but on request."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from messages import RuntimeNotAvailableError
from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.tensorrt.library import import_tensorrt

DOUBLES = Path(__file__).parent / "doubles"
OVER_DOUBLE = os.environ.get("TENSORRT_CHECKS_OVER", "") == "the double"
"""Whether this process was started to try the checks themselves, over the doubles on its path."""


def require_tensorrt() -> ModuleType:
    """The module, once a device has answered. Skips the test where either is missing, and fails it over a double."""
    try:
        trt = import_tensorrt()
        open_cuda(0).close()
    except RuntimeNotAvailableError as error:
        pytest.skip(str(error))
    if not OVER_DOUBLE and DOUBLES in Path(str(trt.__file__)).parents:
        pytest.fail(f"expected NVIDIA's TensorRT, found its double {trt.__file__}; take it off the path")
    return trt
