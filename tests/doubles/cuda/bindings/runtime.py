"""The functions of `cuda.bindings.runtime` 12.9 that the CUDA port calls, with their signatures and results.

A call returns a tuple: the error first, then the values, which are None where the error is not cudaSuccess.
"""

# ruff: noqa: N801, N802, N803, N815, N816 - the names are NVIDIA's

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum

from ..double import DEVICE
from ..error_codes import TEXTS, DeviceError, cudaError_t

cudaStreamNonBlocking = 1
cudaEventDisableTiming = 2
cudaHostAllocDefault = 0
cudaEventWaitDefault = 0


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3
    cudaMemcpyDefault = 4


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


class _Handle:
    def __init__(self, init_value: int = 0) -> None:
        self._value = int(init_value)

    def __int__(self) -> int:
        return self._value


class cudaStream_t(_Handle): ...


class cudaEvent_t(_Handle): ...


class cudaGraph_t(_Handle): ...


class cudaGraphExec_t(_Handle): ...


Code = tuple[cudaError_t]
HandleLike = int | _Handle


def _status(name: str, action: Callable[[], object]) -> Code:
    return (cudaError_t(DEVICE.call(name, action)[0]),)


def _size(value: int) -> int:
    if value < 0:
        raise OverflowError("can't convert negative value to size_t")
    return value


def _unless_capturing(action: Callable[[], object]) -> Callable[[], object]:
    def checked() -> object:
        DEVICE.streams.refuse_unsafe()
        return action()

    return checked


def cudaRuntimeGetVersion() -> tuple[cudaError_t, int]:
    return cudaError_t.cudaSuccess, 12090


def cudaDriverGetVersion() -> tuple[cudaError_t, int]:
    return cudaError_t.cudaSuccess, DEVICE.driver_version


def cudaGetErrorName(error: cudaError_t) -> tuple[cudaError_t, bytes]:
    return cudaError_t.cudaSuccess, error.name.encode()


def cudaGetErrorString(error: cudaError_t) -> tuple[cudaError_t, bytes]:
    return cudaError_t.cudaSuccess, TEXTS[int(error)].encode()


def cudaGetLastError() -> Code:
    return (cudaError_t(DEVICE.last_error()),)


def cudaGetDeviceCount() -> tuple[cudaError_t, int | None]:
    code, count = DEVICE.call("cudaGetDeviceCount", lambda: DEVICE.device_count)
    return cudaError_t(code), count  # type: ignore[return-value]


def cudaSetDevice(device: int) -> Code:
    return _status("cudaSetDevice", lambda: DEVICE.bind(device))


def cudaMemGetInfo() -> tuple[cudaError_t, int | None, int | None]:
    memory = DEVICE.memory
    code, _ = DEVICE.call("cudaMemGetInfo", lambda: None)
    if code:
        return cudaError_t(code), None, None
    return cudaError_t.cudaSuccess, memory.total_bytes - memory.used_bytes, memory.total_bytes


def cudaMalloc(size: int) -> tuple[cudaError_t, int | None]:
    bytes_ = _size(size)
    code, address = DEVICE.call("cudaMalloc", _unless_capturing(lambda: DEVICE.memory.allocate(bytes_, "device")))
    return cudaError_t(code), address  # type: ignore[return-value]


def cudaFree(devPtr: int) -> Code:
    return _status("cudaFree", _unless_capturing(lambda: DEVICE.memory.free(int(devPtr), "device")))


def cudaHostAlloc(size: int, flags: int) -> tuple[cudaError_t, int | None]:
    bytes_ = _size(size)
    code, address = DEVICE.call("cudaHostAlloc", _unless_capturing(lambda: DEVICE.memory.allocate(bytes_, "pinned")))
    return cudaError_t(code), address  # type: ignore[return-value]


def cudaFreeHost(ptr: int) -> Code:
    return _status("cudaFreeHost", _unless_capturing(lambda: DEVICE.memory.free(int(ptr), "pinned")))


def cudaMemsetAsync(devPtr: int, value: int, count: int, stream: HandleLike) -> Code:
    address, size = int(devPtr), _size(count)

    def fill() -> None:
        DEVICE.memory.require(address, size)[:] = value & 0xFF

    return _status("cudaMemsetAsync", lambda: DEVICE.enqueue(int(stream), fill))


def cudaMemcpyAsync(dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: HandleLike) -> Code:
    """Between the device and pinned memory at the synchronise.

    A copy from or to pageable memory of the host "might be synchronous", and "the driver may synchronize with the
    stream" (Runtime API manual, "API synchronization behavior"): it is carried out at once, and is noted as a misuse.
    """
    target, source, size, handle = int(dst), int(src), _size(count), int(stream)

    def copy() -> None:
        if kind == cudaMemcpyKind.cudaMemcpyHostToDevice:
            _check_on_device(target, size)
            pinned = DEVICE.memory.find(source, size)
            staged = None if pinned is not None else ctypes.string_at(source, size)
            if staged is not None:
                DEVICE.note_misuse(f"{size} bytes were copied to the device from pageable memory")
            DEVICE.enqueue(handle, lambda: _copy(target, source, size, staged))
        elif kind == cudaMemcpyKind.cudaMemcpyDeviceToHost:
            _check_on_device(source, size)
            if DEVICE.memory.find(target, size) is not None:
                DEVICE.enqueue(handle, lambda: _copy(target, source, size, None))
            else:
                DEVICE.note_misuse(f"{size} bytes were copied from the device to pageable memory")
                DEVICE.enqueue(handle, lambda: _copy_out(target, source, size))
                if not DEVICE.capturing(handle):
                    DEVICE.streams.drain(handle)
        elif kind == cudaMemcpyKind.cudaMemcpyDeviceToDevice:
            _check_on_device(target, size)
            _check_on_device(source, size)
            DEVICE.enqueue(handle, lambda: _copy(target, source, size, None))
        else:
            raise DeviceError(1)

    return _status("cudaMemcpyAsync", copy)


def _check_on_device(address: int, size: int) -> None:
    """An address that is not the device's is refused at the call: invalid argument."""
    try:
        DEVICE.memory.require(address, size)
    except DeviceError as error:
        raise DeviceError(1) from error


def _copy(target: int, source: int, size: int, staged: bytes | None) -> None:
    into = DEVICE.memory.require(target, size)
    if staged is not None:
        into[:] = bytearray(staged)
    else:
        into[:] = DEVICE.memory.require(source, size)


def _copy_out(target: int, source: int, size: int) -> None:
    ctypes.memmove(target, int(DEVICE.memory.require(source, size).ctypes.data), size)


def cudaStreamCreateWithFlags(flags: int) -> tuple[cudaError_t, cudaStream_t | None]:
    code, handle = DEVICE.call("cudaStreamCreateWithFlags", lambda: DEVICE.streams.open_stream(flags))
    return cudaError_t(code), None if code else cudaStream_t(handle)  # type: ignore[arg-type]


def cudaStreamDestroy(stream: HandleLike) -> Code:
    return _status("cudaStreamDestroy", lambda: DEVICE.streams.close_stream(int(stream)))


def cudaStreamSynchronize(stream: HandleLike) -> Code:
    return _status("cudaStreamSynchronize", lambda: DEVICE.streams.drain(int(stream)))


def cudaStreamWaitEvent(stream: HandleLike, event: HandleLike, flags: int) -> Code:
    return _status("cudaStreamWaitEvent", lambda: DEVICE.streams.wait(int(stream), int(event)))


def cudaEventCreateWithFlags(flags: int) -> tuple[cudaError_t, cudaEvent_t | None]:
    code, handle = DEVICE.call("cudaEventCreateWithFlags", DEVICE.streams.open_event)
    return cudaError_t(code), None if code else cudaEvent_t(handle)  # type: ignore[arg-type]


def cudaEventDestroy(event: HandleLike) -> Code:
    return _status("cudaEventDestroy", lambda: DEVICE.streams.close_event(int(event)))


def cudaEventRecord(event: HandleLike, stream: HandleLike) -> Code:
    return _status("cudaEventRecord", lambda: DEVICE.streams.record(int(event), int(stream)))


def cudaEventSynchronize(event: HandleLike) -> Code:
    return _status("cudaEventSynchronize", lambda: DEVICE.streams.synchronize_event(int(event)))


def cudaStreamBeginCapture(stream: HandleLike, mode: cudaStreamCaptureMode) -> Code:
    return _status("cudaStreamBeginCapture", lambda: DEVICE.streams.begin_capture(int(stream), int(mode)))


def cudaStreamEndCapture(stream: HandleLike) -> tuple[cudaError_t, cudaGraph_t | None]:
    code, graph = DEVICE.call("cudaStreamEndCapture", lambda: DEVICE.streams.end_capture(int(stream)))
    if code not in (0, 903, 908):
        DEVICE.streams.abandon_capture(int(stream))
    return cudaError_t(code), None if code else cudaGraph_t(graph)  # type: ignore[arg-type]


def cudaGraphGetNodes(graph: HandleLike, numNodes: int = 0) -> tuple[cudaError_t, list[object] | None, int | None]:
    """As asked without a count: how many, and no list."""
    code, count = DEVICE.call("cudaGraphGetNodes", lambda: DEVICE.streams.count_nodes(int(graph)))
    return cudaError_t(code), None if code else [], count  # type: ignore[return-value]


def cudaGraphInstantiateWithFlags(graph: HandleLike, flags: int) -> tuple[cudaError_t, cudaGraphExec_t | None]:
    code, handle = DEVICE.call("cudaGraphInstantiateWithFlags", lambda: DEVICE.streams.instantiate(int(graph)))
    return cudaError_t(code), None if code else cudaGraphExec_t(handle)  # type: ignore[arg-type]


def cudaGraphUpload(graphExec: HandleLike, stream: HandleLike) -> Code:
    return _status("cudaGraphUpload", lambda: DEVICE.enqueue(int(stream), lambda: None))


def cudaGraphLaunch(graphExec: HandleLike, stream: HandleLike) -> Code:
    return _status("cudaGraphLaunch", lambda: DEVICE.streams.launch(int(graphExec), int(stream)))


def cudaGraphDestroy(graph: HandleLike) -> Code:
    return _status("cudaGraphDestroy", lambda: DEVICE.streams.close_graph(int(graph)))


def cudaGraphExecDestroy(graphExec: HandleLike) -> Code:
    return _status("cudaGraphExecDestroy", lambda: DEVICE.streams.close_executable(int(graphExec)))
