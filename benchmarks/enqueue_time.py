"""The host's time for one run of a TensorRT engine, without copies: enqueued by itself, and as a graph."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from benchmarks.demo_inputs import Arrays
from messages import Tensor
from runtimes import EngineCacheEntry
from runtimes.cuda.port import Cuda, DeviceMemory, Stream
from runtimes.cuda.release import release_all
from runtimes.tensorrt.bindings import Context
from runtimes.tensorrt.inference.activation_memory import ActivationMemory
from runtimes.tensorrt.inference.device_tensors import DeviceTensor
from runtimes.tensorrt.inference.engine import EngineLoader, LoadedEngine
from runtimes.tensorrt.inference.io_tensors import shape_of
from runtimes.tensorrt.library import import_tensorrt
from runtimes.tensorrt.log import process_log


class NotEnqueuedAloneError(Exception):
    """A run of this engine is more than one enqueue; the text says why."""


def time_enqueuing(entry: EngineCacheEntry, inputs: Arrays, cuda: Cuda, rounds: int) -> tuple[list[int], list[int]]:
    """Nanoseconds of `rounds` calls of `execute_async_v3`, and of as many launches of the graph of one.

    The stream is empty before each call, and waited for after it. Raises NotEnqueuedAloneError, and typed errors.
    """
    trt = import_tensorrt()
    loaded = EngineLoader(trt, process_log(trt), cuda).load(str(entry.path), entry.model, entry.path.read_bytes())
    if any(tensor.on_host for tensor in loaded.io):
        raise NotEnqueuedAloneError("it has shapes' values on the host")
    cuda.make_current()
    activations, needed = ActivationMemory(cuda), int(loaded.engine.device_memory_size_v2)
    blocks: list[DeviceMemory] = []
    stream = cuda.open_stream()
    activations.join(entry.model, needed)
    try:
        with loaded.reports.listening(), activations.running(entry.model) as scratch:
            strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = loaded.engine.create_execution_context(strategy)
            if context is None:
                raise loaded.reports.error_of_load()
            _tell(context, loaded, inputs, cuda, blocks)
            context.set_device_memory(*scratch)
            return _timed(context, loaded, stream, rounds)
    finally:
        release_all((stream.close, *(block.free for block in blocks), lambda: activations.leave(entry.model, needed)))


def _tell(context: Context, loaded: LoadedEngine, inputs: Arrays, cuda: Cuda, blocks: list[DeviceMemory]) -> None:
    """Shapes, and a block for each tensor, which `blocks` takes."""
    for name, array in inputs.items():
        loaded.reports.require(context.set_input_shape(name, array.shape), f"set_input_shape({name})")
    for tensor in loaded.io:
        shape = shape_of(context.get_tensor_shape(tensor.name))
        if shape is None or -1 in shape:
            raise NotEnqueuedAloneError(f"only the run decides how long {tensor.name} is")
        blocks.append(cuda.allocate(math.prod(shape) * np.dtype(tensor.spec.dtype).itemsize))
        if tensor.is_input:
            _upload(cuda, blocks[-1], inputs[tensor.name])
        told = context.set_tensor_address(tensor.name, blocks[-1].address)
        loaded.reports.require(told, f"set_tensor_address({tensor.name})")


def _timed(context: Context, loaded: LoadedEngine, stream: Stream, rounds: int) -> tuple[list[int], list[int]]:
    def enqueue() -> None:
        loaded.reports.require(context.execute_async_v3(stream.handle), "execute_async_v3")

    enqueue_ns = _host_ns(enqueue, stream, rounds)
    graph = stream.capture(enqueue)
    try:
        return enqueue_ns, _host_ns(lambda: stream.launch(graph), stream, rounds)
    finally:
        graph.close()


def _host_ns(call: Callable[[], None], stream: Stream, rounds: int) -> list[int]:
    took_ns = []
    call()
    stream.synchronize()
    for _ in range(rounds):
        began_ns = time.perf_counter_ns()
        call()
        took_ns.append(time.perf_counter_ns() - began_ns)
        stream.synchronize()
    return took_ns


def to_device(cuda: Cuda, arrays: Arrays) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, array in arrays.items():
        block = cuda.allocate(array.nbytes)
        _upload(cuda, block, array)
        tensors[name] = DeviceTensor(block, array.shape, array.dtype, cuda.index)
    return tensors


def _upload(cuda: Cuda, block: DeviceMemory, array: np.ndarray) -> None:
    pinned, stream = cuda.allocate_pinned(array.nbytes), cuda.open_stream()
    pinned.array[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    stream.copy_to_device(block.address, pinned.address, array.nbytes)
    stream.synchronize()
    release_all((stream.close, pinned.free))
