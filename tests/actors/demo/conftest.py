"""The demo's camera, and its networks in ONNX Runtime itself, without any of our runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt
import pytest

from actors.demo.frames import MovingWindow

Array = npt.NDArray[Any]
Run = Callable[[str, Mapping[str, Array]], dict[str, Array]]


@pytest.fixture(scope="session")
def camera() -> MovingWindow:
    pytest.importorskip("PIL")
    pytest.importorskip("sklearn")
    return MovingWindow()


@pytest.fixture(scope="session")
def run_onnx() -> Run:
    """Run a network of the float32 set by name, on one thread."""
    pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    from actors.demo.networks import SIZES

    networks = SIZES["onnx_trt_ep"].networks()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    sessions: dict[str, Any] = {}

    def run(name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if name not in sessions:
            sessions[name] = ort.InferenceSession(
                networks[name].SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        outputs = [output.name for output in sessions[name].get_outputs()]
        return dict(zip(outputs, sessions[name].run(outputs, dict(inputs)), strict=True))

    return run
