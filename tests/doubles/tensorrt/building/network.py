"""A network as the parser makes it: tensors, layers, and what may be asked of them (`pyGraph.cpp` of tag v10.3.0)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from ..core import CORE
from ..enums import DataType, LayerType, NetworkDefinitionCreationFlag, TensorLocation
from ..inference.bound import Product, incompatible
from ..inference.foundational_types import Dims

SUPERSEDED = "Use Deprecated in TensorRT 10.1. Superseded by explicit quantization. instead."
"""What `utils::deprecateMember` makes of its text (`python/src/utils.cpp`)."""
FLOATING = (DataType.FLOAT, DataType.HALF, DataType.BF16)


def warn_superseded() -> None:
    warnings.warn(SUPERSEDED, DeprecationWarning, stacklevel=3)


class ITensor(Product):
    name: str
    dtype: DataType
    location: TensorLocation

    @classmethod
    def _made(cls, name: str, dtype: DataType, shape: tuple[int, ...]) -> ITensor:
        made = cls.__new__(cls)
        made.name, made.dtype, made._shape = name, dtype, tuple(shape)
        made.location = TensorLocation.DEVICE
        made._is_input = made._is_output = made._decides_shapes = False
        made.allowed_formats = 1
        made._range = None
        return made

    _shape: tuple[int, ...]
    _is_input: bool
    _is_output: bool
    _decides_shapes: bool
    _range: tuple[float, float] | None
    allowed_formats: int

    @property
    def shape(self) -> Dims:
        return Dims(self._shape)

    @property
    def is_network_input(self) -> bool:
        return self._is_input

    @property
    def is_network_output(self) -> bool:
        return self._is_output

    @property
    def is_shape_tensor(self) -> bool:
        return self._decides_shapes

    @property
    def is_execution_tensor(self) -> bool:
        return not self._decides_shapes

    @property
    def dynamic_range(self) -> tuple[float, float] | None:
        warn_superseded()
        return self._range

    def set_dynamic_range(self, min: float, max: float) -> bool:  # noqa: A002 - NVIDIA's names
        warn_superseded()
        self._range = (min, max)
        return True

    def reset_dynamic_range(self) -> None:
        warn_superseded()
        self._range = None


class ILayer(Product):
    """The precision that is asked of a layer counts only with the flags that say so; a strongly typed network rejects
    it ("Strongly-typed networks reject calls to method setPrecision", `NvInfer.h`).
    """

    name: str
    metadata: str
    _kind: LayerType
    _inputs: tuple[ITensor, ...]
    _outputs: tuple[ITensor, ...]
    _precision: DataType | None
    _types: dict[int, DataType]
    _is_strongly_typed: bool

    @classmethod
    def _made(
        cls, kind: LayerType, name: str, inputs: tuple[ITensor, ...], outputs: tuple[ITensor, ...], typed: bool
    ) -> ILayer:
        made = cls.__new__(cls)
        made.name, made.metadata, made._kind = name, "", kind
        made._inputs, made._outputs = inputs, outputs
        made._precision, made._types, made._is_strongly_typed = None, {}, typed
        return made

    @property
    def type(self) -> LayerType:
        return self._kind

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor | None:
        return self._inputs[index] if 0 <= index < len(self._inputs) else None

    def get_output(self, index: int) -> ITensor | None:
        return self._outputs[index] if 0 <= index < len(self._outputs) else None

    @property
    def precision(self) -> DataType:
        return self._outputs[0].dtype if self._precision is None else self._precision

    @precision.setter
    def precision(self, dtype: DataType) -> None:
        if not isinstance(dtype, DataType):
            raise incompatible("precision", dtype)
        if not self._rejected("setPrecision"):
            self._precision = dtype

    @property
    def precision_is_set(self) -> bool:
        return self._precision is not None

    def reset_precision(self) -> None:
        self._precision = None

    def get_output_type(self, index: int) -> DataType:
        """`NvInfer.h`, ILayer::getOutputType: "If no precision has been set, DataType::kFLOAT will be returned, unless
        the output type is inherently DataType::kINT32." Of INT64 and BOOL it says nothing else.
        """
        inherent = DataType.INT32 if self._outputs[index].dtype is DataType.INT32 else DataType.FLOAT
        return self._types.get(index, inherent)

    def set_output_type(self, index: int, dtype: DataType) -> None:
        if not self._rejected("setOutputType"):
            self._types[index] = dtype

    def output_type_is_set(self, index: int) -> bool:
        return index in self._types

    def reset_output_type(self, index: int) -> None:
        self._types.pop(index, None)

    def _rejected(self, method: str) -> bool:
        if self._is_strongly_typed:
            CORE.say(
                "ERROR",
                f"ILayer::{method}: Error Code 3: API Usage Error (layer {self.name}: not allowed in a strongly typed"
                " network.)",
            )
        return self._is_strongly_typed


class INetworkDefinition(Product):
    name: str
    error_recorder: Any
    _flags: int
    _builder: Any
    _model: bytes
    _inputs: list[ITensor]
    _outputs: list[ITensor]
    _layers: list[ILayer]

    @classmethod
    def _made(cls, builder: Any, flags: int) -> INetworkDefinition:
        made = cls.__new__(cls)
        made.name, made.error_recorder = "Unnamed Network 0", None
        made._builder, made._flags = builder, flags
        made._model, made._inputs, made._outputs, made._layers = b"", [], [], []
        return made

    @property
    def flags(self) -> int:
        return self._flags

    def get_flag(self, flag: NetworkDefinitionCreationFlag) -> bool:
        return bool(self._flags >> int(flag) & 1)

    @property
    def builder(self) -> Any:
        return self._builder

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor | None:
        return self._inputs[index] if 0 <= index < len(self._inputs) else None

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_output(self, index: int) -> ITensor | None:
        return self._outputs[index] if 0 <= index < len(self._outputs) else None

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> ILayer | None:
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int, /) -> ILayer:
        return self._layers[index]

    def __iter__(self) -> Iterator[ILayer]:
        """By `__getitem__` until its IndexError, as Python does without this."""
        return iter(self._layers)

    def _typed(self) -> bool:
        return self.get_flag(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
