"""How properties are tested; a model that README and examples know; a device of host memory with a TensorRT on it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.cuda.port import Cuda

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core

DOUBLES = Path(__file__).parent / "doubles"
_DOUBLED = ("cuda", "tensorrt")

settings.register_profile("c7", deadline=None)  # a machine that is busy is no failed property
settings.load_profile("c7")


@pytest.fixture
def ultravpr_onnx(tmp_path: Path) -> Path:
    """float32 image [1, 3, 32, 32] -> float32 descriptor [1, 8]: one convolution and a mean over the picture."""
    pytest.importorskip("onnxruntime", reason="onnxruntime-gpu comes with the extra `onnx`")
    onnx = pytest.importorskip("onnx", reason="onnx comes with the extra `onnx`")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.random.default_rng(7).standard_normal((8, 3, 5, 5), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weights"], ["features"]),
            helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["descriptor"]),
        ],
        "ultravpr",
        [helper.make_tensor_value_info("image", float32, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("descriptor", float32, [1, 8])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    path = tmp_path / "ultravpr.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def _put_away() -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] in _DOUBLED}


@pytest.fixture(scope="session")
def kept_doubles() -> dict[str, ModuleType]:
    """The doubles' modules, the same for every test: libraries keep what they imported."""
    return {}


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch, kept_doubles: dict[str, ModuleType]) -> Iterator[None]:
    """`import cuda` and `import tensorrt` find the doubles, for one test."""
    before = _put_away()
    monkeypatch.syspath_prepend(str(DOUBLES))
    sys.modules.update(kept_doubles)
    yield
    kept_doubles.update(_put_away())
    sys.modules.update(before)


@pytest.fixture
def device(doubles: None) -> Iterator[Device]:
    """The double's device, fresh. At the end nothing may have been misused; a test that misuses empties `misuses`."""
    found: Device = importlib.import_module("cuda.double").DEVICE
    found.reset()
    yield found
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
def trt(device: Device) -> ModuleType:
    """The double of TensorRT on the double's device, fresh."""
    module = importlib.import_module("tensorrt")
    module.CORE.reset()
    return module


@pytest.fixture
def core(trt: ModuleType) -> Core:
    """What a test says to the double of TensorRT."""
    found: Core = trt.CORE
    return found
