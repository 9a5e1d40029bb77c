"""`IExecutionContext`: what it is told of shapes, addresses and memory (`NvInferRuntime.h` and pyCore.cpp, v10.3.0)."""

from __future__ import annotations

import operator
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import CORE
from ..enums import ExecutionContextAllocationStrategy
from .bound import Product, incompatible, size_t, text
from .callbacks import IOutputAllocator, require_recorder
from .device import DEVICE, DeviceBlock, DeviceError, fails
from .foundational_types import Dims
from .launch import launch
from .model import Shape, Tensor
from .run import read_host

if TYPE_CHECKING:
    from .engine import ICudaEngine

ALIGNMENT = 256
"""setTensorAddress: "The pointer must have at least 256-byte alignment." """


class IExecutionContext(Product):
    __slots__ = (
        "_addresses",
        "_allocators",
        "_busy",
        "_captured",
        "_engine",
        "_memory",
        "_own",
        "_profile",
        "_recorder",
        "_shapes",
        "_strategy",
        "name",
    )
    _addresses: dict[str, int]
    _allocators: dict[str, IOutputAllocator | None]
    _busy: threading.Lock
    _captured: bool
    _engine: ICudaEngine
    _memory: tuple[int, int]
    _own: DeviceBlock | None
    _profile: int
    _recorder: Any
    _shapes: dict[str, Shape]
    _strategy: ExecutionContextAllocationStrategy
    name: str

    @classmethod
    def _made(
        cls, engine: ICudaEngine, strategy: ExecutionContextAllocationStrategy, recorder: Any
    ) -> IExecutionContext | None:
        context = cls.__new__(cls)
        context._engine, context._strategy, context._recorder = engine, strategy, recorder
        context._memory, context._own = (0, 0), None
        if strategy != ExecutionContextAllocationStrategy.USER_MANAGED:
            size_bytes = engine._plan.activation_bytes
            try:
                context._own = DeviceBlock(size_bytes, recorder, context._out_of_memory)
            except MemoryError:
                return None
            context._memory = (context._own.address, size_bytes)
        context._shapes, context._addresses, context._allocators = {}, {}, {}
        context._profile, context._captured, context._busy = 0, False, threading.Lock()
        context.name = ""
        return context

    @property
    def engine(self) -> ICudaEngine:
        return self._engine

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    @property
    def error_recorder(self) -> Any:
        return self._recorder

    @error_recorder.setter
    def error_recorder(self, recorder: Any) -> None:
        require_recorder(recorder)
        self._recorder = recorder

    def set_input_shape(self, name: str, shape: tuple[int, ...] | list[int] | Dims) -> bool:
        """False outside the profile: "Runtime dimension does not satisfy any optimization profile."
        (yuvraj108c/ComfyUI-Upscaler-Tensorrt#14).
        """
        extents = _extents(shape)
        self._require_unfrozen("set_input_shape")
        tensor = self._find("setInputShape", text("set_input_shape", name))
        if tensor is None or fails("set_input_shape", self._recorder):
            return False
        if not tensor.is_input:
            return self._usage("setInputShape", f"engine.bindingIsInput(name). {name} is no input.")
        if len(extents) != len(tensor.shape) or any(
            size not in (-1, extent) for size, extent in zip(tensor.shape, extents, strict=True)
        ):
            return self._usage(
                "setInputShape",
                f"engineDims.d[i] == dims.d[i]. Static dimension mismatch while setting input shape for {name}. Set"
                f" dimensions are {list(extents)}. Expected dimensions are {list(tensor.shape)}.",
            )
        low, high = self._range(tensor)
        if any(extent < 0 for extent in extents) or not all(
            a <= extent <= b for a, extent, b in zip(low, extents, high, strict=True)
        ):
            return self._usage(
                "setInputShape", "satisfyProfile. Runtime dimension does not satisfy any optimization profile."
            )
        self._shapes[name] = extents
        return True

    def get_tensor_shape(self, name: str) -> Dims:
        """-1 for what is not known yet or depends on values; invalid where the shapes fit nothing."""
        tensor = self._find("getTensorShape", text("get_tensor_shape", name))
        if tensor is None or fails("get_tensor_shape", self._recorder):
            return Dims._invalid()
        if tensor.is_input:
            return Dims(self._shape_of(tensor))
        if self._lacking():
            return Dims(tensor.shape)
        found = self._output_shapes()
        if found is None:
            self._usage("getTensorShape", "a tensor's dimensions are invalid at these input shapes.")
            return Dims._invalid()
        return Dims(found[name])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        address = size_t("set_tensor_address", memory)
        self._require_unfrozen("set_tensor_address")
        tensor = self._find("setTensorAddress", text("set_tensor_address", name))
        if tensor is None or fails("set_tensor_address", self._recorder):
            return False
        if address % ALIGNMENT:
            return self._usage("setTensorAddress", f"the address of {name} is not aligned to {ALIGNMENT} bytes.")
        self._addresses[name] = address
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(text("get_tensor_address", name), 0)

    def set_output_allocator(self, name: str, output_allocator: IOutputAllocator | None) -> bool:
        if output_allocator is not None and not isinstance(output_allocator, IOutputAllocator):
            raise incompatible("set_output_allocator", self, name, output_allocator)
        self._require_unfrozen("set_output_allocator")
        tensor = self._find("setOutputAllocator", text("set_output_allocator", name))
        if tensor is None or tensor.is_input or fails("set_output_allocator", self._recorder):
            return False
        self._allocators[name] = output_allocator
        return True

    def get_output_allocator(self, name: str) -> IOutputAllocator | None:
        return self._allocators.get(text("get_output_allocator", name))

    def set_device_memory(self, memory: int, size: int) -> None:
        """ "It must be aligned with cuda memory alignment property". It returns nothing: what is wrong is only said."""
        address, size_bytes = size_t("set_device_memory", memory), operator.index(size)
        self._require_unfrozen("set_device_memory")
        if fails("set_device_memory", self._recorder):
            return
        if address % ALIGNMENT:
            self._usage("setDeviceMemoryV2", f"the memory is not aligned to {ALIGNMENT} bytes.")
            return
        self._memory = (address, size_bytes)

    def update_device_memory_size_for_shapes(self) -> int:
        return 0 if self._lacking() else self._engine._plan.activation_bytes

    def infer_shapes(self) -> list[str]:
        """Raises RuntimeError where a shape is invalid, and before 10.16 without the interpreter's lock (pyCore.cpp:
        its call_guard lets go of the lock, and throwPyError sets an exception).
        """
        failed = fails("infer_shapes", self._recorder)
        lacking = [] if failed else self._lacking()
        if lacking:
            return lacking
        if failed or self._output_shapes() is None:
            if CORE.version < (10, 16):
                DEVICE.note_misuse("infer_shapes raised without the interpreter's lock, which can end the process")
            raise RuntimeError("infer_shapes error code: -1")
        return []

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Raises RuntimeError where it fails; shapes are to be set again after it."""
        size_t("set_optimization_profile_async", stream_handle)
        DEVICE.require_bound("set_optimization_profile_async")
        self._require_unfrozen("set_optimization_profile_async")
        known = 0 <= profile_index < len(self._engine._plan.profiles)
        if fails("set_optimization_profile_async", self._recorder) or not known:
            raise RuntimeError("Error in set optimization profile async.")
        self._profile = profile_index
        self._shapes.clear()
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        stream = size_t("execute_async_v3", stream_handle)
        DEVICE.require_bound("execute_async_v3")
        alone = self._busy.acquire(blocking=False)
        if not alone:
            DEVICE.note_misuse("one execution context is used by two threads at once")
        try:
            return launch(self, stream)
        finally:
            if alone:
                self._busy.release()

    # What launch() and the methods above ask of this state.

    def _find(self, method: str, name: str) -> Tensor | None:
        tensor = self._engine._tensors.get(name)
        if tensor is None:
            self._usage(method, f"{name} is no tensor of the engine.")
        return tensor

    def _usage(self, method: str, condition: str) -> bool:
        CORE.report(
            self._recorder,
            "INVALID_ARGUMENT",
            f"IExecutionContext::{method}: Error Code 3: API Usage Error (Parameter check failed, condition:"
            f" {condition})",
        )
        return False

    def _out_of_memory(self) -> None:
        """The end of its lines in NVIDIA/TensorRT#3017, with the size that 10.x tells (#4254)."""
        size_bytes = self._engine._plan.activation_bytes
        CORE.report(
            self._recorder,
            "INTERNAL_ERROR",
            f"[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory (Requested size was"
            f" {size_bytes} bytes.)",
        )

    def _require_unfrozen(self, method: str) -> None:
        """The Developer Guide on CUDA graphs: a graph has the context's state of its capture in it."""
        if self._captured:
            DEVICE.note_misuse(f"{method} of an execution context that is captured in a graph")

    def _range(self, tensor: Tensor) -> tuple[Shape, Shape]:
        ranges = {name: (low, high) for name, low, _, high in self._engine._plan.profiles[self._profile]}
        unlimited = tuple(2**31 - 1 if extent < 0 else extent for extent in tensor.shape)
        return ranges.get(tensor.name, (tuple(max(extent, 0) for extent in tensor.shape), unlimited))

    def _shape_of(self, tensor: Tensor) -> Shape:
        """An input's. An extent for which the profile has one size is known without being set."""
        if tensor.name in self._shapes:
            return self._shapes[tensor.name]
        low, high = self._range(tensor)
        return tuple(a if a == b else -1 for a, b in zip(low, high, strict=True))

    def _lacking(self) -> list[str]:
        """Inputs without a shape, or, where their values decide shapes, without an address."""
        return [
            tensor.name
            for tensor in self._engine._model.inputs
            if -1 in self._shape_of(tensor)
            or (tensor.name in self._engine._plan.on_host and not self._addresses.get(tensor.name))
        ]

    def _values(self) -> dict[str, np.ndarray]:
        return {
            tensor.name: read_host(tensor, self._addresses[tensor.name], self._shape_of(tensor))
            for tensor in self._engine._model.inputs
            if tensor.name in self._engine._plan.on_host
        }

    def _output_shapes(self) -> dict[str, Shape] | None:
        shapes = {tensor.name: self._shape_of(tensor) for tensor in self._engine._model.inputs}
        try:
            return self._engine._model.output_shapes(shapes, self._values())
        except DeviceError:
            return None


def _extents(shape: object) -> Shape:
    """castDimsFromPyIterable: tuples and lists with RuntimeError for too many, else what becomes a Dims."""
    if not isinstance(shape, (tuple, list, Dims)):
        raise incompatible("set_input_shape", shape)
    if len(shape) > Dims().MAX_DIMS:
        raise RuntimeError("The number of input dims exceeds the maximum allowed number of dimensions")
    return tuple(operator.index(extent) for extent in shape[:])
