"""Small models with what an engine may have: dynamic shapes, fp16, several outputs, and shapes that values decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF, BFLOAT16, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.BOOL
INT8, UINT8, INT32, INT64 = TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64

Value = tuple[str, int, list[Any]]


def model(
    nodes: list[onnx.NodeProto], inputs: list[Value], outputs: list[Value], **weights: np.ndarray[Any, Any]
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "of_a_test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data


def answers(data: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ONNX Runtime, called directly."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def static() -> bytes:
    """`image` float32 [1, 3, 8, 8] -> `descriptor` [1, 4] through a seeded convolution."""
    weight = np.random.default_rng(7).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["features"]),
        helper.make_node("ReduceMean", ["features"], ["descriptor"], axes=[2, 3], keepdims=0),
    ]
    return model(nodes, [("image", FLOAT, [1, 3, 8, 8])], [("descriptor", FLOAT, [1, 4])], weight=weight)


def dynamic(kind: int = FLOAT) -> bytes:
    """`x` [n, 3] and `scale` [3] -> `scaled` [n, 3], `total` [n], `echo` [n, 3]."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", "last"], ["total"], keepdims=0),
        helper.make_node("Identity", ["x"], ["echo"]),
    ]
    outputs: list[Value] = [("scaled", kind, ["n", 3]), ("total", kind, ["n"]), ("echo", kind, ["n", 3])]
    return model(nodes, [("x", kind, ["n", 3]), ("scale", kind, [3])], outputs, last=np.array([1]))


def where_nonzero() -> bytes:
    """`x` [n, 3] -> `where` int64 [2, ?], as many columns as there are values that are not zero, and `negated`."""
    nodes = [helper.make_node("NonZero", ["x"], ["where"]), helper.make_node("Neg", ["x"], ["negated"])]
    return model(nodes, [("x", FLOAT, ["n", 3])], [("where", INT64, [2, "found"]), ("negated", FLOAT, ["n", 3])])


def reshaped() -> bytes:
    """`x` [n, 4] by `target` int64 [2], whose values are the shape of `y`; `size` int64 [2] is that shape again."""
    nodes = [
        helper.make_node("Reshape", ["x", "target"], ["y"]),
        helper.make_node("Shape", ["y"], ["size"]),
    ]
    inputs: list[Value] = [("x", FLOAT, ["n", 4]), ("target", INT64, [2])]
    return model(nodes, inputs, [("y", FLOAT, ["a", "b"]), ("size", INT64, [2])])


def added() -> bytes:
    """`a` [n, 3] and `b` [m, 3], which fit together only where n and m are the same or 1."""
    return model(
        [helper.make_node("Add", ["a", "b"], ["c"])],
        [("a", FLOAT, ["n", 3]), ("b", FLOAT, ["m", 3])],
        [("c", FLOAT, ["k", 3])],
    )


def bulging() -> bytes:
    """`x` [n, 3] -> `y` [n * (7 - n)] of ones: the longest for n = 3 and 4."""
    one = numpy_helper.from_array(np.ones(1, np.float32))
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Sub", ["seven", "n"], ["rest"]),
        helper.make_node("Mul", ["n", "rest"], ["length"]),
        helper.make_node("ConstantOfShape", ["length"], ["y"], value=one),
    ]
    return model(nodes, [("x", FLOAT, ["n", 3])], [("y", FLOAT, ["m"])], seven=np.array([7]))


def scalar() -> bytes:
    """`flag` bool [] -> `inverse` bool []."""
    return model([helper.make_node("Not", ["flag"], ["inverse"])], [("flag", BOOL, [])], [("inverse", BOOL, [])])


def echo(kind: int) -> bytes:
    """`x` [2] -> `y` [2], the same."""
    return model([helper.make_node("Identity", ["x"], ["y"])], [("x", kind, [2])], [("y", kind, [2])])
