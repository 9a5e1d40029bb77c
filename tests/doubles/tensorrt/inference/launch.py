"""`execute_async_v3`: what must be told before, what it puts on the stream, and when it has to wait itself."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np

from ..core import CORE
from ..enums import ExecutionContextAllocationStrategy
from .callbacks import notify, reallocate
from .device import DEVICE, DeviceError, fails, lost, report_cuda
from .model import Shape
from .run import Run, enqueue

if TYPE_CHECKING:
    from .context import IExecutionContext

_WHERE = "IExecutionContext::enqueueV3"
_CAPTURING = 900


def launch(context: IExecutionContext, stream: int) -> bool:
    """ "True if the kernels were enqueued successfully, false otherwise." """
    recorder = context._recorder
    if fails("execute_async_v3", recorder) or lost(_WHERE, recorder) or not _is_complete(context):
        return False
    try:
        capturing = DEVICE.capturing(stream)
        shapes = context._output_shapes()
        if shapes is None:
            return context._usage("enqueueV3", "a tensor's dimensions are invalid at these input shapes.")
        values = context._values()
        if not _values_fit(context, values):
            return context._usage("enqueueV3", "the values of a shape tensor do not satisfy any optimization profile.")
        run = _run(context, stream, values)
        if any(-1 in shape for shape in shapes.values()):
            return _launch_late(context, run, shapes, capturing=capturing)
        if not _give_memory(context, run, shapes):
            return False
        enqueue(run, run.whole)
        context._captured = context._captured or capturing
    except DeviceError as error:
        report_cuda(recorder, _WHERE, error.code)
        return False
    return True


def _launch_late(context: IExecutionContext, run: Run, shapes: dict[str, Shape], *, capturing: bool) -> bool:
    """How much memory the outputs need is known on the host once the engine has run: it waits for the device, and no
    graph can hold it (NVIDIA/TensorRT#4194; the words are those of #3011).
    """
    if capturing:
        DEVICE.invalidate_capture(run.stream)
        raise DeviceError(_CAPTURING)
    enqueue(run, run.compute)
    code, _ = DEVICE.call("cudaStreamSynchronize", lambda: DEVICE.streams.drain(run.stream))
    if code:
        raise DeviceError(code)
    came_out = {name: tuple(run.results[name].shape) for name in shapes}
    if not _give_memory(context, run, came_out):
        return False
    enqueue(run, run.write)
    return True


def _run(context: IExecutionContext, stream: int, values: dict[str, np.ndarray]) -> Run:
    engine = context._engine
    places = {
        tensor.name: (context._addresses[tensor.name], context._shape_of(tensor))
        for tensor in engine._model.inputs
        if tensor.name not in values
    }
    scratch = (context._memory[0], engine._plan.activation_bytes)
    on_host = frozenset(engine._plan.on_host)
    return Run(engine._model, weakref.ref(context), stream, scratch, places, values, on_host)


def _give_memory(context: IExecutionContext, run: Run, shapes: dict[str, Shape]) -> bool:
    """Where each output goes. An allocator is asked for memory, then told the shape."""
    for tensor in context._engine._model.outputs:
        name, shape = tensor.name, shapes[tensor.name]
        allocator, address = context._allocators.get(name), context._addresses.get(name, 0)
        if allocator is not None:
            size_bytes = tensor.size_bytes(shape)
            address = reallocate(allocator, name, address, size_bytes, run.stream)
            if not address:
                CORE.report(
                    context._recorder,
                    "INTERNAL_ERROR",
                    f"{_WHERE}: Error Code 2: OutOfMemory (Requested size was {max(size_bytes, 1)} bytes.)",
                )
                return False
            notify(allocator, name, shape)
        run.outputs[name] = address
    return True


def _is_complete(context: IExecutionContext) -> bool:
    """Words as in hamdiboukamcha/Yolo-V11-cpp-TensorRT#6 for an input and NVIDIA/TensorRT#4344 for an output."""
    engine = context._engine
    for tensor in engine._model.inputs:
        if -1 in context._shape_of(tensor):
            return context._usage(
                "enqueueV3", f"allInputDimensionsSpecified. Not all dimensions of input tensor {tensor.name} are set."
            )
        if not context._addresses.get(tensor.name):
            return context._usage(
                "enqueueV3",
                "mContext.profileObliviousBindings.at(profileObliviousIndex) != nullptr. Address is not set for input"
                f" tensor {tensor.name}. Call setInputTensorAddress or setTensorAddress before enqueue/execute.",
            )
    shapes = context._output_shapes() or {}
    for tensor in engine._model.outputs:
        if context._allocators.get(tensor.name) is not None:
            continue
        late = -1 in shapes.get(tensor.name, ())
        if late or not context._addresses.get(tensor.name):
            return context._usage(
                "enqueueV3",
                f'nullPtrAllowed. Tensor "{tensor.name}" is bound to nullptr, which is allowed only for an empty input'
                " tensor, shape tensor, or an output tensor associated with an IOuputAllocator.",
            )
    managed = context._strategy == ExecutionContextAllocationStrategy.USER_MANAGED
    address, size_bytes = context._memory
    needed = engine._plan.activation_bytes
    if managed and needed and (not address or size_bytes < needed):
        return context._usage(
            "enqueueV3", f"deviceMemory != nullptr. {needed} bytes of device memory are needed, {size_bytes} are set."
        )
    return True


def _values_fit(context: IExecutionContext, values: dict[str, np.ndarray]) -> bool:
    by_profile = context._engine._plan.values
    ranges = by_profile[context._profile] if context._profile < len(by_profile) else ()
    return all(
        ((np.array(low) <= values[name].reshape(-1)) & (values[name].reshape(-1) <= np.array(high))).all()
        for name, low, _, high in ranges
        if name in values
    )
