"""CUDA graphs of one engine: its run at listed shapes, captured when it is loaded.

A graph holds the state of the context that it was captured from, and changing that context afterwards is undefined
(NVIDIA TensorRT Developer Guide 10.3, "CUDA Graphs"): each graph has a context of its own, which nobody touches again.
All of them run in the same scratch memory, one at a time.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from messages import DeviceContextError, DeviceFaultError, EngineDeserializeError, InferenceError
from runtimes.cuda.port import Graph, Stream
from runtimes.inference_runtime import ProfileRange
from runtimes.tensorrt.inference.context import EngineContext
from runtimes.tensorrt.inference.io_tensors import IoTensor

CAPTURE_TIMEOUT_S = 60.0
_REMEDY = "take these shapes out of cuda_graphs in [runtime.tensorrt]"

_capturing = threading.Lock()
"""One capture of the process at a time: a library that allocates meanwhile may spoil another thread's."""

ShapeKey = tuple[tuple[str, tuple[int, ...]], ...]


def shape_key(shapes: Mapping[str, tuple[int, ...]]) -> ShapeKey:
    return tuple(sorted(shapes.items()))


class EngineGraph(msgspec.Struct, frozen=True, eq=False):
    """`outputs` are the shapes that come out. The context lives as long as the graph."""

    graph: Graph
    context: EngineContext
    outputs: dict[str, tuple[int, ...]]


def listed_shapes(
    subject: str,
    io: Sequence[IoTensor],
    profile: tuple[ProfileRange, ...],
    listed: Sequence[Mapping[str, tuple[int, ...]]],
) -> list[dict[str, tuple[int, ...]]]:
    """Pure. All inputs' shapes for each graph that is asked for, once each; a static input need not be named.

    Raises EngineDeserializeError naming what does not fit the engine, or cannot be a graph at all.
    """
    if not listed:
        return []
    inputs = {tensor.name: tensor for tensor in io if tensor.is_input}
    on_host = [tensor.name for tensor in io if tensor.on_host]
    if on_host:
        raise EngineDeserializeError(
            f"{subject}: {', '.join(on_host)} holds shapes' values, which a graph would freeze; {_REMEDY}"
        )
    ranges = {name: (low, high) for name, low, _, high in profile}
    complete = [_complete(subject, inputs, ranges, shapes) for shapes in listed]
    return list({shape_key(shapes): shapes for shapes in complete}.values())


def _complete(
    subject: str,
    inputs: Mapping[str, IoTensor],
    ranges: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[int, ...]]:
    unknown = [name for name in shapes if name not in inputs]
    if unknown:
        raise EngineDeserializeError(
            f"{subject}: cuda_graphs names input {', '.join(unknown)}, expected {', '.join(inputs)}; {_REMEDY}"
        )
    complete = {}
    for name, tensor in inputs.items():
        low, high = ranges.get(name, (tensor.spec.shape, tensor.spec.shape))
        if name not in shapes and (low != high or -1 in low):
            raise EngineDeserializeError(
                f"{subject}: cuda_graphs names no shape of input {name}, expected one from {list(low)} to {list(high)};"
                f" {_REMEDY}"
            )
        shape = tuple(shapes.get(name, low))
        if len(shape) != len(low) or not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
            raise EngineDeserializeError(
                f"{subject}: cuda_graphs gives input {name} the shape {list(shape)}, expected from {list(low)} to"
                f" {list(high)}; {_REMEDY}"
            )
        complete[name] = shape
    return complete


def capture_graph(
    subject: str,
    shapes: Mapping[str, tuple[int, ...]],
    context: EngineContext,
    outputs: dict[str, tuple[int, ...]],
    stream: Stream,
    *,
    capturing: threading.Lock = _capturing,
    timeout_s: float = CAPTURE_TIMEOUT_S,
) -> EngineGraph:
    """The run of a context that has run at these shapes once, and is told all addresses.

    Raises EngineDeserializeError where CUDA or TensorRT refuses: nothing is flown without a graph that was asked for.
    """
    if context.outputs:
        raise EngineDeserializeError(
            f"{subject}: output {', '.join(context.outputs)} has a shape that only the run decides, which no graph can"
            f" have ({_words(shapes)}); {_REMEDY}"
        )
    with naming_graph(subject, shapes):
        graph = _captured(subject, lambda: context.enqueue(stream), stream, capturing, timeout_s)
    return EngineGraph(graph, context, outputs)


@contextmanager
def naming_graph(subject: str, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[None]:
    """What CUDA or TensorRT refuses inside is the fault of this graph; a device that is lost stays that.

    Raises EngineDeserializeError.
    """
    try:
        yield
    except (DeviceFaultError, DeviceContextError):
        raise
    except InferenceError as error:
        raise EngineDeserializeError(f"{subject}: no CUDA graph at {_words(shapes)}: {error}; {_REMEDY}") from error


def _words(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())


def _captured(
    subject: str, enqueue: Callable[[], None], stream: Stream, capturing: threading.Lock, timeout_s: float
) -> Graph:
    if not capturing.acquire(timeout=timeout_s):
        raise EngineDeserializeError(
            f"{subject}: another engine has been capturing a graph for more than {timeout_s:g} s; start the process"
            " again"
        )
    # A consumer's tensor that the collector finds on this thread would be freed inside the capture, which ends it.
    collects = gc.isenabled()
    gc.disable()
    try:
        return stream.capture(enqueue)
    finally:
        if collects:
            gc.enable()
        capturing.release()
