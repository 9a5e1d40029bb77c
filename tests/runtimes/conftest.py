"""Small but real source models, each made once per test run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SaveOnnx = Callable[..., Path]
SavePt2 = Callable[..., Path]


@pytest.fixture
def save_onnx(tmp_path: Path) -> SaveOnnx:
    """`save_onnx(name, nodes, inputs, outputs, weights)` with inputs and outputs as (name, element type, shape)."""
    onnx = pytest.importorskip("onnx")

    def save(
        name: str,
        nodes: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        weights: dict[str, np.ndarray] | None = None,
        *,
        valid: bool = True,
    ) -> Path:
        helper = onnx.helper
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(*value) for value in inputs],
            [helper.make_tensor_value_info(*value) for value in outputs],
            [onnx.numpy_helper.from_array(array, key) for key, array in (weights or {}).items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        if valid:
            onnx.checker.check_model(model)
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        return path

    return save


@pytest.fixture
def descriptor_onnx(save_onnx: SaveOnnx) -> Path:
    """fp32: a seeded convolution over `image` [n, 3, 8, 8] plus `bias_by_image` [n, 4]; `echo` is the image itself."""
    from onnx import TensorProto, helper

    weight = np.random.default_rng(7).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["pooled", "bias_by_image"], ["descriptor"]),
        helper.make_node("Identity", ["image"], ["echo"]),
    ]
    return save_onnx(
        "descriptor",
        nodes,
        [("image", TensorProto.FLOAT, ["n", 3, 8, 8]), ("bias_by_image", TensorProto.FLOAT, ["n", 4])],
        [("descriptor", TensorProto.FLOAT, ["n", 4]), ("echo", TensorProto.FLOAT, ["n", 3, 8, 8])],
        {"weight": weight},
    )


@pytest.fixture(scope="session")
def save_pt2(tmp_path_factory: pytest.TempPathFactory) -> SavePt2:
    """`save_pt2(name, module, inputs, dynamic_shapes=None)`; a program of the same name is exported once."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("pt2")

    def save(name: str, module: Any, inputs: tuple[Any, ...], dynamic_shapes: Any = None) -> Path:
        path = Path(folder / f"{name}.pt2")
        if not path.exists():
            torch.export.save(torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes), path)
        return path

    return save


@pytest.fixture(scope="session")
def descriptor_pt2(save_pt2: SavePt2) -> Path:
    """The same topology as `descriptor_onnx`, in fp16, with n from 1 to 4."""
    torch = pytest.importorskip("torch")

    class Descriptor(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, image: Any, bias_by_image: Any) -> dict[str, Any]:
            pooled = torch.relu(self.convolution(image)).mean(dim=(2, 3))
            return {"descriptor": pooled + bias_by_image, "echo": image}

    torch.manual_seed(7)
    module = Descriptor().eval().half()
    images = torch.export.Dim("n", min=1, max=4)
    example = (torch.zeros(2, 3, 8, 8, dtype=torch.half), torch.zeros(2, 4, dtype=torch.half))
    return save_pt2("descriptor", module, example, {"image": {0: images}, "bias_by_image": {0: images}})
