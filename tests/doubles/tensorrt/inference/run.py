"""One run as work on the device: it reads and writes the addresses that the context was told, when it is carried out.

So inputs that change before the stream is synchronised are seen changed ("Modifying or releasing memory ... before
stream synchronization ... results in undefined behavior", `NvInferRuntime.h` of 10.3, enqueueV3), and a graph replays
the addresses and shapes of its capture.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .device import DEVICE
from .foundational_types import NUMPY_TYPES
from .model import Model, Shape, Tensor

_SCRIBBLED_BYTES = 1 << 16
_ACTIVATION = 0x5A
"""What a run leaves in its activation memory, so that whoever keeps something there finds it overwritten."""


@dataclass(eq=False)
class Run:
    """`scratch` is (address, size in bytes). `values` are the inputs on the host, as they were at the enqueue."""

    model: Model
    context: weakref.ref[Any]
    stream: int
    scratch: tuple[int, int]
    inputs: dict[str, tuple[int, Shape]]
    values: dict[str, np.ndarray]
    on_host: frozenset[str]
    outputs: dict[str, int] = field(default_factory=dict)
    results: dict[str, np.ndarray] = field(default_factory=dict)

    def whole(self) -> None:
        self.compute()
        self.write()

    def compute(self) -> None:
        if self.context() is None:
            DEVICE.note_misuse("a run was carried out after its execution context was destroyed")
        for other in _queued_elsewhere(self.stream):
            self._note_sharing(other)
        scratch = DEVICE.bytes_at(*self.scratch) if self.scratch[1] else np.empty(0, np.uint8)
        scratch[:_SCRIBBLED_BYTES] = _ACTIVATION
        tensors = {tensor.name: tensor for tensor in self.model.inputs}
        given = {name: _read(tensors[name], *place) for name, place in self.inputs.items()}
        self.results = self.model.run({**given, **self.values})
        scratch[:_SCRIBBLED_BYTES] = _ACTIVATION

    def write(self) -> None:
        for name, address in self.outputs.items():
            result = np.ascontiguousarray(self.results[name])
            if name in self.on_host:
                ctypes.memmove(address, result.ctypes.data, result.nbytes)
            else:
                DEVICE.bytes_at(address, result.nbytes)[:] = np.frombuffer(result.tobytes(), np.uint8)
        self.results = {}

    def _note_sharing(self, other: Run) -> None:
        """`NvInferRuntime.h` of 10.3: setDeviceMemoryV2 for the memory, IExecutionContext for the context."""
        if other.context() is self.context() and self.context() is not None:
            DEVICE.note_misuse("one execution context is used by two runs at once")
        elif self.scratch[1] and other.scratch[1] and _overlap(self.scratch, other.scratch):
            DEVICE.note_misuse("two runs use the same activation memory at once")


_runs: weakref.WeakKeyDictionary[Callable[[], None], Run] = weakref.WeakKeyDictionary()
"""Which run a piece of queued or captured work is."""


def enqueue(run: Run, work: Callable[[], None]) -> None:
    """Raises DeviceError."""
    streams = DEVICE.streams
    with streams._lock:
        DEVICE.enqueue(run.stream, work)
        stream = streams.stream(run.stream)
        _runs[stream.queue[-1] if stream.capture is None else stream.capture.work[-1]] = run


def _queued_elsewhere(handle: int) -> Iterator[Run]:
    """Runs that wait on other streams, and could be under way together with this one."""
    streams = DEVICE.streams
    with streams._lock:
        queued = [work for stream in streams.streams.values() if stream.handle != handle for work in stream.queue]
    return (_runs[work] for work in queued if work in _runs)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


def _read(tensor: Tensor, address: int, shape: Shape) -> np.ndarray:
    raw = DEVICE.bytes_at(address, tensor.size_bytes(shape))
    found: np.ndarray = raw.view(NUMPY_TYPES[tensor.dtype]).reshape(shape).copy()
    return found


def read_host(tensor: Tensor, address: int, shape: Shape) -> np.ndarray:
    """What lies on the host. The real library reads an address of the device there too, and ends the process."""
    size_bytes = tensor.size_bytes(shape)
    if is_on_device(address):
        DEVICE.note_misuse(f"{tensor.name} is read on the host, and its address is the device's")
        raw = DEVICE.bytes_at(address, size_bytes).tobytes()
    else:
        raw = ctypes.string_at(address, size_bytes)
    return np.frombuffer(raw, NUMPY_TYPES[tensor.dtype]).reshape(shape)


def is_on_device(address: int) -> bool:
    blocks = (block for block in DEVICE.memory.live() if block.kind == "device")
    return any(block.address <= address < block.address + block.size_bytes for block in blocks)
