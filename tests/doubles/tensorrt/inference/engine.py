"""`ICudaEngine` and `EngineInspector`: what an engine says of itself (`NvInferRuntime.h` and pyCore.cpp of v10.3.0)."""

# ruff: noqa: A002 - the names are NVIDIA's

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..core import CORE
from ..enums import (
    DataType,
    EngineCapability,
    ExecutionContextAllocationStrategy,
    HardwareCompatibilityLevel,
    LayerInformationFormat,
    ProfilingVerbosity,
    TensorFormat,
    TensorIOMode,
    TensorLocation,
)
from ..plan import Plan
from .bound import Product, text
from .callbacks import require_recorder
from .context import IExecutionContext
from .device import DEVICE, DeviceBlock, fails, lost
from .foundational_types import Dims
from .model import Model, Tensor

if TYPE_CHECKING:
    from .runtime import Runtime


class ICudaEngine(Product):
    """It keeps its Runtime alive, and its contexts keep it (weak references to the objects of 10.3.0 showed both)."""

    __slots__ = ("_model", "_plan", "_recorder", "_runtime", "_tensors", "_weights")
    _model: Model
    _plan: Plan
    _recorder: Any
    _runtime: Runtime
    _tensors: dict[str, Tensor]
    _weights: DeviceBlock

    @classmethod
    def _made(cls, runtime: Runtime, plan: Plan, model: Model, recorder: Any) -> ICudaEngine | None:
        engine = cls.__new__(cls)
        try:
            engine._weights = DeviceBlock(len(plan.onnx), recorder, lambda: _out_of_memory(recorder, len(plan.onnx)))
        except MemoryError:
            return None
        engine._runtime, engine._plan, engine._model, engine._recorder = runtime, plan, model, recorder
        engine._tensors = {tensor.name: tensor for tensor in (*model.inputs, *model.outputs)}
        return engine

    def __getitem__(self, arg0: int, /) -> str:
        """engine_getitem: iterating over an engine gives its tensors' names."""
        index = len(self._tensors) + arg0 if arg0 < 0 else arg0
        if not 0 <= index < len(self._tensors):
            raise IndexError("Out of bounds")
        return [*self._tensors][index]

    @property
    def name(self) -> str:
        return self._plan.name

    @property
    def num_layers(self) -> int:
        return len(_layers(self))

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._plan.profiles)

    @property
    def engine_capability(self) -> EngineCapability:
        return EngineCapability.STANDARD

    @property
    def hardware_compatibility_level(self) -> HardwareCompatibilityLevel:
        return HardwareCompatibilityLevel.NONE

    @property
    def profiling_verbosity(self) -> ProfilingVerbosity:
        return ProfilingVerbosity.DETAILED

    @property
    def refittable(self) -> bool:
        return False

    @property
    def device_memory_size_v2(self) -> int:
        return self._plan.activation_bytes

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return self._plan.activation_bytes if 0 <= profile_index < len(self._plan.profiles) else 0

    @property
    def error_recorder(self) -> Any:
        return self._recorder

    @error_recorder.setter
    def error_recorder(self, recorder: Any) -> None:
        require_recorder(recorder)
        self._recorder = recorder

    def get_tensor_name(self, index: int) -> str | None:
        """None for an index that is out of range, as a null `char const*` becomes in Python."""
        names = [*self._tensors]
        return names[index] if 0 <= index < len(names) else None

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        tensor = self._find("get_tensor_mode", name)
        if tensor is None:
            return TensorIOMode.NONE
        return TensorIOMode.INPUT if tensor.is_input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        """ "or DataType::kFLOAT if the provided name does not map to an input or output tensor" """
        tensor = self._find("get_tensor_dtype", name)
        return DataType.FLOAT if tensor is None else tensor.dtype

    def get_tensor_shape(self, name: str) -> Dims:
        """ "or Dims{-1, {}} if the provided name does not map to an input or output tensor" """
        tensor = self._find("get_tensor_shape", name)
        if tensor is None or fails("get_tensor_shape", self._recorder):
            return Dims._invalid()
        return Dims(tensor.shape)

    def get_tensor_location(self, name: str) -> TensorLocation:
        self._find("get_tensor_location", name)
        return TensorLocation.HOST if name in self._plan.on_host else TensorLocation.DEVICE

    def get_tensor_format(self, name: str, profile_index: int = 0) -> TensorFormat:
        self._find("get_tensor_format", name)
        return TensorFormat(self._plan.formats.get(name, TensorFormat.LINEAR))

    def is_shape_inference_io(self, name: str) -> bool:
        return self._find("is_shape_inference_io", name) is not None and name in self._plan.on_host

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        """[min, opt, max], each "Dims{-1, {}}" where there is none."""
        tensor = self._find("get_tensor_profile_shape", name)
        if tensor is None or not tensor.is_input or not 0 <= profile_index < len(self._plan.profiles):
            return [Dims._invalid()] * 3
        ranges = {name: each for name, *each in self._plan.profiles[profile_index]}
        return [Dims(shape) for shape in ranges.get(name, [tensor.shape] * 3)]

    def get_tensor_profile_values(self, name: int, profile_index: str) -> list[list[int]]:
        """The keywords' names are exchanged in the binding: `name` is the profile's index, `profile_index` the name."""
        index, tensor_name = name, text("get_tensor_profile_values", profile_index)
        tensor = self._tensors.get(tensor_name)
        if tensor is None or not tensor.is_input or tensor_name not in self._plan.on_host:
            raise RuntimeError("Binding index does not correspond to an input shape tensor.")
        if any(extent < 0 for extent in tensor.shape):
            raise RuntimeError("Negative volume for input shape tensor")
        if not 0 <= index < len(self._plan.values):
            return []
        ranges = {name: each for name, *each in self._plan.values[index]}
        return [list(values) for values in ranges.get(tensor_name, [])]

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> IExecutionContext | None:
        """ "If an error recorder has been set for the engine, it will also be passed to the execution context." """
        DEVICE.require_bound("create_execution_context")
        if fails("create_execution_context", self._recorder):
            return None
        if lost("ICudaEngine::createExecutionContext", self._recorder):
            return None
        return IExecutionContext._made(self, strategy, self._recorder)

    def create_engine_inspector(self) -> EngineInspector | None:
        if fails("create_engine_inspector", self._recorder):
            return None
        return EngineInspector._made(self)

    def _find(self, method: str, name: str) -> Tensor | None:
        tensor = self._tensors.get(text(method, name))
        if tensor is None:
            CORE.report(
                self._recorder,
                "INVALID_ARGUMENT",
                f"ICudaEngine::{method}: Error Code 3: Internal Error (Given invalid tensor name: {name}. Get valid"
                " tensor names with getIOTensorName())",
            )
        return tensor


class EngineInspector(Product):
    __slots__ = ("_engine", "_recorder", "execution_context")
    _engine: ICudaEngine
    _recorder: Any
    execution_context: IExecutionContext | None

    @classmethod
    def _made(cls, engine: ICudaEngine) -> EngineInspector:
        inspector = cls.__new__(cls)
        inspector._engine, inspector._recorder, inspector.execution_context = engine, engine._recorder, None
        return inspector

    @property
    def error_recorder(self) -> Any:
        return self._recorder

    @error_recorder.setter
    def error_recorder(self, recorder: Any) -> None:
        require_recorder(recorder)
        self._recorder = recorder

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        """ "" where it fails: the string that the C++ gives is null or empty then."""
        if fails("get_engine_information", self._recorder):
            return ""
        if format == LayerInformationFormat.JSON:
            return self._engine._plan.layers
        return "\n".join(self._lines())

    def get_layer_information(self, layer_index: int, format: LayerInformationFormat) -> str:
        layers = _layers(self._engine)
        if not 0 <= layer_index < len(layers):
            return ""
        return json.dumps(layers[layer_index]) if format == LayerInformationFormat.JSON else self._lines()[layer_index]

    def _lines(self) -> list[str]:
        layers = _layers(self._engine)
        return [layer["Name"] if isinstance(layer, dict) else str(layer) for layer in layers]


def _layers(engine: ICudaEngine) -> list[Any]:
    found: list[Any] = json.loads(engine._plan.layers)["Layers"]
    return found


def _out_of_memory(recorder: Any, size_bytes: int) -> None:
    CORE.report(
        recorder,
        "INTERNAL_ERROR",
        f"IRuntime::deserializeCudaEngine: Error Code 2: OutOfMemory (Requested size was {size_bytes} bytes.)",
    )
