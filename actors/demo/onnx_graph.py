"""Grows one ONNX graph, operator by operator, with weights that depend on nothing but their names.

A network is written once, against this class. ONNX Runtime and TensorRT take the file as it is; for PyTorch the same
graph is walked by `actors.demo.torch_rendering`, so both formats hold the same operators and the same weights.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

OPSET = 17
"""The oldest with LayerNormalization; ONNX Runtime 1.19 and TensorRT 10.3 both read it."""
IR_VERSION = 8
SEED = 7

Value = str
"""The name of a value inside the graph."""
Axis = int | str
"""A fixed extent, or the name of one that each request decides."""


class OnnxGraph:
    """One graph under construction. Methods append nodes and return the name of what they compute (float32)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, npt.NDArray[Any]] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[Axis], dtype: npt.DTypeLike = np.float32) -> Value:
        self._inputs.append(_value_info(name, shape, dtype))
        return name

    def output(self, value: Value, name: str, shape: Sequence[Axis], dtype: npt.DTypeLike = np.float32) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output.{name}"))
        self._outputs.append(_value_info(name, shape, dtype))

    def model(self) -> onnx.ModelProto:
        from onnx import helper, numpy_helper

        initializers = [numpy_helper.from_array(array, name) for name, array in self._initializers.items()]
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="c7-inference")

    # The three ways to a value: a node, a constant, a weight.

    def op(self, op_type: str, *inputs: Value, **attributes: Any) -> Value:
        """One node with one output."""
        return self.ops(op_type, 1, *inputs, **attributes)[0]

    def ops(self, op_type: str, outputs: int, *inputs: Value, **attributes: Any) -> tuple[Value, ...]:
        """One node with several outputs."""
        from onnx import helper

        name = f"{op_type}.{len(self._nodes)}"
        names = tuple(f"{name}:{index}" for index in range(outputs))
        self._nodes.append(helper.make_node(op_type, list(inputs), list(names), name=name, **attributes))
        return names

    def constant(self, array: npt.ArrayLike) -> Value:
        """A fixed tensor: floats become float32, whole numbers int64."""
        fixed = np.asarray(array)
        fixed = fixed.astype(np.int64 if fixed.dtype.kind in "iu" else np.float32)
        name = f"constant.{fixed.dtype}.{fixed.shape}.{zlib.crc32(fixed.tobytes()):08x}"
        self._initializers[name] = fixed
        return name

    def weight(self, name: str, array: npt.NDArray[Any]) -> Value:
        self._initializers[name] = np.ascontiguousarray(array, dtype=np.float32)
        return name

    def normal(self, name: str, shape: tuple[int, ...], *, deviation: float) -> npt.NDArray[np.float64]:
        """Zero-mean normal numbers that the names of the graph and of the weight decide, and nothing else."""
        seed = zlib.crc32(f"{self._name}/{name}".encode())
        return deviation * np.random.default_rng([SEED, seed]).standard_normal(shape)

    # Layers.

    def linear(
        self, x: Value, name: str, inputs: int, outputs: int, *, gain: float = 1.0, orthogonal: bool = False
    ) -> Value:
        """`[..., inputs] -> [..., outputs]`; keeps the variance where `gain` is 1. The bias starts at zero.

        `orthogonal` keeps angles as they were, so that what was similar stays so; `outputs` is then at least `inputs`.
        """
        matrix = self.normal(name, (inputs, outputs), deviation=1.0 / math.sqrt(inputs))
        if orthogonal:
            matrix = np.linalg.qr(matrix.T)[0].T
        product = self.op("MatMul", x, self.weight(f"{name}.weight", gain * matrix))
        return self.op("Add", product, self.weight(f"{name}.bias", np.zeros(outputs)))

    def conv(
        self,
        x: Value,
        name: str,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        padding: int | None = None,
        gain: float = 1.0,
        band_pass: bool = False,
    ) -> Value:
        """A convolution with bias, padded to keep the extent unless told otherwise.

        `band_pass` makes each filter sum to zero, so that brightness alone excites nothing; a trained first layer
        looks like that, a random one does not.
        """
        weights = self.normal(name, (outputs, inputs, kernel, kernel), deviation=1.0)
        if band_pass:
            weights -= weights.mean(axis=(1, 2, 3), keepdims=True)
        weights *= gain / math.sqrt(inputs * kernel * kernel)
        pad = kernel // 2 if padding is None else padding
        return self.op(
            "Conv",
            x,
            self.weight(f"{name}.weight", weights),
            self.weight(f"{name}.bias", np.zeros(outputs)),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad, pad, pad, pad],
            group=1,
        )

    def halve(self, x: Value, channels: int) -> Value:
        """Half the extent behind a binomial low-pass filter, so that a shift of the picture is a shift of the result.

        Measured on a photograph shifted by half a stride: of the mutually nearest descriptors 4 in 100 lay on the same
        place with plain strided convolutions, 56 in 100 with this (R. Zhang, "Making Convolutional Networks
        Shift-Invariant Again", 2019).
        """
        row = np.array([1, 3, 3, 1]) / 8
        kernel = np.broadcast_to(np.outer(row, row), (channels, 1, 4, 4))
        return self.op(
            "Conv",
            x,
            self.weight(f"binomial{channels}.weight", kernel),
            self.weight(f"binomial{channels}.bias", np.zeros(channels)),
            kernel_shape=[4, 4],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            group=channels,
        )

    def layer_norm(self, x: Value, name: str, width: int) -> Value:
        scale, bias = self.weight(f"{name}.scale", np.ones(width)), self.weight(f"{name}.bias", np.zeros(width))
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5)

    def instance_norm(self, x: Value) -> Value:
        """Zero mean and unit variance over the two axes of the picture, `[1, C, H, W]`."""
        centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[2, 3], keepdims=1))
        power = self.op("ReduceMean", self.op("Mul", centred, centred), axes=[2, 3], keepdims=1)
        return self.op("Div", centred, self.op("Sqrt", self.op("Add", power, self.constant(1e-4))))

    def gelu(self, x: Value) -> Value:
        """The exact form; ONNX Runtime fuses the five nodes into one."""
        error = self.op("Erf", self.op("Div", x, self.constant(math.sqrt(2.0))))
        gate = self.op("Add", error, self.constant(1.0))
        return self.op("Mul", self.op("Mul", x, gate), self.constant(0.5))

    def l2_normalise(self, x: Value, *, axis: int) -> Value:
        length = self.op("ReduceL2", x, axes=[axis], keepdims=1)
        return self.op("Div", x, self.op("Add", length, self.constant(1e-4)))

    def reshape(self, x: Value, *shape: int) -> Value:
        """0 keeps an extent as it is; at most one may be -1.

        0 is better where both do: PyTorch reasons for seconds about what -1 stands for in a program.
        """
        return self.op("Reshape", x, self.constant(np.array(shape)))

    def part(self, x: Value, start: int, stop: int, *, axis: int) -> Value:
        starts, stops, axes = (self.constant(np.array([number])) for number in (start, stop, axis))
        return self.op("Slice", x, starts, stops, axes)

    def split_heads(self, x: Value, heads: int, width: int) -> Value:
        """`[1, n, width] -> [1, heads, n, width / heads]`."""
        return self.op("Transpose", self.reshape(x, 0, 0, heads, width // heads), perm=[0, 2, 1, 3])

    def merge_heads(self, x: Value, width: int) -> Value:
        """`[1, heads, n, width / heads] -> [1, n, width]`."""
        return self.reshape(self.op("Transpose", x, perm=[0, 2, 1, 3]), 0, 0, width)

    def attention(self, query: Value, key: Value, value: Value, *, head_width: int) -> Value:
        """Scaled dot-product attention over `[1, heads, n, head_width]`."""
        scaled = self.op("Mul", query, self.constant(head_width**-0.5))
        weights = self.op("Softmax", self.op("MatMul", scaled, self.op("Transpose", key, perm=[0, 1, 3, 2])), axis=-1)
        return self.op("MatMul", weights, value)


def _value_info(name: str, shape: Sequence[Axis], dtype: npt.DTypeLike) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))
