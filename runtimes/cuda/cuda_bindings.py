"""The CUDA port over NVIDIA's own `cuda.bindings.runtime`, which is imported when a device is opened.

docs/decisions/cuda-port.md says why this library, which context, and who binds the device to a thread.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from messages import DeviceContextError, DeviceFaultError, RuntimeNotAvailableError
from runtimes.cuda.calls import CudaCalls
from runtimes.cuda.memory import CudaMemory, CudaPinnedMemory
from runtimes.cuda.port import Cuda
from runtimes.cuda.release import release_all
from runtimes.cuda.streams import CudaEvent, CudaStream

_MAJORS = (12, 13)
"""CUDA versions of the binding: before 12 cudaSetDevice made no context, and an error came with the first run."""
_PROBE_BYTES = 16


def open_cuda(device_index: int) -> Cuda:
    """The device, bound to the calling thread, after it did one piece of work.

    Raises RuntimeNotAvailableError where the library, the driver or the device is missing, and what CUDA says where
    the device does not work.
    """
    subject = f"cuda:{device_index}"
    library = _import_library(subject)
    calls = CudaCalls(library, subject)
    _require_device(calls, device_index)
    device = _CudaDevice(calls, device_index)
    try:
        device.check()
    except BaseException:
        device.close()
        raise
    return device


def _import_library(subject: str) -> ModuleType:
    try:
        library = importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise RuntimeNotAvailableError(
            f"{subject}: expected NVIDIA's cuda-bindings, which cannot be imported ({error}); install it with"
            " c7-inference's extra `tensorrt-tools`"
        ) from error
    _, version = library.cudaRuntimeGetVersion()
    if version // 1000 not in _MAJORS:
        raise RuntimeNotAvailableError(
            f"{subject}: expected cuda-bindings for CUDA {' or '.join(map(str, _MAJORS))}, found it for CUDA"
            f" {_cuda_version(version)}; install the one of the driver's major version"
        )
    return library


def _require_device(calls: CudaCalls, index: int) -> None:
    _, driver = calls.library.cudaDriverGetVersion()
    code, values = calls.attempt("cudaGetDeviceCount")
    count = 0 if code else int(values[0])
    if index < count:
        return
    _, library = calls.library.cudaRuntimeGetVersion()
    found = f"a driver for CUDA {_cuda_version(driver)}" if driver else "no driver"
    reason = f": {calls.words(code)}, {calls.title(code)} ({code})" if code else ""
    raise RuntimeNotAvailableError(
        f"{calls.subject}: expected a CUDA device {index}, found {count} with {found} and cuda-bindings for CUDA"
        f" {_cuda_version(library)}{reason}; install the driver, or configure a device or a runtime that is here"
    )


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


class _CudaDevice:
    """`Cuda`."""

    def __init__(self, calls: CudaCalls, index: int) -> None:
        self._calls = calls
        self._index = index
        self.make_current()
        # Kept, so that a device whose memory is all given out can be asked too.
        self._probe = CudaMemory(calls, _PROBE_BYTES)
        try:
            self._probe_stream = CudaStream(calls, self.make_current)
        except BaseException:
            self._probe.free()
            raise

    @property
    def index(self) -> int:
        return self._index

    def make_current(self) -> None:
        try:
            self._calls.call("cudaSetDevice", self._index)
        except DeviceContextError as error:
            # This is the call that makes a context where there is none (Runtime API manual, cudaSetDevice, CUDA 12):
            # one that it cannot make anew is lost to this process.
            raise DeviceFaultError(
                f"{self._calls.subject}: cudaSetDevice: the device's context is destroyed, and no new one can be made"
                " in this process: start the process again"
            ) from error

    def memory(self) -> tuple[int, int]:
        self.make_current()
        free_bytes, total_bytes = self._calls.call("cudaMemGetInfo")
        return int(free_bytes), int(total_bytes)

    def allocate(self, size_bytes: int) -> CudaMemory:
        self.make_current()
        return CudaMemory(self._calls, size_bytes)

    def allocate_pinned(self, size_bytes: int) -> CudaPinnedMemory:
        self.make_current()
        return CudaPinnedMemory(self._calls, size_bytes)

    def open_stream(self) -> CudaStream:
        self.make_current()
        return CudaStream(self._calls, self.make_current)

    def open_event(self) -> CudaEvent:
        self.make_current()
        return CudaEvent(self._calls)

    def check(self) -> None:
        # On a stream of its own: a device may not be synchronised while any of its streams is captured (CUDA C++
        # Programming Guide, "Prohibited and Unhandled Operations"), and another engine's work is not its concern.
        self._calls.attempt("cudaGetLastError")
        self.make_current()
        self._probe_stream.fill(self._probe.address, 0, _PROBE_BYTES)
        self._probe_stream.synchronize()

    def close(self) -> None:
        release_all((self._probe_stream.close, self._probe.free))
