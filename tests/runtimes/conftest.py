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


@pytest.fixture
def light_onnx(tmp_path: Path) -> Callable[[str], Path]:
    """`light_onnx("squeezenet")`: a topology that the onnx package ships, with weights that mean something.

    Its own weights are constants, and so are the outputs: a runtime that drops every convolution would pass. These
    are seeded, scaled so that activations neither vanish nor explode, and positive for one-dimensional ones, which
    are variances.
    """
    onnx = pytest.importorskip("onnx")

    def make(name: str) -> Path:
        model = onnx.load(Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx")
        random = np.random.default_rng(11)
        shapes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        constants = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
        assert constants, "the light models no longer make their weights with ConstantOfShape"
        for node in constants:
            shape = tuple(int(extent) for extent in shapes[node.input[0]])
            array = random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:])) if shape[1:] else random.random(shape)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), node.output[0]))
            model.graph.node.remove(node)
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        return path

    return make


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
