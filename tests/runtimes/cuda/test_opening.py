"""A device is opened, or what is missing is named."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from messages import DeviceFaultError, InferenceError, OutOfMemoryError, RuntimeNotAvailableError
from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.cuda.port import Cuda

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device


def test_an_opened_device_has_done_a_piece_of_work_and_tells_its_memory(cuda: Cuda, device: Device) -> None:
    assert "cudaStreamSynchronize" in device.calls
    free_bytes, total_bytes = cuda.memory()
    assert cuda.index == 0
    assert total_bytes == 8 << 30
    assert 0 < free_bytes < total_bytes


def test_a_closed_device_leaves_nothing_behind(device: Device) -> None:
    opened = open_cuda(0)
    opened.close()
    opened.close()
    assert device.live() == []


def test_without_the_library_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(
        RuntimeNotAvailableError, match=r"cuda:0: expected NVIDIA's cuda-bindings.*extra `tensorrt-tools`"
    ):
        open_cuda(0)


def test_without_a_driver_that_is_said_with_cudas_words(device: Device) -> None:
    device.remove_device()
    with pytest.raises(RuntimeNotAvailableError, match=r"found 0 with no driver .*cudaErrorInsufficientDriver \(35\)"):
        open_cuda(0)


def test_without_a_device_the_drivers_version_is_told(device: Device) -> None:
    device.remove_device(driver_version=12060)
    with pytest.raises(RuntimeNotAvailableError, match=r"a driver for CUDA 12.6 .*cudaErrorNoDevice \(100\)"):
        open_cuda(0)


def test_an_index_past_the_devices_tells_how_many_there_are(device: Device) -> None:
    with pytest.raises(RuntimeNotAvailableError, match=r"cuda:1: expected a CUDA device 1, found 1 with a driver"):
        open_cuda(1)


@pytest.mark.parametrize("version", [11080, 14000])
def test_a_binding_of_an_untried_cuda_is_refused_by_its_version(
    device: Device, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    runtime = importlib.import_module("cuda.bindings.runtime")
    monkeypatch.setattr(runtime, "cudaRuntimeGetVersion", lambda: (0, version))
    with pytest.raises(RuntimeNotAvailableError, match=rf"for CUDA 12 or 13, found it for CUDA {version // 1000}\."):
        open_cuda(0)


@pytest.mark.parametrize(
    ("call", "code", "error"),
    [
        ("cudaSetDevice", 3, InferenceError),
        ("cudaSetDevice", 2, OutOfMemoryError),
        ("cudaMalloc", 2, OutOfMemoryError),
        ("cudaStreamCreateWithFlags", 2, OutOfMemoryError),
        ("cudaMemsetAsync", 1, InferenceError),
        ("work", 701, InferenceError),
        ("cudaStreamSynchronize", 719, DeviceFaultError),
    ],
)
def test_a_device_that_does_not_work_is_told_apart_and_leaves_nothing(
    device: Device, call: str, code: int, error: type[Exception]
) -> None:
    device.fail(call, code)
    with pytest.raises(error, match=r"cuda:0: "):
        open_cuda(0)
    assert not device.answers or device.live() == []


def test_each_method_binds_the_device_to_the_thread_that_calls_it(
    cuda: Cuda, device: Device, on_thread: Callable[[Callable[[], Any]], Any]
) -> None:
    stream, block = on_thread(cuda.open_stream), on_thread(lambda: cuda.allocate(16))
    pinned, event = on_thread(lambda: cuda.allocate_pinned(16)), on_thread(cuda.open_event)
    on_thread(cuda.memory)
    graph = on_thread(lambda: stream.capture(lambda: stream.copy_to_device(block.address, pinned.address, 16)))
    on_thread(lambda: stream.launch(graph))
    on_thread(stream.synchronize)
    for give_back in (graph.close, event.close, stream.close, block.free, pinned.free):
        on_thread(give_back)
    assert device.misuses() == []
