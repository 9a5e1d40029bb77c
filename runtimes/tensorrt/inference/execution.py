"""One engine ready to run: its contexts, a stream of its own, and all memory that a run needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from messages import EngineDeserializeError, InferenceError, InvalidInputError, Tensor
from runtimes.cuda.device_tensor import on_cuda
from runtimes.cuda.port import Cuda, DeviceMemory
from runtimes.cuda.release import release_all
from runtimes.inference_runtime import ProfileRange
from runtimes.tensorrt.inference.activation_memory import ActivationMemory
from runtimes.tensorrt.inference.context import EngineContext
from runtimes.tensorrt.inference.device_tensors import BorrowedTensor, DeviceTensor
from runtimes.tensorrt.inference.engine import LoadedEngine
from runtimes.tensorrt.inference.graphs import (
    EngineGraph,
    ShapeKey,
    capture_graph,
    listed_shapes,
    naming_graph,
    shape_key,
)
from runtimes.tensorrt.inference.io_tensors import IoTensor
from runtimes.tensorrt.inference.reports import raise_what_is_graver, settle_after
from runtimes.tensorrt.inference.warm_up import WarmUp, warm_ups

Shapes = dict[str, tuple[int, ...]]


class Execution:
    """Used by one thread at a time, whichever that is. `close` gives everything back but the engine."""

    def __init__(
        self,
        trt: ModuleType,
        cuda: Cuda,
        loaded: LoadedEngine,
        activations: ActivationMemory,
        profile: tuple[ProfileRange, ...],
        graphs: Sequence[Mapping[str, tuple[int, ...]]] = (),
    ) -> None:
        """Runs the engine at the least, usual and greatest shapes, then captures the graphs that are asked for.

        Raises EngineDeserializeError, InferenceError or OutOfMemoryError; nothing is left then.
        """
        self._trt = trt
        self._cuda = cuda
        self._loaded = loaded
        self._reports = loaded.reports
        self._subject = loaded.reports.subject
        self._activations = activations
        self._activation_bytes = int(loaded.engine.device_memory_size_v2)
        self._graphs: dict[ShapeKey, EngineGraph] = {}
        self._inputs = [tensor for tensor in loaded.io if tensor.is_input]
        self._outputs = [tensor for tensor in loaded.io if not tensor.is_input]
        wanted = listed_shapes(self._subject, loaded.io, profile, graphs)
        cuda.make_current()
        self._stream = cuda.open_stream()
        self._is_open = True
        self._contexts: list[EngineContext] = []
        self._joined = False
        try:
            activations.join(self._subject, self._activation_bytes)
            self._joined = True
            with self._reports.listening():
                self._context = self._open_context()
            for warm_up in reversed(list(warm_ups(loaded.io, profile))):  # the greatest first: memory is had once
                self._warm_up(warm_up)
            for shapes in wanted:
                self._graphs[shape_key(shapes)] = self._capture(shapes)
        except BaseException as error:
            settle_after(error, [self.close])
            raise

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run once and wait for it. NumPy in, NumPy out; all on the device in, all on the device out.

        Raises InferenceError or what it is exactly, InvalidInputError or OutOfMemoryError. Nothing is under way then.
        """
        if not self._joined:
            raise InferenceError(
                f"{self._subject}: expected an engine that is ready, found one that was put away; load it again"
            )
        on_device = any(on_cuda(tensor) for tensor in inputs.values())
        self._cuda.make_current()
        with self._reports.listening(), self._activations.running(self._subject) as scratch:
            borrowed: list[BorrowedTensor] = []
            blocks: dict[str, DeviceMemory] = {}
            try:
                shapes = {name: tuple(int(size) for size in tensor.shape) for name, tensor in inputs.items()}
                graph = self._graphs.get(shape_key(shapes)) if self._graphs else None
                context = self._context if graph is None else graph.context
                for tensor in self._inputs:
                    self._take(context, tensor, inputs[tensor.name], shapes[tensor.name], borrowed)
                came_out = self._enqueue(graph, shapes, scratch)
                for name, shape in came_out.items():
                    self._give(context, name, shape, blocks if on_device else None)
                self._stream.synchronize()
                self._reports.require_silence("execute_async_v3")
                context.settle()
            except BaseException as error:
                settle_after(error, [self._stream.synchronize, *(block.free for block in blocks.values())])
                raise_what_is_graver(self._cuda, error)
                raise
        if on_device:
            return {
                name: DeviceTensor(blocks[name], shape, context.tensors[name].dtype, self._cuda.index)
                for name, shape in came_out.items()
            }
        return {name: np.array(context.tensors[name].view(shape)) for name, shape in came_out.items()}

    def close(self) -> None:
        """Idempotent. Raises what CUDA says, once everything is given back as far as it goes."""
        graphs, self._graphs = list(self._graphs.values()), {}
        contexts, self._contexts = self._contexts, []
        # A run whose wait failed may have left work that uses all of this.
        steps = [self._stream.synchronize] if self._is_open else []
        self._is_open = False
        steps += [graph.graph.close for graph in graphs]
        steps += [context.close for context in contexts]
        steps.append(self._stream.close)
        if self._joined:
            self._joined = False
            steps.append(lambda: self._activations.leave(self._subject, self._activation_bytes))
        release_all(steps)

    def _open_context(self) -> EngineContext:
        context = EngineContext(self._trt, self._cuda, self._loaded)
        self._contexts.append(context)
        return context

    def _warm_up(self, warm_up: WarmUp) -> None:
        try:
            self.run(warm_up.inputs)
        except InvalidInputError as error:
            raise EngineDeserializeError(
                f"{self._subject}: its profile's {warm_up.point} shapes cannot be run: {error}; give the profile shapes"
                " that go together, and compile it again"
            ) from error

    def _take(
        self,
        context: EngineContext,
        tensor: IoTensor,
        given: Tensor,
        shape: tuple[int, ...],
        borrowed: list[BorrowedTensor],
    ) -> None:
        """Have an input where the engine reads it. A NumPy array is read before this returns."""
        memory = context.tensors[tensor.name]
        memory.reserve(shape)
        if isinstance(given, np.ndarray):
            memory.stage(given, self._stream)
        else:
            source = BorrowedTensor(tensor.name, given, self._stream.handle)
            borrowed.append(source)
            if not tensor.on_host:
                self._stream.copy_on_device(memory.address, source.address, source.size_bytes)
                return
            self._stream.copy_to_host(memory.host_address, source.address, source.size_bytes)
            self._stream.synchronize()
        if tensor.values:
            _check_values(self._subject, tensor, memory.view(shape))

    def _enqueue(self, graph: EngineGraph | None, shapes: Shapes, scratch: tuple[int, int]) -> Shapes:
        """Put the run on the stream; what comes out, in the engine's order."""
        if graph is not None:
            self._stream.launch(graph.graph)
            return graph.outputs
        found = self._place(self._context, shapes, scratch)
        self._context.enqueue(self._stream)
        return {
            tensor.name: found[tensor.name] if tensor.name in found else self._context.shape_that_came_out(tensor.name)
            for tensor in self._outputs
        }

    def _place(self, context: EngineContext, shapes: Shapes, scratch: tuple[int, int]) -> Shapes:
        found = context.set_shapes(shapes)
        for name, shape in found.items():
            context.tensors[name].reserve(shape)
        context.set_addresses()
        context.set_scratch(*scratch)
        return found

    def _give(
        self, context: EngineContext, name: str, shape: tuple[int, ...], blocks: dict[str, DeviceMemory] | None
    ) -> None:
        """Have an output where it is asked for, once the stream is synchronised: in a block of its own, or staged."""
        memory = context.tensors[name]
        size_bytes = math.prod(shape) * memory.dtype.itemsize
        written_later = context.outputs.get(name)
        if blocks is not None:
            block = blocks[name] = self._cuda.allocate(size_bytes)
            if memory.on_host:
                self._stream.synchronize()
                self._stream.copy_to_device(block.address, memory.host_address, size_bytes)
            else:
                source = memory.address if written_later is None else written_later.address
                self._stream.copy_on_device(block.address, source, size_bytes)
            return
        if written_later is not None:
            memory.reserve(shape, staging_only=True)
            self._stream.copy_to_host(memory.host_address, written_later.address, size_bytes)
        elif not memory.on_host:
            self._stream.copy_to_host(memory.host_address, memory.address, size_bytes)

    def _capture(self, shapes: Shapes) -> EngineGraph:
        """In a context with memory of its own, whose addresses the graph keeps: no other run moves them."""
        with self._reports.listening(), self._activations.running(self._subject) as scratch:
            try:
                context = self._open_context()
                for tensor in self._inputs:
                    memory = context.tensors[tensor.name]
                    memory.reserve(shapes[tensor.name])
                    # As in a warm-up: what a fresh block holds may be an index that lies outside of everything.
                    memory.stage(np.zeros(shapes[tensor.name], memory.dtype), self._stream)
                with naming_graph(self._subject, shapes):
                    found = self._place(context, shapes, scratch)
                context.enqueue(self._stream)
                self._stream.synchronize()
                return capture_graph(self._subject, shapes, context, found, self._stream)
            except BaseException as error:
                settle_after(error, [self._stream.synchronize])
                raise_what_is_graver(self._cuda, error)
                raise


def _check_values(model: str, tensor: IoTensor, values: np.ndarray) -> None:
    low, *_, high = (np.array(each) for each in tensor.values)
    found = values.reshape(-1)
    if not ((low <= found) & (found <= high)).all():
        raise InvalidInputError(
            f"{model}: input {tensor.name}: expected values from {low.tolist()} to {high.tolist()}, found"
            f" {found.tolist()}"
        )
