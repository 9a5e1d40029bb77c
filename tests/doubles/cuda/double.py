"""What tests and the double of TensorRT do with the device that `cuda.bindings.runtime` stands for.

`DEVICE` is the one device of the process. A test fails a call with `fail`, takes the device away with `remove_device`
and looks at `live()` and `misuses()`. A child process is told through the environment variable CUDA_DOUBLE, a JSON
object: {"device_count": 0, "driver_version": 0, "total_bytes": 1024, "fail": [["cudaMalloc", 2, 3]]}.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .error_codes import STICKY, DeviceError
from .memory import Memory
from .streams import Streams, Work

__all__ = ["DEVICE", "Device", "DeviceError"]

WORK = "work"
"""The name under which `fail` knows a piece of queued work."""

UNPROVEN = (
    "cudaFree, cudaHostAlloc and cudaFreeHost end a capture of their own thread; the manual names cudaMalloc only",
    "cudaMemcpyAsync refuses an address past the end of a block with cudaErrorInvalidValue, at the call",
    "a sticky error comes back from every call, cudaFree and the making of streams included",
    "cudaStreamEndCapture ends the capture when it fails, but for the errors 903 and 908",
    "cudaErrorContextIsDestroyed comes back from every call as a sticky error does",
)
"""What is belief here: no line of NVIDIA's manual says it, and no device was asked."""

_BOUND = {"cudaMalloc", "cudaHostAlloc", "cudaMemGetInfo", "cudaStreamCreateWithFlags", "cudaEventCreateWithFlags"} | {
    "cudaGraphInstantiateWithFlags",
    "cudaGraphLaunch",
}
"""What the calling thread's current device decides: CUDA C++ Programming Guide, "Stream and Event Behavior"."""


@dataclass
class Failure:
    call: str
    code: int
    after: int
    times: int


class Device:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A fresh device: 8 GiB, nothing allocated, nothing failing, as CUDA_DOUBLE says."""
        self.device_count = 1
        self.driver_version = 12060
        self._misuses: list[str] = []
        self.memory = Memory(self._misuses)
        self.streams = Streams()
        self.calls: list[str] = []
        self._sticky: int | None = None
        self._failures: list[Failure] = []
        self._thread = threading.local()
        self._lock = threading.RLock()
        told = json.loads(os.environ.get("CUDA_DOUBLE", "{}"))
        self.device_count = told.get("device_count", self.device_count)
        self.driver_version = told.get("driver_version", self.driver_version)
        self.memory.total_bytes = told.get("total_bytes", self.memory.total_bytes)
        for failure in told.get("fail", []):
            self.fail(*failure)

    # What a test says.

    def fail(self, call: str, code: int, after: int = 0, times: int = 1) -> None:
        """Let the call of this name return `code`, `times` times, after `after` calls that do not.

        `call` is CUDA's name of it, or "work": then what is queued fails, and its synchronise says so. A code that
        `driver_types.h` calls sticky poisons the device: every later call returns it too.
        """
        self._failures.append(Failure(call, code, after, times))

    def remove_device(self, driver_version: int = 0) -> None:
        """Without a driver (version 0) calls return 35, with one and no device 100."""
        self.device_count, self.driver_version = 0, driver_version

    def live(self) -> list[str]:
        """What is allocated or open, one line for each."""
        return [
            *(f"{block.kind} memory, {block.size_bytes} bytes" for block in self.memory.live()),
            *(f"stream {handle:#x}" for handle in self.streams.streams if handle),
            *(f"event {handle:#x}" for handle in self.streams.events),
            *(f"graph {handle:#x}" for handle in self.streams.graphs),
            *(f"executable graph {handle:#x}" for handle in self.streams.executables),
        ]

    def misuses(self) -> list[str]:
        """Each use after free, second free, address that is nobody's and work of a thread without device, in words."""
        return list(self._misuses)

    def take_misuse(self) -> str:
        """The last misuse, which is no longer one."""
        return self._misuses.pop()

    def forget_misuses(self) -> None:
        self._misuses.clear()

    def queued(self) -> int:
        """How many pieces of work wait for a synchronise."""
        return sum(len(stream.queue) for stream in self.streams.streams.values())

    # What another double asks: TensorRT's, whose engines work on this device.

    @property
    def answers(self) -> bool:
        return self.device_count > 0 and self.driver_version > 0 and self._sticky is None

    @property
    def error_code(self) -> int:
        """What any CUDA call returns now: 0, 35, 100 or a sticky code."""
        if self.device_count == 0:
            return 35 if self.driver_version == 0 else 100
        return self._sticky or 0

    def enqueue(self, stream: int, work: Work) -> None:
        """Put work on a stream or into its capture. It runs at a synchronise, or at each launch of the graph.

        Raises DeviceError: 400 no such stream, 901 the capture is invalid, or what poisoned the device.
        """
        self._refuse()
        self.streams.enqueue(stream, lambda: self._work(work))

    def capturing(self, stream: int) -> bool:
        return self.streams.stream(stream).capture is not None

    def invalidate_capture(self, stream: int) -> None:
        """What work that cannot be captured does to a capture."""
        capture = self.streams.stream(stream).capture
        if capture is not None:
            capture.invalid = True

    def note_misuse(self, line: str) -> None:
        self._misuses.append(line)

    def require_bound(self, what: str) -> None:
        """Note a misuse where the calling thread never chose the device: CUDA would silently take device 0."""
        if not getattr(self._thread, "bound", False):
            self.note_misuse(f"{what} on a thread that has no current device")

    def bytes_at(self, address: int, size_bytes: int) -> npt.NDArray[np.uint8]:
        """A view of device or pinned memory. Raises DeviceError 700, and notes the misuse, where it is not live."""
        return self.memory.require(address, size_bytes)

    def poison(self, code: int) -> None:
        """As a sticky error does: every later call returns `code`."""
        self._sticky = self._sticky or code
        self.streams.forget_work()

    # How `cuda.bindings.runtime` calls it.

    def bind(self, index: int) -> None:
        if not 0 <= index < self.device_count:
            raise DeviceError(101)
        self._thread.bound = True

    def call(self, name: str, answer: Callable[[], object]) -> tuple[int, object]:
        """(code, value) of one call; the value is None where the code is not 0."""
        self.calls.append(name)
        if name in _BOUND:
            self.require_bound(name)
        try:
            self._refuse()
            self._injected(name)
            return 0, answer()
        except DeviceError as error:
            if error.code in STICKY:
                self.poison(error.code)
            self._thread.code = error.code
            return error.code, None

    def last_error(self) -> int:
        """CUDA's manual: returned and reset. Without a driver, and after a sticky error, it is there again at once."""
        self.calls.append("cudaGetLastError")
        code = self.error_code or getattr(self._thread, "code", 0)
        self._thread.code = 0
        return code

    def _refuse(self) -> None:
        if self.error_code:
            raise DeviceError(self.error_code)

    def _injected(self, name: str) -> None:
        with self._lock:
            for failure in self._failures:
                if failure.call != name or failure.times == 0:
                    continue
                if failure.after > 0:
                    failure.after -= 1
                    continue
                failure.times -= 1
                raise DeviceError(failure.code)

    def _work(self, work: Work) -> None:
        self._injected(WORK)
        work()


DEVICE = Device()
