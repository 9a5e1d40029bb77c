"""How properties are tested, and what the README's program and the examples need: a model that they know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

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
