"""What an engine computes, by ONNX Runtime on the CPU, and which shapes come out before it has computed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from ..enums import DataType
from .foundational_types import NUMPY_TYPES

Shape = tuple[int, ...]

_TYPES = {
    "tensor(float)": DataType.FLOAT,
    "tensor(float16)": DataType.HALF,
    "tensor(bfloat16)": DataType.BF16,
    "tensor(int8)": DataType.INT8,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(bool)": DataType.BOOL,
    "tensor(uint8)": DataType.UINT8,
}

_DATA_DEPENDENT = {"NonZero", "NonMaxSuppression", "Unique", "Compress"}
"""Operators whose output's extents are known only once they have run."""


@dataclass(frozen=True)
class Tensor:
    """One input or output, -1 for each dynamic extent."""

    name: str
    dtype: DataType
    shape: Shape
    is_input: bool

    def size_bytes(self, shape: Shape) -> int:
        return int(np.prod(shape, dtype=np.int64)) * np.dtype(NUMPY_TYPES[self.dtype]).itemsize


class Model:
    def __init__(self, data: bytes) -> None:
        """Raises ValueError for what ONNX Runtime does not take."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
            raise ValueError(str(error)) from error
        self.inputs = tuple(_tensor(value, is_input=True) for value in self._session.get_inputs())
        self.outputs = tuple(_tensor(value, is_input=False) for value in self._session.get_outputs())
        self._proto = onnx.load_model_from_string(data)
        self._late = _late_outputs(self._proto)
        self._lock = threading.Lock()
        self._known: dict[tuple[object, ...], dict[str, Shape] | None] = {}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [tensor.name for tensor in self.outputs]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))

    def output_shapes(self, shapes: Mapping[str, Shape], values: Mapping[str, np.ndarray]) -> dict[str, Shape] | None:
        """As `_output_shapes`, each once: it takes a whole run to find out."""
        key = (*sorted(shapes.items()), *((name, values[name].tobytes()) for name in sorted(values)))
        with self._lock:
            if key not in self._known:
                self._known[key] = self._output_shapes(shapes, values)
            found = self._known[key]
        return None if found is None else dict(found)

    def _output_shapes(self, shapes: Mapping[str, Shape], values: Mapping[str, np.ndarray]) -> dict[str, Shape] | None:
        """At these shapes of all inputs, with -1 for each extent that depends on what they hold; None where the model
        cannot be computed at them. `values` are the inputs that lie on the host, which decide shapes.
        """
        inputs = {
            tensor.name: np.zeros(shapes[tensor.name], NUMPY_TYPES[tensor.dtype])
            for tensor in self.inputs
            if tensor.name not in values
        }
        try:
            found = {name: tuple(array.shape) for name, array in self.run({**inputs, **values}).items()}
        except Exception:  # noqa: BLE001 - as above: it is how ONNX Runtime says that shapes do not fit
            return None
        if self._late:
            found |= self._late_shapes(shapes)
        return found

    def _late_shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """What onnx's shape inference finds at these inputs, of the outputs behind a data-dependent operator."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self._proto)
        for value in proto.graph.input:
            for extent, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
                extent.dim_value = size
        for value in proto.graph.output:
            if value.name in self._late:
                for extent in value.type.tensor_type.shape.dim:
                    extent.ClearField("value")
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        return {
            value.name: tuple(
                extent.dim_value if extent.HasField("dim_value") else -1 for extent in value.type.tensor_type.shape.dim
            )
            for value in inferred.graph.output
            if value.name in self._late
        }


def _tensor(value: onnxruntime.NodeArg, *, is_input: bool) -> Tensor:
    if value.type not in _TYPES:
        raise ValueError(f"{value.name}: {value.type}")
    shape = tuple(extent if isinstance(extent, int) else -1 for extent in value.shape)
    return Tensor(value.name, _TYPES[value.type], shape, is_input)


def _late_outputs(proto: onnx.ModelProto) -> frozenset[str]:
    """Outputs that come, through whatever nodes, from a data-dependent operator."""
    late: set[str] = set()
    for node in proto.graph.node:
        if node.op_type in _DATA_DEPENDENT or late.intersection(node.input):
            late.update(node.output)
    return frozenset(value.name for value in proto.graph.output if value.name in late)
